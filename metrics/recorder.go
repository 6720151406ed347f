package metrics

import (
	"math"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	// clockBack is how far the clock may step back before buckets in the future are dropped.
	// Smaller steps, and reports that arrive late, go to the newest bucket.
	clockBack = 2 * time.Second
	// gaugeGap is the longest time one sample of the requests in flight stands for.
	gaugeGap = 5 * time.Second
)

// Recorder keeps our own traffic of the last week in windows of 120 buckets. Its memory is
// bounded: a few megabytes, however long it runs. All methods may be called from many
// goroutines. The times given to it should be the present.
type Recorder struct {
	tokens tokens

	mu       sync.Mutex
	start    time.Time
	last     time.Time // of the newest call that moved the buckets
	levels   []*level
	inFlight int
	sampled  time.Time // of inFlight; zero before the first
}

// NewRecorder begins to record. What is drawn begins with the bucket that start lies in.
func NewRecorder(start time.Time) *Recorder {
	start = start.Round(0)
	r := &Recorder{start: start, last: start}
	for _, span := range spans {
		r.levels = append(r.levels, newLevel(span, start))
	}
	return r
}

// Tokens counts completion tokens as they come: one call for each event of a stream. It takes
// a lock only in the first call of a bucket.
func (r *Recorder) Tokens(now time.Time, n int) {
	if n <= 0 {
		return
	}
	bucket := bucketAt(now, r.levels[0].size)
	if r.tokens.add(bucket, int64(n)) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forwardLocked(now)
	r.collectLocked()
	r.tokens.open(bucket)
	if !r.tokens.add(bucket, int64(n)) {
		r.outputLocked(bucket, int64(n)) // another call opened the slot for another bucket
	}
}

// Ended counts a request that has ended. Time to first token is taken of every request that
// had one, the whole duration and the wait of those that ended well. The gaps between tokens
// are known only as each request's mean, so their quantiles are over requests, not over gaps.
func (r *Recorder) Ended(now time.Time, q *api.Request) {
	if q.Outcome == api.OutcomeOpen {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forwardLocked(now)
	ok := q.Outcome == api.OutcomeOK
	for _, l := range r.levels {
		b := l.newest()
		b.count++
		switch q.Outcome {
		case api.OutcomeError, api.OutcomeLost:
			b.failed++
		case api.OutcomeRejected:
			b.rejected++
		case api.OutcomeCancelled:
			b.cancelled++
		}
		if q.UsageSource != api.UsageUnknown {
			b.prompt += max(0, q.Usage.Prompt())
		}
		if q.TTFT > 0 {
			l.observe(lTTFT, time.Duration(q.TTFT))
		}
		if q.ITL > 0 {
			l.observe(lITL, time.Duration(q.ITL))
		}
		if ok && q.Duration > 0 {
			l.observe(lE2E, time.Duration(q.Duration))
		}
		if ok || q.Queue > 0 {
			l.observe(lQueue, time.Duration(q.Queue))
		}
	}
}

// InFlight samples how many requests are in flight; it is meant to be called at each tick.
// Means are over time: each sample stands until the next one, for five seconds at most.
func (r *Recorder) InFlight(now time.Time, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tickLocked(now)
	if dt := r.last.Sub(r.sampled); r.sampled.IsZero() || dt > gaugeGap || dt < 0 {
		r.sampled = r.last
	}
	fine := r.levels[0]
	for t := r.sampled; t.Before(r.last); {
		end := fine.begin(bucketAt(t, fine.size) + 1)
		if end.After(r.last) {
			end = r.last
		}
		dt := end.Sub(t).Seconds()
		for _, l := range r.levels {
			if at := bucketAt(t, l.size); at > l.head-points && at <= l.head {
				b := l.at(at)
				b.area += float64(r.inFlight) * dt
				b.covered += dt
			}
		}
		t = end
	}
	r.inFlight, r.sampled = n, r.last
}

// Savings notes the net savings of the period so far, in USD; nil: not known.
func (r *Recorder) Savings(now time.Time, usd *float64) {
	v := math.NaN()
	if usd != nil {
		v = *usd
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tickLocked(now)
	for _, l := range r.levels {
		l.newest().savings = v
	}
}

// Windows draws all windows, shortest first. The result is the caller's.
//
// Rates of the newest bucket, and of the one the engine started in, are taken over the part
// of it that has passed, at least a quarter.
func (r *Recorder) Windows(now time.Time) []api.Window {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tickLocked(now)
	r.collectLocked()
	out := make([]api.Window, len(r.levels))
	for i, l := range r.levels {
		out[i] = l.window(r.last, r.start, float64(r.inFlight))
	}
	return out
}

// tickLocked follows the clock, also when it was set back.
func (r *Recorder) tickLocked(now time.Time) {
	now = now.Round(0) // buckets belong to the wall clock
	if back := r.last.Sub(now); back > clockBack {
		r.collectLocked()
		for _, l := range r.levels {
			if n := bucketAt(now, l.size); n < l.head {
				l.rewind(n)
			}
		}
		r.last = now
		if now.Before(r.start) {
			r.start = now
		}
		return
	}
	r.forwardLocked(now)
}

func (r *Recorder) forwardLocked(now time.Time) {
	now = now.Round(0)
	if !now.After(r.last) {
		return
	}
	r.last = now
	for _, l := range r.levels {
		if n := bucketAt(now, l.size); n > l.head {
			l.roll(n)
		}
	}
}

func (r *Recorder) collectLocked() { r.tokens.collect(r.outputLocked) }

// outputLocked counts tokens in the bucket of each window that their finest bucket lies in,
// or in the newest where that one is gone or not there yet.
func (r *Recorder) outputLocked(fine, n int64) {
	size := int64(r.levels[0].size)
	for _, l := range r.levels {
		at := fine / (int64(l.size) / size)
		if at > l.head || at <= l.head-points {
			at = l.head
		}
		l.at(at).output += n
	}
}
