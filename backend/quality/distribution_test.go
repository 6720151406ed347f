package quality

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// noon is on a boundary of the trend's buckets.
var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func scored(v float64) Score {
	return Score{Overall: v, Length: v, Coherence: v, Engagement: v}
}

func TestDistributionDescribesWhatItKeeps(t *testing.T) {
	d := NewDistribution(noon, 0.8)
	r := rand.New(rand.NewPCG(1, 2))
	var all []float64
	for range 5001 {
		v := r.Float64()
		all = append(all, v)
		s := scored(v)
		s.Truncated, s.Refused, s.Looping = v < 0.1, v < 0.2, v < 0.3
		d.Add(noon, "m", s)
	}
	all = all[len(all)-kept:]
	var bins [10]int64
	var truncated, refused, looping int64
	for _, v := range all {
		bins[min(int(math.Round(v*1000))/100, 9)]++
		truncated += yes(v < 0.1)
		refused += yes(v < 0.2)
		looping += yes(v < 0.3)
	}
	slices.Sort(all)
	median := (all[kept/2-1] + all[kept/2]) / 2
	a := d.Answers(noon)
	if a.Rated != kept || a.Bins != bins {
		t.Errorf("rated %d in %v, want the newest %d in %v", a.Rated, a.Bins, kept, bins)
	}
	for name, got := range map[string]*float64{"median": a.Median, "length": a.Length, "coherence": a.Coherence, "engagement": a.Engagement} {
		if got == nil || math.Abs(*got-median) > 0.0011 {
			t.Errorf("%s = %v, want %.4f", name, got, median)
		}
	}
	if a.Truncated != truncated || a.Refused != refused || a.Looping != looping {
		t.Errorf("truncated %d refused %d looping %d, want %d %d %d", a.Truncated, a.Refused, a.Looping, truncated, refused, looping)
	}
	if a.Target != 0.8 || a.Calibrated {
		t.Errorf("target %v calibrated %v, want 0.8 and false", a.Target, a.Calibrated)
	}
}

func TestNothingRatedIsUnknown(t *testing.T) {
	a := NewDistribution(noon, 0.8).Answers(noon)
	if a.Rated != 0 || a.Median != nil || a.Coherence != nil || len(a.ByModel) != 0 || len(a.Trend) != 1 || !math.IsNaN(a.Trend[0]) {
		t.Errorf("Answers of nothing = %+v, want all unknown", a)
	}
}

func TestForeignAnswersHaveHealthButNoEnglishParts(t *testing.T) {
	d := NewDistribution(noon, 0.8)
	d.Add(noon, "m", Score{Overall: 0.9, Length: 0.7, Coherence: math.NaN(), Engagement: math.NaN()})
	a := d.Answers(noon)
	if a.Rated != 1 || *a.Median != 0.9 || *a.Length != 0.7 || a.Coherence != nil || a.Engagement != nil {
		t.Errorf("Answers = %+v, want health and length alone", a)
	}
}

func TestModelsAreApartAndLeaveWithTheirLastRating(t *testing.T) {
	d := NewDistribution(noon, 0.8)
	d.Add(noon, "old", scored(0.1))
	for range 3 {
		d.Add(noon, "a", scored(0.5))
	}
	d.Add(noon, "b", scored(0.95))
	by := d.Answers(noon).ByModel
	if len(by) != 3 || by[0].Model != "a" || by[0].Rated != 3 || *by[0].Median != 0.5 || by[1].Model != "b" || by[1].Bins[9] != 1 {
		t.Errorf("by model = %+v, want a (3), then b and old", by)
	}
	for range kept {
		d.Add(noon, "a", scored(0.5))
	}
	if by := d.Answers(noon).ByModel; len(by) != 1 || by[0].Rated != kept {
		t.Errorf("by model = %+v, want a alone", by)
	}
	for i := range 100 {
		d.Add(noon, fmt.Sprint("m", i), scored(0.5))
	}
	if by := d.Answers(noon).ByModel; len(by) != maxModels {
		t.Errorf("%d models listed, want at most %d", len(by), maxModels)
	}
}

func TestTrendIsAlignedWithTheFiveMinuteWindow(t *testing.T) {
	d := NewDistribution(noon.Add(time.Second), 0.8)
	d.Add(noon.Add(2*time.Second), "m", scored(0.2))
	d.Add(noon.Add(2*time.Second), "m", scored(0.4))
	d.Add(noon.Add(2*time.Second), "m", scored(0.9))
	d.Add(noon.Add(6*time.Second), "m", scored(0.7))
	got := d.Answers(noon.Add(7600 * time.Millisecond)).Trend
	if len(got) != 4 || got[0] != 0.4 || !math.IsNaN(got[1]) || got[2] != 0.7 || !math.IsNaN(got[3]) {
		t.Errorf("trend = %v, want 0.4, unknown, 0.7, unknown", got)
	}
	if got := d.Answers(noon.Add(time.Hour)).Trend; len(got) != trendPoints || !math.IsNaN(got[0]) {
		t.Errorf("an hour later: %d points beginning %v, want 120 unknown ones", len(got), got[0])
	}
	// The clock is set back to before the start.
	d.Add(noon.Add(-time.Hour), "m", scored(0.6))
	if got := d.Answers(noon.Add(-time.Hour)).Trend; len(got) != 1 || got[0] != 0.6 {
		t.Errorf("trend after the clock was set back = %v, want 0.6 alone", got)
	}
}

func BenchmarkAnswers(b *testing.B) {
	d := NewDistribution(noon, 0.8)
	for i := range 3000 {
		d.Add(noon.Add(time.Duration(i)*100*time.Millisecond), fmt.Sprint("m", i%4), scored(float64(i%1000)/1000))
	}
	b.ReportAllocs()
	for b.Loop() {
		d.Answers(noon.Add(5 * time.Minute))
	}
}
