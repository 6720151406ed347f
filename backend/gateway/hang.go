package gateway

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/route"
)

// Three limits end a leg on a worker that does not get on: silence before the first content (TTFTTimeout), silence
// between events (IdleTimeout; comments are no events) and the whole of the answer, which no worker can
// make up for. Besides, a worker that was found hung is emptied at once: see Evict.

// errTaken ends a leg whose upstream was taken out.
var errTaken = errors.New("the worker was taken out")

// total is when the call must be over.
func (c *call) total() time.Time {
	limit := c.g.answerTimeout()
	if c.req.stream {
		limit = c.g.streamTimeout()
	}
	if c.d.total > 0 {
		limit = min(limit, c.d.total)
	}
	return c.row.Started.Add(limit)
}

// patience is how long to wait for the next sign of life, of which span is allowed.
func (c *call) patience(now time.Time, span time.Duration) time.Duration {
	return max(min(span, c.until.Sub(now)), 0)
}

// beat tells who watches the upstream that it lives.
func (c *call) beat(n int64) {
	if c.lease.Beat != nil {
		c.lease.Beat.Add(n)
	}
}

// cutter ends the exchange of a leg from outside: Evict holds it while the leg is under way.
type cutter struct {
	conn *conn                   // our own connection
	cut  context.CancelCauseFunc // net/http's
}

// onWire tells Evict how to end the present leg. False: it was taken from its upstream already.
func (c *call) onWire(x cutter) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.line = x
	return !c.taken
}

// offWire takes that back and reports whether the leg was ended by Evict.
func (c *call) offWire() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.taken
	c.line, c.taken = cutter{}, false
	return taken
}

// hangUp ends what the call has with a worker: its client has gone, or the engine ends. Its context has ended.
func (c *call) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.line.conn != nil {
		_ = c.line.conn.Close() // its reader learns why from the context
	}
}

// Evict takes all requests from an upstream that answers none of them any more. Those that have no content yet
// move to another upstream, those that have are continued there or end with an error event. It gives their number.
func (g *Gateway) Evict(upstream string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for c := g.first; c != nil; c = c.next {
		if c.take(upstream) {
			n++
		}
	}
	return n
}

// take ends the call's leg if it is on that upstream.
func (c *call) take(upstream string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.row.Worker != upstream || c.line.conn == nil && c.line.cut == nil || c.taken {
		return false
	}
	c.taken = true
	if c.line.conn != nil {
		_ = c.line.conn.Close() // its reader learns why from offWire
	} else {
		c.line.cut(errTaken)
	}
	return true
}

// broken is the fault of a leg that err has ended.
func (c *call) broken(err error) *fault {
	c.mu.Lock()
	taken := c.taken
	c.mu.Unlock()
	if taken {
		return hung()
	}
	f := broken(err)
	if f.status == http.StatusGatewayTimeout && !time.Now().Before(c.until) {
		return c.overTime()
	}
	return f
}

// hung is the fault of a leg that Evict has ended.
func hung() *fault {
	return &fault{msg: "it hangs: it gives no token", status: http.StatusGatewayTimeout, free: true, died: true, sent: true, result: route.Failed}
}

// overTime is the fault of an answer that has taken too long as a whole.
func (c *call) overTime() *fault {
	most := "gateway.answer_timeout allows"
	switch {
	case c.d.total > 0 && c.d.total < c.g.answerTimeout():
		most = c.d.total.String()
	case c.req.stream:
		most = "gateway.stream_timeout allows"
	}
	return &fault{msg: "the whole answer took longer than " + most, status: http.StatusGatewayTimeout, final: true, result: route.Neutral}
}
