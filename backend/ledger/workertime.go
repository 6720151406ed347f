package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/bits"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// WorkerTime is how long one incarnation of a worker has run so far. It is told again and
// again with a later Until.
type WorkerTime struct {
	Worker      string
	Incarnation string // names one start of its process, for ever; the same when it is re-adopted
	Model       string
	Started     time.Time     // of the process
	Until       time.Time     // last known to run
	Busy        time.Duration // with a request in flight, since this engine began to look after it
	Hour        *api.Nanos    // per hour; nil: not known
	Flat        bool          // its requests are costed by the token: its time costs nothing by itself
	Simulated   bool
}

// segment is a stretch of an incarnation at one rate.
type segment struct {
	started, until int64
	rate           *api.Nanos
	flat           bool
	stored         time.Duration // busy time of the segment
	told           time.Duration // busy time as last told by this engine
}

// writeWorkers extends the segments of workers. What it changes is only for the caller to keep
// once the transaction is committed.
func (w *writer) writeWorkers(ctx context.Context, tx *sql.Tx, workers []WorkerTime) (map[string]*segment, error) {
	changed := map[string]*segment{}
	for _, t := range workers {
		s, err := w.extend(ctx, tx, t)
		if err != nil {
			return nil, fmt.Errorf("write worker time: %w", err)
		}
		changed[t.Incarnation] = s
	}
	return changed, nil
}

func (w *writer) extend(ctx context.Context, tx *sql.Tx, t WorkerTime) (*segment, error) {
	started, until := t.Started.UnixNano(), t.Until.UnixNano()
	until = max(until, started) // a clock that was set back
	old, err := w.latest(ctx, tx, t.Incarnation)
	if err != nil {
		return nil, err
	}
	var s segment
	from := started
	switch {
	case old == nil:
		s = segment{started: started, until: started, rate: dup(t.Hour), flat: t.Flat}
	case old.flat == t.Flat && (old.rate == nil || t.Hour == nil || *old.rate == *t.Hour):
		// A rate that becomes known is that of the whole stretch; one that is no longer known
		// was still paid.
		s, from = *old, old.until
		if s.rate == nil {
			s.rate = dup(t.Hour)
		}
	default:
		// A changed rate counts from where the old one was last told.
		s, from = segment{started: old.until, until: old.until, rate: dup(t.Hour), flat: t.Flat, told: old.told}, old.until
	}
	busy := t.Busy - s.told
	if busy < 0 {
		busy = t.Busy
	}
	s.told = t.Busy
	if until > from {
		busy = min(max(0, busy), time.Duration(until-from))
		s.until = until
		s.stored += busy
		if err := w.spread(ctx, tx, t, from, until, busy); err != nil {
			return nil, err
		}
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO worker_time (incarnation, started, until, worker, model, hour_rate, flat, simulated, busy)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (incarnation, started) DO UPDATE SET until = excluded.until, hour_rate = excluded.hour_rate, busy = excluded.busy`,
		clean(t.Incarnation), s.started, s.until, clean(t.Worker), clean(t.Model), amountOf(s.rate).arg(), flag(s.flat), flag(t.Simulated), int64(s.stored))
	return &s, err
}

// latest gives the segment that an incarnation is in; nil if it has none.
func (w *writer) latest(ctx context.Context, tx *sql.Tx, incarnation string) (*segment, error) {
	if s := w.segments[incarnation]; s != nil {
		return s, nil
	}
	var s segment
	var rate sql.NullInt64
	var flat, busy int64
	err := tx.QueryRowContext(ctx, "SELECT started, until, hour_rate, flat, busy FROM worker_time WHERE incarnation = $1 ORDER BY started DESC LIMIT 1", clean(incarnation)).
		Scan(&s.started, &s.until, &rate, &flat, &busy)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.flat, s.stored = flat != 0, time.Duration(busy)
	if rate.Valid {
		s.rate = new(api.Nanos(rate.Int64))
	}
	return &s, nil
}

// spread adds a stretch to the hours that it lies in, the busy time evenly.
func (w *writer) spread(ctx context.Context, tx *sql.Tx, t WorkerTime, from, until int64, busy time.Duration) error {
	stmt := tx.StmtContext(ctx, w.hour) //nolint:sqlclosecheck // closed with tx
	wall := until - from
	var given int64
	for at := from; at < until; {
		h := hour(time.Unix(0, at), w.zone)
		end := min(until, (h+3600)*1e9)
		// The share up to end less what was given: the parts add up exactly.
		hi, lo := bits.Mul64(uint64(busy), uint64(end-from))
		share, _ := bits.Div64(hi, lo, uint64(wall))
		if _, err := stmt.ExecContext(ctx, h, clean(t.Worker), clean(t.Model), flag(t.Simulated), end-at, int64(share)-given); err != nil {
			return err
		}
		given = int64(share)
		at = end
	}
	return nil
}
