package metrics

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestCellsAreContiguousAndRise(t *testing.T) {
	last := -1
	for us := range uint64(1 << 14) {
		c := cell(us)
		if c != last && c != last+1 {
			t.Fatalf("cell(%d) = %d after %d, want the same or the next", us, c, last)
		}
		last = c
	}
	if got := cell(maxMicros); got != cells-1 {
		t.Errorf("cell(%d) = %d, want the last, %d", uint64(maxMicros), got, cells-1)
	}
}

func TestMiddleIsWithinTwoPercent(t *testing.T) {
	for us := uint64(1); us < maxMicros; us += 1 + us/97 {
		if got := middle(cell(us)); math.Abs(got-float64(us)) > 0.02*float64(us) {
			t.Fatalf("middle(cell(%d)) = %.1f, want within 2 %%", us, got)
		}
	}
}

func TestQuantilesAreWithinTwoPercentOfTheTruth(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var h, a, b Histogram
	var all []time.Duration
	for i := range 20_000 {
		d := time.Duration(math.Exp(r.NormFloat64()*2) * float64(50*time.Millisecond))
		all = append(all, d)
		h.Observe(d)
		if i%3 == 0 {
			a.Observe(d)
		} else {
			b.Observe(d)
		}
	}
	a.Merge(&b)
	if a != h {
		t.Error("two merged halves differ from the whole")
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.95, 0.99, 0.999, 1} {
		want := all[rank(q, uint64(len(all)))-1]
		got, ok := h.Quantile(q)
		if !ok || math.Abs(float64(got-want)) > 0.02*float64(want)+500 {
			t.Errorf("Quantile(%v) = %v, %v, want %v ±2 %% ±0.5µs", q, got, ok, want)
		}
	}
}

func TestSummaryIsExactWhereItCanBe(t *testing.T) {
	var h Histogram
	if s := h.Summary(); s.Count != 0 || s.Mean != nil || s.P95 != nil || s.Max != nil {
		t.Errorf("Summary of nothing = %+v, want no values", s)
	}
	h.Observe(100 * time.Millisecond)
	h.Observe(300 * time.Millisecond)
	h.Observe(-time.Second)
	s := h.Summary()
	if s.Count != 3 || math.Abs(*s.Mean-0.4/3) > 1e-9 || *s.Max != 0.3 {
		t.Errorf("Summary = count %d mean %v max %v, want 3, %v, 0.3", s.Count, *s.Mean, *s.Max, 0.4/3)
	}
	if *s.P99 > *s.Max {
		t.Errorf("p99 %v is above the maximum %v", *s.P99, *s.Max)
	}
	h.Observe(48 * time.Hour)
	if s := h.Summary(); *s.Max < 3600 || *s.Max > 4300 {
		t.Errorf("Max with a two-day value = %v s, want the top of the range, about 4295", *s.Max)
	}
}

func TestForgetUndoesUnpack(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var kept, gone, both Histogram
	for range 5000 {
		kept.Observe(time.Duration(r.ExpFloat64() * float64(time.Second)))
		gone.Observe(time.Duration(r.ExpFloat64() * float64(20*time.Millisecond)))
	}
	p, _ := gone.pack(nil)
	both.Merge(&kept)
	both.unpack(p)
	if both.Count() != 10_000 {
		t.Fatalf("Count = %d, want 10000", both.Count())
	}
	both.forget(p)
	both.max = kept.max
	if both != kept {
		t.Error("unpack then forget did not give back the histogram")
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	var h Histogram
	if got := testing.AllocsPerRun(100, func() { h.Observe(time.Second) }); got != 0 {
		t.Errorf("Observe allocates %v times, want 0", got)
	}
}

func BenchmarkObserve(b *testing.B) {
	var h Histogram
	for i := 0; b.Loop(); i++ {
		h.Observe(time.Duration(i))
	}
}
