package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// retryAfter is how long a database that failed is left alone; rows go to the spool meanwhile.
const retryAfter = time.Second

// Ledger is the record of requests in one folder. One process has it at a time.
type Ledger struct {
	path    string
	log     *slog.Logger
	zone    *time.Location
	found   Found
	lock    *os.File
	db      *sql.DB // the writer's, one connection
	readers *sql.DB
	queue   *queue

	flushing sync.Mutex // held while a batch is written; guards the following
	writer   *writer
	file     os.FileInfo // of the database, as opened
	spool    spool
	retry    time.Time // when to try the database again; zero while it works
	dbErr    error     // why it did not work; nil while it does
	spoolErr error     // why the spool did not work either
	where    int       // rows go: writing, spooling or remembering
	closed   bool

	mu     sync.Mutex // guards the following
	state  api.Ledger
	adrift bool // rows wait in memory: neither database nor spool takes them
}

// Found is what Open met with.
type Found struct {
	Interrupted int64    // requests that an engine had open when it died; they are marked so now
	Replayed    int      // rows brought in from the spool
	Damaged     string   // where a damaged database was moved to; "" for none
	Backup      string   // copy made before the schema was changed; "" for none
	Notices     []string // the above in words, for an operator
}

// Open opens the ledger in folder, which is made if it is not there. It marks requests that
// were left open by a dead engine as interrupted, brings in what was spooled, and moves a
// damaged database aside to begin a new one; Found says what it met. The error is an
// *InUseError if another process has the ledger.
func Open(ctx context.Context, folder string, log *slog.Logger) (*Ledger, error) {
	return open(ctx, folder, log, migrations, time.Local)
}

func open(ctx context.Context, folder string, log *slog.Logger, steps []string, zone *time.Location) (*Ledger, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("open ledger: %w", err)
	}
	held, err := lock(folder)
	if err != nil {
		return nil, err
	}
	l := &Ledger{
		path: filepath.Join(folder, fileName), log: log, zone: zone, lock: held, queue: newQueue(),
		spool: spool{path: filepath.Join(folder, spoolName)},
	}
	err = l.start(ctx, steps)
	if errors.Is(err, errDamaged) {
		cause := err
		if l.found.Damaged, err = moveAside(l.path, time.Now()); err == nil {
			log.Error("ledger was damaged and moved aside", "path", l.found.Damaged, "error", cause)
			l.notice("the ledger was damaged: it is now %s and a new one is in use; sqlite3 %s .recover may bring back its rows", l.found.Damaged, l.found.Damaged)
			err = l.start(ctx, steps)
		}
	}
	if err != nil {
		held.Close()
		return nil, err
	}
	return l, nil
}

// start opens the database and settles what an earlier process left.
func (l *Ledger) start(ctx context.Context, steps []string) (err error) {
	db, backup, err := openFile(ctx, l.path, steps, time.Now())
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = damaged(err)
			db.Close()
		}
	}()
	w, err := newWriter(ctx, db, l.zone)
	if err != nil {
		return err
	}
	// The spool first: it may close what would look interrupted.
	replayed, bad, err := l.spool.replay(func(rows []row) error {
		return w.write(ctx, rows, nil)
	})
	if err != nil {
		return err
	}
	interrupted, err := w.interrupt(ctx)
	if err != nil {
		return err
	}
	// Every closed row is counted in the rollup, and no other is left.
	if err := db.QueryRowContext(ctx, "SELECT COALESCE(SUM(requests), 0) FROM rollup").Scan(&l.state.Rows); err != nil {
		return fmt.Errorf("count ledger rows: %w", err)
	}
	readers, err := openReaders(l.path)
	if err != nil {
		return err
	}
	file, err := os.Stat(l.path)
	if err != nil {
		return errors.Join(fmt.Errorf("open ledger: %w", err), readers.Close())
	}
	l.db, l.readers, l.writer, l.file = db, readers, w, file
	l.found.Interrupted, l.found.Replayed, l.found.Backup = interrupted, replayed, backup
	if interrupted > 0 {
		l.notice("%d requests were interrupted when the engine ended last time", interrupted)
	}
	if replayed > 0 {
		l.notice("%d ledger rows were brought in from the spool", replayed)
	}
	if bad > 0 {
		l.notice("%d lines of the ledger's spool could not be read: they are kept in %s", bad, filepath.Join(filepath.Dir(l.path), badName))
	}
	if backup != "" {
		l.notice("the ledger was brought to a new schema; a copy of the old one is %s", backup)
	}
	return nil
}

func (l *Ledger) notice(format string, args ...any) {
	l.found.Notices = append(l.found.Notices, fmt.Sprintf(format, args...))
}

// Found says what Open met with.
func (l *Ledger) Found() Found { return l.found }

// Opened records that r was dispatched, or that it now is with another upstream. It never blocks; r
// may change afterwards. The Actual of a row of basis provider_price is what is reserved for it.
func (l *Ledger) Opened(r api.Request) {
	l.queue.put(opening(&r))
}

// Sync waits until all that was recorded so far is on disk, be it in the spool, or until ctx ends.
func (l *Ledger) Sync(ctx context.Context) error {
	c := l.queue.sync()
	if c == nil {
		return nil
	}
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the ledger: %w", ctx.Err())
	}
}

// Closed records how r ended, priced. It never blocks; r may change afterwards. A second
// close of the same ID has no effect, and a request that was never opened may be closed.
func (l *Ledger) Closed(r api.Request) {
	if r.Outcome == api.OutcomeOpen || r.Outcome == "" {
		l.log.Error("request was closed without an outcome", "request", r.ID)
		r.Outcome = api.OutcomeError
	}
	l.queue.put(newRow(&r))
}

// WorkerTime records how long a worker has run. It never blocks. Of several for one
// incarnation the last one counts.
func (l *Ledger) WorkerTime(w WorkerTime) {
	if w.Incarnation == "" {
		l.log.Error("worker time has no incarnation", "worker", w.Worker)
		return
	}
	w.Hour = dup(w.Hour)
	l.queue.putWorker(w)
}

// Run writes what is recorded until ctx ends, then the rest, and gives an error if that could
// not be brought to disk. It runs once.
func (l *Ledger) Run(ctx context.Context) error {
	again := time.NewTicker(retryAfter)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return l.flush()
		case <-l.queue.wake:
		case <-again.C:
			if l.healthy() {
				continue
			}
		}
		wait := time.NewTimer(flushAfter)
		select {
		case <-ctx.Done():
		case <-wait.C:
		case <-l.queue.full:
		}
		wait.Stop()
		err := l.step()
		if rows, _ := l.queue.waiting(); rows && err == nil {
			poke(l.queue.wake)
		}
	}
}

// flush writes all that is left.
func (l *Ledger) flush() error {
	l.flushing.Lock()
	l.retry = time.Time{} // the last chance: nothing rests
	l.flushing.Unlock()
	for {
		rows, any := l.queue.waiting()
		if !rows && (!any || !l.healthy()) {
			return nil // what is left of workers is told again at the next start
		}
		if err := l.step(); err != nil {
			return fmt.Errorf("flush ledger: %d rows are lost: %w", l.queue.len(), err)
		}
	}
}

// step takes a batch and brings it to disk: into the database, else into the spool, else back
// into memory. It gives an error if that is where it stays.
func (l *Ledger) step() error {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	if time.Now().Before(l.retry) && l.spoolErr != nil {
		return l.spoolErr // both failed a moment ago
	}
	rows, workers := l.queue.take()
	if err := l.store(rows, workers); err == nil {
		l.queue.done(rows)
		l.dbErr, l.spoolErr = nil, nil
	} else if l.spoolErr = l.spool.append(rows); l.spoolErr == nil {
		l.queue.spooled(workers)
	} else {
		l.queue.back(rows, workers)
	}
	l.report()
	return l.spoolErr
}

// store writes a batch into the database, after what is in the spool.
func (l *Ledger) store(rows []row, workers []WorkerTime) error {
	if l.closed {
		l.dbErr = errors.New("the ledger is closed")
	}
	if l.closed || time.Now().Before(l.retry) {
		return l.dbErr
	}
	// Shutting down does not cut a transaction short: its rows have been promised.
	ctx := context.Background()
	err := l.present(ctx)
	if err == nil {
		err = l.replay(ctx)
	}
	if err == nil {
		err = l.commit(ctx, rows, workers)
	}
	l.retry = time.Time{}
	if err != nil {
		l.dbErr = err
		l.retry = time.Now().Add(retryAfter)
	}
	return err
}

func (l *Ledger) replay(ctx context.Context) error {
	if l.spool.count == 0 {
		return nil
	}
	n, bad, err := l.spool.replay(func(rows []row) error { return l.commit(ctx, rows, nil) })
	if err == nil {
		l.log.Info("ledger rows were brought in from the spool", "rows", n, "unreadable", bad)
	}
	return err
}

func (l *Ledger) commit(ctx context.Context, rows []row, workers []WorkerTime) error {
	if len(rows) == 0 && len(workers) == 0 {
		return nil
	}
	before := l.writer.stored
	if err := l.writer.write(ctx, rows, workers); err != nil {
		return err
	}
	l.mu.Lock()
	l.state.Rows += l.writer.stored - before
	l.mu.Unlock()
	return nil
}

// Close writes what is left and gives the folder free. Run must have ended.
func (l *Ledger) Close() error {
	err := l.flush()
	l.flushing.Lock()
	defer l.flushing.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	if gone := l.present(context.Background()); errors.Is(gone, errRemoved) {
		l.dbErr = gone // there is no later look
		err = errors.Join(err, l.present(context.Background()))
	}
	if err == nil && l.retry.IsZero() {
		if _, cleanErr := l.db.ExecContext(context.Background(), "UPDATE meta SET value = '1' WHERE name = 'clean'"); cleanErr != nil {
			l.log.Warn("ledger was not marked as closed in order", "error", cleanErr)
		}
	}
	return errors.Join(err, l.readers.Close(), l.db.Close(), l.lock.Close())
}
