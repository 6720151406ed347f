package route

import (
	"math"
	"testing"
	"time"
)

func TestPick(t *testing.T) {
	ready := func(id string) Candidate { return Candidate{ID: id, Ready: true, MaxSeqs: 4} }
	with := func(c Candidate, f func(*Candidate)) Candidate { f(&c); return c }
	open := func(c *Candidate) { c.Open = true }
	full := func(c *Candidate) { c.InFlight = 4 }
	away := func(c *Candidate) { c.Ready = false }
	coming := func(c *Candidate) { c.Ready, c.Coming = false, true }
	late := func(c *Candidate) { c.Ready, c.Coming, c.Late = false, true, true }
	paid := func(c *Candidate) { c.Provider, c.MaxSeqs = true, 0 }
	overload := func(c *Candidate) { c.Overload = true }
	for _, tt := range []struct {
		name  string
		req   Request
		cands []Candidate
		want  string // ID
		why   Reason
	}{
		{"no upstream", Request{}, nil, "", Empty},
		{"the only one", Request{}, []Candidate{ready("a")}, "a", Best},
		{"the one with fewer requests", Request{}, []Candidate{with(ready("a"), func(c *Candidate) { c.InFlight = 2 }), with(ready("b"), func(c *Candidate) { c.InFlight = 1 })}, "b", Best},
		{"the one that queues less", Request{}, []Candidate{with(ready("a"), func(c *Candidate) { c.Waiting = 2 }), ready("b")}, "b", Best},
		{"in-flight outweighs a stale cache figure", Request{}, []Candidate{with(ready("a"), func(c *Candidate) { c.InFlight = 1 }), with(ready("b"), func(c *Candidate) { c.KV = 0.5 })}, "b", Best},
		{"a nearly full cache is avoided", Request{}, []Candidate{with(ready("a"), func(c *Candidate) { c.KV = 0.99 }), with(ready("b"), func(c *Candidate) { c.KV = 0.1 })}, "b", Best},
		{"not one that failed this request", Request{Tried: []string{"a"}}, []Candidate{ready("a"), with(ready("b"), func(c *Candidate) { c.InFlight = 3 })}, "b", Best},
		{"not one that is away", Request{}, []Candidate{with(ready("a"), away), ready("b")}, "b", Best},
		{"not one with an open breaker", Request{}, []Candidate{with(ready("a"), open), with(ready("b"), func(c *Candidate) { c.InFlight = 3 })}, "b", Best},
		{"the last worker is never ejected", Request{}, []Candidate{with(ready("a"), open), with(ready("b"), away)}, "a", Last},
		{"the last untried worker is never ejected", Request{Tried: []string{"b"}}, []Candidate{with(ready("a"), open), ready("b")}, "a", Last},
		{"full beats broken: wait", Request{}, []Candidate{with(ready("a"), open), with(ready("b"), full)}, "", Full},
		{"all full", Request{}, []Candidate{with(ready("a"), full), with(ready("b"), full)}, "", Full},
		{"an unknown limit is no limit", Request{}, []Candidate{with(ready("a"), func(c *Candidate) { c.MaxSeqs, c.InFlight = 0, 9999 })}, "a", Best},
		{"all tried", Request{Tried: []string{"a"}}, []Candidate{ready("a")}, "", Tried},
		{"one starts", Request{Tried: []string{"a"}}, []Candidate{ready("a"), with(ready("b"), coming)}, "", Starting},
		{"all failed", Request{}, []Candidate{with(ready("a"), away), with(ready("b"), away)}, "", Down},
		{"a worker before a provider", Request{}, []Candidate{with(ready("p"), paid), with(ready("a"), func(c *Candidate) { c.InFlight = 3 })}, "a", Best},
		{"a provider when all workers are down", Request{}, []Candidate{with(ready("a"), away), with(ready("p"), paid)}, "p", Failover},
		{"a provider when all workers failed it", Request{Tried: []string{"a"}}, []Candidate{ready("a"), with(ready("p"), paid)}, "p", Failover},
		{"no provider while workers are only full", Request{}, []Candidate{with(ready("a"), full), with(ready("p"), paid)}, "", Full},
		{"a provider for overload once it has waited", Request{Overflow: true}, []Candidate{with(ready("a"), full), with(with(ready("p"), paid), overload)}, "p", Failover},
		{"no provider that is only for outages, however long it waits", Request{Overflow: true}, []Candidate{with(ready("a"), full), with(ready("p"), paid)}, "", Full},
		{"a provider for outages if none has come in time", Request{Overflow: true}, []Candidate{with(ready("a"), coming), with(ready("p"), paid)}, "p", Failover},
		{"no provider while one comes", Request{}, []Candidate{with(ready("a"), coming), with(ready("p"), paid)}, "", Starting},
		{"a provider at once if one comes late", Request{}, []Candidate{with(ready("a"), late), with(ready("p"), paid)}, "p", Failover},
		{"one that comes late is waited for if no provider can", Request{}, []Candidate{with(ready("a"), late), with(with(ready("p"), paid), open)}, "", Starting},
		{"one that comes late is waited for if there is no provider", Request{}, []Candidate{with(ready("a"), late)}, "", Starting},
		{"no provider for outages if a worker was too busy", Request{Tried: []string{"a"}, Busy: true}, []Candidate{ready("a"), with(ready("p"), paid)}, "", Tried},
		{"a provider for overload if a worker was too busy", Request{Tried: []string{"a"}, Busy: true}, []Candidate{ready("a"), with(with(ready("p"), paid), overload)}, "p", Failover},
		{"a provider alone", Request{}, []Candidate{with(ready("p"), paid)}, "p", Failover},
		{"no provider that cannot", Request{}, []Candidate{with(with(ready("p"), paid), away)}, "", Down},
		{"no provider with an open breaker", Request{}, []Candidate{with(ready("a"), away), with(with(ready("p"), paid), open)}, "", Down},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for rnd := range uint64(50) {
				i, why := Pick(tt.req, tt.cands, rnd)
				got := ""
				if i >= 0 {
					got = tt.cands[i].ID
				}
				if got != tt.want || why != tt.why {
					t.Fatalf("Pick = %q because %v, want %q because %v", got, why, tt.want, tt.why)
				}
			}
		})
	}
}

func TestEqualsArePickedEquallyOften(t *testing.T) {
	cands := []Candidate{{ID: "a", Ready: true}, {ID: "b", Ready: true, InFlight: 9}, {ID: "c", Ready: true}, {ID: "d", Ready: true}}
	var n [4]int
	const rounds = 30000
	rnd := uint64(1)
	for range rounds {
		rnd ^= rnd << 13
		rnd ^= rnd >> 7
		rnd ^= rnd << 17
		i, why := Pick(Request{}, cands, rnd)
		if why != Tie {
			t.Fatalf("reason = %v, want tie", why)
		}
		n[i]++
	}
	for _, i := range []int{0, 2, 3} {
		if got := float64(n[i]) / rounds; math.Abs(got-1./3) > 0.02 {
			t.Errorf("candidate %d was picked in %.3f of the cases, want a third: %v", i, got, n)
		}
	}
	if n[1] != 0 {
		t.Errorf("the busy one was picked %d times, want never", n[1])
	}
}

func TestPickDoesNotAllocate(t *testing.T) {
	cands, req := eight(), Request{Tried: []string{"w3"}}
	if got := testing.AllocsPerRun(100, func() { Pick(req, cands, 7) }); got != 0 {
		t.Errorf("Pick allocates %v times, want 0", got)
	}
}

func FuzzScores(f *testing.F) {
	f.Add(3, 8, 1.5, 0.4, 0.5)
	f.Add(-1, -1, math.Inf(1), math.NaN(), math.Inf(-1))
	f.Fuzz(func(t *testing.T, inFlight, seqs int, waiting, kv, prefix float64) {
		c := Candidate{InFlight: inFlight, MaxSeqs: seqs, Waiting: waiting, KV: kv, Prefix: prefix}
		sum := 0.0
		for _, s := range Scorers {
			sum += s.Weight
			if got := s.Rate(Request{}, &c); !(got >= 0 && got <= 1) {
				t.Errorf("scorer %s rates %+v as %v, want 0..1", s.Name, c, got)
			}
		}
		if got := Score(Request{}, &c); !(got >= 0 && got <= 1) {
			t.Errorf("Score(%+v) = %v, want 0..1", c, got)
		}
		if sum != 1 {
			t.Errorf("the weights add up to %v, want 1", sum)
		}
	})
}

func TestBreaker(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(d time.Duration) time.Time { return start.Add(d) }
	fail := func(b *Breaker, n int, now time.Time) {
		for range n {
			b.End(b.Begin(now), Failed, now)
		}
	}
	t.Run("five failures in a row open it for a second", func(t *testing.T) {
		var b Breaker
		fail(&b, 4, at(0))
		if b.Open(at(0)) {
			t.Fatal("open after 4 failures, want closed")
		}
		fail(&b, 1, at(0))
		if !b.Open(at(999 * time.Millisecond)) {
			t.Error("closed within a second of the fifth failure, want open")
		}
		if b.Open(at(time.Second)) {
			t.Error("open after a second, want room for a probe")
		}
	})
	t.Run("a success between failures starts the count again", func(t *testing.T) {
		var b Breaker
		fail(&b, 4, at(0))
		b.End(b.Begin(at(0)), Succeeded, at(0))
		fail(&b, 4, at(0))
		if b.Open(at(0)) {
			t.Error("open after 4+4 failures with a success between, want closed")
		}
	})
	t.Run("a burst of 4xx never opens it, nor does it mend it", func(t *testing.T) {
		var b Breaker
		for range 1000 {
			b.End(b.Begin(at(0)), Neutral, at(0))
		}
		if b.Open(at(0)) {
			t.Error("open after neutral results, want closed")
		}
		fail(&b, 4, at(0))
		b.End(b.Begin(at(0)), Neutral, at(0))
		fail(&b, 1, at(0))
		if !b.Open(at(0)) {
			t.Error("closed after 5 failures with a neutral result between, want open")
		}
	})
	t.Run("one probe at a time", func(t *testing.T) {
		var b Breaker
		fail(&b, 5, at(0))
		probe := b.Begin(at(time.Second))
		if !b.Open(at(time.Second)) {
			t.Error("room for a second probe, want one only")
		}
		b.End(probe, Succeeded, at(time.Second))
		if b.Open(at(time.Second)) {
			t.Error("open after a probe that succeeded, want closed")
		}
	})
	t.Run("each failed probe doubles the time up to 30s", func(t *testing.T) {
		var b Breaker
		fail(&b, 5, at(0))
		now := at(time.Second)
		for _, want := range []time.Duration{2, 4, 8, 16, 30, 30} {
			want *= time.Second
			b.End(b.Begin(now), Failed, now)
			if !b.Open(now.Add(want - 1)) {
				t.Fatalf("closed before %v had passed, want open", want)
			}
			if now = now.Add(want); b.Open(now) {
				t.Fatalf("open after %v, want room for a probe", want)
			}
		}
		b.End(b.Begin(now), Succeeded, now)
		fail(&b, 5, now)
		if b.Open(now.Add(time.Second)) {
			t.Error("open for more than a second after it had closed once, want the short time again")
		}
	})
	t.Run("a late result of an earlier attempt does not touch it", func(t *testing.T) {
		var b Breaker
		old := b.Begin(at(0))
		fail(&b, 5, at(0))
		b.End(old, Succeeded, at(0))
		if !b.Open(at(0)) {
			t.Error("an attempt from before the failures closed it, want open")
		}
		b.Begin(at(time.Second)) // a probe that is never heard of again
		lost := b.Begin(at(time.Second))
		second := b.Begin(at(2 * time.Second))
		b.End(lost, Succeeded, at(2*time.Second))
		if !b.Open(at(2 * time.Second)) {
			t.Error("a superseded probe closed it, want open until the new probe ends")
		}
		b.End(second, Succeeded, at(2*time.Second))
		if b.Open(at(2 * time.Second)) {
			t.Error("open after the new probe succeeded, want closed")
		}
	})
	t.Run("a probe that says nothing makes room for the next", func(t *testing.T) {
		var b Breaker
		fail(&b, 5, at(0))
		b.End(b.Begin(at(time.Second)), Neutral, at(time.Second))
		if b.Open(at(time.Second)) {
			t.Error("open after a neutral probe, want room for another")
		}
	})
	t.Run("the last worker mends itself while open", func(t *testing.T) {
		var b Breaker
		fail(&b, 5, at(0))
		b.End(b.Begin(at(1)), Succeeded, at(1))
		if b.Open(at(2)) {
			t.Error("open after a success, want closed")
		}
	})
}

func TestBudget(t *testing.T) {
	var b Budget
	take := func(inFlight int) (n int) {
		for b.Take(inFlight) {
			n++
		}
		return n
	}
	if got := take(1); got != 3 {
		t.Errorf("with 1 request in flight %d retries are allowed, want 3", got)
	}
	b.Give(3)
	if got := take(100); got != 20 {
		t.Errorf("with 100 requests in flight %d retries are allowed, want 20", got)
	}
	b.Give(20)
	if got := take(0); got != 3 {
		t.Errorf("after all was given back %d retries are allowed, want 3", got)
	}
}

func eight() []Candidate {
	cands := make([]Candidate, 8)
	for i := range cands {
		cands[i] = Candidate{ID: "w" + string(rune('0'+i)), Ready: true, InFlight: i % 3, MaxSeqs: 32, KV: 0.1 * float64(i)}
	}
	return cands
}

func BenchmarkPick8(b *testing.B) {
	cands, req := eight(), Request{}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		Pick(req, cands, uint64(i))
	}
}
