package capture

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	_ "modernc.org/sqlite"
)

// MaxText is the most that is kept of a prompt, and of an answer, in bytes.
const MaxText = 64 << 10

const (
	fileName   = "prompts.db"
	waiting    = 256              // entries that may wait for the disk; more are not kept
	pruneEvery = 10 * time.Minute // how often what is too old or too much goes
)

// Entry is one request with its text.
type Entry struct {
	ID      string    `json:"id"`                  // of the request, as in the ledger
	Client  string    `json:"client_id,omitempty"` // the client's own
	Started time.Time `json:"started"`
	Key     string    `json:"key"`
	Route   string    `json:"route"`
	Model   string    `json:"model"`
	Outcome string    `json:"outcome"`
	Prompt  string    `json:"prompt"`        // JSON: the messages, prompt or input of the request
	Answer  string    `json:"answer"`        // the text of its first choice, without reasoning and tool calls
	Cut     bool      `json:"cut,omitempty"` // one of them was longer than MaxText
}

// Head is as much of a text as is kept: valid UTF-8, and no part of a character at its end.
func Head(s string) string {
	if len(s) > MaxText {
		at := MaxText
		for at > 0 && !utf8.RuneStart(s[at]) {
			at--
		}
		s = s[:at]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// Store writes entries. Build it with New, run it with Run; Offer and Limit may be called at any time.
type Store struct {
	path string
	log  *slog.Logger
	in   chan Entry
	keep atomic.Int64 // time.Duration
	size atomic.Int64 // bytes of text

	lost atomic.Int64

	// Of Run.
	db    *sql.DB // opened when there is something to keep, or to prune
	fresh int64   // bytes since the last trim
}

// New makes a store in folder. It opens no file.
func New(folder string, log *slog.Logger) *Store {
	return &Store{path: filepath.Join(folder, fileName), log: log, in: make(chan Entry, waiting)}
}

// Limit sets how long entries are kept, and how many bytes of text in all.
func (s *Store) Limit(keep time.Duration, size int64) {
	s.keep.Store(int64(keep))
	s.size.Store(size)
}

// Offer has an entry kept. It does not block: if the disk is too slow for what comes, it is lost, and that is logged.
func (s *Store) Offer(e Entry) {
	select {
	case s.in <- e:
	default:
		s.lost.Add(1)
	}
}

// Run writes what is offered until ctx ends, and what was offered until then. It never fails: texts are kept as a
// service to the operator, and no request waits for them.
func (s *Store) Run(ctx context.Context) error {
	disk := context.WithoutCancel(ctx)
	defer func() {
		if s.db != nil {
			s.prune(disk)
			_ = s.db.Close() // all is committed
		}
	}()
	tick := time.NewTicker(pruneEvery)
	defer tick.Stop()
	if _, err := os.Stat(s.path); err == nil {
		s.prune(disk) // what a key kept once ends in its time, also if no key keeps anything now
	}
	for {
		select {
		case e := <-s.in:
			s.write(disk, e)
		case <-tick.C:
			if s.db != nil {
				s.prune(disk)
			}
			if n := s.lost.Swap(0); n > 0 {
				s.log.Warn("captured texts lost: they come faster than the disk takes them", "requests", n)
			}
		case <-ctx.Done():
			for {
				select {
				case e := <-s.in:
					s.write(disk, e)
				default:
					return nil
				}
			}
		}
	}
}

// write keeps an entry and those that wait behind it.
func (s *Store) write(ctx context.Context, e Entry) {
	batch := []Entry{e}
	for len(batch) < waiting {
		select {
		case e := <-s.in:
			batch = append(batch, e)
			continue
		default:
		}
		break
	}
	if err := s.insert(ctx, batch); err != nil {
		s.log.Error("captured texts not kept", "requests", len(batch), "error", err)
	}
}

func (s *Store) open(ctx context.Context) (err error) {
	if s.db == nil {
		s.db, err = open(ctx, s.path)
	}
	return err
}

func (s *Store) insert(ctx context.Context, batch []Entry) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // of one that was committed it does nothing
	for _, e := range batch {
		if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO text (id, client_id, started, client_key, route, model, outcome, prompt, answer, cut) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			e.ID, e.Client, e.Started.UnixNano(), e.Key, e.Route, e.Model, e.Outcome, e.Prompt, e.Answer, e.Cut); err != nil {
			return err
		}
		s.fresh += int64(len(e.Prompt) + len(e.Answer))
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	if s.fresh > s.size.Load()/16 { // what is too much stays a little so
		return s.trim(ctx)
	}
	return nil
}

func (s *Store) prune(ctx context.Context) {
	err := s.open(ctx)
	if err == nil {
		err = s.trim(ctx)
	}
	if err != nil {
		s.log.Error("captured texts not pruned", "error", err)
	}
}

// trim takes out what is too old, and the oldest of what is too much.
func (s *Store) trim(ctx context.Context) error {
	s.fresh = 0
	if keep := time.Duration(s.keep.Load()); keep > 0 {
		if _, err := s.db.ExecContext(ctx, "DELETE FROM text WHERE started < ?", time.Now().Add(-keep).UnixNano()); err != nil {
			return err
		}
	}
	if size := s.size.Load(); size > 0 {
		_, err := s.db.ExecContext(ctx, `DELETE FROM text WHERE id IN (
			SELECT id FROM (SELECT id, SUM(bytes) OVER (ORDER BY started DESC, id) AS up FROM (SELECT id, started, bytes FROM text)) WHERE up > ?)`, size)
		return err
	}
	return nil
}

// migrations bring an empty database to the newest schema, one step each. Times are Unix nanoseconds.
var migrations = []string{`
CREATE TABLE text (
	id TEXT PRIMARY KEY, client_id TEXT NOT NULL, started BIGINT NOT NULL, client_key TEXT NOT NULL, route TEXT NOT NULL, model TEXT NOT NULL,
	outcome TEXT NOT NULL, prompt TEXT NOT NULL, answer TEXT NOT NULL, cut INTEGER NOT NULL,
	bytes BIGINT GENERATED ALWAYS AS (length(CAST(prompt AS BLOB)) + length(CAST(answer AS BLOB)) + 200) STORED
);
CREATE INDEX text_key ON text (client_key, started);
CREATE INDEX text_started ON text (started, bytes);
`}

// open opens the file, and makes it if it is not there. What is deleted in it is overwritten.
func open(ctx context.Context, path string) (_ *sql.DB, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) // SQLite would make it readable to all that umask lets
	if err != nil {
		return nil, fmt.Errorf("open captured texts: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open captured texts: %w", err)
	}
	q := url.Values{"mode": {"rw"}, "_txlock": {"immediate"}, "_pragma": {"busy_timeout(5000)", "journal_mode(DELETE)", "secure_delete(ON)", "auto_vacuum(FULL)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open captured texts: %w", err)
	}
	db.SetMaxOpenConns(1)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open captured texts in %s: %w: move the file away to begin a new one", path, err), db.Close())
		}
	}()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // of one that was committed it does nothing
	var version int
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return nil, err
	}
	if version > len(migrations) {
		return nil, fmt.Errorf("schema %d, and this vllmdeck knows %d: run the newer vllmdeck", version, len(migrations))
	}
	for ; version < len(migrations); version++ {
		if _, err := tx.ExecContext(ctx, migrations[version]); err != nil {
			return nil, err
		}
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", version)); err != nil {
		return nil, err
	}
	return db, tx.Commit()
}
