package gateway

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// settle is how long a request waits, when all that are ready have failed it and one of them has just died, for that to
// be noticed: then the worker counts as coming again, and the request waits for it.
const settle = 500 * time.Millisecond

// place finds an upstream with room for the call and counts it in there. It waits in line where
// one will come. Errors are *refusal, or the cause that ended the call.
func (c *call) place(ctx context.Context) (Lease, error) {
	q := c.g.queue(c.row.Model)
	c.turns = q
	if q.empty() {
		if l, why := c.try(false); why.Picked() {
			return l, nil
		} else if !c.waits(why) {
			return Lease{}, c.nobody()
		}
	}
	w, err := c.join(q)
	if err != nil {
		q.mu.Lock()
		q.missed = time.Now()
		q.mu.Unlock()
		c.g.wanted(c.row.Model)
		return c.elsewhere(err)
	}
	c.g.queued.Add(1)
	defer func() {
		q.leave(w)
		c.g.queued.Add(-1)
		c.waited(time.Since(w.since))
	}()
	limit := time.NewTimer(c.mayWait() - c.queue)
	defer limit.Stop()
	c.g.wanted(c.row.Model)
	select {
	case <-w.first:
	case <-w.out:
		return c.elsewhere(c.crowded())
	case <-limit.C:
		return c.late()
	case <-ctx.Done():
		return Lease{}, c.cause()
	}
	for {
		changed := c.g.Upstreams.Changed() // before looking, or a change between would be missed
		l, why := c.try(false)
		switch {
		case why.Picked():
			return l, nil
		case !c.waits(why):
			return Lease{}, c.nobody()
		}
		c.g.wanted(c.row.Model) // one may have fallen asleep since
		var soon <-chan time.Time
		if why == route.Tried {
			soon = time.After(settle)
		}
		select {
		case <-changed:
		case <-soon:
			return Lease{}, c.nobody()
		case <-limit.C:
			return c.late()
		case <-ctx.Done():
			return Lease{}, c.cause()
		}
	}
}

// waits reports whether it makes sense to wait after a look that ended with why.
func (c *call) waits(why route.Reason) bool {
	return why == route.Full || why == route.Starting || why == route.Tried && c.last != nil && c.last.died
}

// late is the last look of a call that has waited as long as it may.
func (c *call) late() (Lease, error) {
	l, why := c.try(true)
	if why.Picked() {
		return l, nil
	}
	within := max(0, c.mayWait()).Round(10 * time.Millisecond)
	if why == route.Full && c.g.TTFTTarget > 0 {
		return Lease{}, c.slow(fmt.Sprintf("no worker became free within %v", within), 0)
	}
	r := &refusal{
		status: http.StatusServiceUnavailable, kind: "server_error", code: "no_worker", final: true, retry: retrySoon(),
		msg: fmt.Sprintf("model %q: no worker became free within %v", c.row.Model, within),
	}
	if why == route.Starting {
		r.msg = fmt.Sprintf("model %q: no worker became ready within %v (%s)", c.row.Model, within, c.states())
	}
	return Lease{}, r
}

// nobody is the answer where waiting would not help.
func (c *call) nobody() error {
	if c.last != nil {
		return c.last.refusal(c.row.Model, len(c.row.Attempts))
	}
	r := &refusal{status: http.StatusServiceUnavailable, kind: "server_error", code: "no_worker", final: true, retry: retrySoon()}
	switch states := c.states(); {
	case states != "" && !slices.ContainsFunc(c.cands, func(u route.Candidate) bool { return !u.Provider }):
		r.msg = fmt.Sprintf("model %q: its provider cannot serve now (%s)", c.row.Model, states)
	case c.barred:
		if states == "" {
			states = "it has none"
		}
		r.msg = fmt.Sprintf("model %q: no worker can serve (%s), and this key may use no paid provider", c.row.Model, states)
	case states == "":
		r.msg = fmt.Sprintf("model %q has no worker: add one under workers: in the config", c.row.Model)
	default:
		r.msg = fmt.Sprintf("model %q: no worker can serve and none is starting (%s): see \"vllmdeck worker list\"", c.row.Model, states)
	}
	return r
}

// states lists the candidates of the last look with their states.
func (c *call) states() string {
	var b strings.Builder
	for i := range c.cands {
		if i > 0 {
			b.WriteString(", ")
		}
		state := c.cands[i].State
		if state == "" {
			state = "not ready"
			if c.cands[i].Ready {
				state = "ready"
			}
		}
		fmt.Fprintf(&b, "%s: %s", c.cands[i].ID, state)
	}
	return b.String()
}

// try looks once.
func (c *call) try(overflow bool) (Lease, route.Reason) {
	c.look()
	return c.pick(overflow)
}

// look takes a view of the candidates.
func (c *call) look() {
	c.cands = c.g.Upstreams.Candidates(c.row.Model, c.cands[:0])
	if c.sequel != nil || c.failover == api.FailoverNever { // what was begun is not continued by a paid API: it is another model
		before := len(c.cands)
		c.cands = slices.DeleteFunc(c.cands, func(u route.Candidate) bool { return u.Provider })
		c.barred = c.sequel == nil && len(c.cands) < before
	}
	for i := range c.cands {
		c.cands[i].Overload = c.cands[i].Overload && c.failover != api.FailoverDown
		// One that went away since it failed this call comes back as another process.
		if !c.cands[i].Ready && len(c.tried) > 0 {
			c.tried = slices.DeleteFunc(c.tried, func(id string) bool { return id == c.cands[i].ID })
		}
	}
	if c.affine() {
		if !c.known {
			c.g.prefixes.Chain(&c.chain, c.req.raw(c.req.inputAt))
			c.known = true
		}
		c.g.prefixes.Rate(&c.chain, c.cands)
	}
}

// affine reports whether it matters who has seen the beginning of the prompt: there must be a prompt, and workers to choose from.
func (c *call) affine() bool {
	workers := 0
	for i := range c.cands {
		if !c.cands[i].Provider {
			workers++
		}
	}
	return workers > 1 && c.d.event != nil
}

// pick chooses among the candidates of the last look and counts the call in there.
func (c *call) pick(overflow bool) (Lease, route.Reason) {
	req := route.Request{Tried: c.tried, Overflow: overflow, Busy: c.busy}
	for {
		i, why := route.Pick(req, c.cands, rand.Uint64())
		if i < 0 {
			return Lease{}, why
		}
		l, ok := c.g.Upstreams.Acquire(c.cands[i].ID)
		if ok && l.Reserve != nil {
			var err error
			if l.Model, err = l.Reserve(c.need()); err != nil {
				l.Report(route.Neutral)
				l.Release()
				c.cands[i].Ready, c.cands[i].State = false, err.Error()
				continue
			}
		}
		if ok {
			c.at = c.cands[i].ID
			c.paid = c.cands[i].Provider
			if c.known && !c.paid {
				if c.g.Repeated != nil {
					c.g.Repeated(c.at, c.cands[i].Prefix)
				}
				c.g.prefixes.Add(&c.chain, c.at)
			}
			return l, why
		}
		// It filled up or went away since the look: pass it over, and wait as for a full one.
		c.cands[i].MaxSeqs, c.cands[i].InFlight = 1, 1
	}
}

// retrySoon is a Retry-After of 1 to 3 s: different for each, so that those who were refused together
// do not come back together.
func retrySoon() string { return strconv.Itoa(1 + rand.IntN(3)) }
