package gateway

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// lane serves the plainest requests itself: over plain TCP and HTTP/1.1, a POST to a route that goes to a
// worker, with a Content-Length and nothing out of the ordinary in its head (head.read says what that is). Nearly all
// of the traffic is that, and net/http spends as much on such a request as all else that the gateway does for it.
//
// Whatever else comes, malformed requests included, is net/http's: it gets the connection for good, with the bytes
// that were read. So nothing is served here that net/http would refuse, and it is net/http that refuses.
// To it the lane is a listener of such connections.
type lane struct {
	g  *Gateway
	ln net.Listener

	others chan net.Conn // for net/http
	ended  chan struct{} // closed when no connection comes any more
	unhook func() bool   // takes hangUp off the context of all requests
	err    error         // why, where it was not asked for
	once   sync.Once
	wg     sync.WaitGroup

	mu      sync.Mutex
	conns   map[*laneConn]bool
	closing bool
	empty   chan struct{} // closed when closing and the last connection is gone
	young   watchlist

	dated atomic.Pointer[dated] // the second it is
}

const (
	firstWait = 10 * time.Second // for the head of a request, as for net/http below
	idleWait  = 2 * time.Minute  // for the next one on a connection
	freshWait = 5 * time.Second  // when closing, for the first one on a new connection; as in net/http
	laneBuf   = 8 << 10          // a longer head is net/http's
)

// newLane begins to serve what comes in by ln, in requests whose context is base.
func newLane(base context.Context, g *Gateway, ln net.Listener) *lane {
	l := &lane{
		g: g, ln: ln, others: make(chan net.Conn), ended: make(chan struct{}),
		conns: map[*laneConn]bool{}, empty: make(chan struct{}),
	}
	l.young.init(l)
	l.unhook = context.AfterFunc(base, l.hangUp)
	l.wg.Go(func() { l.run(base) })
	return l
}

// run accepts connections until the listener is closed.
func (l *lane) run(base context.Context) {
	var rest time.Duration
	for {
		c, err := l.ln.Accept()
		if err == nil {
			rest = 0
			boundUnsent(c)
			l.wg.Go(func() { l.serve(base, c) })
			continue
		}
		if !passing(err) {
			l.end(err)
			return
		}
		rest = min(max(2*rest, 5*time.Millisecond), time.Second)
		select {
		case <-time.After(rest):
		case <-l.ended:
			return
		}
	}
}

// passing reports whether a listener that gives err will accept again: the machine is short of something.
func passing(err error) bool {
	return slices.ContainsFunc([]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM}, func(e error) bool { return errors.Is(err, e) })
}

func (l *lane) end(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.ended)
	})
}

// Accept implements net.Listener for net/http.
func (l *lane) Accept() (net.Conn, error) {
	select {
	case c := <-l.others:
		return c, nil
	case <-l.ended:
		return nil, l.err
	}
}

// Close implements net.Listener.
func (l *lane) Close() error {
	l.end(net.ErrClosed)
	return l.ln.Close()
}

// Addr implements net.Listener.
func (l *lane) Addr() net.Addr { return l.ln.Addr() }

// stop lets the requests that are under way end, and no more come.
func (l *lane) stop() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return
	}
	l.closing = true
	if len(l.conns) == 0 {
		close(l.empty)
	}
	for c := range l.conns {
		switch {
		case c.active:
		case c.fresh:
			_ = c.SetReadDeadline(c.since.Add(freshWait)) // a closed connection has nothing to wait for
		default:
			_ = c.Close() // nothing is on it
		}
	}
}

// wait waits until all connections are gone, or until ctx ends.
func (l *lane) wait(ctx context.Context) error {
	if l == nil {
		return nil
	}
	select {
	case <-l.empty:
		l.unhook()
		l.wg.Wait()
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// cut lets what is being written be written until ctx ends, closes all connections and waits for those who serve them.
func (l *lane) cut(ctx context.Context) {
	if l == nil {
		return
	}
	l.stop()
	_ = l.Close() // it may be closed already
	l.each(func(c *laneConn) {
		if !c.active {
			_ = c.Close() // nothing is on it
		}
	})
	_ = l.wait(ctx) // what is left then is cut
	l.each(func(c *laneConn) {
		c.gone()
		_ = c.Close() // its request sees that
	})
	l.unhook()
	l.wg.Wait()
}

// hangUp ends the exchanges with workers when the context of all requests has ended.
func (l *lane) hangUp() {
	l.each(func(c *laneConn) {
		<-c.blank.Context().Done() // it ends with that one, for the same cause
		c.gone()
	})
}

func (l *lane) each(do func(c *laneConn)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		do(c)
	}
}

func (l *lane) add(c *laneConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return false
	}
	l.conns[c] = true
	return true
}

func (l *lane) remove(c *laneConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, c)
	if l.closing && len(l.conns) == 0 {
		close(l.empty)
	}
}

// laneConn is a client's connection. One goroutine owns it, but for what is said to be guarded.
type laneConn struct {
	net.Conn
	lane   *lane
	blank  *http.Request      // what all its requests have in common, their context too
	cancel context.CancelFunc // of that, when the client goes

	buf      []byte
	from, to int // what of buf is not used yet

	readBy  time.Time // the deadlines that are set
	writeBy time.Time

	head  head
	body  laneBody
	reply laneReply
	call  atomic.Pointer[call] // that is served; nil: none

	// Guarded by lane.mu.
	active bool      // it has a request
	fresh  bool      // it has had none
	since  time.Time // of the request, or of the connection
	watcher
}

func (l *lane) serve(base context.Context, nc net.Conn) {
	c := &laneConn{Conn: nc, lane: l, buf: make([]byte, laneBuf), fresh: true, since: time.Now()}
	c.readBy = c.since.Add(firstWait)
	_ = c.SetReadDeadline(c.readBy) // a closed connection says so at the next read, here and below
	ctx, cancel := context.WithCancel(base)
	defer cancel()
	c.cancel = cancel
	c.blank = (&http.Request{
		Method: http.MethodPost, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: nc.RemoteAddr().String(),
	}).WithContext(ctx)
	c.reply = laneReply{c: c, h: http.Header{}}
	if !l.add(c) {
		_ = c.Close() // nothing was on it
		return
	}
	defer l.remove(c)
	for {
		if c.from == c.to {
			n, err := c.Read(c.buf)
			if n == 0 && err != nil {
				break
			}
			c.from, c.to = 0, n
		}
		n, ok := c.head.read(c.buf[c.from:c.to])
		if !ok {
			c.hand()
			return
		}
		c.from += n
		if !c.request() {
			break
		}
		now := time.Now()
		if d := now.Add(idleWait).Sub(c.readBy); d < 0 || d > idleWait/10 {
			c.readBy = now.Add(idleWait)
			_ = c.SetReadDeadline(c.readBy)
		}
	}
	_ = c.Close() // the client has all that it gets
}

// gone ends the request that is under way: its context, and what it has with a worker. That is not left to the
// context, because to hook on it costs more than all else that is done for a request here.
func (c *laneConn) gone() {
	c.cancel()
	if call := c.call.Load(); call != nil {
		call.hangUp()
	}
}

// hand gives the connection to net/http.
func (c *laneConn) hand() {
	if !c.writeBy.IsZero() {
		_ = c.SetWriteDeadline(time.Time{})
	}
	k := &corked{Conn: c.Conn, early: bytes.Clone(c.buf[c.from:c.to])}
	select {
	case c.lane.others <- k:
	case <-c.lane.ended:
		_ = k.Close() // it has no answer yet, and nobody is left to give one
	}
}

// request serves the request whose head was read and reports whether another may follow.
func (c *laneConn) request() bool {
	now := time.Now()
	c.body.start(c, c.head.length)
	if !c.begin(now) {
		return false
	}
	r := new(http.Request)
	*r = *c.blank
	r.URL, r.RequestURI = &c.head.route.url, c.head.route.url.Path
	r.Header, r.Host, r.ContentLength, r.Body = c.head.header, c.head.host, c.head.length, &c.body
	w := &c.reply
	w.start(now)
	whole := c.handle(w, r)
	c.call.Store(nil)
	if whole {
		w.finish()
	} else {
		_ = w.release() // the connection ends in any case
	}
	w.done()
	on := c.end() && whole && w.err == nil && !w.last
	if on {
		on = c.body.drop()
	}
	if !on && whole && c.body.left > 0 && !c.body.lost {
		c.linger()
	}
	return on
}

// handle runs the handler. False: it has aborted the answer.
func (c *laneConn) handle(w http.ResponseWriter, r *http.Request) (whole bool) {
	defer func() {
		if p := recover(); p != nil && p != any(http.ErrAbortHandler) {
			c.lane.g.Log.Error("request handler panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	c.lane.g.ServeHTTP(w, r)
	return true
}

// begin takes up a request. False: it comes too late.
func (c *laneConn) begin(now time.Time) bool {
	l := c.lane
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing && !c.fresh {
		return false
	}
	c.active, c.fresh, c.since = true, false, now
	l.young.push(c)
	return true
}

// end says that the request has its answer, and reports whether the client is there and may send another.
func (c *laneConn) end() bool {
	l := c.lane
	l.mu.Lock()
	c.active = false
	l.young.remove(c)
	watched := c.done
	c.done = nil
	on := !l.closing
	l.mu.Unlock()
	if watched != nil {
		c.unwatch(watched)
	}
	return on && c.blank.Context().Err() == nil
}

// linger closes the way to the client, whose request was not read to its end, and lets it come to read that: a connection
// that is closed with something unread is reset, and the answer with it.
func (c *laneConn) linger() {
	if t, ok := c.Conn.(*net.TCPConn); ok && t.CloseWrite() == nil {
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		for {
			if _, err := c.Read(c.buf); err != nil {
				return
			}
		}
	}
}
