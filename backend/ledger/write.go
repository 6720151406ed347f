package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// writer puts batches into the database, each whole or not at all.
type writer struct {
	db   *sql.DB
	zone *time.Location

	open, closed, attempt, rollup, minute, hour *sql.Stmt

	segments map[string]*segment // by incarnation, as committed
	stored   int64               // closed rows that have been added
}

func newWriter(ctx context.Context, db *sql.DB, zone *time.Location) (*writer, error) {
	w := &writer{db: db, zone: zone, segments: map[string]*segment{}}
	for _, s := range []struct {
		to   **sql.Stmt
		text string
	}{{&w.open, insertOpen}, {&w.closed, insertClosed}, {&w.attempt, insertAttempt}, {&w.rollup, addRollup}, {&w.minute, addMinute}, {&w.hour, addWorkerHour}} {
		var err error
		if *s.to, err = db.PrepareContext(ctx, s.text); err != nil {
			return nil, fmt.Errorf("prepare ledger statements: %w", err)
		}
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

// add counts a row that has just ended.
func (b *batch) add(r *row) {
	started := time.Unix(0, r.Started)
	d := dims{hour(started, b.zone), r.Model, r.Worker, r.Class, r.Key, r.Route, r.Outcome, r.Baseline, r.Basis, r.Simulated}
	s := b.line(d)
	s.requests++
	s.interrupted += flag(r.Outcome == api.OutcomeInterrupted)
	s.unmetered += flag(r.Unmetered)
	s.earning += flag(r.Earning)
	s.usage = s.usage.Add(r.Usage)
	s.actual += value(r.Actual)
	s.actualUnknown += flag(r.ActualUnknown)
	s.wouldUnknown += flag(r.WouldUnknown)
	var would api.Nanos
	if r.Earning {
		would = value(r.Would)
		s.would += would
	}
	b.spend(started, r.Simulated, r.Basis, r.Actual, r.ActualUnknown, would)
	for i := range r.Legs {
		l := &r.Legs[i]
		if l.Class != api.ClassRetry {
			continue
		}
		d := d
		d.worker, d.class, d.outcome, d.baseline, d.basis = l.Upstream, l.Class, l.Outcome, "", l.Basis
		s := b.line(d)
		s.legs++
		s.actual += value(l.Actual)
		s.actualUnknown += flag(l.Unknown)
		b.spend(started, r.Simulated, l.Basis, l.Actual, l.Unknown, 0)
	}
}

// spend counts money by the minute: what would have been paid elsewhere, and what was paid by
// the token. Shares of worker time are not: the whole of a worker's time is paid for anyway.
func (b *batch) spend(started time.Time, simulated bool, basis string, actual *api.Nanos, unknown bool, would api.Nanos) {
	k := minuteKey{floorMinute(started), simulated}
	m := b.minutes[k]
	if m == nil {
		m = &minuteSums{}
		b.minutes[k] = m
	}
	m.would += would
	if byToken(basis) {
		m.spent += value(actual)
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
	tx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	defer tx.Rollback()
	b := newBatch(w.zone)
	var closed int64
	openStmt, closedStmt, attemptStmt := tx.StmtContext(ctx, w.open), tx.StmtContext(ctx, w.closed), tx.StmtContext(ctx, w.attempt)
	for i := range rows {
		r := &rows[i]
		stmt := closedStmt
		if r.open() {
			stmt = openStmt
		}
		res, err := stmt.ExecContext(ctx, r.args()...)
		if err != nil {
			return fmt.Errorf("write ledger row: %w", err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return fmt.Errorf("write ledger row: %w", err)
		}
		// No row changed: it was closed before, and has been counted.
		if r.open() || n == 0 {
			continue
		}
		closed++
		for j := range r.Legs {
			l := &r.Legs[j]
			if _, err := attemptStmt.ExecContext(ctx, r.ID, j, l.Upstream, l.Outcome, l.Error, l.Class, l.Basis, l.Share, amount(l.Actual), flag(l.Unknown), amount(l.Held)); err != nil {
				return fmt.Errorf("write ledger attempt: %w", err)
			}
		}
		b.add(r)
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
	for incarnation, s := range changed {
		w.segments[incarnation] = s
	}
	w.stored += closed
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
	defer tx.Rollback()
	b := newBatch(w.zone)
	for i := range rows {
		r := &rows[i]
		if r.Basis == api.BasisProviderPrice {
			// What it cost is not known, but what was reserved for it bounds that.
			if _, err := tx.ExecContext(ctx, insertAttempt, r.ID, 0, r.Worker, api.OutcomeInterrupted, "", r.Class, r.Basis, 0, nil, 1, amount(r.Actual)); err != nil {
				return 0, fmt.Errorf("mark interrupted requests: %w", err)
			}
		}
		r.Outcome, r.UsageSource, r.Usage, r.Actual, r.Would = api.OutcomeInterrupted, api.UsageUnknown, api.Usage{}, nil, nil
		r.account = r.count()
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
		if actual.Valid {
			r.Actual = api.Ptr(api.Nanos(actual.Int64))
		}
		r.Simulated = simulated != 0
		rows = append(rows, r)
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("look for interrupted requests: %w", err)
	}
	return rows, nil
}
