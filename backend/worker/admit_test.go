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
	"github.com/vllmdeck/vllmdeck/config"
)

// onGPU is a worker of these GPUs.
func onGPU(name string, gpus []string, args ...string) config.Worker {
	w := vllmWorker(name, args...)
	w.VLLM.GPUs = gpus
	w.GPUWait = 2 * time.Minute
	return w
}

// board is what the readings of the cards say; it changes while a test runs.
type board struct {
	mu      sync.Mutex
	cards   []api.GPU
	settled bool
}

func (b *board) read() ([]api.GPU, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.cards), b.settled
}

func (b *board) set(cards ...api.GPU) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cards, b.settled = cards, true
}

// gpu is a card of 24 GiB.
func gpu(index string, used float64, ps ...api.GPUProcess) api.GPU {
	return api.GPU{Index: index, UUID: "GPU-aaaa-" + index, MemoryTotal: new(int64(24 << 30)), MemoryUsed: new(int64(used * (1 << 30))), Processes: ps}
}

func holds(pid int, name string, gib float64) api.GPUProcess {
	return api.GPUProcess{PID: pid, Name: name, Memory: new(int64(gib * (1 << 30)))}
}

// gated runs workers on a host with cards.
func gated(t *testing.T, b *board, play func(p *proc), f func(t *testing.T, h *host, p *Pool), workers ...config.Worker) {
	t.Helper()
	run(t, conf(workers...), func(h *host) { h.cards, h.play = b.read, play }, f)
}

func blocked(p *Pool, name, text string) func() bool {
	return func() bool {
		s, _ := p.Status(name)
		return s.State == api.Starting && strings.Contains(s.Blocked, text) && (text == "") == (s.Blocked == "")
	}
}

func TestOneStartAtATimeOnAGPU(t *testing.T) {
	b := &board{settled: true} // no tool: what the config says is enough
	gated(t, b, loads(time.Minute), func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, 10*time.Second, "two start, on different GPUs", func() bool { return h.launches() == 2 })
		first, second := "w0", "w1"
		if p.view("w0").Blocked != "" {
			first, second = second, first
		}
		until(t, 5*time.Second, "the other waits and says for what", blocked(p, second, first+" is starting on GPU 0"))
		if s := p.view(second); s.Phase != "" || len(s.Phases) > 0 {
			t.Errorf("it waits, and yet is in phase %q of %v", s.Phase, s.Phases)
		}
		if s := p.view("w2"); s.Blocked != "" {
			t.Errorf("w2 on GPU 1 waits: %q", s.Blocked)
		}
		until(t, 2*time.Minute, "the first is ready", is(p, first, api.Ready))
		until(t, 5*time.Second, "the other starts", func() bool { return h.launches() == 3 && p.view(second).Blocked == "" })
		until(t, 2*time.Minute, "the other is ready", is(p, second, api.Ready))
		total := 0.0
		for _, ph := range p.view(second).Phases {
			total += ph.Seconds
		}
		if total > 65 {
			t.Errorf("its start took %.0f s, the wait is no part of it", total)
		}
	}, onGPU("w0", []string{"0"}), onGPU("w1", []string{"0"}), onGPU("w2", []string{"1"}))
}

func (p *Pool) view(name string) api.Worker {
	s, _ := p.Status(name)
	return s
}

func TestIndexAndUUIDAreOneGPU(t *testing.T) {
	b := &board{}
	b.set(gpu("0", 0), gpu("1", 0))
	gated(t, b, loads(time.Minute), func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, 10*time.Second, "one waits", func() bool { return p.view("w0").Blocked+p.view("w1").Blocked != "" })
		if h.launches() != 1 {
			t.Errorf("launches = %d, want 1", h.launches())
		}
	}, onGPU("w0", []string{"1"}), onGPU("w1", []string{"GPU-aaaa-1"}))
}

func TestAFailedStartGivesItsTurnBack(t *testing.T) {
	b := &board{settled: true}
	gated(t, b, failsWith("x: error: unrecognized arguments: --no\n", 2), func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Minute, "both have tried", func() bool { return p.stateOf("w0") == api.Failed && p.stateOf("w1") == api.Failed })
		if h.launches() != 2 {
			t.Errorf("launches = %d, want 2", h.launches())
		}
	}, onGPU("w0", []string{"0"}), onGPU("w1", []string{"0"}))
}

func TestAWaitingStartIsStopped(t *testing.T) {
	b := &board{}
	b.set(gpu("0", 20.9))
	gated(t, b, loads(time.Minute), func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, 5*time.Second, "it waits", blocked(p, "w0", "GPU 0: 3.1 of 24.0 GiB free, 22.1 wanted"))
		must(t, p.Stop("w0"))
		until(t, 5*time.Second, "stopped", is(p, "w0", api.Stopped))
		if s := p.view("w0"); s.Blocked != "" || h.launches() != 0 {
			t.Errorf("blocked %q after %d launches", s.Blocked, h.launches())
		}
		b.set(gpu("0", 0))
		must(t, p.Start("w0"))
		until(t, 5*time.Second, "it starts: the turn was given back", func() bool { return h.launches() == 1 })
	}, onGPU("w0", []string{"0"}))
}

func TestAStartWaitsForMemoryAndSaysWhoHoldsIt(t *testing.T) {
	b := &board{}
	held := holds(4312, "python", 20)
	held.User = "alice"
	b.set(gpu("0", 20.9, held))
	gated(t, b, loads(time.Minute), func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, 5*time.Second, "it waits", blocked(p, "w0", "GPU 0: 3.1 of 24.0 GiB free, 22.1 wanted: pid 4312 python (alice) holds 20.0 GiB"))
		time.Sleep(time.Minute)
		if h.launches() != 0 {
			t.Fatal("it was launched on a full card")
		}
		b.set(gpu("0", 0.4))
		until(t, 5*time.Second, "it starts once the memory is free", func() bool { return h.launches() == 1 })
		until(t, 2*time.Minute, "ready", is(p, "w0", api.Ready))
	}, onGPU("w0", []string{"0"}))
}

func TestMemoryThatDoesNotBecomeFreeFailsTheStart(t *testing.T) {
	b := &board{}
	stray := holds(4312, "VLLM::EngineCor", 12)
	stray.Stray = true
	other := holds(99, "python", 1)
	other.Worker = "w7"
	b.set(gpu("0", 14, stray, other, holds(3, "x", .5), holds(4, "y", .4)))
	gated(t, b, loads(time.Minute), func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, 3*time.Minute, "failed", is(p, "w0", api.Failed))
		s := p.view("w0")
		if want := "GPU 0: 10.0 of 24.0 GiB free, 12.0 wanted: stray 4312 VLLM::EngineCor holds 12.0 GiB, worker w7 (pid 99) holds 1.0 GiB, 2 more"; s.Error != want {
			t.Errorf("error = %q, want %q", s.Error, want)
		}
		for _, want := range []string{"vllmdeck worker end-stray 4312", "--gpu-memory-utilization=0.41 or less", "vllmdeck worker start w0 --no-gate"} {
			if !strings.Contains(s.Remedy, want) {
				t.Errorf("remedy = %q, want %q in it", s.Remedy, want)
			}
		}
		if s.NextStart.IsZero() || h.launches() != 0 {
			t.Errorf("next start %v after %d launches, want it tried again: memory may become free", s.NextStart, h.launches())
		}
	}, onGPU("w0", []string{"0"}, "--gpu-memory-utilization=0.5"))
}

func TestWhatIsNotKnownIsNotWaitedFor(t *testing.T) {
	full := gpu("0", 23, holds(1, "python", 22))
	unified := api.GPU{Index: "0", Processes: full.Processes}
	preload := holds(7, "vllm preload", 21)
	preload.Preload = true
	never := onGPU("w0", []string{"0"})
	never.GPUWait = 0
	for _, c := range []struct {
		name string
		card api.GPU
		w    config.Worker
	}{
		{"with --kv-cache-memory-bytes", full, onGPU("w0", []string{"0"}, "--kv-cache-memory-bytes", "1G")},
		{"with a utilisation that is none", full, onGPU("w0", []string{"0"}, "--gpu-memory-utilization=lots")},
		{"with gpu_wait: 0s", full, never},
		{"on a card that does not tell its memory", unified, onGPU("w0", []string{"0"})},
		{"on another card", full, onGPU("w0", []string{"1"})},
		{"where vllm preload holds the weights", gpu("0", 22, preload), onGPU("w0", []string{"0"}, "--load-format=ipc_cache")},
		{"on the CPU", full, vllmWorker("w0")},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &board{}
			b.set(c.card)
			gated(t, b, loads(time.Minute), func(t *testing.T, h *host, p *Pool) {
				t.Helper()
				until(t, 5*time.Second, "it starts", func() bool { return h.launches() == 1 })
			}, c.w)
		})
	}
}

func TestTheOnlyCardIsMeantWhereNoneIsNamed(t *testing.T) {
	b := &board{}
	b.set(gpu("0", 20))
	w := onGPU("w0", nil)
	w.VLLM.Env = map[string]string{"VLLM_TARGET_DEVICE": "cuda"} // the fake host has no driver files
	gated(t, b, loads(time.Minute), func(t *testing.T, _ *host, p *Pool) {
		t.Helper()
		until(t, 5*time.Second, "it waits", blocked(p, "w0", "GPU 0: 4.0 of 24.0 GiB free"))
	}, w)
}

func TestTheFirstReadingIsWaitedFor(t *testing.T) {
	b := &board{}
	gated(t, b, loads(time.Minute), func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, 5*time.Second, "it waits", blocked(p, "w0", "the first reading of the GPUs"))
		b.set(gpu("0", 20))
		until(t, 5*time.Second, "it waits for memory", blocked(p, "w0", "GPU 0: 4.0 of 24.0 GiB free"))
		if h.launches() != 0 {
			t.Error("it was launched before the cards were read")
		}
	}, onGPU("w0", []string{"0"}))
}

func TestAReadingThatNeverComesIsNotWaitedForForEver(t *testing.T) {
	gated(t, &board{}, loads(time.Minute), func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Minute, "it starts", func() bool { return h.launches() == 1 })
	}, onGPU("w0", []string{"0"}))
}

func TestAnOrderStartsItAllTheSame(t *testing.T) {
	b := &board{}
	b.set(gpu("0", 20))
	gated(t, b, loads(time.Minute), func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, 5*time.Second, "it waits", blocked(p, "w0", "GPU 0"))
		wantRefused(t, p.Start("w0"))
		must(t, p.StartNow("w0"))
		until(t, 5*time.Second, "it starts", func() bool { return h.launches() == 1 })
		wantRefused(t, p.StartNow("w0"))
		until(t, 2*time.Minute, "ready", is(p, "w0", api.Ready))
		must(t, p.Stop("w0"))
		until(t, time.Minute, "stopped", is(p, "w0", api.Stopped))
		must(t, p.StartNow("w0"))
		until(t, 5*time.Second, "it starts again", func() bool { return h.launches() == 2 })
		h.last().die(launch.Exit{Code: 1, Known: true})
		until(t, time.Minute, "what follows by itself waits again", blocked(p, "w0", "GPU 0"))
	}, onGPU("w0", []string{"0"}))
}

// A server that loads while its engine is replaced has its turn with the next one.
func TestAnAdoptedStartHasItsTurn(t *testing.T) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.play = loads(time.Minute)
		h.cards = (&board{settled: true}).read
		both := conf(onGPU("w0", []string{"0"}), onGPU("w1", []string{"0"}))
		_, stop := h.pool(state, conf(onGPU("w0", []string{"0"})))
		until(t, 5*time.Second, "w0 starts", func() bool { return h.launches() == 1 })
		time.Sleep(10 * time.Second)
		stop()
		p, end := h.pool(state, both)
		defer end()
		until(t, 5*time.Second, "w1 waits", blocked(p, "w1", "w0 is starting on GPU 0"))
		until(t, 2*time.Minute, "both are ready in the end", func() bool { return p.stateOf("w0") == api.Ready && p.stateOf("w1") == api.Ready })
	})
}

func TestWhichGPUsAServerUses(t *testing.T) {
	t.Setenv("CUDA_VISIBLE_DEVICES", "4,5")
	for _, c := range []struct {
		name       string
		gpus, args []string
		env        map[string]string
		want       []string
	}{
		{"the config's", []string{"1"}, []string{"--device-ids=0"}, map[string]string{"CUDA_VISIBLE_DEVICES": "1"}, []string{"1"}},
		{"its environment's", nil, nil, map[string]string{"CUDA_VISIBLE_DEVICES": "2, 3"}, []string{"2", "3"}},
		{"ours", nil, nil, nil, []string{"4", "5"}},
		{"none by wish", nil, nil, map[string]string{"CUDA_VISIBLE_DEVICES": ""}, nil},
		{"ids count what is visible", nil, []string{"--device-ids", "1"}, nil, []string{"5"}},
		{"ids alone", nil, []string{"--device-ids=1,GPU-x"}, map[string]string{"CUDA_VISIBLE_DEVICES": ""}, []string{"1", "GPU-x"}},
	} {
		if got := devices(c.gpus, c.args, c.env); !slices.Equal(got, c.want) {
			t.Errorf("%s: devices = %q, want %q", c.name, got, c.want)
		}
	}
}
