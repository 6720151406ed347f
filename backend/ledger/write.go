package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// writer puts batches into the database, each whole or not at all.
type writer struct {
	db   *sql.DB
	zone *time.Location

	open, closed                  inserts
	attempt, rollup, minute, hour *sql.Stmt

	segments map[string]*segment // by incarnation, as committed
	stored   int64               // closed rows that have been added
	sorter   sorter
	args     []any // of the statement at hand, kept for the next
}

func newWriter(ctx context.Context, db *sql.DB, zone *time.Location) (*writer, error) {
	w := &writer{db: db, zone: zone, segments: map[string]*segment{}}
	for _, s := range []struct {
		to   **sql.Stmt
		text string
	}{{&w.attempt, insertAttempt}, {&w.rollup, addRollup}, {&w.minute, addMinute}, {&w.hour, addWorkerHour}} {
		var err error
		if *s.to, err = db.PrepareContext(ctx, s.text); err != nil {
			return nil, fmt.Errorf("prepare ledger statements: %w", err)
		}
	}
	if err := w.open.prepare(ctx, db, onOpen); err != nil {
		return nil, err
	}
	if err := w.closed.prepare(ctx, db, onClosed); err != nil {
		return nil, err
	}
	return w, nil
}

// dims is a line of the rollup.
type dims struct {
	hour                                                       int64
	model, worker, class, key, route, outcome, baseline, basis string
	simulated                                                  bool
}

type sums struct {
	requests, legs, interrupted, unmetered, earning int64
	usage                                           api.Usage
	actual, would                                   api.Nanos
	actualUnknown, wouldUnknown                     int64
}

type minuteKey struct {
	minute    int64
	simulated bool
}

type minuteSums struct {
	would, spent api.Nanos
	unknown      int64
}

// batch is what a transaction adds to the sums.
type batch struct {
	zone    *time.Location
	rollup  map[dims]*sums
	minutes map[minuteKey]*minuteSums

	// Where the row before was counted: the next one often belongs there too.
	shape  shape
	key    minuteKey
	sums   *sums
	minute *minuteSums
}

func newBatch(zone *time.Location) *batch {
	return &batch{zone: zone, rollup: map[dims]*sums{}, minutes: map[minuteKey]*minuteSums{}}
}

func (b *batch) line(d dims) *sums {
	s := b.rollup[d]
	if s == nil {
		s = &sums{}
		b.rollup[d] = s
	}
	return s
}

// find gives the line of the rollup and the minute that a row counts in. Rows of one minute are
// of one hour, whatever the zone.
func (b *batch) find(r *row) (*sums, *minuteSums) {
	k := minuteKey{floorMinute(time.Unix(0, r.Started)), r.Simulated}
	if b.sums == nil || b.key != k || b.shape != r.shape {
		b.key, b.shape = k, r.shape
		b.sums = b.line(dims{hour(time.Unix(0, r.Started), b.zone), r.Model, r.Worker, r.Class, r.Key, r.Route, r.Outcome, r.Baseline, r.Basis, r.Simulated})
		if b.minute = b.minutes[k]; b.minute == nil {
			b.minute = &minuteSums{}
			b.minutes[k] = b.minute
		}
	}
	return b.sums, b.minute
}

// add counts a row that has just ended.
func (b *batch) add(r *row) {
	s, m := b.find(r)
	s.requests++
	s.interrupted += flag(r.Outcome == api.OutcomeInterrupted)
	s.unmetered += flag(r.Unmetered)
	s.earning += flag(r.Earning)
	s.usage = s.usage.Add(r.Usage)
	s.actual += r.Actual.n
	s.actualUnknown += flag(r.ActualUnknown)
	s.wouldUnknown += flag(r.WouldUnknown)
	var would api.Nanos
	if r.Earning {
		would = r.Would.n
		s.would += would
	}
	m.spend(r.Basis, r.Actual, r.ActualUnknown, would)
	for i := range r.Legs {
		l := &r.Legs[i]
		if l.Class != api.ClassRetry {
			continue
		}
		s := b.line(dims{hour(time.Unix(0, r.Started), b.zone), r.Model, l.Upstream, l.Class, r.Key, r.Route, l.Outcome, "", l.Basis, r.Simulated})
		s.legs++
		s.actual += l.Actual.n
		s.actualUnknown += flag(l.Unknown)
		m.spend(l.Basis, l.Actual, l.Unknown, 0)
	}
}

// spend counts money by the minute: what would have been paid elsewhere, and what was paid by
// the token. Shares of worker time are not: the whole of a worker's time is paid for anyway.
func (m *minuteSums) spend(basis string, actual amount, unknown bool, would api.Nanos) {
	m.would += would
	if byToken(basis) {
		m.spent += actual.n
		m.unknown += flag(unknown)
	}
}

func byToken(basis string) bool { return basis == api.BasisProviderPrice || basis == api.BasisPerToken }

// floorMinute is the start of t's minute in Unix seconds.
func floorMinute(t time.Time) int64 {
	s := t.Unix()
	return s - ((s%60)+60)%60
}

func value(n *api.Nanos) api.Nanos {
	if n == nil {
		return 0
	}
	return *n
}

// write commits rows and worker times. Rows that are there already change nothing.
func (w *writer) write(ctx context.Context, rows []row, workers []WorkerTime) error {
	groups, unique := w.sorter.sort(rows)
	if unique {
		err := w.commit(ctx, groups, workers)
		if !errors.Is(err, errTold) {
			return err
		}
	}
	return w.commit(ctx, w.sorter.single(rows), workers)
}

// commit writes groups of rows of one shape. The error is errTold, and nothing is written, if a
// group of several has rows that were closed before: which they are only a row by itself tells.
func (w *writer) commit(ctx context.Context, groups [][]*row, workers []WorkerTime) error {
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing, once it is committed
	b := newBatch(w.zone)
	open, closed := w.open.within(ctx, tx), w.closed.within(ctx, tx)
	var added int64
	for _, g := range groups {
		for len(g) > 0 {
			if g[0].open() {
				if _, g, err = w.insert(ctx, &open, g); err != nil {
					return err
				}
				continue
			}
			n, rest, err := w.insert(ctx, &closed, g)
			if err != nil {
				return err
			}
			chunk := g[:len(g)-len(rest)]
			g = rest
			if n < len(chunk) {
				if len(chunk) > 1 {
					return errTold
				}
				continue // it was closed before, and has been counted
			}
			added += int64(n)
			for _, r := range chunk {
				if err := w.writeLegs(ctx, tx, r); err != nil {
					return err
				}
				b.add(r)
			}
		}
	}
	changed, err := w.writeWorkers(ctx, tx, workers)
	if err != nil {
		return err
	}
	if err := w.writeSums(ctx, tx, b); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit ledger: %w", err)
	}
	maps.Copy(w.segments, changed)
	w.stored += added
	return nil
}

func (w *writer) writeLegs(ctx context.Context, tx *sql.Tx, r *row) error {
	for i := range r.Legs {
		l := &r.Legs[i]

		if _, err := tx.StmtContext(ctx, w.attempt).ExecContext(ctx, r.ID, l.N, l.Upstream, l.Outcome, l.Error, l.Class, l.Basis, l.Share, l.Actual.arg(), flag(l.Unknown), l.Held.arg()); err != nil {
			return fmt.Errorf("write ledger attempt: %w", err)
		}
	}
	return nil
}

func (w *writer) writeSums(ctx context.Context, tx *sql.Tx, b *batch) error {
	stmt := tx.StmtContext(ctx, w.rollup)
	for d, s := range b.rollup {
		if _, err := stmt.ExecContext(ctx, d.hour, d.model, d.worker, d.class, d.key, d.route, d.outcome, d.baseline, d.basis, flag(d.simulated),
			s.requests, s.legs, s.interrupted, s.unmetered, s.earning,
			s.usage.Input, s.usage.CacheRead, s.usage.CacheWrite, s.usage.Output, s.usage.Reasoning,
			int64(s.actual), s.actualUnknown, int64(s.would), s.wouldUnknown); err != nil {
			return fmt.Errorf("write ledger sums: %w", err)
		}
	}
	stmt = tx.StmtContext(ctx, w.minute)
	for k, m := range b.minutes {
		if m.would == 0 && m.spent == 0 && m.unknown == 0 {
			continue
		}
		if _, err := stmt.ExecContext(ctx, k.minute, flag(k.simulated), int64(m.would), int64(m.spent), m.unknown); err != nil {
			return fmt.Errorf("write ledger sums: %w", err)
		}
	}
	return nil
}

// interrupt ends the rows that an engine left open, and counts them.
func (w *writer) interrupt(ctx context.Context) (int64, error) {
	rows, err := w.leftOpen(ctx)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return 0, fmt.Errorf("mark interrupted requests: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing, once it is committed
	b := newBatch(w.zone)
	for i := range rows {
		r := &rows[i]
		if r.Actual.known {
			// What it cost is not known, but what was reserved for it bounds that.
			if _, err := tx.ExecContext(ctx, insertAttempt, r.ID, 0, r.Worker, api.OutcomeInterrupted, "", r.Class, r.Basis, 0, nil, 1, r.Actual.arg()); err != nil {
				return 0, fmt.Errorf("mark interrupted requests: %w", err)
			}
		}
		r.Outcome, r.UsageSource, r.Usage, r.Actual, r.Would = api.OutcomeInterrupted, api.UsageUnknown, api.Usage{}, amount{}, amount{}
		r.account = r.count(true)
		if _, err := tx.ExecContext(ctx, `UPDATE request SET outcome = $1, usage_source = $2, input = 0, cache_read = 0, cache_write = 0, output = 0, reasoning = 0,
			actual = NULL, would = NULL, unmetered = $3, earning = $4, actual_unknown = $5, would_unknown = $6 WHERE id = $7`,
			r.Outcome, r.UsageSource, flag(r.Unmetered), flag(r.Earning), flag(r.ActualUnknown), flag(r.WouldUnknown), r.ID); err != nil {
			return 0, fmt.Errorf("mark interrupted requests: %w", err)
		}
		b.add(r)
	}
	if err := w.writeSums(ctx, tx, b); err != nil {
		return 0, err
	}
	if err := tx.Commit(); err != nil {
		return 0, fmt.Errorf("mark interrupted requests: %w", err)
	}
	return int64(len(rows)), nil
}

func (w *writer) leftOpen(ctx context.Context) ([]row, error) {
	found, err := w.db.QueryContext(ctx, "SELECT id, started, route, model, worker, client_key, class, basis, baseline, simulated, actual FROM request WHERE outcome = 'open'")
	if err != nil {
		return nil, fmt.Errorf("look for interrupted requests: %w", err)
	}
	defer found.Close()
	var rows []row
	for found.Next() {
		var r row
		var simulated int64
		var actual sql.NullInt64
		if err := found.Scan(&r.ID, &r.Started, &r.Route, &r.Model, &r.Worker, &r.Key, &r.Class, &r.Basis, &r.Baseline, &simulated, &actual); err != nil {
			return nil, fmt.Errorf("look for interrupted requests: %w", err)
		}
		r.Actual = amount{api.Nanos(actual.Int64), actual.Valid}
		r.Simulated = simulated != 0
		rows = append(rows, r)
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("look for interrupted requests: %w", err)
	}
	return rows, nil
}
