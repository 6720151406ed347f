package cost

import (
	"math/bits"
	"sync"
	"time"
)

// A Meter divides the wall clock of one worker among its requests: each instant falls in equal
// parts to the requests then in flight, and to nobody (idle) when there are none. A request's
// share is fixed when it ends and never changes. Shares and idle time add up to the wall clock
// to the nanosecond; what rounding leaves over is idle.
//
// It keeps one running sum of dt/n, so that every call is O(1). All methods may be called from
// many goroutines. Times that run backwards count as no time at all.
type Meter struct {
	mu     sync.Mutex
	start  time.Time
	last   time.Time // up to where time has been divided
	n      uint64    // requests in flight
	sum    Mark      // of dt/n
	flying Mark      // shares of those in flight: n times the sum, less their marks
	ended  time.Duration
	busy   time.Duration
	over   bool // the worker has ended: no more time is divided
}

// Mark is where the running sum stood when a request began, in nanoseconds and 2^-64ths of one.
type Mark struct{ whole, frac uint64 }

func (m Mark) plus(o Mark) Mark {
	frac, carry := bits.Add64(m.frac, o.frac, 0)
	return Mark{m.whole + o.whole + carry, frac}
}

func (m Mark) minus(o Mark) Mark {
	frac, borrow := bits.Sub64(m.frac, o.frac, 0)
	return Mark{m.whole - o.whole - borrow, frac}
}

// Time is how a worker's wall clock was spent: Wall = Ended + InFlight + Idle, and Wall - Busy
// is the time without any request.
type Time struct {
	Wall     time.Duration // since the start
	Ended    time.Duration // shares of the requests that have ended
	InFlight time.Duration // shares so far of those that have not
	Idle     time.Duration // nobody's: none in flight, and the rest from rounding
	Busy     time.Duration // wall clock with at least one request in flight
}

// NewMeter starts dividing time at start, which may be long ago: everything until the first
// request is idle.
func NewMeter(start time.Time) *Meter {
	return &Meter{start: start, last: start}
}

// Begin counts a request in at now and gives what End needs to know.
func (m *Meter) Begin(now time.Time) Mark {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(now)
	m.n++
	return m.sum
}

// End counts a request out at now and gives its share of the worker's time. It must be called
// once for every Begin.
func (m *Meter) End(now time.Time, began Mark) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(now)
	if m.n == 0 {
		return 0
	}
	m.n--
	share := m.sum.minus(began)
	m.flying = m.flying.minus(share)
	d := time.Duration(share.whole) // the fraction is idle from here on
	m.ended += d
	return d
}

// Read divides time up to now and says how it was spent.
func (m *Meter) Read(now time.Time) Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(now)
	t := Time{Wall: m.last.Sub(m.start), Ended: m.ended, InFlight: time.Duration(m.flying.whole), Busy: m.busy}
	t.Idle = t.Wall - t.Ended - t.InFlight
	return t
}

// Idle is the time up to now that fell to no request.
func (m *Meter) Idle(now time.Time) time.Duration { return m.Read(now).Idle }

// Busy is the time up to now with at least one request in flight.
func (m *Meter) Busy(now time.Time) time.Duration { return m.Read(now).Busy }

// Shares is the time up to now that fell to requests, ended or in flight.
func (m *Meter) Shares(now time.Time) time.Duration {
	t := m.Read(now)
	return t.Ended + t.InFlight
}

// Stop says that the worker ended at at: whatever is still in flight gets no more of its time, such
// as the rest of an answer that a slow client has yet to read.
func (m *Meter) Stop(at time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance(at)
	m.over = true
}

func (m *Meter) advance(now time.Time) {
	dt := now.Sub(m.last)
	if dt <= 0 || m.over {
		return
	}
	m.last = now
	if m.n == 0 {
		return
	}
	m.busy += dt
	// dt/n in nanoseconds and 2^-64ths, rounded down: the sum never gives away more than there is.
	whole := uint64(dt) / m.n
	frac, _ := bits.Div64(uint64(dt)%m.n, 0, m.n)
	m.sum = m.sum.plus(Mark{whole, frac})
	hi, lo := bits.Mul64(frac, m.n)
	m.flying = m.flying.plus(Mark{whole*m.n + hi, lo})
}
