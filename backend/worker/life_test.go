package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// loads plays a start of d, with the lines of a real one.
func loads(d time.Duration) func(p *proc) {
	return func(p *proc) {
		part := d / 8
		p.say("(APIServer pid=1) WARNING 11-23 15:00:04 [x.py:1] importing\n")
		if !p.wait(2 * part) {
			return
		}
		p.say("(APIServer pid=1) INFO 11-23 15:00:04 [api_utils.py:347] vLLM server version 0.32.0, serving model /models/m\n" +
			"(APIServer pid=1) INFO 11-23 15:00:04 [api_utils.py:286] non-default args: {'max_model_len': 1024, 'max_num_seqs': 8}\n")
		if !p.wait(part) {
			return
		}
		p.say("(Worker pid=3) INFO 11-23 15:00:41 [cpu_model_runner.py:68] Starting to load model /models/m...\n")
		for i := range 5 {
			p.say(fmt.Sprintf("\rLoading safetensors checkpoint shards: %3d%% Completed | %d/4 [00:01<00:03,  1.1s/it]", i*25, i))
			if !p.wait(part / 4) {
				return
			}
		}
		p.say("\n(Worker pid=3) INFO 11-23 15:00:41 [default_loader.py:501] Loading weights took 30.01 seconds\n")
		if !p.wait(part) {
			return
		}
		p.say("(EngineCore pid=2) INFO 11-23 15:00:42 [kv_cache_utils.py:2327] CPU KV cache size: 1,048,576 tokens, Maximum concurrency for 1,024 tokens per request: 1024.00x\n")
		if !p.wait(part) {
			return
		}
		p.say("(EngineCore pid=2) INFO 11-23 15:00:45 [core.py:402] init engine (profile, create kv cache, warmup model) took 3.84 s\n")
		if !p.wait(d - 25*part/4) {
			return
		}
		p.say("INFO:     Application startup complete.\n")
		p.serve()
	}
}

func failsWith(log string, code int) func(p *proc) {
	return func(p *proc) {
		p.wait(14 * time.Second)
		p.say(log)
		p.die(launch.Exit{Code: code, Known: true})
	}
}

func TestFourMinutesOfLoading(t *testing.T) {
	run(t, conf(vllmWorker("w0")), func(h *host) { h.play = loads(4 * time.Minute) }, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		if got := mustStatus(t, p, "w0"); got.State != api.Starting || got.Phase != api.PhaseImports {
			t.Errorf("at once: %s, phase %q", got.State, got.Phase)
		}
		until(t, 2*time.Minute, "weights half loaded", func() bool {
			s, _ := p.Status("w0")
			return s.Phase == api.PhaseWeights && s.Progress != nil && *s.Progress == .5
		})
		if _, ok := p.Acquire("w0"); ok {
			t.Error("a loading worker was acquired")
		}
		changed := p.Changed()
		until(t, 5*time.Minute, "ready", is(p, "w0", api.Ready))
		if !isDone(changed) {
			t.Error("Changed did not wake when the worker became ready")
		}
		s := mustStatus(t, p, "w0")
		var names []string
		total := 0.0
		for _, ph := range s.Phases {
			names = append(names, ph.Name)
			total += ph.Seconds
			if !ph.Done {
				t.Errorf("phase %s is not done", ph.Name)
			}
		}
		if !slices.Equal(names, phaseOrder) || total < 235 || total > 245 {
			t.Errorf("phases %q in %.1f s, want all in about 240 s", names, total)
		}
		if s.Version != "0.32.0" || s.MaxLen != 1024 || s.MaxSeqs != 8 || s.KVTokens != 1048576 {
			t.Errorf("version %q, max len %d, max seqs %d, kv %d", s.Version, s.MaxLen, s.MaxSeqs, s.KVTokens)
		}
		if h.last().canary.Load() != 1 {
			t.Errorf("canaries = %d, want 1", h.last().canary.Load())
		}
		if !h.noticed("w0 ready after 4m") {
			t.Errorf("no notice says that it is ready: %+v", h.notices)
		}
		bars := 0
		for _, l := range p.Logs("w0").After(0, 100) {
			if strings.Contains(l.Text, "Completed |") {
				bars++
			}
		}
		if bars != 1 {
			t.Errorf("the log shows %d states of the progress bar, want the last alone", bars)
		}
	})
}

func TestCrashIsRestartedAndExitZeroIsACrash(t *testing.T) {
	run(t, conf(vllmWorker("w0")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		h.last().die(launch.Exit{Code: 0, Known: true})
		synctest.Wait()
		until(t, time.Second, "failed", is(p, "w0", api.Failed))
		s := mustStatus(t, p, "w0")
		if s.Exit != "exit 0" || s.Error == "" || s.NextStart.IsZero() {
			t.Errorf("exit %q, error %q, next start %v", s.Exit, s.Error, s.NextStart)
		}
		if _, ok := p.Acquire("w0"); ok {
			t.Error("a failed worker was acquired")
		}
		until(t, 3*time.Second, "ready again", is(p, "w0", api.Ready))
		if s := mustStatus(t, p, "w0"); s.Restarts != 1 || h.launches() != 2 {
			t.Errorf("restarts = %d, launches = %d", s.Restarts, h.launches())
		}
	})
}

func TestGivesUpAfterThreeFailedStarts(t *testing.T) {
	crash := failsWith("Traceback (most recent call last):\nRuntimeError: bad luck\n", 1)
	run(t, conf(vllmWorker("w0")), func(h *host) { h.play = crash }, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, 5*time.Minute, "given up", func() bool {
			s, _ := p.Status("w0")
			return s.State == api.Failed && s.NextStart.IsZero()
		})
		time.Sleep(time.Hour)
		s := mustStatus(t, p, "w0")
		if h.launches() != 3 || s.Error != "RuntimeError: bad luck" || !strings.Contains(s.Remedy, "worker start w0") {
			t.Errorf("launches = %d, error %q, remedy %q", h.launches(), s.Error, s.Remedy)
		}
		if !h.noticed("gave up after 3 failed starts") {
			t.Error("nobody was told that it gave up")
		}
		h.mu.Lock()
		h.play = func(p *proc) { p.serve() }
		h.mu.Unlock()
		must(t, p.Start("w0"))
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		if s := mustStatus(t, p, "w0"); s.Error != "" || s.Remedy != "" {
			t.Errorf("ready with error %q, remedy %q", s.Error, s.Remedy)
		}
	})
}

func TestGivesUpAfterFiveEndsInTheWindow(t *testing.T) {
	run(t, conf(vllmWorker("w0")), func(h *host) {
		h.play = func(p *proc) {
			p.serve()
			if p.wait(time.Minute) {
				p.die(launch.Exit{Code: -1, Signal: "killed", Known: true})
			}
		}
	}, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		time.Sleep(time.Hour)
		if s := mustStatus(t, p, "w0"); s.State != api.Failed || h.launches() != 5 || !strings.Contains(s.Remedy, "5 ends in 30m") {
			t.Errorf("%s after %d launches: %q", s.State, h.launches(), s.Remedy)
		}
	})
}

func TestTenReadyMinutesForgetFailures(t *testing.T) {
	w := vllmWorker("w0")
	w.Restart.Window = 24 * time.Hour
	run(t, conf(w), func(h *host) {
		h.play = func(p *proc) {
			p.serve()
			if p.wait(11 * time.Minute) {
				p.die(launch.Exit{Code: 0, Known: true})
			}
		}
	}, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		time.Sleep(3 * time.Hour)
		if n := h.launches(); n < 15 {
			t.Errorf("launches = %d, want it restarted each time", n)
		}
	})
}

func TestConfigErrorIsNotRetried(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "logs", "fail_badflag.txt"))
	must(t, err)
	run(t, conf(vllmWorker("w0", "--no-such-flag")), func(h *host) { h.play = failsWith(string(b), 2) }, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		time.Sleep(time.Hour)
		s := mustStatus(t, p, "w0")
		if s.State != api.Failed || h.launches() != 1 || s.Error != "vLLM does not know the flag --no-such-flag" || s.Exit != "exit 2" || !s.NextStart.IsZero() {
			t.Errorf("%s after %d launches: %q (%s), next start %v", s.State, h.launches(), s.Error, s.Exit, s.NextStart)
		}
	})
}

func TestFailedCheckStartsNothing(t *testing.T) {
	run(t, conf(vllmWorker("w0")), func(h *host) { h.check = errors.New("model folder /models/m does not exist: correct path") }, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		time.Sleep(time.Hour)
		if s := mustStatus(t, p, "w0"); s.State != api.Failed || h.launches() != 0 || !strings.Contains(s.Error, "/models/m does not exist") {
			t.Errorf("%s after %d launches: %q", s.State, h.launches(), s.Error)
		}
	})
}

func TestRestartPolicyNever(t *testing.T) {
	w := vllmWorker("w0")
	w.Restart.Policy = "never"
	run(t, conf(w), failing, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		time.Sleep(time.Hour)
		if s := mustStatus(t, p, "w0"); s.State != api.Failed || h.launches() != 1 {
			t.Errorf("%s after %d launches", s.State, h.launches())
		}
	})
}

func failing(h *host) { h.play = failsWith("RuntimeError: no\n", 1) }

func TestStartTimeoutEndsTheProcess(t *testing.T) {
	w := vllmWorker("w0")
	w.StartTimeout, w.Restart.Policy = 10*time.Minute, "never"
	run(t, conf(w), func(h *host) {
		h.play = func(p *proc) { p.set(func(p *proc) { p.term = nil }) } // swallowed, as vLLM does while it loads
	}, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		time.Sleep(11 * time.Minute)
		s := mustStatus(t, p, "w0")
		if s.State != api.Failed || !strings.Contains(s.Error, "not ready after 10m0s") || h.last().kills.Load() != 1 {
			t.Errorf("%s: %q, %d kills", s.State, s.Error, h.last().kills.Load())
		}
	})
}

func TestAnotherServerOnThePortIsNotOurs(t *testing.T) {
	w := vllmWorker("w0")
	w.StartTimeout, w.Restart.Policy = time.Minute, "never"
	run(t, conf(w), func(h *host) {
		h.play = func(p *proc) { p.set(func(p *proc) { p.models, p.up = []string{"other"}, true }) }
	}, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		time.Sleep(2 * time.Minute)
		if s := mustStatus(t, p, "w0"); s.State != api.Failed || !strings.Contains(s.Error, `serves "other", not "m"`) {
			t.Errorf("%s: %q", s.State, s.Error)
		}
	})
}

func TestStopWhileLoading(t *testing.T) {
	run(t, conf(vllmWorker("w0")), func(h *host) {
		h.play = func(p *proc) {
			p.set(func(p *proc) { p.term = nil })
			loads(time.Hour)(p)
		}
	}, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		time.Sleep(time.Minute)
		must(t, p.Stop("w0"))
		if s := mustStatus(t, p, "w0"); s.State != api.Stopping || s.Phase != waitExit {
			t.Errorf("%s, waits for %q", s.State, s.Phase)
		}
		until(t, 4*time.Second, "stopped", is(p, "w0", api.Stopped))
		if q := h.last(); q.terms.Load() != 1 || q.kills.Load() != 1 {
			t.Errorf("%d SIGTERM, %d kills, want one of each", q.terms.Load(), q.kills.Load())
		}
		time.Sleep(time.Hour)
		if h.launches() != 1 {
			t.Errorf("launches = %d: a stopped worker was started again", h.launches())
		}
	})
}

func TestStopWaitsForRequests(t *testing.T) {
	run(t, conf(vllmWorker("w0")), func(h *host) {
		h.play = func(p *proc) {
			p.set(func(p *proc) {
				p.term = func() {
					p.say("(EngineCore pid=2) INFO 11-23 15:08:20 [core.py:1666] [shutdown] EngineCore: request processing complete; starting resource teardown\n")
				}
			})
			p.serve()
		}
	}, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		release, ok := p.Acquire("w0")
		if !ok {
			t.Fatal("a ready worker was not acquired")
		}
		must(t, p.Stop("w0"))
		if _, ok := p.Acquire("w0"); ok {
			t.Error("a stopping worker was acquired")
		}
		time.Sleep(20 * time.Second)
		if s := mustStatus(t, p, "w0"); s.State != api.Stopping || s.Phase != waitRequests || s.InFlight != 1 || h.last().terms.Load() != 0 {
			t.Errorf("%s, waits for %q, %d in flight, %d SIGTERM", s.State, s.Phase, s.InFlight, h.last().terms.Load())
		}
		release()
		release()
		if n := p.InFlight("w0"); n != 0 {
			t.Errorf("in flight = %d after a double release", n)
		}
		// Its own teardown takes up to 10 s: it is cut short once nothing runs in it.
		until(t, 600*time.Millisecond, "stopped", is(p, "w0", api.Stopped))
		if q := h.last(); q.terms.Load() != 1 || q.kills.Load() != 1 {
			t.Errorf("%d SIGTERM, %d kills", q.terms.Load(), q.kills.Load())
		}
	})
}

func TestStopEndsStubbornRequestsAfterStopTimeout(t *testing.T) {
	run(t, conf(vllmWorker("w0")), func(h *host) {
		h.play = func(p *proc) { p.set(func(p *proc) { p.term, p.up = nil, true }) }
	}, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		release, _ := p.Acquire("w0")
		defer release()
		must(t, p.Stop("w0"))
		time.Sleep(29 * time.Second)
		if h.last().terms.Load() != 0 {
			t.Error("SIGTERM before stop_timeout")
		}
		until(t, 8*time.Second, "stopped", is(p, "w0", api.Stopped))
	})
}

func TestUnkillableProcessIsNotStopped(t *testing.T) {
	run(t, conf(vllmWorker("w0")), func(h *host) {
		h.play = func(p *proc) {
			p.set(func(p *proc) { p.term, p.up, p.killErr = nil, true, errors.New("pids 101 102 stay") })
		}
	}, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		must(t, p.Stop("w0"))
		time.Sleep(time.Minute)
		s := mustStatus(t, p, "w0")
		if s.State != api.Stopping || !strings.Contains(s.Error, "pids 101 102 stay") || h.last().kills.Load() < 3 {
			t.Errorf("%s: %q after %d kills", s.State, s.Error, h.last().kills.Load())
		}
		h.last().set(func(p *proc) { p.killErr = nil })
		until(t, 30*time.Second, "stopped", is(p, "w0", api.Stopped))
	})
}

func TestDrainKeepsTheProcess(t *testing.T) {
	run(t, conf(vllmWorker("w0")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		release, _ := p.Acquire("w0")
		must(t, p.Drain("w0"))
		if _, ok := p.Acquire("w0"); ok {
			t.Error("a draining worker was acquired")
		}
		wantRefused(t, p.Drain("w0"))
		wantRefused(t, p.Start("w0"))
		release()
		time.Sleep(time.Hour)
		if s := mustStatus(t, p, "w0"); s.State != api.Draining || s.PID == 0 {
			t.Errorf("%s, pid %d", s.State, s.PID)
		}
		must(t, p.Resume("w0"))
		release, ok := p.Acquire("w0")
		if !ok {
			t.Fatal("a resumed worker was not acquired")
		}
		release()
		wantRefused(t, p.Resume("w0"))
		if h.launches() != 1 {
			t.Errorf("launches = %d", h.launches())
		}
	})
}

func TestRestartStopsAndStarts(t *testing.T) {
	run(t, conf(vllmWorker("w0")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		first := h.last()
		must(t, p.Restart("w0"))
		until(t, 5*time.Second, "ready again", func() bool { return h.launches() == 2 && p.stateOf("w0") == api.Ready })
		if !isDone(first.done) {
			t.Error("the first process still runs")
		}
		if s := mustStatus(t, p, "w0"); s.Restarts != 0 {
			t.Errorf("restarts = %d: an ordered one was counted", s.Restarts)
		}
		if err := p.Restart("nobody"); !errors.Is(err, api.ErrUnknown) {
			t.Errorf("error = %v, want ErrUnknown", err)
		}
	})
}

func TestTheNextEngineAdopts(t *testing.T) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.play = loads(time.Minute)
		p1, stop1 := h.pool(state, conf(vllmWorker("w0")))
		until(t, 2*time.Minute, "ready", is(p1, "w0", api.Ready))
		first := h.last()
		stop1()
		if isDone(first.done) || !first.closed.Load() {
			t.Fatalf("letting go: dead %v, closed %v", isDone(first.done), first.closed.Load())
		}
		time.Sleep(time.Hour)

		p2, stop2 := h.pool(state, conf(vllmWorker("w0", "--max-num-seqs=4")))
		defer stop2()
		until(t, 3*time.Second, "adopted", is(p2, "w0", api.Ready))
		s := mustStatus(t, p2, "w0")
		if !s.Adopted || s.PID != first.pid || h.launches() != 1 {
			t.Errorf("adopted %v, pid %d, launches %d", s.Adopted, s.PID, h.launches())
		}
		if len(s.Phases) != len(phaseOrder) || s.Phases[0].Seconds < 10 {
			t.Errorf("phases = %v, want those of the start", s.Phases)
		}
		if first.canary.Load() != 1 {
			t.Errorf("canaries = %d, want none for the adopted server", first.canary.Load()-1)
		}
		if !h.noticed("older command") {
			t.Error("nobody was told that the command is an older one")
		}
		if s.MaxSeqs != 8 {
			t.Errorf("max seqs = %d, want that of the running server", s.MaxSeqs)
		}
		if n := len(p2.Logs("w0").After(0, 1000)); n < 5 {
			t.Errorf("%d lines of the earlier log", n)
		}
		must(t, p2.Restart("w0"))
		until(t, 2*time.Minute, "restarted", func() bool { return h.launches() == 2 && p2.stateOf("w0") == api.Ready })
		if s := mustStatus(t, p2, "w0"); s.Adopted || !slices.Contains(s.Command, "--max-num-seqs=4") {
			t.Errorf("adopted %v, command %q", s.Adopted, s.Command)
		}
	})
}

func TestAdoptedServerThatStillLoads(t *testing.T) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.play = loads(8 * time.Minute)
		_, stop1 := h.pool(state, conf(vllmWorker("w0")))
		time.Sleep(3 * time.Minute)
		stop1()
		p, stop := h.pool(state, conf(vllmWorker("w0")))
		defer stop()
		time.Sleep(time.Second)
		if s := mustStatus(t, p, "w0"); s.State != api.Starting || s.Phase != api.PhaseWeights && s.Phase != api.PhaseEngine || !s.Adopted {
			t.Errorf("%s, phase %q, adopted %v", s.State, s.Phase, s.Adopted)
		}
		until(t, 6*time.Minute, "ready", is(p, "w0", api.Ready))
		if h.launches() != 1 {
			t.Errorf("launches = %d", h.launches())
		}
	})
}

func TestEarlierStartsInOneLogAreNotThisOne(t *testing.T) {
	state := t.TempDir()
	folder := filepath.Join(state, "workers", "w0")
	must(t, os.MkdirAll(folder, 0o700))
	must(t, os.WriteFile(filepath.Join(folder, "log"), []byte("api_server.py: error: unrecognized arguments: --old\nINFO:     Application startup complete.\n"), 0o600))
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.play = failsWith("RuntimeError: new\n", 1)
		w := vllmWorker("w0")
		w.Restart.Policy = "never"
		p, stop := h.pool(state, conf(w))
		defer stop()
		until(t, time.Minute, "failed", is(p, "w0", api.Failed))
		if s := mustStatus(t, p, "w0"); s.Error != "RuntimeError: new" {
			t.Errorf("error = %q, want that of this start", s.Error)
		}
	})
}

func TestStopAllEndsEverything(t *testing.T) {
	stuck := vllmWorker("w1")
	stuck.StopTimeout = time.Hour
	run(t, conf(vllmWorker("w0"), stuck, vllmWorker("w2")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		for _, n := range []string{"w0", "w1", "w2"} {
			until(t, time.Second, "ready", is(p, n, api.Ready))
		}
		must(t, p.Stop("w2"))
		release, _ := p.Acquire("w1")
		defer release()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		began := time.Now()
		must(t, p.StopAll(ctx))
		if d := time.Since(began); d < 30*time.Second || d > 35*time.Second {
			t.Errorf("took %v, want the whole patience for the request that does not end", d)
		}
		for _, q := range h.procs {
			if !isDone(q.done) {
				t.Errorf("%s still runs", q.spec.Name)
			}
		}
	})
}

func TestDrainOutlivesACrash(t *testing.T) {
	run(t, conf(vllmWorker("w0")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		must(t, p.Drain("w0"))
		h.last().die(launch.Exit{Code: -1, Signal: "killed", Known: true})
		until(t, 3*time.Second, "drained again", func() bool { return h.launches() == 2 && p.stateOf("w0") == api.Draining })
		if _, ok := p.Acquire("w0"); ok {
			t.Error("a drained worker was routed to after a crash")
		}
		must(t, p.Resume("w0"))
		if s := mustStatus(t, p, "w0"); s.State != api.Ready {
			t.Errorf("state = %s", s.State)
		}
	})
}

func TestServerThatCannotBeTakenOverIsNotDoubled(t *testing.T) {
	run(t, conf(vllmWorker("w0")), func(h *host) { h.lost = errors.New("its shim does not answer") }, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "failed", is(p, "w0", api.Failed))
		if s := mustStatus(t, p, "w0"); h.launches() != 0 || !strings.Contains(s.Error, "its shim does not answer") {
			t.Errorf("%s after %d launches: %q", s.State, h.launches(), s.Error)
		}
		h.mu.Lock()
		h.lost = nil
		h.mu.Unlock()
		until(t, 10*time.Second, "ready", is(p, "w0", api.Ready))
	})
}

func TestMissingLauncherRefusesTheConfig(t *testing.T) {
	h := newHost(t)
	o := h.options(t.TempDir())
	delete(o.Launchers, kindVLLM)
	if err := NewPool(o).Apply(conf(vllmWorker("w0"))); err == nil || !strings.Contains(err.Error(), "vllm workers cannot be started") {
		t.Errorf("error = %v", err)
	}
}

func TestTakenPortIsTriedAgain(t *testing.T) {
	w := vllmWorker("w0")
	w.Port = 8000
	run(t, conf(w), func(h *host) { h.check = errors.New("port 8000 is in use by nginx (pid 7)") }, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "failed", is(p, "w0", api.Failed))
		h.mu.Lock()
		h.check = nil
		h.mu.Unlock()
		until(t, time.Minute, "ready", is(p, "w0", api.Ready))
		if s := mustStatus(t, p, "w0"); s.URL != "http://127.0.0.1:8000" {
			t.Errorf("url = %s", s.URL)
		}
	})
}

func TestFreePortsAvoidThoseOfOthers(t *testing.T) {
	w0, w1 := vllmWorker("w0"), vllmWorker("w1")
	w0.Port = 20001 // what the fake host would give first
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		o := h.options(state)
		o.Port = func(avoid ...int) (int, error) {
			for port := 20001; ; port++ {
				if !slices.Contains(avoid, port) {
					return port, nil
				}
			}
		}
		p := NewPool(o)
		must(t, p.Apply(conf(w1, w0)))
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		until(t, time.Second, "ready", is(p, "w1", api.Ready))
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		if a, b := mustStatus(t, p, "w0"), mustStatus(t, p, "w1"); a.URL == b.URL {
			t.Errorf("both at %s", a.URL)
		}
		cancel()
		must(t, <-ended)
	})
}

func TestLaunchErrors(t *testing.T) {
	for _, c := range []struct {
		err   error
		retry bool
	}{
		{errors.New("fork: resource temporarily unavailable"), true},
		{fmt.Errorf("start worker w0: %w", os.ErrNotExist), false},
		{errors.New("start worker w0: run /opt/vllm: exec format error: neither a program for this machine nor a script with an interpreter in its first line"), false},
		{errors.New("start worker w0: run /opt/vllm: no such file or directory: the interpreter in its first line is missing"), false},
	} {
		run(t, conf(vllmWorker("w0")), func(h *host) { h.refuse = c.err }, func(t *testing.T, h *host, p *Pool) {
			t.Helper()
			until(t, time.Second, "failed", is(p, "w0", api.Failed))
			s := mustStatus(t, p, "w0")
			if s.Error != c.err.Error() || s.NextStart.IsZero() == c.retry {
				t.Errorf("error %q, next start %v, want retried: %v", s.Error, s.NextStart, c.retry)
			}
		})
	}
}

// strangerPool runs a worker whose port somebody else has while there says so.
func strangerPool(t *testing.T, h *host, there *atomic.Bool) (p *Pool, stop func()) {
	t.Helper()
	o := h.options(t.TempDir())
	o.Listens = func(port int, pids []int) error {
		if port == 0 || len(pids) == 0 {
			t.Errorf("asked for port %d of %v", port, pids)
		}
		if there.Load() {
			return errors.New("port 8000 is taken by nginx (pid 7)")
		}
		return nil
	}
	p = NewPool(o)
	must(t, p.Apply(conf(vllmWorker("w0"))))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return p, func() { cancel(); must(t, <-done) }
}

func TestAStrangerOnThePortIsNotTakenForTheServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.play = func(p *proc) {
			p.set(func(p *proc) { p.models = []string{"nginx"} })
			loads(time.Second)(p)
		}
		var there atomic.Bool
		there.Store(true)
		p, stop := strangerPool(t, h, &there)
		defer stop()
		time.Sleep(8 * time.Second)
		if s := mustStatus(t, p, "w0"); s.State != api.Starting || h.last().canary.Load() != 0 {
			t.Errorf("%s after %d canaries, want starting and none: the stranger is not asked", s.State, h.last().canary.Load())
		}
		until(t, 10*time.Second, "failed", is(p, "w0", api.Failed))
		if s := mustStatus(t, p, "w0"); s.Error != "port 8000 is taken by nginx (pid 7)" || s.NextStart.IsZero() {
			t.Errorf("error %q, next start %v, want another try: it takes another port", s.Error, s.NextStart)
		}
		there.Store(false)
		h.mu.Lock()
		h.play = loads(time.Second)
		h.mu.Unlock()
		until(t, time.Minute, "ready", is(p, "w0", api.Ready))
	})
}

// "docker run" as bin: gives a server that is none of the worker's processes.
func TestAServerThatIsStartedElsewhereFailsFast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.play = loads(time.Second)
		var there atomic.Bool
		there.Store(true)
		p, stop := strangerPool(t, h, &there)
		defer stop()
		until(t, 15*time.Second, "failed", is(p, "w0", api.Failed))
		if s := mustStatus(t, p, "w0"); !strings.Contains(s.Error, "starts the server elsewhere (docker run, a container)") || !strings.Contains(s.Remedy, `attach: "http://127.0.0.1:20001"`) || !s.NextStart.IsZero() || h.last().canary.Load() != 0 {
			t.Errorf("error %q, remedy %q, next start %v", s.Error, s.Remedy, s.NextStart)
		}
	})
}

// In a network of its own nobody sees it listen, though its log says that it does.
func TestAServerThatNobodyCanReachFailsFast(t *testing.T) {
	run(t, conf(vllmWorker("w0")), func(h *host) {
		h.play = func(p *proc) { p.say("INFO:     Application startup complete.\n") }
	}, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		time.Sleep(20 * time.Second)
		if s := mustStatus(t, p, "w0"); s.State != api.Starting {
			t.Errorf("%s after 20 s: %s", s.State, s.Error)
		}
		until(t, 30*time.Second, "failed", is(p, "w0", api.Failed))
		if s := mustStatus(t, p, "w0"); !strings.Contains(s.Error, "nothing listens on 127.0.0.1:") || !strings.Contains(s.Remedy, "attach:") || !s.NextStart.IsZero() {
			t.Errorf("error %q, remedy %q, next start %v", s.Error, s.Remedy, s.NextStart)
		}
	})
}

func TestAResourceIsWaitedFor(t *testing.T) {
	line := "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB.\n"
	run(t, conf(vllmWorker("w0")), func(h *host) { h.play = failsWith(line, 1) }, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		began := time.Now()
		until(t, 10*time.Minute, "given up", given(p, "w0"))
		if took := time.Since(began) - 3*14*time.Second; h.launches() != 3 || took < 30*time.Second {
			t.Errorf("%d tries with %v between them, want 3 over half a minute at least: memory takes time to be given back", h.launches(), took)
		}
	})
}

// Nobody saw how the server itself would have ended: its log explains nothing.
func TestADeadShimIsTheCause(t *testing.T) {
	run(t, conf(vllmWorker("w0")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		h.last().say("ERROR 11-23 15:00:04 [x.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n")
		h.last().die(launch.Exit{Code: -1})
		until(t, time.Second, "failed", is(p, "w0", api.Failed))
		s := mustStatus(t, p, "w0")
		if !strings.HasPrefix(s.Error, "its shim died") || s.Exit != "exit status not known" || s.NextStart.IsZero() {
			t.Errorf("error %q, exit %q, next start %v; want that its shim died, and another start", s.Error, s.Exit, s.NextStart)
		}
		until(t, time.Minute, "ready again", is(p, "w0", api.Ready))
	})
}
