package metrics

import (
	"encoding/binary"
	"math/bits"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	// subBits divides each power of two into 32 equal steps: a step is at most 1/32 of the
	// values in it, so its middle is at most 1.6 % away from them.
	subBits = 5
	subs    = 1 << subBits
	// maxMicros is the last value that is told apart, a little over an hour.
	maxMicros = 1<<32 - 1
	// cells is how many steps there are from 0 to maxMicros.
	cells = (32-subBits)*subs + subs
)

// Histogram is a digest of durations from 1 µs to 71 minutes. Quantiles are at most 2 % and
// half a microsecond off; mean, count and maximum are exact, except that longer durations
// count as 71 minutes. The zero value is empty and ready. It is not safe for concurrent use.
// Observe allocates nothing.
type Histogram struct {
	cells [cells]uint64
	count uint64
	sum   int64 // ns
	max   time.Duration
}

// cell gives the step a number of microseconds falls into: exact below 64 µs, then 32 steps
// per power of two.
func cell(us uint64) int {
	if us < subs {
		return int(us)
	}
	shift := bits.Len64(us) - 1 - subBits
	return (shift+1)<<subBits + int(us>>shift) - subs
}

// middle is the representative of a step in microseconds.
func middle(i int) float64 {
	if i < 2*subs {
		return float64(i)
	}
	shift := i>>subBits - 1
	low := uint64(i&(subs-1)+subs) << shift
	return float64(low) + float64(uint64(1)<<shift-1)/2
}

// Observe counts a duration. Negative ones count as 0.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	us := min(uint64((d+500)/time.Microsecond), maxMicros)
	h.cells[cell(us)]++
	h.count++
	h.sum += int64(min(d, maxMicros*time.Microsecond))
	h.max = max(h.max, min(d, maxMicros*time.Microsecond))
}

// Merge adds the observations of o.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.cells {
		h.cells[i] += n
	}
	h.count += o.count
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

// Reset forgets everything.
func (h *Histogram) Reset() { *h = Histogram{} }

// Count is the number of observations.
func (h *Histogram) Count() uint64 { return h.count }

// Quantile gives the q-quantile (0..1) by nearest rank, never more than the greatest
// observation. False where there is none.
func (h *Histogram) Quantile(q float64) (time.Duration, bool) {
	var out [1]time.Duration
	ok := h.quantiles([]float64{q}, out[:])
	return out[0], ok
}

// quantiles reads several quantiles, given in rising order, in one pass.
func (h *Histogram) quantiles(qs []float64, out []time.Duration) bool {
	if h.count == 0 {
		return false
	}
	var seen uint64
	next := 0
	for i := 0; i < cells && next < len(qs); i++ {
		if h.cells[i] == 0 {
			continue
		}
		seen += h.cells[i]
		for next < len(qs) && seen >= rank(qs[next], h.count) {
			out[next] = min(time.Duration(middle(i)*float64(time.Microsecond)), h.max)
			next++
		}
	}
	return true
}

// rank is the position of a quantile among n sorted observations, from 1.
func rank(q float64, n uint64) uint64 {
	r := uint64(min(max(q, 0), 1)*float64(n) + 0.999999)
	return min(max(r, 1), n)
}

// Summary gives count, mean, median, p95, p99 and maximum in seconds.
func (h *Histogram) Summary() api.Quantiles {
	q := api.Quantiles{Count: int64(h.count)}
	var at [3]time.Duration
	if !h.quantiles([]float64{0.5, 0.95, 0.99}, at[:]) {
		return q
	}
	q.Mean = new(float64(h.sum) / float64(h.count) / 1e9)
	q.P50, q.P95, q.P99 = new(at[0].Seconds()), new(at[1].Seconds()), new(at[2].Seconds())
	q.Max = new(h.max.Seconds())
	return q
}

// packed is a histogram that is only kept to be forgotten again: pairs of varints, the gap
// to the next step in use and its count. A bucket of real traffic is some hundred bytes in
// place of 7 kB.
type packed struct {
	pairs []byte
	count uint64
	sum   int64
	max   time.Duration
}

// pack gives h in short.
func (h *Histogram) pack(scratch []byte) (packed, []byte) {
	p := packed{count: h.count, sum: h.sum, max: h.max}
	if h.count == 0 {
		return p, scratch
	}
	scratch = scratch[:0]
	last := 0
	for i, n := range h.cells {
		if n > 0 {
			scratch = binary.AppendUvarint(scratch, uint64(i-last))
			scratch = binary.AppendUvarint(scratch, n)
			last = i
		}
	}
	p.pairs = append(make([]byte, 0, len(scratch)), scratch...)
	return p, scratch
}

// each calls do for each step in use.
func (p packed) each(do func(i int, n uint64)) {
	i := 0
	for b := p.pairs; len(b) > 0; {
		gap, n := binary.Uvarint(b)
		b = b[n:]
		count, n := binary.Uvarint(b)
		b = b[n:]
		i += int(gap)
		do(i, count)
	}
}

// forget takes the observations of p out of h again. The maximum is not known afterwards:
// the caller sets it.
func (h *Histogram) forget(p packed) {
	p.each(func(i int, n uint64) { h.cells[i] -= n })
	h.count -= p.count
	h.sum -= p.sum
}

// unpack adds the observations of p to h.
func (h *Histogram) unpack(p packed) {
	p.each(func(i int, n uint64) { h.cells[i] += n })
	h.count += p.count
	h.sum += p.sum
	h.max = max(h.max, p.max)
}
