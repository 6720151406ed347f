package gateway

import (
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// corked is a client's connection on which several writes can be held back and made one. net/http
// writes a large chunk in three pieces, the last of them two bytes, and its end in a fourth; each is
// a system call here, a packet on the way and a system call at the client.
type corked struct {
	net.Conn
	early []byte // what was read of it before it came here; its reader comes by it first

	mu   sync.Mutex
	held *buf // what is held back; nil: writes go through
	ends bool // a call took the write deadline off meanwhile
}

// hold begins to hold writes back, until release or Close.
func (c *corked) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		c.held = heldBufs.Get().(*buf)
		c.held.b = c.held.b[:0]
	}
}

// heldBufs hold what net/http writes of an answer: its head, and a piece of the size that it would write by itself.
var heldBufs = sync.Pool{New: func() any { return &buf{b: make([]byte, 0, onePiece+4<<10)} }}

// release writes what was held back.
func (c *corked) release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.releaseLocked()
}

func (c *corked) releaseLocked() (err error) {
	if c.held == nil {
		return nil
	}
	if len(c.held.b) > 0 {
		_, err = c.Conn.Write(c.held.b)
	}
	heldBufs.Put(c.held)
	c.held = nil
	if c.ends {
		c.ends = false
		_ = c.Conn.SetWriteDeadline(time.Time{}) // a closed connection says so at the next write
	}
	return err
}

// Read implements net.Conn.
func (c *corked) Read(p []byte) (int, error) {
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// Write implements net.Conn.
func (c *corked) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		if e := shaped(p); e != nil {
			_, err := c.Conn.Write(e)
			return len(p), err
		}
		return c.Conn.Write(p)
	}
	if len(c.held.b)+len(p) <= cap(c.held.b) {
		c.held.b = append(c.held.b, p...)
		return len(p), nil
	}
	if len(c.held.b) == 0 {
		return c.Conn.Write(p)
	}
	// The buffer does not grow: what does not fit goes out, in one system call with what was held back.
	_, err := (&net.Buffers{c.held.b, p}).WriteTo(c.Conn)
	c.held.b = c.held.b[:0]
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetWriteDeadline implements net.Conn. net/http takes the deadline off when it is done with an
// answer: what is held back keeps it until it is written.
func (c *corked) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ends = c.held != nil && t.IsZero(); c.ends {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}

// Close implements net.Conn. What is held back is written first, so that the end of a connection
// means the same as without holding back.
func (c *corked) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held != nil {
		_ = c.Conn.SetWriteDeadline(time.Now().Add(time.Second)) // nobody waits long for a client that is let go
		_ = c.releaseLocked()                                    // it is closed in any case
	}
	return c.Conn.Close()
}

// CloseWrite is what net/http looks for to close the way to a client before the way from it.
func (c *corked) CloseWrite() error {
	if err := c.release(); err != nil {
		return err
	}
	if t, ok := c.Conn.(*net.TCPConn); ok {
		return t.CloseWrite()
	}
	return nil
}

// corkedOf finds the corked connection under a server's; nil if there is none.
func corkedOf(c net.Conn) *corked {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	k, _ := c.(*corked)
	return k
}

// idle is net/http's ConnState hook: an answer that has ended goes out as a whole.
func idle(c net.Conn, s http.ConnState) {
	if s != http.StateIdle {
		return
	}
	if k := corkedOf(c); k != nil && k.release() != nil {
		_ = c.Close() // the client has only a part of its answer
	}
}

// corkListener makes every connection a corked one.
type corkListener struct{ net.Listener }

// Accept implements net.Listener.
func (l corkListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	boundUnsent(c)
	return &corked{Conn: c}, nil
}
