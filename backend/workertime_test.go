package backend

import (
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/ledger"
)

// clock is a timekeeper with what it told the ledger: the last word on each process counts.
type clock struct {
	*timekeeper
	told  map[string]ledger.WorkerTime
	count int
}

func newClock() *clock {
	c := &clock{told: map[string]ledger.WorkerTime{}}
	u := newUpstreams(nil, &providers{})
	c.timekeeper = &timekeeper{of: u.of, runs: map[string]*run{}, tell: func(w ledger.WorkerTime) {
		c.told[w.Incarnation] = w
		c.count++
	}}
	return c
}

func (c *clock) wall() time.Duration {
	var sum time.Duration
	for _, w := range c.told {
		sum += w.Until.Sub(w.Started)
	}
	return sum
}

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func second(s float64) time.Time { return noon.Add(time.Duration(s * float64(time.Second))) }

func TestAProcessRanUntilItsEndHoweverSoonTheNextOneBegins(t *testing.T) {
	c, p := newClock(), &pricing{}
	c.look(second(1), []api.Worker{{Name: "w0", State: api.Starting, Since: second(0), Started: second(0)}}, p)
	c.look(second(8), []api.Worker{{Name: "w0", State: api.Ready, Since: second(2), Started: second(0)}}, p)
	// It crashes at 8.5, is started again at 9 and has failed for good by 9.4.
	c.look(second(9.2), []api.Worker{{Name: "w0", State: api.Starting, Since: second(9)}}, p)
	c.look(second(10), []api.Worker{{Name: "w0", State: api.Failed, Since: second(9.4), Started: second(9.1)}}, p)
	for range 3 {
		c.look(second(20), []api.Worker{{Name: "w0", State: api.Failed, Since: second(9.4), Started: second(9.1)}}, p)
	}
	if got, want := c.wall(), 9300*time.Millisecond; got != want || len(c.told) != 2 {
		t.Errorf("told %v of %d processes, want %v of 2: until 9 and from 9.1 to 9.4", got, len(c.told), want)
	}
	if c.count != 4 {
		t.Errorf("told %d times, want 4: an end is told once", c.count)
	}
}

func TestAWorkerThatIsRemovedOrReplacedHasItsTimeTold(t *testing.T) {
	c, p := newClock(), &pricing{}
	c.look(second(1), []api.Worker{{Name: "a", State: api.Ready, Started: second(0)}, {Name: "b", State: api.Ready, Started: second(0)}}, p)
	c.look(second(2), []api.Worker{{Name: "b", State: api.Ready, Started: second(1.5)}}, p)
	if got, want := c.wall(), 4*time.Second; got != want {
		t.Errorf("told %v, want %v: a until 2, b until 1.5 and since then", got, want)
	}
}

func TestAProcessThatLivesForLessThanALookHasItsRate(t *testing.T) {
	c, hour := newClock(), api.Nanos(50_000_000)
	p := &pricing{hours: map[string]*api.Nanos{"w0": &hour}}
	c.look(second(1), []api.Worker{{Name: "w0", State: api.Failed, Since: second(0.6), Started: second(0.1)}}, p)
	for _, w := range c.told {
		if w.Hour == nil || *w.Hour != hour || w.Until.Sub(w.Started) != 500*time.Millisecond {
			t.Errorf("told %v at rate %v, want 500ms at %v: without a rate no cost of the day is known", w.Until.Sub(w.Started), w.Hour, hour)
		}
	}
	if len(c.told) != 1 {
		t.Errorf("told of %d processes, want 1", len(c.told))
	}
}

func TestAnIdleWorkerIsToldRarelyAndABusyOneOften(t *testing.T) {
	c, p := newClock(), &pricing{}
	w := []api.Worker{{Name: "w0", State: api.Ready, Started: second(0)}}
	for i := range 20 {
		c.look(second(float64(i+1)), w, p)
	}
	if c.count != 4 {
		t.Errorf("an idle worker was told %d times in 20 s, want 4", c.count)
	}
	m := c.of("w0").meterOf(second(0), second(20))
	mark := m.Begin(second(20))
	for i := range 5 {
		c.look(second(21+float64(i)), w, p)
	}
	m.End(second(25.5), mark)
	c.look(second(26), w, p)
	last := c.told["w0@2026-11-24T12:00:00Z"]
	if c.count != 10 || last.Busy != 5500*time.Millisecond || !last.Until.Equal(second(26)) {
		t.Errorf("told %d times, busy %v until %v; want 10 times, 5.5s until 26", c.count, last.Busy, last.Until)
	}
}

func TestTheTimeOfOneProcessIsNotThatOfTheNext(t *testing.T) {
	c, p := newClock(), &pricing{}
	c.look(second(1), []api.Worker{{Name: "w0", State: api.Ready, Started: second(0)}}, p)
	old := c.of("w0").meterOf(second(0), second(1))
	mark := old.Begin(second(1))
	c.look(second(11), []api.Worker{{Name: "w0", State: api.Failed, Since: second(11), Started: second(0)}}, p)
	c.look(second(12), []api.Worker{{Name: "w0", State: api.Starting, Since: second(12), Started: second(12)}}, p)
	c.look(second(20), []api.Worker{{Name: "w0", State: api.Ready, Since: second(13), Started: second(12)}}, p)
	if got := c.told["w0@2026-11-24T12:00:12Z"].Busy; got != 0 {
		t.Errorf("the second process was busy for %v, want 0: the requests were with the first", got)
	}
	// A client that reads slowly holds its request for longer than the worker lives.
	if got := old.End(second(41), mark); got != 10*time.Second {
		t.Errorf("the request's share is %v, want the 10s until the worker ended", got)
	}
}

func TestAnAttachedServerThatIsAwayGoesOn(t *testing.T) {
	c, p := newClock(), &pricing{}
	at := func(s float64, state api.State, since float64) {
		c.look(second(s), []api.Worker{{Name: "w0", Kind: "attach", State: state, Since: second(since), Started: second(0)}}, p)
	}
	at(1, api.Ready, 1)
	at(10, api.Failed, 9)
	at(20, api.Ready, 19)
	at(30, api.Stopped, 25)
	if got, want := c.wall(), 25*time.Second; got != want {
		t.Errorf("told %v, want %v: it is paid for while it does not answer, and let go at 25", got, want)
	}
}
