package gateway

import (
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// enter puts a call into the live view.
func (g *Gateway) enter(c *call) {
	g.inFlight.Add(1)
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.prev = g.last; g.last != nil {
		g.last.next = c
	} else {
		g.first = c
	}
	g.last = c
}

// leave takes a call out of the live view.
func (g *Gateway) leave(c *call) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		g.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		g.last = c.prev
	}
	c.prev, c.next = nil, nil
}

// count adds an ended call to the counters.
func (g *Gateway) count(c *call) {
	switch c.row.Outcome {
	case api.OutcomeError, api.OutcomeLost:
		g.failed.Add(1)
	case api.OutcomeRejected:
		g.rejected.Add(1)
	case api.OutcomeCancelled:
		g.cancelled.Add(1)
	case api.OutcomeOK:
		if len(c.row.Attempts) > 1 {
			g.moved.Add(1)
		}
	}
	g.total.Add(1)
}

// ended wakes Drain when the last call is over.
func (g *Gateway) ended() {
	if g.inFlight.Add(-1) > 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.idle != nil && g.inFlight.Load() == 0 {
		close(g.idle)
		g.idle = nil
	}
}

// InFlight appends what is in flight to dst, newest first. Of an open request Usage.Output is the
// content events so far.
func (g *Gateway) InFlight(dst []api.Request) []api.Request {
	waiting := g.waiting(time.Now())
	g.mu.Lock()
	defer g.mu.Unlock()
	for c := g.last; c != nil; c = c.prev {
		c.mu.Lock()
		r := *c.row
		r.Attempts = append([]api.Attempt(nil), r.Attempts...)
		c.mu.Unlock()
		if n := c.tokens.Load(); n > 0 && r.Outcome == api.OutcomeOpen && r.UsageSource == api.UsageUnknown {
			r.Usage.Output, r.UsageSource = n, api.UsageCounted
		}
		if at, ok := waiting[c]; ok {
			r.Position, r.Wait, r.Queue = at.position, api.Span(at.wait), r.Queue+api.Span(at.sofar)
		}
		dst = append(dst, r)
	}
	return dst
}

// Traffic gives the counters.
func (g *Gateway) Traffic() api.Traffic {
	return api.Traffic{
		InFlight: int(g.inFlight.Load()), Queued: int(g.queued.Load()),
		Total: g.total.Load(), Failed: g.failed.Load(), Rejected: g.rejected.Load(), Cancelled: g.cancelled.Load(), Moved: g.moved.Load(),
	}
}
