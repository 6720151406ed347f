package quality

import (
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	// kept is how many of the newest ratings a Distribution describes.
	kept = 2000
	// maxModels bounds the models listed in a snapshot.
	maxModels = 32
	// trendPoints and trendBucket are those of the 5-minute window of api.Snapshot: buckets of
	// 2.5 s, counted from the Unix epoch.
	trendPoints = 120
	trendBucket = 5 * time.Minute / trendPoints
)

// Distribution keeps the newest 2,000 ratings and describes them. Medians are exact to 0.001
// over the ratings kept, and to 0.01 in the trend. Its methods may be called from many
// goroutines.
type Distribution struct {
	target float64
	start  time.Time

	mu      sync.Mutex
	ring    []rating
	next    int // where the next rating goes, once the ring is full
	all     tally
	length  spread
	coher   spread
	engage  spread
	models  map[string]*tally
	trend   [trendPoints][101]uint16
	trendAt int64 // number of the newest trend bucket
}

// rating is one kept score, in thousandths; -1: not rated.
type rating struct {
	model                               string
	overall, length, coherence, engages int16
	truncated, refused, looping         bool
}

// tally is the distribution of overall health.
type tally struct {
	overall                     spread
	bins                        [10]int64
	truncated, refused, looping int64
}

// spread counts ratings by thousandths.
type spread struct {
	n      int
	counts [1001]int32
}

func (s *spread) add(v int16, by int) {
	if v >= 0 {
		s.n += by
		s.counts[v] += int32(by)
	}
}

// median is the middle rating, or the mean of the two in the middle; nil without any.
func (s *spread) median() *float64 {
	if s.n == 0 {
		return nil
	}
	low, high := (s.n+1)/2, s.n/2+1
	seen, first := 0, -1
	for v, n := range s.counts {
		seen += int(n)
		if first < 0 && seen >= low {
			first = v
		}
		if seen >= high {
			return new(float64(first+v) / 2000)
		}
	}
	return nil // n is the sum of the counts
}

// NewDistribution makes one whose trend begins at start. Target is the health that answers
// should have; it is only shown, until somebody calibrates it.
func NewDistribution(start time.Time, target float64) *Distribution {
	return &Distribution{target: target, start: start, models: map[string]*tally{}, trendAt: bucketAt(start)}
}

// Add keeps a rating of one of model's answers.
func (d *Distribution) Add(now time.Time, model string, s Score) {
	r := rating{
		model: model, overall: thousandths(s.Overall), length: thousandths(s.Length),
		coherence: thousandths(s.Coherence), engages: thousandths(s.Engagement),
		truncated: s.Truncated, refused: s.Refused, looping: s.Looping,
	}
	if r.overall < 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ring) < kept {
		d.ring = append(d.ring, r)
	} else {
		d.count(d.ring[d.next], -1)
		d.ring[d.next] = r
		d.next = (d.next + 1) % kept
	}
	d.count(r, 1)
	d.rollLocked(now)
	d.trend[uint64(d.trendAt)%trendPoints][(r.overall+5)/10]++
}

func (d *Distribution) count(r rating, by int) {
	m := d.models[r.model]
	if m == nil {
		m = &tally{}
		d.models[r.model] = m
	}
	for _, t := range []*tally{&d.all, m} {
		t.overall.add(r.overall, by)
		t.bins[min(r.overall/100, 9)] += int64(by)
		t.truncated += yes(r.truncated) * int64(by)
		t.refused += yes(r.refused) * int64(by)
		t.looping += yes(r.looping) * int64(by)
	}
	if m.overall.n == 0 {
		delete(d.models, r.model)
	}
	d.length.add(r.length, by)
	d.coher.add(r.coherence, by)
	d.engage.add(r.engages, by)
}

// rollLocked makes the trend's newest bucket that of now. After the clock was set back the
// trend begins again.
func (d *Distribution) rollLocked(now time.Time) {
	n := bucketAt(now)
	if n < d.trendAt-1 || n-d.trendAt >= trendPoints {
		d.trend = [trendPoints][101]uint16{}
		d.trendAt = n
		if now.Before(d.start) {
			d.start = now
		}
	}
	for d.trendAt < n {
		d.trendAt++
		d.trend[uint64(d.trendAt)%trendPoints] = [101]uint16{}
	}
}

// Answers describes the ratings kept. Its trend has a point for each bucket of the 5-minute
// window since the start, the newest still filling.
func (d *Distribution) Answers(now time.Time) api.Answers {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rollLocked(now)
	a := api.Answers{
		Rated: int64(d.all.overall.n), Bins: d.all.bins, Median: d.all.overall.median(), Target: d.target,
		Length: d.length.median(), Coherence: d.coher.median(), Engagement: d.engage.median(),
		Truncated: d.all.truncated, Refused: d.all.refused, Looping: d.all.looping,
		Trend: d.trendLocked(),
	}
	for name, t := range d.models {
		a.ByModel = append(a.ByModel, api.ModelAnswers{Model: name, Rated: int64(t.overall.n), Median: t.overall.median(), Bins: t.bins})
	}
	slices.SortFunc(a.ByModel, func(x, y api.ModelAnswers) int {
		if x.Rated != y.Rated {
			return int(y.Rated - x.Rated)
		}
		return strings.Compare(x.Model, y.Model)
	})
	a.ByModel = a.ByModel[:min(len(a.ByModel), maxModels)]
	return a
}

func (d *Distribution) trendLocked() api.Series {
	first := max(d.trendAt-trendPoints+1, min(bucketAt(d.start), d.trendAt))
	out := make(api.Series, 0, d.trendAt-first+1)
	for n := first; n <= d.trendAt; n++ {
		out = append(out, middle(&d.trend[uint64(n)%trendPoints]))
	}
	return out
}

// middle is the lower median of counts by hundredths, NaN without any.
func middle(counts *[101]uint16) float64 {
	n := 0
	for _, c := range counts {
		n += int(c)
	}
	seen := 0
	for v, c := range counts {
		if seen += int(c); n > 0 && seen >= (n+1)/2 {
			return float64(v) / 100
		}
	}
	return math.NaN()
}

func bucketAt(t time.Time) int64 { return t.UnixNano() / int64(trendBucket) }

func thousandths(v float64) int16 {
	if !(v >= 0 && v <= 1) {
		return -1
	}
	return int16(math.Round(v * 1000))
}

func yes(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
