package worker

import "sync/atomic"

// gate counts the requests that are with a worker and lets more in only while it is open.
// Closing it is final for that moment: once shut has returned, the count can only fall.
type gate struct {
	v     atomic.Int64  // requests<<1 | closed
	taken atomic.Int64  // requests let in so far
	idle  chan struct{} // gets one value when a closed gate has become empty
	freed func()        // called after each release
}

func newGate(freed func()) *gate {
	g := &gate{idle: make(chan struct{}, 1), freed: freed}
	g.v.Store(1)
	return g
}

// acquire counts a request in. The release may be called more than once and from anywhere.
func (g *gate) acquire() (release func(), ok bool) {
	for {
		v := g.v.Load()
		if v&1 != 0 {
			return nil, false
		}
		if g.v.CompareAndSwap(v, v+2) {
			break
		}
	}
	g.taken.Add(1)
	var done atomic.Bool
	return func() {
		if done.Swap(true) {
			return
		}
		if g.v.Add(-2) == 1 {
			select {
			case g.idle <- struct{}{}:
			default:
			}
		}
		g.freed()
	}, true
}

func (g *gate) open()        { g.v.And(^int64(1)) }
func (g *gate) shut()        { g.v.Or(1) }
func (g *gate) isOpen() bool { return g.v.Load()&1 == 0 }
func (g *gate) count() int   { return int(g.v.Load() >> 1) }

// waker tells waiters that something has changed. With nobody waiting it costs one atomic load.
type waker struct{ ch atomic.Pointer[chan struct{}] }

// changed gives a channel that the next wake closes. Get it before looking at what may change.
func (w *waker) changed() <-chan struct{} {
	for {
		if ch := w.ch.Load(); ch != nil {
			return *ch
		}
		ch := make(chan struct{})
		if w.ch.CompareAndSwap(nil, &ch) {
			return ch
		}
	}
}

func (w *waker) wake() {
	if w.ch.Load() == nil {
		return
	}
	if ch := w.ch.Swap(nil); ch != nil {
		close(*ch)
	}
}
