package worker

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
	"github.com/vllmdeck/vllmdeck/config"
)

// dev is sleep mode of a fake server.
type dev struct {
	mu     sync.Mutex
	asleep bool
	took   []string // orders, in short
	fail   string   // path that answers HTTP 500
	slow   time.Duration
}

func (d *dev) sleeps() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asleep
}

func (d *dev) set(f func(d *dev)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d)
}

func (d *dev) orders() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.took, " ")
}

func (d *dev) serve(w http.ResponseWriter, r *http.Request) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r.URL.Path == "/is_sleeping" {
		_, _ = fmt.Fprintf(w, `{"is_sleeping":%t}`, d.asleep)
		return true
	}
	if !slices.Contains([]string{"/sleep", "/wake_up", "/collective_rpc", "/reset_prefix_cache"}, r.URL.Path) {
		return false
	}
	order := r.URL.RequestURI()
	if r.Body != nil {
		text, _ := io.ReadAll(r.Body)
		order += string(text)
	}
	d.took = append(d.took, order)
	if r.URL.Path == d.fail {
		w.WriteHeader(http.StatusInternalServerError)
		return true
	}
	if d.slow > 0 {
		d.mu.Unlock()
		select {
		case <-time.After(d.slow):
		case <-r.Context().Done():
		}
		d.mu.Lock()
	}
	switch {
	case r.URL.Path == "/sleep":
		d.asleep = true
	case order == "/wake_up":
		d.asleep = false
	}
	return true
}

// sleeping is a worker of a model of its own that sleeps by the rules of s.
func sleeping(name, model, gpus string, s config.Sleep) config.Worker {
	w := vllmWorker(name)
	w.Model = model
	w.VLLM.GPUs = strings.Fields(gpus)
	w.Sleep = &s
	return w
}

// withDev gives every launched server sleep mode.
func withDev(h *host) {
	h.waiting = map[string]bool{}
	h.play = func(p *proc) {
		p.set(func(p *proc) { p.dev, p.up = &dev{slow: time.Second}, true })
	}
}

func (h *host) devOf(name string) *dev {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.procs {
		if p.spec.Name == name && !isDone(p.done) {
			return p.dev
		}
	}
	return nil
}

// wait says that requests wait for a model, or no longer.
func (h *host) wait(p *Pool, model string, on bool) {
	h.mu.Lock()
	h.waiting[model] = on
	h.mu.Unlock()
	p.Wanted(model)
}

func TestSleepAddsItsFlagsInSight(t *testing.T) {
	h := newHost(t)
	o := h.options(t.TempDir())
	pl, err := newPlan(sleeping("w0", "m", "0", config.Sleep{Level: 1}), config.Logs{}, &o)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(pl.argv, "--enable-sleep-mode") || !slices.Contains(pl.spec.Env, "VLLM_SERVER_DEV_MODE=1") {
		t.Errorf("command %q, env %q: want both the flag and dev mode", pl.argv, pl.spec.Env)
	}
	without, err := newPlan(vllmWorker("w0"), config.Logs{}, &o)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(without.argv, "--enable-sleep-mode") || slices.Contains(without.spec.Env, "VLLM_SERVER_DEV_MODE=1") {
		t.Errorf("without sleep: %q, %q", without.argv, without.spec.Env)
	}
}

func TestASleepByOrderWaitsForRequestsAndAWakeGivesATokenFirst(t *testing.T) {
	run(t, conf(sleeping("w0", "m", "", config.Sleep{Level: 1})), withDev, func(t *testing.T, h *host, p *Pool) {
		until(t, 5*time.Second, "ready", is(p, "w0", api.Ready))
		if s := mustStatus(t, p, "w0"); !s.CanSleep {
			t.Error("CanSleep is false")
		}
		release, ok := p.Acquire("w0")
		if !ok {
			t.Fatal("not acquired")
		}
		must(t, p.Sleep("w0", 0))
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := mustStatus(t, p, "w0"); s.State != api.Draining || s.Phase != api.PhaseSleeping || h.devOf("w0").orders() != "" {
			t.Errorf("with a request it is %s (%s), orders %q; want it to wait", s.State, s.Phase, h.devOf("w0").orders())
		}
		if _, ok := p.Acquire("w0"); ok {
			t.Error("a worker that is to sleep was acquired")
		}
		wantRefused(t, p.Sleep("w0", 1))
		release()
		until(t, 5*time.Second, "asleep", is(p, "w0", api.Asleep))
		if s := mustStatus(t, p, "w0"); s.Level != 1 || s.Phase != "" || h.devOf("w0").orders() != "/sleep?level=1" {
			t.Errorf("level %d, phase %q, orders %q", s.Level, s.Phase, h.devOf("w0").orders())
		}
		wantRefused(t, p.Sleep("w0", 1))
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := mustStatus(t, p, "w0"); s.State != api.Asleep || s.Restarts != 0 {
			t.Errorf("after an hour it is %s with %d restarts", s.State, s.Restarts)
		}
		canaries := h.last().canary.Load()
		changed := p.Changed()
		must(t, p.WakeUp("w0"))
		synctest.Wait()
		if s := mustStatus(t, p, "w0"); s.State != api.Asleep || s.Phase != api.PhaseWaking {
			t.Errorf("it is %s (%s), want it to wake", s.State, s.Phase)
		}
		wantRefused(t, p.WakeUp("w0"))
		until(t, 5*time.Second, "ready", is(p, "w0", api.Ready))
		if !isDone(changed) {
			t.Error("those who wait are not told")
		}
		s := mustStatus(t, p, "w0")
		if h.last().canary.Load() != canaries+1 || s.Level != 0 || s.Awake.IsZero() || h.devOf("w0").orders() != "/sleep?level=1 /wake_up" {
			t.Errorf("%d canaries, level %d, awake since %v, orders %q", h.last().canary.Load()-canaries, s.Level, s.Awake, h.devOf("w0").orders())
		}
		if _, ok := p.Acquire("w0"); !ok {
			t.Error("an awake worker is not acquired")
		}
		wantRefused(t, p.WakeUp("w0"))
	})
}

func TestLevelTwoLoadsItsWeightsBeforeItRuns(t *testing.T) {
	run(t, conf(sleeping("w0", "m", "", config.Sleep{Level: 2})), withDev, func(t *testing.T, h *host, p *Pool) {
		until(t, 5*time.Second, "ready", is(p, "w0", api.Ready))
		must(t, p.Sleep("w0", 0))
		until(t, 5*time.Second, "asleep", is(p, "w0", api.Asleep))
		h.wait(p, "m", true)
		until(t, 10*time.Second, "ready", is(p, "w0", api.Ready))
		want := `/sleep?level=2 /wake_up?tags=weights /collective_rpc{"method":"reload_weights"} /wake_up /reset_prefix_cache`
		if got := h.devOf("w0").orders(); got != want {
			t.Errorf("orders\n%s\nwant\n%s", got, want)
		}
	})
}

func TestAnIdleWorkerSleepsAndARequestWakesIt(t *testing.T) {
	run(t, conf(sleeping("w0", "m", "", config.Sleep{Level: 1, After: 10 * time.Minute})), withDev, func(t *testing.T, h *host, p *Pool) {
		until(t, 5*time.Second, "ready", is(p, "w0", api.Ready))
		for range 30 { // one that comes now and then, however short it is, keeps it awake
			time.Sleep(5 * time.Minute)
			release, ok := p.Acquire("w0")
			if !ok {
				t.Fatal("not acquired")
			}
			release()
		}
		release, _ := p.Acquire("w0")
		time.Sleep(30 * time.Minute) // a long one is no idleness
		synctest.Wait()
		if s := p.stateOf("w0"); s != api.Ready {
			t.Fatalf("with a request it is %s", s)
		}
		release()
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		if s := p.stateOf("w0"); s != api.Ready {
			t.Fatalf("after 9 minutes it is %s", s)
		}
		until(t, 2*time.Minute, "asleep", is(p, "w0", api.Asleep))
		h.wait(p, "other", true)
		time.Sleep(time.Minute)
		if s := p.stateOf("w0"); s != api.Asleep {
			t.Errorf("a request for another model woke it: %s", s)
		}
		began := time.Now()
		h.wait(p, "m", true)
		until(t, 5*time.Second, "ready", is(p, "w0", api.Ready))
		if took := time.Since(began); took > 1100*time.Millisecond {
			t.Errorf("it took %v to wake a server that needs a second", took)
		}
	})
}

func TestAWorkerWithoutTheRuleOrTheRoutesStaysAwake(t *testing.T) {
	w1 := vllmWorker("w1", "--enable-sleep-mode") // the routes are not there
	run(t, conf(sleeping("w0", "m", "", config.Sleep{Level: 1}), w1), func(h *host) {
		h.play = func(p *proc) {
			p.set(func(p *proc) {
				p.up = true
				if p.spec.Name == "w0" {
					p.dev = &dev{}
				}
			})
		}
	}, func(t *testing.T, h *host, p *Pool) {
		until(t, 5*time.Second, "ready", func() bool { return p.stateOf("w0") == api.Ready && p.stateOf("w1") == api.Ready })
		wantRefused(t, p.Sleep("w1", 1))
		wantRefused(t, p.Sleep("w0", 3))
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if s := p.stateOf("w0"); s != api.Ready {
			t.Errorf("without sleep.after it is %s after a day", s)
		}
		if s := mustStatus(t, p, "w1"); s.CanSleep {
			t.Error("CanSleep without routes")
		}
	})
}

func TestAWakeThatFailsIsARestart(t *testing.T) {
	for _, c := range []struct {
		what  string
		spoil func(p *proc)
	}{
		{"wake_up fails", func(p *proc) { p.dev.set(func(d *dev) { d.fail = "/wake_up" }) }},
		{"no token comes", func(p *proc) { p.set(func(p *proc) { p.hang = true }) }},
	} {
		t.Run(c.what, func(t *testing.T) {
			run(t, conf(sleeping("w0", "m", "0", config.Sleep{Level: 1})), withDev, func(t *testing.T, h *host, p *Pool) {
				until(t, 5*time.Second, "ready", is(p, "w0", api.Ready))
				must(t, p.Sleep("w0", 1))
				until(t, 5*time.Second, "asleep", is(p, "w0", api.Asleep))
				c.spoil(h.last())
				must(t, p.WakeUp("w0"))
				until(t, 2*time.Minute, "failed", func() bool { return p.stateOf("w0") != api.Asleep && p.stateOf("w0") != api.Ready })
				until(t, 2*time.Minute, "another server is ready", func() bool { return p.stateOf("w0") == api.Ready && h.launches() == 2 })
				if !h.noticed("does not serve after its sleep") {
					t.Errorf("nobody is told why: %+v", h.notices)
				}
			})
		})
	}
}

func TestASleepThatFailsLeavesAnAwakeWorker(t *testing.T) {
	run(t, conf(sleeping("w0", "m", "", config.Sleep{Level: 1, After: time.Minute})), withDev, func(t *testing.T, h *host, p *Pool) {
		until(t, 5*time.Second, "ready", is(p, "w0", api.Ready))
		h.devOf("w0").set(func(d *dev) { d.fail = "/sleep" })
		until(t, 2*time.Minute, "told", func() bool { return h.noticed("w0 cannot be put to sleep") })
		until(t, 5*time.Second, "ready", is(p, "w0", api.Ready))
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		if got := h.devOf("w0").orders(); strings.Count(got, "/sleep") != 1 {
			t.Errorf("orders %q: want it left alone for a while", got)
		}
		if h.launches() != 1 {
			t.Errorf("%d launches, want 1", h.launches())
		}
	})
}

func TestAStopOrDeathInItsSleepIsLikeAnyOther(t *testing.T) {
	run(t, conf(sleeping("w0", "m", "0", config.Sleep{Level: 1})), withDev, func(t *testing.T, h *host, p *Pool) {
		until(t, 5*time.Second, "ready", is(p, "w0", api.Ready))
		must(t, p.Sleep("w0", 1))
		until(t, 5*time.Second, "asleep", is(p, "w0", api.Asleep))
		h.last().die(launch.Exit{Code: 1, Known: true})
		until(t, 10*time.Second, "started again", func() bool { return p.stateOf("w0") == api.Ready && h.launches() == 2 })
		must(t, p.Sleep("w0", 1)) // stopped while it falls asleep
		must(t, p.Stop("w0"))
		until(t, 10*time.Second, "stopped", is(p, "w0", api.Stopped))
		must(t, p.Start("w0"))
		until(t, 10*time.Second, "ready", is(p, "w0", api.Ready))
		must(t, p.Sleep("w0", 1))
		until(t, 5*time.Second, "asleep", is(p, "w0", api.Asleep))
		must(t, p.WakeUp("w0"))
		must(t, p.Restart("w0")) // while it wakes
		until(t, 20*time.Second, "ready", func() bool { return p.stateOf("w0") == api.Ready && h.launches() == 4 })
	})
}

func TestResumeKeepsAWorkerAwakeThatWaitsForItsRequests(t *testing.T) {
	run(t, conf(sleeping("w0", "m", "", config.Sleep{Level: 1})), withDev, func(t *testing.T, h *host, p *Pool) {
		until(t, 5*time.Second, "ready", is(p, "w0", api.Ready))
		release, _ := p.Acquire("w0")
		defer release()
		must(t, p.Sleep("w0", 1))
		must(t, p.Resume("w0"))
		if s := p.stateOf("w0"); s != api.Ready || h.devOf("w0").orders() != "" {
			t.Errorf("it is %s, orders %q", s, h.devOf("w0").orders())
		}
	})
}

func TestTheNextEngineFindsAWorkerAsleepAndRoutesNothingToIt(t *testing.T) {
	state := t.TempDir()
	for _, level := range []int{1, 2} {
		synctest.Test(t, func(t *testing.T) {
			h := newHost(t)
			withDev(h)
			c := conf(sleeping("w0", "m", "", config.Sleep{Level: 1}))
			p, stop := h.pool(state, c)
			until(t, 5*time.Second, "ready", is(p, "w0", api.Ready))
			must(t, p.Sleep("w0", 1))
			until(t, 5*time.Second, "asleep", is(p, "w0", api.Asleep))
			must(t, p.WakeUp("w0"))
			until(t, 5*time.Second, "ready", is(p, "w0", api.Ready))
			awake := mustStatus(t, p, "w0").Awake
			must(t, p.Sleep("w0", level))
			until(t, 5*time.Second, "asleep", is(p, "w0", api.Asleep))
			stop()
			p, stop = h.pool(state, c)
			defer stop()
			until(t, 5*time.Second, "asleep", is(p, "w0", api.Asleep))
			s := mustStatus(t, p, "w0")
			if s.Level != level || !s.Adopted || !s.Awake.Equal(awake) {
				t.Errorf("level %d, adopted %v, awake %v; want level %d, adopted, %v", s.Level, s.Adopted, s.Awake, level, awake)
			}
			if _, ok := p.Acquire("w0"); ok {
				t.Error("a sleeping worker was acquired")
			}
			must(t, p.WakeUp("w0"))
			until(t, 10*time.Second, "ready", is(p, "w0", api.Ready))
			if reloaded := strings.Contains(h.devOf("w0").orders(), "reload_weights"); reloaded != (level == 2) {
				t.Errorf("weights loaded anew: %v at level %d", reloaded, level)
			}
			p.opts.HTTP.CloseIdleConnections()
		})
	}
}

func TestAServerThatSomebodyElsePutToSleepIsUnrouted(t *testing.T) {
	var hung []string
	run(t, conf(sleeping("w0", "m", "", config.Sleep{Level: 1})), func(h *host) {
		withDev(h)
		h.hung = func(name string) { hung = append(hung, name) }
	}, func(t *testing.T, h *host, p *Pool) {
		until(t, 5*time.Second, "ready", is(p, "w0", api.Ready))
		release, _ := p.Acquire("w0")
		defer release()
		h.devOf("w0").set(func(d *dev) { d.asleep = true })
		until(t, 15*time.Second, "asleep", is(p, "w0", api.Asleep))
		if !h.noticed("put to sleep by somebody else") || !slices.Equal(hung, []string{"w0"}) {
			t.Errorf("told %v, evicted %v", h.notices, hung)
		}
		h.wait(p, "m", true)
		until(t, 10*time.Second, "ready", is(p, "w0", api.Ready))
	})
}

func TestAnAttachedServerIsAskedWhetherItSleeps(t *testing.T) {
	run(t, conf(attachWorker("w0", "http://10.0.0.1:8000")), func(h *host) {
		h.waiting = map[string]bool{}
		h.attached["http://10.0.0.1:8000"] = &proc{h: h, spec: launch.Spec{Kind: kindAttach, URL: "http://10.0.0.1:8000"}, done: make(chan struct{}), status: 200, up: true, models: []string{"m"}, dev: &dev{asleep: true}}
	}, func(t *testing.T, h *host, p *Pool) {
		until(t, 5*time.Second, "asleep", is(p, "w0", api.Asleep))
		h.wait(p, "m", true)
		until(t, 5*time.Second, "ready", is(p, "w0", api.Ready))
		must(t, p.Sleep("w0", 1))
		until(t, 5*time.Second, "asleep", func() bool {
			return strings.HasSuffix(h.attached["http://10.0.0.1:8000"].dev.orders(), "/sleep?level=1&mode=wait")
		})
	})
}

// TestTwoModelsOnOneGPUTakeTurns: never are two servers awake, a request waits for the other's requests and its stay,
// and both are served however long both are asked for.
func TestTwoModelsOnOneGPUTakeTurns(t *testing.T) {
	stay := 20 * time.Second
	a, b := sleeping("a", "ma", "0", config.Sleep{Level: 1, Stay: stay}), sleeping("b", "mb", "0", config.Sleep{Level: 1, Stay: stay})
	run(t, conf(a, b), withDev, func(t *testing.T, h *host, p *Pool) {
		alone := func() {
			t.Helper()
			awake := 0
			for _, name := range []string{"a", "b"} {
				if d := h.devOf(name); d != nil && !d.sleeps() {
					awake++
				}
			}
			if awake > 1 {
				t.Fatal("both have the GPU")
			}
		}
		// At the start one comes first; the other is loaded once that one is idle, so that it too is only asleep later.
		first, second, model := "a", "b", "ma"
		until(t, time.Minute, "one is ready", func() bool {
			alone()
			if p.stateOf("b") == api.Ready {
				first, second, model = "b", "a", "mb"
			}
			return p.stateOf(first) == api.Ready
		})
		if s := mustStatus(t, p, second); s.State != api.Starting || s.Blocked != "its turn: "+first+" has GPU 0" || h.launches() != 1 {
			t.Errorf("the other is %s, blocked by %q; want it to wait for its turn", s.State, s.Blocked)
		}
		until(t, time.Minute, "the other is ready", func() bool { alone(); return p.stateOf(second) == api.Ready })
		if s := mustStatus(t, p, first); s.State != api.Asleep {
			t.Errorf("%s is %s, want asleep", first, s.State)
		}
		// A request for the first waits for the request of the second to end.
		release, _ := p.Acquire(second)
		time.Sleep(time.Minute)
		h.wait(p, model, true)
		time.Sleep(time.Minute)
		synctest.Wait()
		alone()
		if s := mustStatus(t, p, first); s.State != api.Asleep || !strings.Contains(s.Blocked, second+" has GPU 0") {
			t.Errorf("%s is %s, blocked by %q", first, s.State, s.Blocked)
		}
		if s := p.stateOf(second); s != api.Draining {
			t.Errorf("%s is %s, want it to take no more requests", second, s)
		}
		release()
		until(t, 10*time.Second, "its turn", func() bool { alone(); return p.stateOf(first) == api.Ready })
		// Requests for both, all the time: they alternate, and none has it for less than its stay.
		h.wait(p, "ma", true)
		h.wait(p, "mb", true)
		switches, last := 0, first
		var since time.Time
		for end := time.Now().Add(10 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
			synctest.Wait()
			alone()
			for _, name := range []string{"a", "b"} {
				if name != last && p.stateOf(name) == api.Ready {
					if !since.IsZero() && time.Since(since) < stay {
						t.Errorf("%s had the GPU for %v, want %v at least", last, time.Since(since), stay)
					}
					last, since = name, time.Now()
					switches++
				}
			}
		}
		if switches < 20 || h.launches() != 2 {
			t.Errorf("%d turns in ten minutes with %d launches, want 20 at least with 2", switches, h.launches())
		}
		// Nobody waits any more: the line is given up, and who has it keeps it.
		h.wait(p, "ma", false)
		h.wait(p, "mb", false)
		time.Sleep(time.Minute)
		synctest.Wait()
		now := last
		if p.stateOf("a") == api.Ready {
			now = "a"
		} else if p.stateOf("b") == api.Ready {
			now = "b"
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if s := p.stateOf(now); s != api.Ready {
			t.Errorf("%s is %s although nobody waits for the other", now, s)
		}
		for _, name := range []string{"a", "b"} {
			if s := mustStatus(t, p, name); s.Restarts != 0 || s.Error != "" {
				t.Errorf("%s: %d restarts, error %q", name, s.Restarts, s.Error)
			}
		}
	})
}

func TestATurnThatNobodyWantsAnyMoreIsKept(t *testing.T) {
	a, b := sleeping("a", "ma", "0", config.Sleep{Level: 1, Stay: 5 * time.Second}), sleeping("b", "mb", "0", config.Sleep{Level: 1, Stay: 5 * time.Second})
	run(t, conf(a, b), withDev, func(t *testing.T, h *host, p *Pool) {
		until(t, 2*time.Minute, "both were loaded", func() bool {
			x, y := p.stateOf("a"), p.stateOf("b")
			return x == api.Asleep && y == api.Ready || x == api.Ready && y == api.Asleep
		})
		awake, asleep := "a", "mb"
		if p.stateOf("b") == api.Ready {
			awake, asleep = "b", "ma"
		}
		release, ok := p.Acquire(awake)
		if !ok {
			t.Fatal("not acquired")
		}
		defer release()
		time.Sleep(10 * time.Second)
		h.wait(p, asleep, true)
		until(t, 10*time.Second, "it is to sleep", is(p, awake, api.Draining))
		h.wait(p, asleep, false) // its client has left
		until(t, 5*time.Second, "it serves again", is(p, awake, api.Ready))
		if got := h.devOf(awake).orders(); strings.Count(got, "/sleep") > strings.Count(got, "/wake_up") {
			t.Errorf("orders %q: want it to have stayed awake", got)
		}
	})
}

func TestTwoThatFitTakeNoTurns(t *testing.T) {
	a, b := sleeping("a", "ma", "0", config.Sleep{Level: 1}), sleeping("b", "mb", "0", config.Sleep{Level: 1})
	a.VLLM.Args, b.VLLM.Args = []string{"--gpu-memory-utilization=0.45"}, []string{"--gpu-memory-utilization=0.45"}
	run(t, conf(a, b), withDev, func(t *testing.T, h *host, p *Pool) {
		until(t, 5*time.Second, "both are ready", func() bool { return p.stateOf("a") == api.Ready && p.stateOf("b") == api.Ready })
	})
}

func TestAStopFreesTheTurnOfWhoWaitsToStart(t *testing.T) {
	a, b := sleeping("a", "ma", "0", config.Sleep{Level: 1, Stay: time.Hour}), sleeping("b", "mb", "0", config.Sleep{Level: 1, Stay: time.Hour})
	run(t, conf(a, b), withDev, func(t *testing.T, h *host, p *Pool) {
		until(t, 5*time.Second, "one is ready", func() bool { return p.stateOf("a") == api.Ready || p.stateOf("b") == api.Ready })
		first, second := "a", "b"
		if p.stateOf("b") == api.Ready {
			first, second = "b", "a"
		}
		must(t, p.Stop(second)) // it waits only
		if s := mustStatus(t, p, second); s.State != api.Stopped || s.Blocked != "" {
			t.Errorf("%s is %s, blocked by %q", second, s.State, s.Blocked)
		}
		must(t, p.Start(second))
		must(t, p.Stop(first))
		until(t, 10*time.Second, "the other is ready", is(p, second, api.Ready))
	})
}
