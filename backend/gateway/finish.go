package gateway

import (
	"errors"
	"math"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// meter takes over what the tap knows of usage.
func (c *call) meter() {
	t := &c.tap
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.row
	switch {
	case t.hasUsage && c.sequel != nil:
		r.Usage, r.UsageSource = t.usage, api.UsageTokenized
	case t.hasUsage:
		r.Usage, r.UsageSource = t.usage, api.UsageUpstream
	case t.events > 0:
		// One event is one step of the engine, which may be several tokens: marked as counted.
		r.Usage, r.UsageSource = t.usage, api.UsageCounted
		r.Usage.Output = t.events
	}
	r.Finish = cut(t.finish, 64)
	if !t.first.IsZero() {
		r.TTFT = api.Span(t.first.Sub(r.Started))
		r.ITL, r.MaxGap = api.Span(t.gap()), api.Span(t.maxGap)
	}
}

// price fills in what the call costs, once its usage and worker time are known.
func (c *call) price() {
	c.priced = true // also if it panics: finish must come through
	c.release()
	c.meter()
	// On a copy, because Accounts may take a lock of its own: none of ours is held then.
	r := *c.row
	r.Attempts = slices.Clone(r.Attempts)
	c.g.Accounts.Price(&r)
	c.note(func(row *api.Request) { *row = r })
}

// fail ends the call with an error; the client is told unless an answer has begun.
func (c *call) fail(err error) {
	outcome, status := api.OutcomeError, 0
	var r *refusal
	switch {
	case errors.As(err, &r):
		status = r.status
		if n := len(c.row.Attempts); n == 0 && status < 500 || n > 0 && c.row.Attempts[n-1].Outcome == api.OutcomeRejected {
			outcome = api.OutcomeRejected
		}
	case errors.Is(err, errStopping):
		r = stopping()
		status = r.status
	default:
		outcome = api.OutcomeCancelled
	}
	if c.out.open {
		status = http.StatusOK
		if r != nil {
			if c.passed || c.sequel != nil { // else it had comments alone
				outcome = api.OutcomeLost
			}
			_ = c.out.write(r.event(c.id, c.d.anthropic), time.Now()) // end aborts the answer in any case
		}
	}
	c.note(func(r *api.Request) { r.Outcome, r.Status, r.Error = outcome, status, err.Error() })
	if outcome == api.OutcomeError {
		c.g.Log.Warn("request failed", "request", c.row.ID, "status", status, "error", err)
	}
	if r != nil && !c.out.sent {
		c.out.deadline(time.Now())
		c.out.sent = true
		if r.status == http.StatusRequestEntityTooLarge {
			c.out.w.Header().Set("Connection", "close") // the rest of the body is not worth reading
		}
		_ = r.write(c.out.w, c.id, c.d.anthropic) // the client may be gone: the row says what happened
	}
}

// end runs once, however the call ended. It is the only way out of serve.
func (c *call) end() {
	p := recover()
	c.pulse.wake()
	abort := p == any(http.ErrAbortHandler)
	if p != nil && !abort {
		c.panicked(p)
		err := &refusal{status: http.StatusInternalServerError, kind: "server_error", code: "internal_error", msg: "internal error of the gateway: its log has more under this request id"}
		c.fail(err)
	}
	c.finish()
	c.pulse.stop()
	if c.out.open || !c.out.sent || abort {
		// Where nothing was sent, net/http would send an empty 200, and a client that has only
		// closed its own side would take that for an answer.
		c.out.abort()
		panic(http.ErrAbortHandler)
	}
}

func (c *call) panicked(p any) {
	c.g.Log.Error("request handler panicked", "request", c.row.ID, "panic", p, "stack", string(debug.Stack()))
}

// guard runs one step of finish. A panic in it must not lose the steps that follow.
func (c *call) guard(step func()) {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(p)
		}
	}()
	step()
}

// finish settles the call: place given back, usage, cost, the record, the counters.
func (c *call) finish() {
	g, r := c.g, c.row
	if n := len(r.Attempts); n > 0 {
		c.guard(func() {
			if r.Attempts[n-1].Outcome == api.OutcomeOpen {
				c.ended(r.Outcome, r.Error, route.Neutral)
			}
		})
		if !c.priced || r.Outcome != api.OutcomeOK {
			c.guard(c.price)
		}
	}
	g.leave(c)
	c.guard(c.settle)
	// From here on nobody else sees the row.
	now := time.Now()
	r.Duration = api.Span(now.Sub(r.Started))
	c.teach(now)
	g.count(c)
	g.budget.Give(c.extra)
	g.bodies.Add(-c.room)
	if g.Tokens != nil {
		c.guard(func() {
			if late := r.Usage.Completion() - c.tokens.Load(); r.UsageSource == api.UsageUpstream && late > 0 {
				g.Tokens(int(min(late, math.MaxInt32)))
			}
		})
	}
	c.guard(func() { g.Accounts.Settle(r) })
	if c.who.capture && g.Captured != nil && c.body != nil && len(r.Attempts) > 0 {
		c.guard(func() { g.Captured(r, string(c.req.raw(c.req.inputAt)), c.tap.all(), c.tap.more) })
	}
	if g.Rated != nil && c.req.n == 1 && r.Outcome == api.OutcomeOK && len(c.tap.text) > 0 && (g.Rates == nil || g.Rates()) {
		c.guard(func() {
			if answer := c.tap.answer(); answer != "" { // else it is too long to be rated
				g.Rated(r, c.req.lastUser(4<<10), answer)
			}
		})
	}
	if c.body != nil {
		c.body.put()
		c.body, c.req = nil, request{}
	}
	c.unburden()
	clear(c.cands)
	*c.seats = c.cands[:0]
	seats.Put(c.seats)
}
