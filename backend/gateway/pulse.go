package gateway

import (
	"sync"
	"time"
)

// pulse writes a comment to the client of a stream whenever it has had no byte for a while (Gateway.KeepAlive): proxies
// and load balancers before us cut connections that are silent, and a request may wait long for its place and its first
// token. The first comment commits the answer to HTTP 200; what fails after it is told as an error event, in place of
// a status with Retry-After. Nothing else changes: comments are no content, and until there is some a worker that
// fails is replaced unseen.
//
// The call's goroutine and the timer's both write to the client, so each holds mu while it may. The call lets
// go of it only where it waits for somebody else, between rest and wake. The methods of a nil pulse do nothing.
type pulse struct {
	c     *call
	every time.Duration

	mu    sync.Mutex
	timer *time.Timer
	wrote time.Time // when the client last got something
	off   bool      // the call is over

	held bool // the call's goroutine holds mu; known to it alone
}

// comment is what an SSE parser skips.
var comment = []byte(": keep-alive\n\n")

// keepAlive starts the pulse of a call that streams.
func (c *call) keepAlive() {
	if c.g.KeepAlive <= 0 || !c.req.stream {
		return
	}
	p := &pulse{c: c, every: c.g.KeepAlive, wrote: time.Now(), held: true}
	p.mu.Lock()
	p.timer = time.AfterFunc(p.every, p.beat)
	c.pulse = p
}

// rest lets the pulse write until wake.
func (p *pulse) rest() {
	if p != nil {
		p.held = false
		p.mu.Unlock()
	}
}

// wake ends rest. It may be called again.
func (p *pulse) wake() {
	if p != nil && !p.held {
		p.mu.Lock()
		p.held = true
	}
}

// saw notes that the client got something.
func (p *pulse) saw(now time.Time) {
	if p != nil {
		p.wrote = now
	}
}

// stop ends the pulse: nothing is written after it.
func (p *pulse) stop() {
	if p == nil {
		return
	}
	p.wake()
	p.off = true
	p.timer.Stop() // if it fires already, it sees off
	p.rest()
}

// beat is what the timer calls.
func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.off {
		return
	}
	if left := p.every - now.Sub(p.wrote); left > 0 {
		p.timer.Reset(left)
		return
	}
	c := p.c
	if !c.out.sent {
		h := c.out.w.Header()
		h["Content-Type"] = sseType
		c.ownHeader(h)
		c.open(200, now)
	}
	if c.out.write(comment, now) != nil {
		return // the call learns of it when it writes
	}
	p.wrote = now
	p.timer.Reset(p.every)
}
