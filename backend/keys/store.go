package keys

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const fileName = "keys.db"

// migrations bring an empty database to the newest schema, one step each; PRAGMA user_version
// says how many have been taken. A step that has been released is never changed. Times are Unix
// nanoseconds, 0 for none; money is nano-dollars, NULL for no limit; limits are 0 for none.
var migrations = []string{`
CREATE TABLE client_key (
	id TEXT PRIMARY KEY, name TEXT NOT NULL, hash BLOB NOT NULL, old_hash BLOB NOT NULL, old_until BIGINT NOT NULL,
	created BIGINT NOT NULL, expires BIGINT NOT NULL, revoked BIGINT NOT NULL,
	models TEXT NOT NULL, requests BIGINT NOT NULL, tokens BIGINT NOT NULL, parallel BIGINT NOT NULL,
	budget_day BIGINT, budget_month BIGINT, priority TEXT NOT NULL
);
CREATE UNIQUE INDEX client_key_name ON client_key (name) WHERE revoked = 0;
`, `
ALTER TABLE client_key ADD COLUMN failover TEXT NOT NULL DEFAULT '';
`, `
ALTER TABLE client_key ADD COLUMN capture INTEGER NOT NULL DEFAULT 0;
`}

// Store is the database of keys in one state folder.
type Store struct {
	db *sql.DB
}

// Open opens the database in folder, and makes it if it is not there. A damaged one is an error,
// never a new beginning: without its keys the gateway would be open to everybody.
func Open(ctx context.Context, folder string) (*Store, error) {
	path := filepath.Join(folder, fileName)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	// SQLite would make it readable to all that umask lets.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	return open(ctx, path)
}

// ErrNone says that a folder has no database of keys.
var ErrNone = errors.New("no keys were made here")

// Read opens the database in folder to look at it. ErrNone if there is none.
func Read(ctx context.Context, folder string) (*Store, error) {
	path := filepath.Join(folder, fileName)
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return nil, ErrNone
	}
	if err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	return open(ctx, path) // for writing too: the log of a writer that died is brought in by whoever comes next
}

// Any says whether the folder's database has a key, good or not. A database that cannot be read
// counts: it is there because somebody wanted keys.
func Any(ctx context.Context, folder string) bool {
	s, err := Read(ctx, folder)
	if err != nil {
		return !errors.Is(err, ErrNone)
	}
	defer s.Close()
	list, err := s.List(ctx)
	return err != nil || len(list) > 0
}

func open(ctx context.Context, path string) (_ *Store, err error) {
	q := url.Values{"mode": {"rw"}, "_txlock": {"immediate"}, "_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: path, RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, fmt.Errorf("open keys: %w", err)
	}
	db.SetMaxOpenConns(1)
	defer func() {
		if err != nil {
			err = fmt.Errorf("open keys in %s: %w", path, err)
			_ = db.Close()
		}
	}()
	for end := time.Now().Add(busyWait); ; {
		err = migrate(ctx, db, migrations)
		if !busy(err) || time.Now().After(end) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	if busy(err) {
		return nil, fmt.Errorf("%w: another process holds it: try again", err)
	}
	if err != nil {
		return nil, err
	}
	return &Store{db: db}, nil
}

// busyWait is how long another process that makes the database is waited for: SQLite waits for a writer, but not for
// a change of the journal's mode.
const busyWait = 5 * time.Second

func busy(err error) bool {
	const locked = 5 // SQLITE_BUSY
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == locked
}

// migrate brings the database to the newest schema. Two processes may do so at once.
func migrate(ctx context.Context, db *sql.DB, steps []string) error {
	var version int
	if err := db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		if busy(err) {
			return err
		}
		return fmt.Errorf("%w: bring it back from a copy, or move it away: its keys are then good for nothing", err)
	}
	if version == len(steps) {
		return nil
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	// Again, behind the lock.
	if err := tx.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > len(steps) {
		return fmt.Errorf("schema %d, and this vllmdeck knows %d: run the newer vllmdeck", version, len(steps))
	}
	for ; version < len(steps); version++ {
		if _, err := tx.ExecContext(ctx, steps[version]); err != nil {
			return fmt.Errorf("bring to schema %d: %w", version+1, err)
		}
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", version)); err != nil {
		return err
	}
	return tx.Commit()
}

// Close closes the database.
func (s *Store) Close() error { return s.db.Close() }

const columns = "id, name, hash, old_hash, old_until, created, expires, revoked, models, requests, tokens, parallel, budget_day, budget_month, priority, failover, capture"

// List gives all keys, by name; of one name the one that is not revoked first, then the newest.
func (s *Store) List(ctx context.Context) ([]Key, error) {
	return query(ctx, s.db, "ORDER BY name, revoked <> 0, created DESC, id")
}

// querier is a database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func query(ctx context.Context, db querier, rest string, args ...any) ([]Key, error) {
	rows, err := db.QueryContext(ctx, "SELECT "+columns+" FROM client_key "+rest, args...)
	if err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	defer rows.Close()
	var out []Key
	for rows.Next() {
		k, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("read keys: %w", err)
		}
		out = append(out, k)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read keys: %w", err)
	}
	return out, nil
}

func scan(rows *sql.Rows) (Key, error) {
	k := Key{Key: api.Key{Source: api.KeyFromDatabase}}
	var hash, old []byte
	var until, created, expires, revoked int64
	var models string
	var day, month sql.NullInt64
	l := &k.Limits
	err := rows.Scan(&k.ID, &k.Name, &hash, &old, &until, &created, &expires, &revoked, &models, &l.Requests, &l.Tokens, &l.Parallel, &day, &month, &l.Priority, &l.Failover, &k.Capture)
	if err != nil {
		return k, err
	}
	if len(hash) != len(k.Hash) || len(old) != len(k.Old) {
		return k, fmt.Errorf("the hash of %s is damaged", k.Name)
	}
	k.Hash, k.Old = [32]byte(hash), [32]byte(old)
	k.Until, k.Created, k.Expires, k.Revoked = fromUnix(until), fromUnix(created), fromUnix(expires), fromUnix(revoked)
	if day.Valid {
		l.Day = new(api.Nanos(day.Int64))
	}
	if month.Valid {
		l.Month = new(api.Nanos(month.Int64))
	}
	if err := json.Unmarshal([]byte(models), &l.Models); err != nil {
		return k, fmt.Errorf("the models of %s: %w", k.Name, err)
	}
	return k, nil
}

// values are the columns of k, in their order.
func (k *Key) values() ([]any, error) {
	models, err := json.Marshal(k.Limits.Models)
	if err != nil {
		return nil, err
	}
	l := &k.Limits
	return []any{
		k.ID, k.Name, k.Hash[:], k.Old[:], toUnix(k.Until), toUnix(k.Created), toUnix(k.Expires), toUnix(k.Revoked),
		string(models), l.Requests, l.Tokens, l.Parallel, null(l.Day), null(l.Month), l.Priority, l.Failover, k.Capture,
	}, nil
}

func null(n *api.Nanos) any {
	if n == nil {
		return nil
	}
	return int64(*n)
}

func toUnix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromUnix(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}
