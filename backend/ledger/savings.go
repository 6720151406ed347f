package ledger

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
)

// maxBuckets is the longest series that is given.
const maxBuckets = 10_000

// Savings gives the net savings of a period up to the end of each of so many equal buckets, in
// USD: what would have been paid, less what workers and providers cost until then. A point is
// NaN from where a part of it is not known. Buckets of a minute and more are filled from sums
// by the minute, so that a bucket's edge may be off by as much.
func (l *Ledger) Savings(ctx context.Context, from, to time.Time, buckets int, simulated bool) (api.Series, error) {
	length := to.Sub(from)
	if buckets <= 0 || buckets > maxBuckets || length < time.Duration(buckets) || from.IsZero() {
		return nil, fmt.Errorf("read savings: want 1 to %d buckets of a period with two ends", maxBuckets)
	}
	net := make([]api.Nanos, buckets) // of each bucket alone
	unknown := buckets                // the first bucket that is not known
	end := func(i int) int64 { return from.UnixNano() + scale(length, i+1, buckets) }
	bucket := func(at int64) int {
		// The quotient may be off by one where the length is no multiple of the buckets.
		i := int(float64(at-from.UnixNano()) / float64(length) * float64(buckets))
		i = min(max(i, 0), buckets-1)
		for i > 0 && at < end(i-1) {
			i--
		}
		for i < buckets-1 && at >= end(i) {
			i++
		}
		return i
	}
	text := "SELECT minute * 1000000000, would, spent, spent_unknown FROM minute WHERE minute >= $1 AND minute < $2 AND simulated = $3"
	first, last := floorMinute(from), ceil(to.UnixNano(), 1e9)
	if length/time.Duration(buckets) < time.Minute {
		text = `SELECT started, would, CASE WHEN basis IN ('provider_price', 'per_token') THEN actual ELSE 0 END,
			CASE WHEN basis IN ('provider_price', 'per_token') THEN actual_unknown ELSE 0 END
			FROM entry WHERE started >= $1 AND started < $2 AND simulated = $3`
		first, last = from.UnixNano(), to.UnixNano()
	}
	found, err := l.readers.QueryContext(ctx, text, first, last, flag(simulated))
	if err != nil {
		return nil, fmt.Errorf("read savings: %w", err)
	}
	defer found.Close()
	for found.Next() {
		var at, would, spent, missing int64
		if err := found.Scan(&at, &would, &spent, &missing); err != nil {
			return nil, fmt.Errorf("read savings: %w", err)
		}
		i := bucket(at)
		net[i] += api.Nanos(would - spent)
		if missing > 0 {
			unknown = min(unknown, i)
		}
	}
	if err := errors.Join(found.Err(), found.Close()); err != nil {
		return nil, fmt.Errorf("read savings: %w", err)
	}
	segments, err := l.stretches(ctx, from, to, simulated)
	if err != nil {
		return nil, fmt.Errorf("read savings: %w", err)
	}
	out := make(api.Series, buckets)
	var sum api.Nanos
	for i := range out {
		sum += net[i]
		out[i] = math.NaN()
		if i >= unknown {
			continue
		}
		spent, ok := spentUntil(segments, end(i))
		if ok {
			out[i] = (sum - spent).USD()
		}
	}
	return out, nil
}

// spentUntil is what worker time had cost at a moment; false if a part is not known.
func spentUntil(segments []stretch, at int64) (api.Nanos, bool) {
	var total api.Nanos
	for _, s := range segments {
		if s.flat || s.from >= at {
			continue
		}
		if s.rate == nil {
			return 0, false
		}
		total += cost.Share(*s.rate, time.Duration(min(s.until, at)-s.from))
	}
	return total, true
}

// scale is d × i / n without overflow for any period of less than 292 years.
func scale(d time.Duration, i, n int) int64 {
	whole, rest := int64(d)/int64(n), int64(d)%int64(n)
	return whole*int64(i) + rest*int64(i)/int64(n)
}
