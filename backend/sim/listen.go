package sim

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
)

// opener is a listener that is bound before it listens, as vLLM's port is while the engine
// loads. Serve opens it when the server is ready.
type opener interface{ Open() error }

// Pipe is a listener in memory: its connections are synchronous pipes that work inside a
// testing/synctest bubble. Until the server is ready and after it has ended, Dial is refused.
type Pipe struct {
	conns chan net.Conn
	done  chan struct{}

	mu     sync.Mutex
	open   bool
	closed bool
}

// Listen gives a Pipe for Server.Serve.
func Listen() *Pipe {
	return &Pipe{conns: make(chan net.Conn), done: make(chan struct{})}
}

// Open lets connections in.
func (p *Pipe) Open() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = true
	return nil
}

// Dial connects; network and address are for http.Transport.DialContext and not looked at.
func (p *Pipe) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	p.mu.Lock()
	open := p.open && !p.closed
	p.mu.Unlock()
	refused := &net.OpError{Op: "dial", Net: "pipe", Addr: pipeAddr{}, Err: syscall.ECONNREFUSED}
	if !open {
		return nil, refused
	}
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.done:
		return nil, refused
	case <-ctx.Done():
		return nil, fmt.Errorf("dial simulated server: %w", ctx.Err())
	}
}

// Client gives an HTTP client whose every connection goes to this listener. Close its idle
// connections before a bubble ends.
func (p *Pipe) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: p.Dial, MaxIdleConnsPerHost: 64, DisableCompression: true}}
}

// Accept implements net.Listener.
func (p *Pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *Pipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		close(p.done)
	}
	return nil
}

// Addr implements net.Listener.
func (p *Pipe) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "simulated" }
