package gateway

import (
	"net"

	"golang.org/x/sys/unix"
)

// unsent is how much the kernel takes of an answer that it cannot send yet.
const unsent = 16 << 10

// boundUnsent bounds what the kernel holds for a client that does not read: on loopback it would be up to 4 MB, and as
// long it would take to see that nobody reads. What is on its way is not bounded, so that a client that reads is none the
// slower. A listener cannot hand the bound down to its connections.
func boundUnsent(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return // it is closed
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent) // without it all works, with more memory
	})
}
