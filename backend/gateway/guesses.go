package gateway

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	maxGuesses   = 10          // keys that are not known, from one address, within guessWindow
	guessWindow  = time.Minute // from the first of them
	maxAddresses = 4096        // that are remembered; those beyond share one count
)

// guesses counts the failed keys of each address. An address over the limit is answered with 429
// for the rest of its minute. Keys with enough random bits are accepted from it all the same: they
// cannot be guessed, and one misconfigured client must not lock out the others behind its proxy.
type guesses struct {
	mu sync.Mutex
	by map[netip.Addr]guess
}

type guess struct {
	since time.Time
	n     int
}

// place is what an address is remembered as: of IPv6, the /64 that one subscriber has. What is no
// address, such as a connection within this process, is one place.
func placeOf(remote string) netip.Addr {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			addr = p.Addr()
		}
	}
	return addr
}

// blocked says how long an address has to wait; 0: not at all.
func (g *guesses) blocked(remote string, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.by) == 0 {
		return 0
	}
	at := placeOf(remote)
	e, ok := g.by[at]
	if !ok && len(g.by) >= maxAddresses {
		e = g.by[netip.Addr{}]
	}
	if left := guessWindow - now.Sub(e.since); e.n >= maxGuesses && left > 0 {
		return left
	}
	return 0
}

// failed counts a failed key.
func (g *guesses) failed(remote string, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := placeOf(remote)
	e, ok := g.by[at]
	if !ok && len(g.by) >= maxAddresses {
		for a, o := range g.by {
			if now.Sub(o.since) >= guessWindow {
				delete(g.by, a)
			}
		}
		if len(g.by) >= maxAddresses {
			at = netip.Addr{}
			e = g.by[at]
		}
	}
	if now.Sub(e.since) >= guessWindow {
		e = guess{since: now}
	}
	e.n++
	if g.by == nil {
		g.by = map[netip.Addr]guess{}
	}
	g.by[at] = e
}
