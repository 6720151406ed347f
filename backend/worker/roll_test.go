package worker

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

func rollIs(p *Pool, state string) func() bool {
	return func() bool {
		r := p.Rolls()
		return len(r) == 1 && r[0].State == state
	}
}

func allReady(p *Pool) func() bool {
	return func() bool {
		return !slices.ContainsFunc(p.Statuses(), func(w api.Worker) bool { return w.State != api.Ready })
	}
}

// slow starts take this long in the tests of rolling restarts.
func slow(d time.Duration) func(*proc) {
	return func(p *proc) {
		if p.wait(d) {
			p.serve()
		}
	}
}

func TestARollRestartsOneAfterTheOtherAndLosesNoRequest(t *testing.T) {
	run(t, conf(vllmWorker("w0"), vllmWorker("w1"), vllmWorker("w2")), func(h *host) { h.play = slow(20 * time.Second) }, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Minute, "all ready", allReady(p))
		first := map[string]int{}
		for _, w := range p.Statuses() {
			first[w.Name] = w.PID
		}
		// Twenty clients, each with one request of 7 s after the other, on whichever worker takes it.
		stop := make(chan struct{})
		var clients sync.WaitGroup
		var mu sync.Mutex
		lost, served := 0, 0
		for i := range 20 {
			clients.Go(func() {
				for n := i; !isDone(stop); n++ {
					name := p.Statuses()[n%3].Name
					release, ok := p.Acquire(name)
					if !ok {
						continue
					}
					pid := mustOf(p, name).PID
					time.Sleep(7 * time.Second)
					mu.Lock()
					served++
					if mustOf(p, name).PID != pid {
						lost++
					}
					mu.Unlock()
					release()
				}
			})
		}
		must(t, p.Roll("m", false))
		wantRefused(t, p.Roll("m", false))
		least := 3
		until(t, 10*time.Minute, "rolled", func() bool {
			ready := 0
			for _, w := range p.Statuses() {
				if w.State == api.Ready {
					ready++
				}
			}
			least = min(least, ready)
			return rollIs(p, rollDone)()
		})
		close(stop)
		clients.Wait()
		if least != 2 {
			t.Errorf("at the worst %d of 3 were ready, want 2", least)
		}
		if lost != 0 || served < 100 {
			t.Errorf("%d of %d requests lost their worker", lost, served)
		}
		for _, w := range p.Statuses() {
			if w.PID == first[w.Name] || w.State != api.Ready || w.Crashes != 0 {
				t.Errorf("%s: %s, pid %d (was %d), %d crashes", w.Name, w.State, w.PID, first[w.Name], w.Crashes)
			}
		}
		if r := p.Rolls()[0]; r.Done != 3 || !slices.Equal(r.Workers, []string{"w0", "w1", "w2"}) || r.Error != "" {
			t.Errorf("roll = %+v", r)
		}
		if !h.noticed("rolling restart of m done: 3 workers in") {
			t.Errorf("notices: %+v", h.notices)
		}
	})
}

func mustOf(p *Pool, name string) api.Worker {
	s, _ := p.Status(name)
	return s
}

func TestARollStopsWhenOneDoesNotComeBack(t *testing.T) {
	run(t, conf(vllmWorker("w0"), vllmWorker("w1"), vllmWorker("w2")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Minute, "all ready", allReady(p))
		h.mu.Lock()
		h.play = failsWith("api_server.py: error: unrecognized arguments: --nope\n", 2)
		h.mu.Unlock()
		must(t, p.Roll("m", false))
		until(t, 10*time.Minute, "stopped", rollIs(p, rollFailed))
		r := p.Rolls()[0]
		if r.Done != 0 || !strings.Contains(r.Error, "w0 does not come back: vLLM does not know the flag --nope") {
			t.Errorf("roll = %+v", r)
		}
		for _, name := range []string{"w1", "w2"} {
			if s := mustStatus(t, p, name); s.State != api.Ready || h.launches() != 4 {
				t.Errorf("%s is %s after %d launches, want it untouched", name, s.State, h.launches())
			}
		}
	})
}

func TestARollBeginsWithThoseThatDoNotServe(t *testing.T) {
	c := conf(vllmWorker("w0"), vllmWorker("w1"), vllmWorker("w2"), vllmWorker("w3"))
	run(t, c, nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Minute, "all ready", allReady(p))
		h.mu.Lock()
		h.play = failsWith("api_server.py: error: unrecognized arguments: --nope\n", 2)
		h.mu.Unlock()
		must(t, p.Restart("w2"))
		until(t, time.Minute, "w2 given up", given(p, "w2"))
		must(t, p.Stop("w3"))
		must(t, p.Drain("w1"))
		until(t, time.Minute, "w3 stopped", is(p, "w3", api.Stopped))
		h.mu.Lock()
		h.play = func(p *proc) { p.serve() }
		h.mu.Unlock()
		must(t, p.Roll("m", false))
		until(t, 10*time.Minute, "rolled", rollIs(p, rollDone))
		if r := p.Rolls()[0]; !slices.Equal(r.Workers, []string{"w2", "w0"}) {
			t.Errorf("order = %q, want the failed one first, and those that somebody wants as they are left out", r.Workers)
		}
		if s := mustStatus(t, p, "w1"); s.State != api.Draining {
			t.Errorf("w1 is %s", s.State)
		}
		if s := mustStatus(t, p, "w3"); s.State != api.Stopped {
			t.Errorf("w3 is %s", s.State)
		}
	})
}

// Those that served when it began may be gone when a worker's turn comes.
func TestARollLeavesTheLastOneThatServes(t *testing.T) {
	run(t, conf(vllmWorker("w0"), vllmWorker("w1")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Minute, "all ready", allReady(p))
		must(t, p.Drain("w1"))
		err := p.rollOne(t.Context(), &roll{Roll: api.Roll{Model: "m"}}, "w0")
		if err == nil || !strings.Contains(err.Error(), "w0 is the last worker that serves m now") || h.launches() != 2 {
			t.Errorf("error = %v after %d launches", err, h.launches())
		}
	})
}

// While one is restarted the other dies: the first must be back, and the second gets its restart.
func TestARollGoesOnWhenAnotherDies(t *testing.T) {
	run(t, conf(vllmWorker("w0"), vllmWorker("w1")), func(h *host) { h.play = slow(20 * time.Second) }, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Minute, "all ready", allReady(p))
		must(t, p.Roll("m", false))
		until(t, time.Minute, "w0 starts", is(p, "w0", api.Starting))
		h.procs[1].die(launch.Exit{Code: 1, Known: true})
		until(t, 10*time.Minute, "rolled", rollIs(p, rollDone))
		until(t, time.Minute, "all ready", allReady(p))
	})
}

func TestARollOfASingleWorkerMustBeAskedFor(t *testing.T) {
	run(t, conf(vllmWorker("w0")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Minute, "ready", is(p, "w0", api.Ready))
		wantRefused(t, p.Roll("m", false))
		wantRefused(t, p.Roll("nobody", true))
		must(t, p.Roll("m", true))
		until(t, time.Minute, "rolled", rollIs(p, rollDone))
		if h.launches() != 2 {
			t.Errorf("launches = %d, want 2", h.launches())
		}
		must(t, p.Stop("w0"))
		until(t, time.Minute, "stopped", is(p, "w0", api.Stopped))
		wantRefused(t, p.Roll("m", true))
	})
}

func TestUnrollEndsAfterThePresentWorker(t *testing.T) {
	run(t, conf(vllmWorker("w0"), vllmWorker("w1")), func(h *host) { h.play = slow(20 * time.Second) }, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		wantRefused(t, p.Unroll("m"))
		until(t, time.Minute, "ready", allReady(p))
		must(t, p.Roll("m", false))
		until(t, time.Minute, "w0 starts", is(p, "w0", api.Starting))
		must(t, p.Unroll("m"))
		until(t, time.Minute, "cancelled", rollIs(p, rollCancelled))
		if r := p.Rolls()[0]; r.Done != 1 || h.launches() != 3 || mustStatus(t, p, "w0").State != api.Ready {
			t.Errorf("roll = %+v after %d launches", r, h.launches())
		}
		wantRefused(t, p.Unroll("m"))
	})
}

func TestAnEngineThatEndsEndsItsRoll(t *testing.T) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.play = slow(20 * time.Second)
		c := conf(vllmWorker("w0"), vllmWorker("w1"), vllmWorker("w2"))
		p, stop := h.pool(state, c)
		until(t, time.Minute, "ready", allReady(p))
		must(t, p.Roll("m", false))
		until(t, time.Minute, "the second one starts", is(p, "w1", api.Starting))
		stop()
		p, stop = h.pool(state, c)
		if !h.noticed(`the rolling restart of m ended with the engine after 1 of 3 workers: "vllmdeck worker roll m" begins anew`) {
			t.Errorf("notices: %+v", h.notices)
		}
		until(t, time.Minute, "ready", allReady(p))
		if n := h.launches(); n != 5 || len(p.Rolls()) != 0 {
			t.Errorf("%d launches, rolls %+v; want it not to go on", n, p.Rolls())
		}
		stop()
		h.notices = nil
		_, stop = h.pool(state, c)
		defer stop()
		if h.noticed("rolling restart") {
			t.Error("it is told twice")
		}
	})
}
