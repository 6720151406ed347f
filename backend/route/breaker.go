package route

import "time"

// The figures of a Breaker. Five in a row is Envoy's default for consecutive errors; its
// statistical modes need more hosts than one machine has workers.
const (
	breakAfter = 5                // failures in a row
	openMin    = time.Second      // first time it stays open
	openMax    = 30 * time.Second // longest
)

// Breaker keeps requests away from an upstream that fails. It opens after five failures in a
// row, then lets one request through after a second to see; each time that fails too, it waits
// twice as long, up to 30 s. The zero Breaker is closed. It is not safe for concurrent use.
type Breaker struct {
	fails  int
	open   bool
	until  time.Time     // open: when a probe may go
	wait   time.Duration // open: how long it stays so
	probe  bool          // a probe is under way; until: when it counts as lost
	period Attempt
}

// Attempt is the period of a breaker in which a request was sent. A result that comes in a later period is
// about a state that is gone, and is ignored.
type Attempt uint64

// Open reports whether requests must stay away at now.
func (b *Breaker) Open(now time.Time) bool { return b.open && now.Before(b.until) }

// Tripped reports whether the breaker has opened and no request has succeeded since. Between its
// time and its probe it is so without being Open.
func (b *Breaker) Tripped() bool { return b.open }

// Begin notes that a request is sent at now. If the breaker was waiting for a probe, this
// request is it, and the breaker is Open again until that ends.
func (b *Breaker) Begin(now time.Time) Attempt {
	if b.open && !now.Before(b.until) {
		b.period++
		b.probe = true
		b.until = now.Add(b.wait) // a probe that never ends must not block the next for ever
	}
	return b.period
}

// End notes the result of an attempt.
func (b *Breaker) End(a Attempt, r Result, now time.Time) {
	if a != b.period {
		return
	}
	switch {
	case b.open && !b.probe:
		// Sent although open, because it was the last worker: only success says something.
		if r == Succeeded {
			b.close()
		}
	case r == Succeeded:
		b.close()
	case r == Neutral && b.probe:
		b.probe = false
		b.until = now // the probe said nothing: the next request is one
	case r == Failed && b.probe:
		b.trip(now, min(2*b.wait, openMax))
	case r == Failed:
		if b.fails++; b.fails >= breakAfter {
			b.trip(now, openMin)
		}
	}
}

func (b *Breaker) trip(now time.Time, wait time.Duration) {
	b.period++
	b.open, b.probe, b.wait, b.until, b.fails = true, false, wait, now.Add(wait), 0
}

func (b *Breaker) close() {
	if b.open {
		b.period++
	}
	b.open, b.probe, b.fails = false, false, 0
}
