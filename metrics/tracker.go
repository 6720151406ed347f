package metrics

import (
	"slices"
	"time"
)

const (
	// rateWindow is the past that Rates looks at.
	rateWindow = time.Minute
	// rateRecent is what a pace is taken over: long enough for a steady number, short enough
	// that a worker that has just gone quiet shows it. A scrape every 5 s still covers it.
	rateRecent = 10 * time.Second
	// rateSlack keeps the scrape just before the window, so that a scrape every 5 s still
	// covers the whole minute.
	rateSlack = 6 * time.Second
	// rateStale is when the newest scrape is too old to speak about now: three idle scrapes.
	rateStale = 15 * time.Second
	// rateLeast is the shortest time a rate is taken over.
	rateLeast = 500 * time.Millisecond
)

// Tracker turns the scrapes of one vLLM server into rates. There is one per incarnation of a
// worker: nothing is ever subtracted across a restart of ours. A server that restarts
// unseen, as an attached one can, is noticed by its counters. It is not safe for concurrent
// use.
type Tracker struct {
	last   *Sample
	totals totals
	points []point // oldest first

	moved time.Time
}

// counter indexes the counters that are followed.
type counter int

const (
	cGeneration counter = iota
	cPrompt
	cPreempt
	cQueries
	cHits
	cSteps
	cFinished
	cLength
	cDrafted
	cAccepted
	counters
)

// histogram indexes the histograms that are followed.
const (
	hTTFT = iota
	hITL
	hE2E
	hQueue
	hPromptLen
	hAnswerLen
	histograms
)

// totals only ever rise: they go on over a reset of the server's counters.
type totals struct {
	counters [counters]float64
	known    [counters]bool
	buckets  [histograms]*Buckets // nil: not exported. Replaced, never changed
}

type point struct {
	at time.Time
	totals
}

// Rates describe the last minute, paces the last ten seconds. What the scrapes do not tell is nil.
type Rates struct {
	Out     *float64 // tokens generated per second, last ten seconds
	In      *float64 // prompt tokens per second, cached ones included, last ten seconds
	Steps   *float64 // engine steps per second, last ten seconds
	Preempt *float64 // preemptions per second
	Prefix  *float64 // share of prompt tokens found in the prefix cache, 0..1
	Accept  *float64 // share of drafted tokens that the model took, 0..1

	TTFT95  *Estimate // seconds
	ITL95   *Estimate // seconds
	E2E95   *Estimate // seconds
	Queue95 *Estimate // seconds
}

// Add takes a scrape made at the given time. A scrape that is not newer than the last one
// is ignored.
func (t *Tracker) Add(at time.Time, s *Sample) {
	if s == nil {
		return
	}
	if n := len(t.points); n > 0 && !at.After(t.points[n-1].at) {
		return
	}
	if t.progressed(s) {
		t.moved = at
	}
	t.advance(s)
	t.last = s
	t.points = append(t.points, point{at, t.totals})
	old := at.Add(-rateWindow - rateSlack)
	keep := slices.IndexFunc(t.points, func(p point) bool { return p.at.After(old) })
	t.points = slices.Delete(t.points, 0, keep)
}

// Last gives the newest scrape, nil before the first.
func (t *Tracker) Last() *Sample { return t.last }

// Steps gives the engine steps seen since the first scrape. It counts only steps that
// returned output: a long prefill shows in Moved, not here.
func (t *Tracker) Steps() float64 { return t.totals.counters[cSteps] }

// Totals are counts since the first scrape, which go on over a reset of the server. What it does not tell is nil.
type Totals struct {
	Preemptions *float64
	Finished    *float64 // requests
	Length      *float64 // of Finished, those that ended at a limit of their length
	Drafted     *float64 // tokens
	Accepted    *float64 // of Drafted
	Generated   *float64 // tokens

	PromptLen *Buckets // tokens of requests that ended
	AnswerLen *Buckets
}

// Totals gives what has been counted since the first scrape.
func (t *Tracker) Totals() Totals {
	of := func(c counter) *float64 {
		if !t.totals.known[c] {
			return nil
		}
		v := t.totals.counters[c]
		return &v
	}
	return Totals{
		Preemptions: of(cPreempt), Finished: of(cFinished), Length: of(cLength), Drafted: of(cDrafted), Accepted: of(cAccepted), Generated: of(cGeneration),
		PromptLen: t.totals.buckets[hPromptLen], AnswerLen: t.totals.buckets[hAnswerLen],
	}
}

// Moved gives when a scrape last showed the engine at work: a step, a token, or a change of
// KV usage, which moves on every step, prefill chunks included. Gauges of a hung engine
// freeze. Zero until something moved.
func (t *Tracker) Moved() time.Time { return t.moved }

func (t *Tracker) progressed(s *Sample) bool {
	if t.last == nil {
		return false
	}
	differ := func(a, b *float64) bool { return a != nil && b != nil && *a != *b }
	return differ(s.Steps, t.last.Steps) || differ(s.Generation, t.last.Generation) || differ(s.KV, t.last.KV)
}

// advance adds what happened between the last scrape and s. After a reset of the server the
// whole present value is new (Prometheus' rule), for every counter and bucket alike.
func (t *Tracker) advance(s *Sample) {
	reset := t.last != nil && restarted(t.last, s)
	now, before := values(s), [counters]*float64{}
	if t.last != nil {
		before = values(t.last)
	}
	for i, v := range now {
		if v == nil {
			continue
		}
		switch {
		case t.last == nil || !t.totals.known[i]:
			// The first sight of a counter is where we start, not what happened.
		case reset:
			t.totals.counters[i] += *v
		case before[i] != nil:
			t.totals.counters[i] += *v - *before[i]
		}
		t.totals.known[i] = true
	}
	hists, old := sampleBuckets(s), [histograms]*Buckets{}
	if t.last != nil {
		old = sampleBuckets(t.last)
	}
	for i, h := range hists {
		t.totals.buckets[i] = grow(t.totals.buckets[i], h, old[i], reset)
	}
}

// grow gives total plus what h gained over old, as a new histogram. Where nothing can be
// compared it starts again from nothing.
func grow(total, h, old *Buckets, reset bool) *Buckets {
	if h == nil {
		return nil
	}
	out := &Buckets{Bounds: h.Bounds, Counts: make([]float64, len(h.Counts))}
	if total == nil || old == nil || !slices.Equal(total.Bounds, h.Bounds) || !slices.Equal(old.Bounds, h.Bounds) {
		return out
	}
	out.Sum = total.Sum + h.Sum
	if !reset {
		out.Sum -= old.Sum
	}
	for i, c := range h.Counts {
		out.Counts[i] = total.Counts[i] + c
		if !reset {
			out.Counts[i] -= old.Counts[i]
		}
	}
	return out
}

// restarted says whether the server's counters began anew between two scrapes. With several
// API servers neither start time nor creation time is exported: then a falling counter is
// the only sign.
func restarted(old, s *Sample) bool {
	if !old.Started.IsZero() && !s.Started.IsZero() && !old.Started.Equal(s.Started) {
		return true
	}
	if old.Created != 0 && s.Created != 0 && old.Created != s.Created {
		return true
	}
	before := values(old)
	for i, v := range values(s) {
		if v != nil && before[i] != nil && *v < *before[i] {
			return true
		}
	}
	hists := sampleBuckets(s)
	for i, o := range sampleBuckets(old) {
		if o != nil && hists[i] != nil && hists[i].Count() < o.Count() {
			return true
		}
	}
	return false
}

// Rates gives the rates over the minute before now. All are nil while there are fewer than
// two scrapes, or when the newest is older than 15 s.
func (t *Tracker) Rates(now time.Time) Rates {
	var r Rates
	from := slices.IndexFunc(t.points, func(p point) bool { return !p.at.Before(now.Add(-rateWindow - rateSlack)) })
	if from < 0 {
		return r
	}
	a, b := t.points[from], t.points[len(t.points)-1]
	// A scrape that was missed is a gap, not a zero: divide by the time that is covered.
	if b.at.Sub(a.at) < rateLeast || now.Sub(b.at) > rateStale {
		return r
	}
	rate := func(a point, c counter) *float64 {
		if !a.known[c] || !b.known[c] {
			return nil
		}
		v := max(0, b.counters[c]-a.counters[c]) / b.at.Sub(a.at).Seconds()
		return &v
	}
	recent := a // the newest that is ten seconds old, else the oldest there is
	for _, p := range t.points[from:] {
		if p.at.After(b.at.Add(-rateRecent)) {
			break
		}
		recent = p
	}
	r.Out, r.In, r.Steps, r.Preempt = rate(recent, cGeneration), rate(recent, cPrompt), rate(recent, cSteps), rate(a, cPreempt)
	if q, h := rate(a, cQueries), rate(a, cHits); q != nil && h != nil {
		if *q > 0 {
			v := min(1, *h / *q)
			r.Prefix = &v
		}
	} else {
		r.Prefix = t.last.HitRate
	}
	if d, ok := rate(a, cDrafted), rate(a, cAccepted); d != nil && ok != nil && *d > 0 {
		v := min(1, *ok / *d)
		r.Accept = &v
	}
	quantile := func(i int) *Estimate {
		e, ok := between(a.buckets[i], b.buckets[i]).Quantile(0.95)
		if !ok {
			return nil
		}
		return &e
	}
	r.TTFT95, r.ITL95, r.E2E95, r.Queue95 = quantile(hTTFT), quantile(hITL), quantile(hE2E), quantile(hQueue)
	return r
}

// between gives what b holds beyond a, cumulative and rising again: a scrape that raced with
// an observation can be off by one in a bucket.
func between(a, b *Buckets) *Buckets {
	if a == nil || b == nil || !slices.Equal(a.Bounds, b.Bounds) {
		return nil
	}
	d := &Buckets{Bounds: b.Bounds, Counts: make([]float64, len(b.Counts)), Sum: max(0, b.Sum-a.Sum)}
	for i := range b.Counts {
		d.Counts[i] = max(0, b.Counts[i]-a.Counts[i])
		if i > 0 {
			d.Counts[i] = max(d.Counts[i], d.Counts[i-1])
		}
	}
	return d
}

func values(s *Sample) [counters]*float64 {
	var finished, length *float64
	if s.Finished != nil {
		finished, length = new(float64), new(s.Finished["length"])
		for _, n := range s.Finished {
			*finished += n
		}
	}
	return [counters]*float64{
		cGeneration: s.Generation, cPrompt: s.Prompt, cPreempt: s.Preemptions,
		cQueries: s.Queries, cHits: s.Hits, cSteps: s.Steps,
		cFinished: finished, cLength: length, cDrafted: s.Drafted, cAccepted: s.Accepted,
	}
}

func sampleBuckets(s *Sample) [histograms]*Buckets {
	return [histograms]*Buckets{hTTFT: s.TTFT, hITL: s.ITL, hE2E: s.E2E, hQueue: s.Queue, hPromptLen: s.PromptLen, hAnswerLen: s.AnswerLen}
}
