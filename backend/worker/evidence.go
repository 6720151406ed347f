package worker

import (
	"sync/atomic"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// What advice is based on.
const (
	evidenceEvery = 5 * time.Second // between two looks that are kept
	evidenceSpan  = 5 * time.Minute
	evidenceLeast = 3 * time.Minute // nothing is said of less
	evidenceGap   = time.Minute     // after a longer one it begins anew
	adviceHold    = time.Minute     // a condition must hold for so long before it is said, and be gone for so long before it goes
)

// look is one reading of a server, as advice needs it.
type look struct {
	at                   time.Time
	running, waiting, kv float64
	known                bool // of the three
	totals               Totals
	repeats, repeated    float64
}

// evidence is the last minutes of one server.
type evidence struct {
	looks   []look // oldest first, at least two
	maxSeqs int
	maxLen  int
	tokens  int64 // capacity of the KV cache
	noCache bool  // the prefix cache is off
	gpu     bool
	known   known
}

func (e *evidence) span() time.Duration {
	return e.looks[len(e.looks)-1].at.Sub(e.looks[0].at)
}

func (e *evidence) minutes() float64 { return e.span().Minutes() }

// mean averages something over the looks that know it.
func (e *evidence) mean(of func(look) float64) float64 {
	sum, n := 0.0, 0.0
	for _, l := range e.looks {
		if l.known {
			sum, n = sum+of(l), n+1
		}
	}
	if n == 0 {
		return 0
	}
	return sum / n
}

// share is how many of the looks meet a condition, 0..1.
func (e *evidence) share(is func(look) bool) float64 {
	return e.mean(func(l look) float64 {
		if is(l) {
			return 1
		}
		return 0
	})
}

// gained is by how much a count rose; 0 where it is not known.
func (e *evidence) gained(of func(Totals) *float64) float64 {
	a, b := of(e.looks[0].totals), of(e.looks[len(e.looks)-1].totals)
	if a == nil || b == nil {
		return 0
	}
	return max(0, *b-*a)
}

func runs(l look) float64   { return l.running }
func waits(l look) float64  { return l.waiting }
func kvUsed(l look) float64 { return l.kv }

func preemptions(t Totals) *float64 { return t.Preemptions }
func finished(t Totals) *float64    { return t.Finished }
func atLength(t Totals) *float64    { return t.Length }
func drafted(t Totals) *float64     { return t.Drafted }
func accepted(t Totals) *float64    { return t.Accepted }
func generated(t Totals) *float64   { return t.Generated }

// repeats counts how much of the prompts' beginnings a worker has been sent before.
type repeats struct {
	n     atomic.Int64 // prompts
	share atomic.Int64 // sum of the repeated shares, in millionths
}

func (r *repeats) add(share float64) {
	r.n.Add(1)
	r.share.Add(int64(share * 1e6))
}

// Repeat says that a worker was sent a prompt of which it had been sent the first part (0..1) before.
func (p *Pool) Repeat(name string, share float64) {
	if w := p.set.Load().byName[name]; w != nil {
		w.seen.add(share)
	}
}

// load is how busy a worker was over the last minutes, for a comparison with its peers.
type load struct {
	known bool
	busy  float64 // requests with it, mean
	pace  float64 // tokens per second for each request that runs; 0: not known
}

// advisor keeps the evidence of one life and what is said on it.
type advisor struct {
	looks  []look
	held   map[string]*standing // by rule
	advice []api.Advice         // replaced, never changed
	load   load
}

// standing is how long a rule's condition has held, or not held.
type standing struct {
	since time.Time // it began to hold; zero: it does not
	last  time.Time // it held last
	said  *api.Advice
	at    time.Time // the words of said are from then
}

// advise takes a reading and looks what there is to say.
func (w *worker) advise(r Reading, now time.Time) {
	a := &w.advisor
	if n := len(a.looks); n > 0 {
		switch since := now.Sub(a.looks[n-1].at); {
		case since < evidenceEvery:
			return
		case since > evidenceGap:
			*a = advisor{}
		}
	}
	l := look{at: now, totals: r.Totals, repeats: float64(w.seen.n.Load()), repeated: float64(w.seen.share.Load()) / 1e6}
	if r.Running != nil && r.Waiting != nil && r.KV != nil {
		l.running, l.waiting, l.kv, l.known = *r.Running, *r.Waiting, *r.KV, true
	}
	for len(a.looks) > 0 && now.Sub(a.looks[0].at) > evidenceSpan {
		a.looks = a.looks[1:]
	}
	a.looks = append(a.looks, l)
	e := evidence{looks: a.looks, maxSeqs: w.st.MaxSeqs, maxLen: w.st.MaxLen, tokens: w.st.KVTokens, noCache: r.NoPrefixCache, gpu: !w.plan.cpu}
	if e.span() < evidenceLeast {
		a.load = load{}
		return
	}
	e.known = known{args: w.plan.argv, env: w.plan.spec.Env}
	a.load = load{known: true, busy: e.mean(func(l look) float64 { return l.running + l.waiting })}
	if run := e.mean(runs); run > 0 {
		a.load.pace = e.gained(generated) / e.span().Seconds() / run
	}
	if a.held == nil {
		a.held = map[string]*standing{}
	}
	var out []api.Advice
	for _, rule := range adviceRules {
		s := a.held[rule.name]
		if s == nil {
			s = &standing{}
			a.held[rule.name] = s
		}
		if say := s.stands(rule.when(&e), now); say {
			if s.said == nil || now.Sub(s.at) >= time.Minute {
				text, remedy, c := rule.say(&e)
				s.said, s.at = &api.Advice{Rule: rule.name, Worker: w.name, Model: w.st.Model, Since: s.since, Text: text, Remedy: remedy, Fix: w.fixOf(c, text)}, now
			}
			out = append(out, *s.said)
		} else if s.since.IsZero() {
			s.said = nil
		}
	}
	a.advice = out
}

// stands takes whether a condition holds now and says whether it is to be told.
func (s *standing) stands(holds bool, now time.Time) bool {
	switch {
	case holds && s.since.IsZero():
		s.since, s.last = now, now
	case holds:
		s.last = now
	case !s.since.IsZero() && (s.said == nil || now.Sub(s.last) >= adviceHold):
		s.since = time.Time{}
	}
	return !s.since.IsZero() && (s.said != nil || now.Sub(s.since) >= adviceHold)
}
