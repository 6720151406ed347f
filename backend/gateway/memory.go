package gateway

import (
	"runtime/debug"
	"sync"
)

// Between two collections Go's heap grows to twice what is alive, which for hundreds of megabytes
// of bodies is as much again that the host's workers lack. Bodies hold no pointers, so that
// collecting often costs little while they are most of what there is.
const (
	heavy     = 1 << 20  // bytes from which on a body counts here
	tightAt   = 64 << 20 // bytes of heavy bodies from which on the collector runs early
	loosenAt  = 16 << 20 // … and down to which it goes on doing so
	tightGOGC = 25
)

// pressure counts the bytes of heavy bodies and sets the pace of the collector.
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

// unburden takes the call's body out again, once nothing holds it any more.
func (c *call) unburden() {
	if c.weight > 0 && c.g.pressure.add(-c.weight) {
		debug.FreeOSMemory()
	}
}
