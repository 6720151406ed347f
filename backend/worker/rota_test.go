package worker

import (
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/config"
)

func TestWhatAWorkerTakesFollowsItsFlags(t *testing.T) {
	h := newHost(t)
	h.cards = func() ([]api.GPU, bool) {
		return []api.GPU{{Index: "0", UUID: "GPU-aaaa"}, {Index: "1", UUID: "GPU-bbbb"}}, true
	}
	o := h.options(t.TempDir())
	o.HasGPU = func() bool { return true }
	o.fill()
	sleeper := func(gpus string, args ...string) config.Worker {
		w := vllmWorker("w", args...)
		w.VLLM.GPUs, w.Sleep = strings.Fields(gpus), &config.Sleep{Level: 1}
		return w
	}
	attached := attachWorker("w", "http://x")
	attached.Sleep = &config.Sleep{Share: "gpu0"}
	for _, c := range []struct {
		w    config.Worker
		want need
	}{
		{vllmWorker("w"), nil},
		{sleeper(""), need{}},
		{sleeper("0 1"), need{"GPU 0": .92, "GPU 1": .92}},
		{sleeper("GPU-bbbb"), need{"GPU 1": .92}},
		{sleeper("0", "--gpu-memory-utilization=0.4"), need{"GPU 0": .4}},
		{sleeper("0", "--kv-cache-memory-bytes=1000"), need{"GPU 0": 1}},
		{attached, need{"gpu0": 1}},
	} {
		pl, err := newPlan(c.w, config.Logs{}, &o)
		if err != nil {
			t.Fatal(err)
		}
		w := &worker{plan: pl, opts: &o}
		got, _ := w.need()
		if !maps.Equal(got, c.want) || (got == nil) != (c.want == nil) {
			t.Errorf("%v: %v, want %v", c.w.VLLM, got, c.want)
		}
	}
}

func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newRota()
		bells := map[string]chan struct{}{}
		for _, name := range []string{"a", "b", "c", "d"} {
			bells[name] = make(chan struct{}, 1)
			ts.join(name, bells[name])
		}
		rung := func(name string) bool {
			select {
			case <-bells[name]:
				return true
			default:
				return false
			}
		}
		ask := func(name string, n need, urgent, want bool) string {
			t.Helper()
			time.Sleep(time.Second)
			ok, who := ts.ask(name, n, urgent)
			if ok != want {
				t.Fatalf("%s is given a seat: %v, want %v (%s)", name, ok, want, who)
			}
			return who
		}
		zero, both, one := need{"GPU 0": .92}, need{"GPU 0": .92, "GPU 1": .92}, need{"GPU 1": .5}
		ask("a", zero, false, true)
		ask("a", zero, false, true) // it has one
		ask("d", nil, true, true)   // it shares nothing
		ask("d", one, false, true)
		if who := ask("b", zero, false, false); who != "a has GPU 0" || !rung("a") {
			t.Errorf("b waits for %q, want a to be named and told", who)
		}
		if wanted, urgent := ts.wanted("a"); !wanted || urgent {
			t.Errorf("a is wanted %v, urgently %v; want true, false", wanted, urgent)
		}
		ask("c", both, true, false)
		if wanted, urgent := ts.wanted("a"); !wanted || !urgent {
			t.Errorf("a is wanted %v, urgently %v; want both", wanted, urgent)
		}
		ts.leave("a")
		if !rung("b") || !rung("c") {
			t.Error("those in line are not told that a has left")
		}
		// c is urgent, so b, which was first, waits, even while c cannot have GPU 1 yet.
		if who := ask("b", zero, false, false); !strings.Contains(who, "c") {
			t.Errorf("b waits for %q, want c to be next", who)
		}
		ask("c", both, true, false)
		ts.leave("d")
		ask("c", both, true, true)
		ts.withdraw("c") // it has a seat, so this is nothing
		ask("b", zero, true, false)
		ts.withdraw("b")
		if wanted, _ := ts.wanted("c"); wanted {
			t.Error("c is wanted by nobody")
		}
		ts.hold("a", zero) // by the facts
		ts.part("c", bells["d"])
		ask("b", zero, true, false)
		ts.part("c", bells["c"])
		ts.leave("a")
		ask("b", zero, true, true)
		ts.leave("b")
		// Two that fit together take no turns.
		ask("a", need{"GPU 0": .4}, false, true)
		ask("b", need{"GPU 0": .6}, false, true)
		ask("c", need{"GPU 0": .1}, false, false)
	})
}

// TestNobodyStarvesInLine: whatever comes, who is urgent and first is given a seat as soon as those leave that have one.
func TestNobodyStarvesInLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := newRota()
		n := need{"GPU 0": .92}
		has := "a"
		ts.ask("a", n, true)
		var order strings.Builder
		for range 9 {
			for _, name := range []string{"a", "b", "c"} {
				if name != has {
					time.Sleep(time.Millisecond)
					ts.ask(name, n, true)
				}
			}
			ts.leave(has)
			for _, name := range []string{"c", "b", "a"} { // who asks first is not who is first
				if ok, _ := ts.ask(name, n, true); ok {
					has = name
					order.WriteString(name)
					break
				}
			}
		}
		if want := "bcabcabca"; order.String() != want {
			t.Errorf("turns were %s, want %s", order.String(), want)
		}
	})
}
