package metrics

import (
	"math"
	"testing"
	"time"
)

// scrape is a sample after so many tokens, steps and requests with this time to first token.
func scrape(tokens, steps, fast, slow float64) *Sample {
	return &Sample{
		Started: noon, Created: 1,
		Generation: &tokens, Steps: &steps, Prompt: new(10 * tokens), Preemptions: new(0.0),
		Queries: new(10 * tokens), Hits: new(4 * tokens),
		TTFT: &Buckets{Bounds: []float64{0.1, 1, math.Inf(1)}, Counts: []float64{fast, fast + slow, fast + slow}, Sum: slow},
	}
}

func at(s int) time.Time { return noon.Add(time.Duration(s) * time.Second) }

func TestRatesNeedTwoScrapes(t *testing.T) {
	var tr Tracker
	if r := tr.Rates(at(0)); r != (Rates{}) {
		t.Errorf("Rates before any scrape = %+v, want all unknown", r)
	}
	tr.Add(at(0), scrape(1000, 10, 5, 5))
	if r := tr.Rates(at(0)); r != (Rates{}) {
		t.Errorf("Rates after one scrape = %+v, want all unknown", r)
	}
}

func TestRatesAreOverTheTimeBetweenScrapes(t *testing.T) {
	var tr Tracker
	tr.Add(at(0), scrape(1000, 10, 0, 0))
	tr.Add(at(1), scrape(1100, 12, 0, 0))
	// Seconds 2 to 9 were missed: a gap, not zeros.
	tr.Add(at(10), scrape(2000, 30, 80, 20))
	r := tr.Rates(at(10))
	want(t, "out", r.Out, 100)
	want(t, "in", r.In, 1000)
	want(t, "preemptions", r.Preempt, 0)
	want(t, "prefix", r.Prefix, 0.4)
	want(t, "steps", r.Steps, 2)
	if r.TTFT95 == nil || math.Abs(r.TTFT95.Value-0.775) > 1e-9 || r.TTFT95.Low {
		t.Errorf("ttft p95 = %+v, want 0.775: three quarters into the second bucket", r.TTFT95)
	}
	if r.ITL95 != nil {
		t.Errorf("itl p95 = %+v without such a metric, want unknown", r.ITL95)
	}
	if got := tr.Steps(); got != 20 {
		t.Errorf("Steps = %v, want 20 since the first scrape", got)
	}
}

func TestAPaceIsOfTheLastTenSeconds(t *testing.T) {
	var tr Tracker
	for s := range 61 {
		tokens := 100 * min(float64(s), 45) // busy for 45 s, then quiet
		tr.Add(at(s), scrape(tokens, float64(s)/100, 0, 0))
		switch s {
		case 44:
			want(t, "out while busy", tr.Rates(at(s)).Out, 100)
		case 50:
			want(t, "out 5 s after the end", tr.Rates(at(s)).Out, 50)
		case 60:
			want(t, "out 15 s after the end", tr.Rates(at(s)).Out, 0)
		}
	}
}

func TestRatesForgetAfterAMinute(t *testing.T) {
	var tr Tracker
	for s := range 200 {
		tokens := 100.0 * float64(s)
		if s > 100 {
			tokens = 100 * 100
		}
		tr.Add(at(s), scrape(tokens, 0, float64(s), 0))
	}
	r := tr.Rates(at(199))
	want(t, "out", r.Out, 0)
	if r.TTFT95 == nil || !r.TTFT95.Low || r.TTFT95.Value != 0.1 || r.TTFT95.Count > 66 {
		t.Errorf("ttft p95 = %+v, want <0.1 over the last minute's requests", r.TTFT95)
	}
	if r.Prefix != nil {
		t.Errorf("prefix = %v without lookups, want unknown", *r.Prefix)
	}
	if len(tr.points) > 67 {
		t.Errorf("%d scrapes are kept, want about a minute", len(tr.points))
	}
}

func TestStaleScrapesSayNothing(t *testing.T) {
	var tr Tracker
	tr.Add(at(0), scrape(0, 0, 0, 0))
	tr.Add(at(1), scrape(100, 0, 0, 0))
	if r := tr.Rates(at(30)); r != (Rates{}) {
		t.Errorf("Rates 29 s after the last scrape = %+v, want all unknown", r)
	}
}

func TestResetCountsThePresentValueAlone(t *testing.T) {
	for name, change := range map[string]func(*Sample){
		"process start": func(s *Sample) { s.Started = noon.Add(time.Hour) },
		"created":       func(s *Sample) { s.Created = 2 },
		"falling":       func(s *Sample) {},
	} {
		var tr Tracker
		tr.Add(at(0), scrape(1000, 100, 500, 500))
		tr.Add(at(10), scrape(2000, 200, 500, 500))
		s := scrape(300, 30, 10, 0)
		if name != "falling" { // grew past the old value: only the times give it away
			s = scrape(2300, 230, 510, 500)
		}
		change(s)
		tr.Add(at(20), s)
		r := tr.Rates(at(20))
		out := *s.Generation / 10
		want(t, name+": out", r.Out, out)
		if got, w := tr.Steps(), 100+*s.Steps; got != w {
			t.Errorf("%s: Steps = %v, want %v", name, got, w)
		}
		if got := r.TTFT95.Count; got != s.TTFT.Count() {
			t.Errorf("%s: ttft over %v requests, want those since the reset, %v", name, got, s.TTFT.Count())
		}
	}
}

func TestOtherBoundsStartTheHistogramAnew(t *testing.T) {
	var tr Tracker
	tr.Add(at(0), scrape(0, 0, 10, 10))
	s := scrape(10, 0, 0, 0)
	s.TTFT = &Buckets{Bounds: []float64{5, math.Inf(1)}, Counts: []float64{30, 40}}
	tr.Add(at(1), s)
	if r := tr.Rates(at(1)); r.TTFT95 != nil {
		t.Errorf("ttft p95 over two kinds of buckets = %+v, want unknown", r.TTFT95)
	}
	s2 := scrape(20, 0, 0, 0)
	s2.TTFT = &Buckets{Bounds: []float64{5, math.Inf(1)}, Counts: []float64{31, 41}}
	tr.Add(at(2), s2)
	if got := tr.totals.buckets[hTTFT].Count(); got != 1 {
		t.Errorf("ttft after the change counts %v, want 1", got)
	}
}

func TestMovedSeesStepsAndPrefill(t *testing.T) {
	var tr Tracker
	s := scrape(0, 0, 0, 0)
	s.KV = new(0.1)
	tr.Add(at(0), s)
	tr.Add(at(1), s)
	if got := tr.Moved(); !got.IsZero() {
		t.Errorf("Moved = %v of a frozen engine, want never", got)
	}
	prefill := scrape(0, 0, 0, 0)
	prefill.KV = new(0.2)
	tr.Add(at(2), prefill)
	if got := tr.Moved(); !got.Equal(at(2)) {
		t.Errorf("Moved = %v, want the scrape in which KV usage changed", got)
	}
}

func TestScrapesOutOfOrderAreIgnored(t *testing.T) {
	var tr Tracker
	tr.Add(at(5), scrape(100, 0, 0, 0))
	tr.Add(at(5), scrape(900, 0, 0, 0))
	tr.Add(at(4), scrape(900, 0, 0, 0))
	tr.Add(at(6), nil)
	tr.Add(at(6), scrape(150, 0, 0, 0))
	want(t, "out", tr.Rates(at(6)).Out, 50)
}

func TestTotalsGoOnOverAResetAndDraftsAreRated(t *testing.T) {
	var tr Tracker
	page := func(n float64) *Sample {
		return &Sample{
			Finished: map[string]float64{"stop": 3 * n, "length": n}, Drafted: new(100 * n), Accepted: new(25 * n), Preemptions: new(2 * n),
			PromptLen: &Buckets{Bounds: []float64{10, 100, math.Inf(1)}, Counts: []float64{0, n, n}, Sum: 50 * n},
		}
	}
	tr.Add(at(0), page(10))
	tr.Add(at(10), page(14))
	tr.Add(at(20), page(3)) // it began anew
	got := tr.Totals()
	want(t, "finished", got.Finished, 4*(4+3))
	want(t, "at length", got.Length, 4+3)
	want(t, "drafted", got.Drafted, 100*(4+3))
	want(t, "preemptions", got.Preemptions, 2*(4+3))
	want(t, "acceptance", tr.Rates(at(20)).Accept, 0.25)
	if got.Generated != nil || got.AnswerLen != nil {
		t.Errorf("generated %v, answers %v, want unknown what no page has", got.Generated, got.AnswerLen)
	}
	if most, ok := got.PromptLen.Most(0.99); !ok || most != 100 || got.PromptLen.Count() != 7 {
		t.Errorf("99 of 100 prompts have at most %v tokens (%v), of %v; want 100, of 7", most, ok, got.PromptLen.Count())
	}
}

func TestMostIsABoundAndNoGuess(t *testing.T) {
	b := &Buckets{Bounds: []float64{1, 10, math.Inf(1)}, Counts: []float64{1, 8, 10}}
	for _, c := range []struct {
		q    float64
		want float64
		ok   bool
	}{{0.05, 1, true}, {0.8, 10, true}, {0.81, math.Inf(1), false}} {
		if got, ok := b.Most(c.q); got != c.want || ok != c.ok {
			t.Errorf("Most(%v) = %v, %v; want %v, %v", c.q, got, ok, c.want, c.ok)
		}
	}
	if _, ok := (*Buckets)(nil).Most(0.5); ok {
		t.Error("a bound of nothing")
	}
}
