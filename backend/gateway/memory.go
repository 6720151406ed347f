package gateway

import (
	"runtime/debug"
	"sync"
)

// Between two collections Go's heap grows to twice what is alive, which for hundreds of megabytes
// of bodies, and of answers so far, is as much again that the host's workers lack. These hold no pointers, so that
// collecting often costs little while they are most of what there is.
const (
	heavy     = 1 << 20  // bytes from which on a body counts here
	tightAt   = 64 << 20 // bytes of what counts from which on the collector runs early
	loosenAt  = 16 << 20 // … and down to which it goes on doing so
	tightGOGC = 25
)

// pressure counts the bytes of heavy bodies and long texts and sets the pace of the collector.
type pressure struct {
	mu    sync.Mutex
	bytes int64
	tight bool
	usual int // the pace before
}

// add counts n bytes more, or fewer. It says true when the pressure is over: what is free now
// would stay with this process for minutes.
func (p *pressure) add(n int64) (over bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes += n
	switch {
	case !p.tight && p.bytes >= tightAt:
		p.tight = true
		p.usual = debug.SetGCPercent(tightGOGC)
	case p.tight && p.bytes <= loosenAt:
		p.tight = false
		debug.SetGCPercent(p.usual)
		return true
	}
	return false
}

// weigh tells the pressure what the call's body takes by now.
func (c *call) weigh() {
	if c.room >= heavy {
		c.g.pressure.add(c.room - c.weight)
		c.weight = c.room
	}
}

// A stream keeps its text for the case that it must be continued. Most are short. What thousands of long ones, or of
// streams to clients that do not read, may keep together is bounded.
const (
	longText = maxText   // bytes of text from which on an answer counts here
	buffers  = 72 << 10  // bytes that a stream has for itself besides: two buffers of ours, four of the connections', stacks
	maxTexts = 128 << 20 // bytes of long texts of all answers together
)

// hold counts the text that the tap has kept by now. If all answers together keep too much, this one's is let go: it
// will not be continued.
func (c *call) hold() {
	n := int64(cap(c.tap.text) + cap(c.tap.thought))
	if n <= longText {
		n = 0
	}
	if n == c.kept {
		return
	}
	if c.g.texts.Add(n-c.kept) > maxTexts && n > c.kept {
		c.g.texts.Add(-n)
		n = 0
		c.tap.forget()
	}
	weight := func(kept int64) int64 {
		if kept == 0 {
			return 0
		}
		return kept + buffers
	}
	c.g.pressure.add(weight(n) - weight(c.kept))
	c.kept = n
}

// unburden takes the call's body and text out again, once nothing holds them any more.
func (c *call) unburden() {
	n := c.weight
	if c.kept > 0 {
		c.g.texts.Add(-c.kept)
		n += c.kept + buffers
		c.kept = 0
	}
	if n > 0 && c.g.pressure.add(-n) {
		debug.FreeOSMemory()
	}
}
