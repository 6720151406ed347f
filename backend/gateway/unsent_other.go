//go:build !linux

package gateway

import "net"

// boundUnsent is for Linux alone.
func boundUnsent(net.Conn) {}
