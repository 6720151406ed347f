package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"net/textproto"
	"strconv"
	"strings"
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
	limit time.Time // the read deadline that is set
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
	return &conn{Conn: nc, r: bufio.NewReaderSize(nc, 16<<10), host: h}, nil
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

// field is one header of an answer, its name canonical.
type field struct{ name, value string }

// errStale says that a kept connection was closed before a byte of the answer came.
var errStale = errors.New("kept connection was closed")

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
		if c.kept && !(errors.As(err, &timeout) && timeout.Timeout()) {
			return nil, errStale
		}
		return nil, err
	}
	return c.readHead()
}

func (c *conn) readHead() (*reply, error) {
	left := headLimit
	line := func() ([]byte, error) {
		b, err := c.r.ReadSlice('\n')
		if left -= len(b); left < 0 || errors.Is(err, bufio.ErrBufferFull) {
			return nil, errors.New("the head of the worker's answer is too long")
		}
		if err != nil {
			return nil, unexpected(err)
		}
		return bytes.TrimRight(b, "\r\n"), nil
	}
	rep := &reply{conn: c, length: -1}
	for {
		first, err := line()
		if err != nil {
			return nil, err
		}
		// HTTP/1.1 200 OK
		if len(first) < 12 || !bytes.HasPrefix(first, []byte("HTTP/1.")) || first[8] != ' ' {
			return nil, fmt.Errorf("the worker does not answer in HTTP/1: %q", first[:min(len(first), 40)])
		}
		rep.status, err = strconv.Atoi(string(first[9:12]))
		if err != nil || rep.status < 100 {
			return nil, fmt.Errorf("the worker's status line makes no sense: %q", first[:min(len(first), 40)])
		}
		rep.keep = first[7] == '1'
		rep.fields = rep.space[:0]
		chunked, sized := false, false
		for {
			l, err := line()
			if err != nil {
				return nil, err
			}
			if len(l) == 0 {
				break
			}
			i := bytes.IndexByte(l, ':')
			if i <= 0 {
				return nil, fmt.Errorf("the worker's header makes no sense: %q", l[:min(len(l), 40)])
			}
			name, value := canonical(l[:i]), bytes.TrimSpace(l[i+1:])
			switch name {
			case "Content-Length":
				n, err := strconv.ParseUint(string(value), 10, 63)
				if err != nil || sized && int64(n) != rep.length {
					return nil, errors.New("the worker's Content-Length makes no sense")
				}
				rep.length, sized = int64(n), true
				continue
			case "Transfer-Encoding":
				if !strings.EqualFold(string(value), "chunked") {
					return nil, fmt.Errorf("the worker's Transfer-Encoding is %q, want chunked", value)
				}
				chunked = true
				continue
			case "Connection":
				if bytes.EqualFold(value, []byte("close")) {
					rep.keep = false
				}
				continue
			}
			if keepsResponse(name) {
				rep.fields = append(rep.fields, field{name, intern(value)})
			}
		}
		switch {
		case rep.status < 200: // 100 Continue and the like: the answer follows
			continue
		case rep.status == 204 || rep.status == 304:
			rep.length = 0
			rep.body = eof{}
		case chunked:
			rep.length = -1
			rep.body = &chunks{c: c, Reader: httputil.NewChunkedReader(c.r)}
		case sized:
			rep.body = &sizedBody{r: c.r, left: rep.length}
		default:
			rep.keep = false
			rep.body = c.r
		}
		return rep, nil
	}
}

// sizedBody reads a body of known length; its early end is an error.
type sizedBody struct {
	r    *bufio.Reader
	left int64
}

func (s *sizedBody) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > s.left {
		p = p[:s.left]
	}
	n, err := s.r.Read(p)
	if s.left -= int64(n); s.left > 0 {
		return n, unexpected(err)
	}
	return n, io.EOF
}

// chunks reads a chunked body to its very end, trailers included, so that the connection can be
// used again.
type chunks struct {
	io.Reader
	c    *conn
	over bool
}

func (b *chunks) Read(p []byte) (int, error) {
	if b.over {
		return 0, io.EOF
	}
	n, err := b.Reader.Read(p)
	if err != io.EOF {
		return n, err
	}
	if n > 0 {
		// What came with the last chunk goes out first; the trailer may not be here yet.
		b.Reader = eof{}
		return n, nil
	}
	for {
		line, err := b.c.r.ReadSlice('\n')
		if err != nil {
			return 0, unexpected(err)
		}
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			b.over = true
			return 0, io.EOF
		}
	}
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// unexpected makes an end that must not be here an error.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// canonical is textproto's form of a header name, without allocating for those that vLLM sends.
func canonical(name []byte) string {
	switch string(name) {
	case "content-type", "Content-Type":
		return "Content-Type"
	case "content-length", "Content-Length":
		return "Content-Length"
	case "transfer-encoding", "Transfer-Encoding":
		return "Transfer-Encoding"
	case "date", "Date":
		return "Date"
	case "server", "Server":
		return "Server"
	case "vary", "Vary":
		return "Vary"
	case "x-request-id", "X-Request-Id":
		return "X-Request-Id"
	case "connection", "Connection":
		return "Connection"
	}
	return textproto.CanonicalMIMEHeaderKey(string(name))
}

// intern gives a header's value, without allocating for those that vLLM sends.
func intern(value []byte) string {
	switch string(value) {
	case "application/json":
		return "application/json"
	case "text/event-stream; charset=utf-8":
		return "text/event-stream; charset=utf-8"
	case "Origin":
		return "Origin"
	}
	return string(value)
}
