//go:build unix

package sim

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Bound is a TCP port that is taken but does not listen yet: connections are refused until
// Open. vLLM's server is like that while its engine loads.
type Bound struct {
	addr netip.AddrPort

	mu     sync.Mutex
	fd     int // -1 once handed to ln or closed
	ln     net.Listener
	opened chan struct{}
	closed chan struct{}
	shut   bool
}

// Bind takes host:port. Port 0 is any free one. The error of a taken port wraps EADDRINUSE.
func Bind(host string, port int) (*Bound, error) {
	ips, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", host)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", host, err)
	}
	ip := ips[0].Unmap()
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: port, Addr: ip.As16()})
	if ip.Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: ip.As4()}
	}
	syscall.ForkLock.RLock() // no child may be started between the two
	fd, err := unix.Socket(family, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	// As vLLM does; without it a restart would wait for connections in TIME_WAIT.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set SO_REUSEADDR: %w", err)
	}
	if err := unix.Bind(fd, sa); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("bind %s: %w", net.JoinHostPort(host, strconv.Itoa(port)), err)
	}
	b := &Bound{fd: fd, opened: make(chan struct{}), closed: make(chan struct{})}
	if got, err := unix.Getsockname(fd); err == nil {
		switch a := got.(type) {
		case *unix.SockaddrInet4:
			b.addr = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
		case *unix.SockaddrInet6:
			b.addr = netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
		}
	}
	return b, nil
}

// Open begins to listen.
func (b *Bound) Open() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fd < 0 {
		return nil
	}
	if err := unix.Listen(b.fd, 2048); err != nil {
		return fmt.Errorf("listen on %s: %w", b.addr, err)
	}
	f := os.NewFile(uintptr(b.fd), "listener")
	b.fd = -1
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", b.addr, err)
	}
	b.ln = ln
	close(b.opened)
	return nil
}

// Accept implements net.Listener.
func (b *Bound) Accept() (net.Conn, error) {
	select {
	case <-b.opened:
		return b.ln.Accept()
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (b *Bound) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shut {
		return nil
	}
	b.shut = true
	close(b.closed)
	if b.ln != nil {
		return b.ln.Close()
	}
	if b.fd >= 0 {
		fd := b.fd
		b.fd = -1
		return unix.Close(fd)
	}
	return nil
}

// Addr implements net.Listener.
func (b *Bound) Addr() net.Addr { return net.TCPAddrFromAddrPort(b.addr) }
