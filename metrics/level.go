package metrics

import (
	"math"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// points is how many buckets a window has.
const points = 120

// spans are the windows, shortest first. Each bucket is a whole multiple of the one before.
var spans = []time.Duration{
	time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour,
}

// latency indexes the latencies a bucket keeps.
const (
	lTTFT = iota
	lE2E
	lITL
	lQueue
	latencies
)

// bucket is one step of a window.
type bucket struct {
	count, failed, rejected, cancelled int64
	output, prompt                     int64
	area, covered                      float64 // of in-flight requests over time: request-seconds, seconds
	savings                            float64 // USD at the end; NaN: unknown

	// Of the latencies, what is drawn, kept when the bucket closes; NaN where nothing ended.
	ttft50, ttft95, e2e95, itl95 float64
	closed                       [latencies]packed
}

// level is one window: a ring of buckets whose newest is still open. Bucket numbers count
// from the Unix epoch, so that buckets are fixed to the wall clock.
type level struct {
	size    time.Duration // of a bucket
	ring    [points]bucket
	head    int64 // number of the newest bucket
	open    [latencies]Histogram
	total   [latencies]Histogram // of the whole window; max is not kept here
	scratch []byte
}

// bucketAt is the number of the bucket that t lies in.
func bucketAt(t time.Time, size time.Duration) int64 {
	n := t.UnixNano()
	q := n / int64(size)
	if n%int64(size) < 0 {
		q--
	}
	return q
}

func newLevel(span time.Duration, now time.Time) *level {
	l := &level{size: span / points}
	l.clear(bucketAt(now, l.size), math.NaN())
	return l
}

func (l *level) at(n int64) *bucket { return &l.ring[uint64(n)%points] }

func (l *level) newest() *bucket { return l.at(l.head) }

func (l *level) clear(head int64, savings float64) {
	for i := range l.ring {
		l.ring[i] = empty(math.NaN())
	}
	for i := range l.open {
		l.open[i].Reset()
		l.total[i].Reset()
	}
	l.head = head
	l.newest().savings = savings
}

func empty(savings float64) bucket {
	nan := math.NaN()
	return bucket{savings: savings, ttft50: nan, ttft95: nan, e2e95: nan, itl95: nan}
}

// roll makes n the newest bucket, forgetting what falls out of the window. Savings are a
// running sum, so a new bucket begins where the last one ended.
func (l *level) roll(n int64) {
	savings := l.newest().savings
	if n-l.head >= points {
		l.clear(n, savings)
		return
	}
	for l.head < n {
		l.closeNewest()
		l.head++
		b := l.newest()
		for i := range b.closed {
			l.total[i].forget(b.closed[i])
		}
		*b = empty(savings)
	}
}

// closeNewest packs the open latencies away into the newest bucket.
func (l *level) closeNewest() {
	b := l.newest()
	b.ttft50, b.ttft95, b.e2e95, b.itl95 = l.drawn()
	for i := range l.open {
		if l.open[i].count == 0 {
			b.closed[i] = packed{}
			continue
		}
		b.closed[i], l.scratch = l.open[i].pack(l.scratch)
		l.open[i].Reset()
	}
}

// rewind makes an older bucket the newest again, after the clock was set back: what now lies
// in the future is dropped, the rest stays.
func (l *level) rewind(n int64) {
	if l.head-n >= points {
		l.clear(n, l.newest().savings)
		return
	}
	l.closeNewest()
	savings := l.newest().savings
	for ; l.head > n; l.head-- {
		b := l.newest()
		for i := range b.closed {
			l.total[i].forget(b.closed[i])
		}
		*b = empty(math.NaN())
	}
	b := l.newest()
	for i := range b.closed {
		l.open[i].unpack(b.closed[i])
		b.closed[i] = packed{}
	}
	b.savings = savings
}

func (l *level) observe(i int, d time.Duration) {
	l.open[i].Observe(d)
	l.total[i].Observe(d)
}

// drawn reads the quantiles of the open bucket in seconds.
func (l *level) drawn() (ttft50, ttft95, e2e95, itl95 float64) {
	one := func(i int, q float64) float64 {
		if d, ok := l.open[i].Quantile(q); ok {
			return d.Seconds()
		}
		return math.NaN()
	}
	return one(lTTFT, 0.5), one(lTTFT, 0.95), one(lE2E, 0.95), one(lITL, 0.95)
}

// leastElapsed is the least part of a bucket that a rate is taken over: the first events of a
// bucket that has just begun would otherwise make a spike.
const leastElapsed = 0.25

// window draws the level. Buckets from before start are left off.
func (l *level) window(now, start time.Time, inFlight float64) api.Window {
	first := max(l.head-points+1, bucketAt(start, l.size))
	n := int(l.head - first + 1)
	end := time.Unix(0, (l.head+1)*int64(l.size))
	w := api.Window{
		Span:    api.Span(l.size * points),
		Bucket:  api.Span(l.size),
		End:     end,
		Partial: min(1, max(0, 1-end.Sub(now).Seconds()/l.size.Seconds())),
	}
	var series [10]api.Series
	all := make(api.Series, len(series)*n)
	for i := range series {
		series[i] = all[i*n : (i+1)*n : (i+1)*n]
	}
	b := l.newest()
	b.ttft50, b.ttft95, b.e2e95, b.itl95 = l.drawn()
	for i := range n {
		at := first + int64(i)
		b := l.at(at)
		w.Count += b.count
		w.Failed += b.failed
		w.Rejected += b.rejected
		w.Cancelled += b.cancelled
		dt := l.elapsed(at, start, w.Partial)
		series[0][i] = float64(b.count) / dt
		series[1][i] = float64(b.failed) / dt
		series[2][i] = float64(b.output) / dt
		series[3][i] = float64(b.prompt) / dt
		series[4][i] = math.NaN()
		switch {
		case b.covered > 0:
			series[4][i] = b.area / b.covered
		case at == l.head:
			series[4][i] = inFlight
		}
		series[5][i], series[6][i], series[7][i], series[8][i] = b.ttft50, b.ttft95, b.e2e95, b.itl95
		series[9][i] = b.savings
		if at != l.head && l.begin(at).Compare(start) >= 0 {
			w.PeakOutput = max(w.PeakOutput, series[2][i])
		}
	}
	w.Requests, w.Errors, w.Output, w.Prompt, w.InFlight = series[0], series[1], series[2], series[3], series[4]
	w.TTFT50, w.TTFT95, w.E2E95, w.ITL95, w.Savings = series[5], series[6], series[7], series[8], series[9]
	w.TTFT, w.E2E, w.ITL, w.Queue = l.summary(lTTFT), l.summary(lE2E), l.summary(lITL), l.summary(lQueue)
	return w
}

func (l *level) begin(n int64) time.Time { return time.Unix(0, n*int64(l.size)) }

// elapsed gives the seconds a bucket's rates are taken over: less than its size for the
// newest one and for the one the engine started in.
func (l *level) elapsed(n int64, start time.Time, partial float64) float64 {
	size := l.size.Seconds()
	dt := size
	if n == l.head {
		dt = size * partial
	}
	if late := start.Sub(l.begin(n)).Seconds(); late > 0 {
		dt -= late
	}
	return max(dt, size*leastElapsed)
}

// summary merges the buckets of the window: the p95 of a window is never a mean of p95s.
func (l *level) summary(i int) api.Quantiles {
	h := &l.total[i]
	h.max = l.open[i].max
	for j := range l.ring {
		h.max = max(h.max, l.ring[j].closed[i].max)
	}
	return h.Summary()
}
