package gateway

import (
	"errors"
	"os"
	"sync/atomic"
	"time"
)

// A client that goes away ends its request. That shows at a read on its connection, for which net/http keeps a
// goroutine for each request. On the lane only those that take longer than watchAfter get one.
const watchAfter = 5 * time.Millisecond

// watchlist holds the requests that are not watched yet, oldest first. It is guarded by lane.mu.
type watchlist struct {
	l           *lane
	first, last *laneConn
	timer       *time.Timer
	armed       bool
}

// watcher is what a connection has for it.
type watcher struct {
	prev, next *laneConn
	listed     bool
	done       chan struct{} // closed when the watch is over; nil: there is none
	aborting   atomic.Bool
}

func (w *watchlist) init(l *lane) {
	w.l = l
	w.timer = time.AfterFunc(time.Hour, w.sweep)
	w.timer.Stop()
}

func (w *watchlist) push(c *laneConn) {
	c.prev, c.next, c.listed = w.last, nil, true
	if w.last != nil {
		w.last.next = c
	} else {
		w.first = c
	}
	w.last = c
	if !w.armed {
		w.armed = true
		w.timer.Reset(watchAfter)
	}
}

func (w *watchlist) remove(c *laneConn) {
	if !c.listed {
		return
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		w.first = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	} else {
		w.last = c.prev
	}
	c.prev, c.next, c.listed = nil, nil, false
}

// sweep begins to watch the clients of requests that are old enough. While a body is read its reader sees
// that the client goes.
func (w *watchlist) sweep() {
	w.l.mu.Lock()
	defer w.l.mu.Unlock()
	now := time.Now()
	for c := w.first; c != nil && now.Sub(c.since) >= watchAfter; {
		next := c.next
		if c.body.all.Load() {
			w.remove(c)
			c.done = make(chan struct{})
			_ = c.SetReadDeadline(time.Time{}) // a closed connection says so at the read
			go c.watch(c.done)
		}
		c = next
	}
	if w.armed = w.first != nil; w.armed {
		w.timer.Reset(watchAfter)
	}
}

// watch reads ahead, and ends the connection's requests if the client has gone. The beginning of a next request ends the
// watch, as in net/http.
func (c *laneConn) watch(done chan struct{}) {
	defer close(done)
	if c.from > 0 {
		c.to = copy(c.buf, c.buf[c.from:c.to])
		c.from = 0
	}
	if c.to == len(c.buf) {
		return
	}
	n, err := c.Read(c.buf[c.to:])
	c.to += n
	if n > 0 || err == nil || c.aborting.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	c.gone()
}

// unwatch ends the watch.
func (c *laneConn) unwatch(done chan struct{}) {
	c.aborting.Store(true)
	c.readBy = time.Unix(1, 0)
	_ = c.SetReadDeadline(c.readBy) // a closed connection ends the watch by itself
	<-done
	c.aborting.Store(false)
}
