package worker

import (
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func TestUnhealthyWorkerIsUnroutedUntilItAnswers(t *testing.T) {
	run(t, conf(vllmWorker("w0")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		h.last().set(func(p *proc) { p.status = 503 })
		time.Sleep(healthEvery + time.Second/2)
		if s := mustStatus(t, p, "w0"); s.Stalled {
			t.Error("stalled after one failure")
		}
		until(t, 3*healthEvery, "stalled", func() bool { s, _ := p.Status("w0"); return s.Stalled })
		if s := mustStatus(t, p, "w0"); s.State != api.Ready {
			t.Errorf("state = %s, want ready: the process lives", s.State)
		}
		if _, ok := p.Acquire("w0"); ok {
			t.Error("a stalled worker was acquired")
		}
		changed := p.Changed()
		h.last().set(func(p *proc) { p.status = 200 })
		until(t, 2*healthEvery, "serving", func() bool { s, _ := p.Status("w0"); return !s.Stalled })
		if !isDone(changed) {
			t.Error("Changed did not wake when the worker served again")
		}
		if release, ok := p.Acquire("w0"); ok {
			release()
		} else {
			t.Error("a recovered worker was not acquired")
		}
		if h.launches() != 1 {
			t.Errorf("launches = %d: it was restarted", h.launches())
		}
	})
}

func TestFailedRequestUnroutesAtOnce(t *testing.T) {
	run(t, conf(vllmWorker("w0")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		synctest.Wait()
		p.Failed("w0")
		synctest.Wait()
		if s := mustStatus(t, p, "w0"); s.Stalled {
			t.Error("a healthy worker was unrouted on a doubt")
		}
		h.last().set(func(p *proc) { p.up = false })
		p.Failed("w0")
		if s := mustStatus(t, p, "w0"); !s.Stalled {
			t.Error("not unrouted, though the probe was refused")
		}
		p.Failed("nobody")
	})
}

func TestHangIsNoticedByMissingProgress(t *testing.T) {
	run(t, conf(vllmWorker("w0")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		q := h.last()
		r := h.readings[q.spec.URL]
		set := func(steps, kv float64) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.r.Steps, r.r.KV = steps, new(kv)
		}
		set(100, .5)
		time.Sleep(10 * time.Minute)
		if s := mustStatus(t, p, "w0"); s.Stalled {
			t.Fatal("an idle worker stalled")
		}
		release, _ := p.Acquire("w0")
		defer release()
		// A long prefill: no step is counted, but the cache fills.
		for i := range 90 {
			set(100, .5+float64(i)/1000)
			time.Sleep(time.Second)
		}
		if s := mustStatus(t, p, "w0"); s.Stalled {
			t.Fatal("a worker in a long prefill stalled")
		}
		if n := q.canary.Load(); n != 1 {
			t.Fatalf("canaries = %d, want none for a worker that makes progress", n-1)
		}
		// Refused requests: nothing moves, but a token comes.
		time.Sleep(3 * time.Minute)
		if s := mustStatus(t, p, "w0"); s.Stalled || q.canary.Load() < 2 {
			t.Fatalf("stalled %v after %d canaries", s.Stalled, q.canary.Load())
		}
		// A hang: /health is 200, the gauges are frozen, no token comes.
		q.set(func(p *proc) { p.hang = true })
		time.Sleep(61*time.Second + 45*time.Second)
		if s := mustStatus(t, p, "w0"); !s.Stalled || s.State != api.Ready {
			t.Fatalf("%s, stalled %v, want a stalled one", s.State, s.Stalled)
		}
		if !h.noticed("no progress") {
			t.Error("nobody was told of the hang")
		}
		// It goes on (as after SIGCONT).
		q.set(func(p *proc) { p.hang = false })
		set(101, .6)
		until(t, 3*time.Second, "serving", func() bool { s, _ := p.Status("w0"); return !s.Stalled })
	})
}

func TestReadingsAreShownAndForgotten(t *testing.T) {
	run(t, conf(vllmWorker("w0")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		r := h.readings[h.last().spec.URL]
		r.mu.Lock()
		r.r = Reading{Running: new(2.0), OutRate: new(80.0), KVTokens: 4096, Steps: 7}
		r.mu.Unlock()
		time.Sleep(3 * time.Minute)
		s := mustStatus(t, p, "w0")
		if s.Running == nil || *s.Running != 2 || s.OutRate == nil || s.KVTokens != 4096 || s.Waiting != nil {
			t.Errorf("running %v, out rate %v, kv %d, waiting %v", s.Running, s.OutRate, s.KVTokens, s.Waiting)
		}
		if s.CPU == nil || math.Abs(*s.CPU-.5) > .01 || s.RSS != 1<<20 {
			t.Errorf("cpu %v, rss %d, want 0.5 cores and 1 MiB", s.CPU, s.RSS)
		}
		if len(s.Trend) != trendPoints || s.Trend.Last() != 80 {
			t.Errorf("trend of %d points, last %v", len(s.Trend), s.Trend.Last())
		}
		r.mu.Lock()
		idle := r.n
		r.mu.Unlock()
		time.Sleep(time.Minute)
		r.mu.Lock()
		idle, r.err = r.n-idle, errGone
		r.mu.Unlock()
		if idle < 11 || idle > 13 {
			t.Errorf("%d scrapes in an idle minute, want 12", idle)
		}
		release, _ := p.Acquire("w0")
		defer release()
		time.Sleep(staleAfter + 6*time.Second)
		if s := mustStatus(t, p, "w0"); s.OutRate != nil || !math.IsNaN(s.Trend.Last()) {
			t.Errorf("out rate %v, trend %v: stale numbers are shown", s.OutRate, s.Trend.Last())
		}
	})
}

func TestAttachedServerComesAndGoes(t *testing.T) {
	const url = "http://127.0.0.1:8001"
	run(t, conf(attachWorker("w1", url)), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, 10*time.Second, "failed", is(p, "w1", api.Failed))
		if s := mustStatus(t, p, "w1"); !strings.Contains(s.Error, "connection refused") {
			t.Errorf("error = %q", s.Error)
		}
		q := h.attached[url]
		q.set(func(p *proc) { p.models, p.up = []string{"org/theirs"}, true })
		until(t, 2*attachRetry, "ready", is(p, "w1", api.Ready))
		if s := mustStatus(t, p, "w1"); s.Error != "" || s.Version != "0.32.0" || s.MaxLen != 1024 {
			t.Errorf("error %q, version %q, max len %d", s.Error, s.Version, s.MaxLen)
		}
		if to, _ := p.Target("w1"); to.Model != "org/theirs" || to.URL != url {
			t.Errorf("target = %+v, want its own name for the model", to)
		}
		if q.canary.Load() != 0 {
			t.Errorf("canaries = %d, want none for a server that is not ours", q.canary.Load())
		}
		q.set(func(p *proc) { p.up = false })
		until(t, 4*healthEvery, "failed", is(p, "w1", api.Failed))
		time.Sleep(24 * time.Hour)
		q.set(func(p *proc) { p.up = true })
		until(t, 2*attachRetry, "ready again", is(p, "w1", api.Ready))

		must(t, p.Stop("w1"))
		synctest.Wait()
		if s := mustStatus(t, p, "w1"); s.State != api.Stopped || q.terms.Load()+q.kills.Load() != 0 {
			t.Errorf("%s after %d SIGTERM and %d kills: it is not ours to end", s.State, q.terms.Load(), q.kills.Load())
		}
	})
}

func TestApplyTouchesOnlyWhatChanged(t *testing.T) {
	run(t, conf(vllmWorker("w0"), vllmWorker("w1"), vllmWorker("w2")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		for _, n := range []string{"w0", "w1", "w2"} {
			until(t, time.Second, "ready", is(p, n, api.Ready))
		}
		pids := func() map[string]int {
			m := map[string]int{}
			for _, s := range p.Statuses() {
				m[s.Name] = s.PID
			}
			return m
		}
		before := pids()
		release, _ := p.Acquire("w2")

		soft := vllmWorker("w0")
		soft.StopTimeout, soft.Restart.Tries = time.Minute, 9
		must(t, p.Apply(conf(soft, vllmWorker("w1", "--max-num-seqs=4"), vllmWorker("w3"))))
		until(t, 10*time.Second, "applied", func() bool {
			return p.stateOf("w3") == api.Ready && p.stateOf("w1") == api.Ready && pids()["w1"] != before["w1"]
		})
		if pids()["w0"] != before["w0"] {
			t.Error("an unchanged worker was restarted")
		}
		if s := mustStatus(t, p, "w2"); s.State != api.Stopping || s.InFlight != 1 {
			t.Errorf("removed worker: %s, %d in flight", s.State, s.InFlight)
		}
		if _, ok := p.Acquire("w2"); ok {
			t.Error("a removed worker was acquired")
		}
		release()
		until(t, 5*time.Second, "w2 gone", func() bool { _, ok := p.Status("w2"); return !ok })
		var names []string
		for _, s := range p.Statuses() {
			names = append(names, s.Name)
		}
		if !slices.Equal(names, []string{"w0", "w1", "w3"}) {
			t.Errorf("workers = %q", names)
		}
		if s := mustStatus(t, p, "w1"); s.MaxSeqs != 4 {
			t.Errorf("max seqs = %d, want that of the new command", s.MaxSeqs)
		}

		launches := h.launches()
		if err := p.Apply(conf(vllmWorker("w9"), vllmWorker("w9"))); err == nil {
			t.Error("a config with a name given twice was applied")
		}
		synctest.Wait()
		if h.launches() != launches || len(p.Statuses()) != 3 {
			t.Error("a refused config changed something")
		}
	})
}

func TestRemovedWorkerThatComesBack(t *testing.T) {
	run(t, conf(vllmWorker("w0")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		release, _ := p.Acquire("w0")
		must(t, p.Apply(conf()))
		time.Sleep(time.Second)
		must(t, p.Apply(conf(vllmWorker("w0"))))
		release()
		until(t, 10*time.Second, "ready again", func() bool { return h.launches() == 2 && p.stateOf("w0") == api.Ready })

		release, _ = p.Acquire("w0")
		must(t, p.Apply(conf()))
		off := vllmWorker("w0")
		off.Start = new(false)
		must(t, p.Apply(conf(off)))
		release()
		time.Sleep(time.Hour)
		if h.launches() != 2 || p.stateOf("w0") != api.Stopped {
			t.Errorf("%s after %d launches, want it stopped: start is false", p.stateOf("w0"), h.launches())
		}
	})
}

func TestFailedWorkerIsTriedAgainWithANewConfig(t *testing.T) {
	run(t, conf(vllmWorker("w0", "--bad")), func(h *host) {
		h.play = func(p *proc) {
			if slices.Contains(p.spec.Argv, "--bad") {
				failsWith("vllm: error: unrecognized arguments: --bad\n", 2)(p)
				return
			}
			p.serve()
		}
	}, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Minute, "failed", is(p, "w0", api.Failed))
		must(t, p.Apply(conf(vllmWorker("w0"))))
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
	})
}

func TestStartFalseWaitsForTheOrder(t *testing.T) {
	w := vllmWorker("w0")
	w.Start = new(false)
	run(t, conf(w), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		time.Sleep(time.Hour)
		if h.launches() != 0 || p.stateOf("w0") != api.Stopped {
			t.Errorf("%s after %d launches", p.stateOf("w0"), h.launches())
		}
		wantRefused(t, p.Stop("w0"))
		must(t, p.Start("w0"))
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
	})
}

func TestOrdersWithoutARunningPoolAreRefused(t *testing.T) {
	h := newHost(t)
	p := NewPool(h.options(t.TempDir()))
	must(t, p.Apply(conf(vllmWorker("w0"))))
	wantRefused(t, p.Start("w0"))
	// What will be adopted or started in a moment is not stopped: the first requests after a
	// restart of the engine would be refused.
	if s, ok := p.Status("w0"); !ok || s.State != api.Starting {
		t.Errorf("status = %v %v, want starting", s.State, ok)
	}
}
