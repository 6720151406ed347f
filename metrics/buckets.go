package metrics

import (
	"math"
	"slices"
)

// Buckets is a histogram as vLLM exports it, summed over engines. Its bounds come from the
// scrape: they differ between versions, and --custom-histogram-buckets replaces them.
type Buckets struct {
	Bounds []float64 // upper bounds, rising; the last is +Inf
	Counts []float64 // cumulative, one per bound
	Sum    float64   // of all observed values, in the metric's unit
}

// Count is the number of observations.
func (b *Buckets) Count() float64 {
	if b == nil || len(b.Counts) == 0 {
		return 0
	}
	return b.Counts[len(b.Counts)-1]
}

// Estimate is a quantile read off buckets. The first and the last bucket cannot be
// interpolated honestly: vLLM's first queue-time bound is 0.3 s, where the truth is often
// 1 ms. There Value is the bound, and Low or High says that the truth lies below or above it.
type Estimate struct {
	Value float64 // in the metric's unit
	Low   bool    // in the first bucket: the truth is at most Value
	High  bool    // past the last finite bound: the truth is more than Value
	Mean  float64 // of the same observations: exact
	Count float64 // observations
}

// Quantile estimates the q-quantile (0..1) by linear interpolation inside the bucket, as
// Prometheus' histogram_quantile does. False where there is no observation.
func (b *Buckets) Quantile(q float64) (Estimate, bool) {
	n := b.Count()
	if n <= 0 || len(b.Bounds) < 2 {
		return Estimate{}, false
	}
	e := Estimate{Mean: b.Sum / n, Count: n}
	rank := min(max(q, 0), 1) * n
	i := 0
	for i < len(b.Counts)-1 && b.Counts[i] < rank {
		i++
	}
	switch i {
	case 0:
		e.Value, e.Low = b.Bounds[0], true
	case len(b.Bounds) - 1:
		e.Value, e.High = b.Bounds[i-1], true
	default:
		lo, hi := b.Bounds[i-1], b.Bounds[i]
		below, within := b.Counts[i-1], b.Counts[i]-b.Counts[i-1]
		e.Value = lo
		if within > 0 {
			e.Value += (hi - lo) * (rank - below) / within
		}
	}
	return e, true
}

// Most is a bound that the q-quantile (0..1) is not above: that of its bucket. False where there is no
// observation, or no bound.
func (b *Buckets) Most(q float64) (float64, bool) {
	n := b.Count()
	if n <= 0 {
		return 0, false
	}
	rank := min(max(q, 0), 1) * n
	for i, c := range b.Counts {
		if c >= rank {
			return b.Bounds[i], !math.IsInf(b.Bounds[i], 1)
		}
	}
	return 0, false
}

// normalise sorts the bounds, makes the counts rise and ends with +Inf. What cannot be a
// histogram becomes nil.
func (b *Buckets) normalise(total float64) *Buckets {
	type bucket struct{ bound, count float64 }
	all := make([]bucket, 0, len(b.Bounds)+1)
	for i, bound := range b.Bounds {
		if !math.IsNaN(bound) && sane(b.Counts[i]) {
			all = append(all, bucket{bound, b.Counts[i]})
		}
	}
	slices.SortFunc(all, func(x, y bucket) int {
		switch {
		case x.bound < y.bound:
			return -1
		case x.bound > y.bound:
			return 1
		}
		return 0
	})
	if len(all) > 0 && !math.IsInf(all[len(all)-1].bound, 1) {
		all = append(all, bucket{math.Inf(1), total})
	}
	if len(all) < 2 || !sane(b.Sum) {
		return nil
	}
	out := &Buckets{Bounds: make([]float64, len(all)), Counts: make([]float64, len(all)), Sum: b.Sum}
	for i, v := range all {
		out.Bounds[i], out.Counts[i] = v.bound, v.count
		if i > 0 && v.count < out.Counts[i-1] {
			out.Counts[i] = out.Counts[i-1]
		}
	}
	return out
}

// add adds the counts of another engine. False where the bounds differ: such histograms
// cannot be merged.
func (b *Buckets) add(o *Buckets) bool {
	if !slices.Equal(b.Bounds, o.Bounds) {
		return false
	}
	for i := range b.Counts {
		b.Counts[i] += o.Counts[i]
	}
	b.Sum += o.Sum
	return true
}

// sane says whether v can be a counter's value.
func sane(v float64) bool { return v >= 0 && v < math.MaxInt64 }
