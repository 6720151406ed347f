package gateway

import (
	"bufio"
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// wire speaks HTTP/1.1 to workers over kept connections. It exists beside net/http's Transport
// because that runs two goroutines per connection and hands every request and answer across
// them; here the request's own goroutine writes one buffer and reads the answer, which takes a
// fifth off the gateway's CPU per request. Anything but plain http goes through net/http.
type wire struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error) // nil: a net.Dialer

	mu    sync.Mutex
	hosts map[string]*host
}

// host is the kept connections to one address, the one used last at the end.
type host struct {
	mu     sync.Mutex
	idle   []*conn
	reaper *time.Timer
}

const (
	// keepIdle is how long a connection is kept unused. Uvicorn closes after 5 s; a request that
	// meets that close must be sent again.
	keepIdle    = 4 * time.Second
	dialTimeout = 5 * time.Second
	headLimit   = 64 << 10 // of an answer's status line and headers
)

// conn is one connection to a worker.
type conn struct {
	net.Conn
	r     *bufio.Reader
	host  *host
	since time.Time // idle since
	kept  bool      // it has served a request before
	began time.Time // the request that is on it
	limit time.Time // the read deadline that is set
	rep   reply     // the answer on it: there is one at a time
}

func (w *wire) host(addr string) *host {
	w.mu.Lock()
	defer w.mu.Unlock()
	h := w.hosts[addr]
	if h == nil {
		if w.hosts == nil {
			w.hosts = map[string]*host{}
		}
		h = &host{}
		w.hosts[addr] = h
	}
	return h
}

// get gives a connection to addr: a kept one, unless fresh is set.
func (w *wire) get(ctx context.Context, addr string, fresh bool) (*conn, error) {
	h := w.host(addr)
	if !fresh {
		if c := h.pop(); c != nil {
			return c, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dial := w.dial
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	nc, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: nc, r: bufio.NewReaderSize(nc, 8<<10), host: h}, nil
}

func (h *host) pop() *conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.idle)
	if n == 0 {
		return nil
	}
	c := h.idle[n-1]
	if time.Since(c.since) >= keepIdle { // and so are all that were used before it
		h.closeLocked(n)
		return nil
	}
	h.idle[n-1] = nil
	h.idle = h.idle[:n-1]
	return c
}

// put keeps a connection for the next request.
func (h *host) put(c *conn) {
	c.since, c.kept = time.Now(), true
	h.mu.Lock()
	defer h.mu.Unlock()
	h.idle = append(h.idle, c)
	if h.reaper == nil {
		h.reaper = time.AfterFunc(keepIdle, h.reap)
	} else if len(h.idle) == 1 {
		h.reaper.Reset(keepIdle)
	}
}

// reap closes what has been idle for too long.
func (h *host) reap() {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for n < len(h.idle) && time.Since(h.idle[n].since) >= keepIdle {
		n++
	}
	h.closeLocked(n)
	if len(h.idle) > 0 {
		h.reaper.Reset(keepIdle - time.Since(h.idle[0].since))
	}
}

// closeLocked closes the n connections that were used longest ago.
func (h *host) closeLocked(n int) {
	for _, c := range h.idle[:n] {
		_ = c.Close() // nothing is on it
	}
	left := copy(h.idle, h.idle[n:])
	clear(h.idle[left:])
	h.idle = h.idle[:left]
}

// close closes all idle connections.
func (w *wire) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.hosts {
		h.mu.Lock()
		h.closeLocked(len(h.idle))
		if h.reaper != nil {
			h.reaper.Stop()
		}
		h.mu.Unlock()
	}
}

// errStale says that a kept connection was closed before a byte of the answer came.
var errStale = errors.New("kept connection was closed")

// staleTime is how soon a connection that was closed while it was idle shows it. What breaks
// later has broken under the request.
const staleTime = time.Second

// roundTrip writes a request, which is head and then rest, and reads the head of the answer. With
// errStale the request may be sent again on a fresh connection.
func (c *conn) roundTrip(head []byte, rest [][]byte) (*reply, error) {
	var err error
	if len(rest) == 0 {
		_, err = c.Write(head)
	} else {
		_ = c.SetWriteDeadline(c.limit) // a closed connection says so at the write
		bufs := append(net.Buffers{head}, rest...)
		_, err = bufs.WriteTo(c.Conn)
		_ = c.SetWriteDeadline(time.Time{})
	}
	// A server may answer and close before it has read all of the request, so a failed write is
	// not the end: what it has sent may be there to read.
	if _, peek := c.r.Peek(1); peek != nil {
		if err == nil {
			err = peek
		}
		var timeout net.Error
		if c.kept && time.Since(c.began) < staleTime && (!errors.As(err, &timeout) || !timeout.Timeout()) {
			return nil, errStale
		}
		return nil, unexpected(err)
	}
	return c.readHead()
}
