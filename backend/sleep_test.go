package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
	"github.com/vllmdeck/vllmdeck/backend/provider/providertest"
	"github.com/vllmdeck/vllmdeck/backend/sim"
	"github.com/vllmdeck/vllmdeck/config"
)

// sleepRig is an engine with a server of each model, all with sleep mode and on one GPU.
func sleepRig(t *testing.T, o sim.Options, sleep, more string, models ...string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), done: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	var b strings.Builder
	fmt.Fprintf(&b, "listen: 127.0.0.1:0\nstate: %s\ncost: {gpu_hour: 3.60}\n%s\nworkers:\n", filepath.Join(r.dir, "state"), more)
	for _, model := range models {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		o := o
		o.Model, o.DevMode, o.TTFT, o.ITL, o.Log = model, true, 2*time.Millisecond, 2*time.Millisecond, io.Discard
		srv := sim.New(o)
		r.sims = append(r.sims, srv)
		r.urls = append(r.urls, "http://"+ln.Addr().String())
		served.Go(func() { _ = srv.Serve(ctx, ln) })
		fmt.Fprintf(&b, "  - {name: w-%s, model: %s, attach: \"http://%s\", gpus: 1, sleep: {%s}}\n", model, model, ln.Addr(), sleep)
	}
	c, err := config.Reader{Prices: cost.Embedded().Known}.Parse("test.yaml", []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if r.Backend, err = New(t.Context(), Options{Config: c, Version: "1.2.3", Self: []string{"/nowhere"}, Listener: ln, Log: NewLog()}); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(r.done)
		r.err = r.Run(context.Background())
	}()
	t.Cleanup(func() {
		r.Stop(false)
		r.ended(10 * time.Second)
		cancel()
		served.Wait()
		http.DefaultClient.CloseIdleConnections()
	})
	return r
}

// say asks a model, greedily, and gives status and text.
func (r *rig) say(model string, tokens int) (int, string) {
	r.t.Helper()
	body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"What is a canal?"}],"max_tokens":%d,"temperature":0,"ignore_eos":true}`, model, tokens)
	resp, err := http.Post(r.URL()+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body) // what is no answer is said by the status
	var a struct {
		Choices []struct {
			Message struct{ Content string }
		}
	}
	if json.Unmarshal(text, &a) != nil || len(a.Choices) == 0 {
		return resp.StatusCode, string(text)
	}
	return resp.StatusCode, a.Choices[0].Message.Content
}

func (r *rig) stateOf(name string) api.Worker {
	r.t.Helper()
	w, ok := r.pool.Status(name)
	if !ok {
		r.t.Fatalf("no worker %s", name)
	}
	return w
}

// TestTwoModelsTakeTurnsOnOneGPU: clients of both are held and served, whatever is awake, and never garbage.
func TestTwoModelsTakeTurnsOnOneGPU(t *testing.T) {
	t.Parallel()
	// Level 2, for its answers are garbage unless the weights were loaded anew.
	r := sleepRig(t, sim.Options{Start: 80 * time.Millisecond}, "level: 2, stay: 100ms, share: gpu0", "", "a", "b")
	both := func() (ready, asleep int) {
		for _, name := range []string{"w-a", "w-b"} {
			switch r.stateOf(name).State {
			case api.Ready:
				ready++
			case api.Asleep:
				asleep++
			}
		}
		return ready, asleep
	}
	until(t, "one is awake and the other asleep", func() bool { ready, asleep := both(); return ready == 1 && asleep == 1 })
	want := map[string]string{}
	for _, model := range []string{"a", "b"} {
		code, text := r.say(model, 8)
		if code != http.StatusOK || strings.Contains(text, "!!") {
			t.Fatalf("%s answers %d %q", model, code, text)
		}
		want[model] = text
	}
	if code, h := r.health(); code != http.StatusOK || h.Status != "ok" {
		t.Errorf("GET /health = %d %s, want ok: a request wakes the model that sleeps", code, h.Status)
	}
	var wg sync.WaitGroup
	for _, model := range []string{"a", "b"} {
		for range 3 {
			wg.Go(func() {
				for range 6 {
					if code, text := r.say(model, 8); code != http.StatusOK || text != want[model] {
						t.Errorf("%s answers %d %q, want %q", model, code, text, want[model])
					}
				}
			})
		}
	}
	wg.Wait()
	s := r.snapshot()
	if s.Traffic.Failed+s.Traffic.Rejected > 0 {
		t.Errorf("%d failed, %d were rejected, want none", s.Traffic.Failed, s.Traffic.Rejected)
	}
	for _, w := range s.Workers {
		if w.Restarts > 0 || w.Error != "" {
			t.Errorf("%s: %d restarts, %q", w.Name, w.Restarts, w.Error)
		}
	}
}

func TestARequestWakesAWorkerBeforeItGoesToAProvider(t *testing.T) {
	t.Parallel()
	paid := providertest.Open(t)
	r := sleepRig(t, sim.Options{Start: 2 * time.Second}, "level: 1", "gateway: {queue_wait: 20s}\n"+strings.SplitN(paidConfig(t, t.TempDir(), paid.URL, ""), "\n", 2)[1], "toy")
	until(t, "ready", func() bool { return r.stateOf("w-toy").State == api.Ready })
	if err := r.Do(t.Context(), api.Action{Verb: api.WorkerSleep, Target: "w-toy", Args: map[string]string{"level": "1"}}); err != nil {
		t.Fatal(err)
	}
	until(t, "asleep", func() bool { return r.stateOf("w-toy").State == api.Asleep })
	if _, ok := r.pool.Acquire("w-toy"); ok {
		t.Error("a worker that sleeps was acquired")
	}
	if w := r.stateOf("w-toy"); w.Level != 1 {
		t.Errorf("level %d, want 1", w.Level)
	}
	code, text := r.say("toy", 5)
	if code != http.StatusOK {
		t.Fatalf("HTTP %d: %s", code, text)
	}
	if n := paid.Calls.Load(); n != 0 {
		t.Errorf("%d requests went to the provider", n)
	}
	rows, err := r.Spend(t.Context(), api.Query{By: []string{"class"}})
	until(t, "the row", func() bool {
		rows, err = r.Spend(t.Context(), api.Query{By: []string{"class"}})
		return err != nil || len(rows) > 0
	})
	if err != nil || rows[0].Labels["class"] != api.ClassServed {
		t.Errorf("rows %+v, %v; want the request served by the worker", rows, err)
	}
}

func TestSleepOrdersSayWhatIsWrong(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1) // without sleep mode
	r.allReady()
	for _, a := range []api.Action{
		{Verb: api.WorkerSleep, Target: "w0"}, {Verb: api.WorkerWake, Target: "w0"}, {Verb: api.WorkerSleep, Target: "w0", Args: map[string]string{"level": "x"}},
	} {
		if err := r.Do(t.Context(), a); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v, want refused", a.Verb, err)
		}
	}
}

func TestASharedGPUIsPaidForOnce(t *testing.T) {
	shares := map[string][]string{"a": {"gpu 0"}, "b": {"gpu 0"}, "c": {"gpu 0", "gpu 1"}}
	at := func(name string, s api.State, since float64) api.Worker {
		return api.Worker{Name: name, State: s, Since: second(since), Started: second(0), HourCost: new(api.Nanos(10))}
	}
	for _, c := range []struct {
		what    string
		workers []api.Worker
		want    []string
	}{
		{"awake beside asleep", []api.Worker{at("a", api.Ready, 5), at("b", api.Asleep, 9)}, []string{"a"}},
		{"both asleep: the last one", []api.Worker{at("a", api.Asleep, 5), at("b", api.Asleep, 4)}, []string{"a"}},
		{"both asleep since the same moment", []api.Worker{at("a", api.Asleep, 5), at("b", api.Asleep, 5)}, []string{"b"}},
		{"the other has stopped", []api.Worker{at("a", api.Stopped, 9), at("b", api.Asleep, 4)}, []string{"b"}},
		{"the other starts", []api.Worker{at("a", api.Starting, 9), at("b", api.Asleep, 4)}, []string{"a"}},
		{"half of what it has", []api.Worker{at("a", api.Ready, 9), at("c", api.Asleep, 4)}, []string{"a", "c"}},
		{"alone", []api.Worker{at("x", api.Asleep, 4)}, []string{"x"}},
	} {
		var got []string
		for i := range c.workers {
			if ok, _ := pays(c.workers, &c.workers[i], shares); ok {
				got = append(got, c.workers[i].Name)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v pay, want %v", c.what, got, c.want)
		}
		if sum := hourRate(c.workers, shares); sum == nil || *sum != api.Nanos(10*len(c.want)) {
			t.Errorf("%s: %v an hour, want %d", c.what, sum, 10*len(c.want))
		}
	}
}

func TestTurnsAddUpToTheWallClock(t *testing.T) {
	c, p := newClock(), &pricing{shares: map[string][]string{"a": {"gpu 0"}, "b": {"gpu 0"}}}
	a := api.Worker{Name: "a", State: api.Ready, Since: second(0), Started: second(0)}
	b := api.Worker{Name: "b"}
	look := func(s float64) { c.look(second(s), []api.Worker{a, b}, p) }
	look(1)
	// a falls asleep at 10, b starts at 11 and is ready at 15; at 30 it falls asleep, a wakes at 32; at 50 all sleep.
	look(9.9)
	a.State, a.Since = api.Asleep, second(10)
	look(10.9) // a still pays: it was the last to have the GPU
	b.State, b.Since, b.Started = api.Starting, second(11), second(11)
	look(11.9)
	b.State, b.Since = api.Ready, second(15)
	look(15.9)
	b.State, b.Since = api.Asleep, second(30)
	look(31)
	a.State, a.Since, a.Awake = api.Ready, second(32), second(32)
	look(32.9)
	look(49)
	a.State, a.Since = api.Asleep, second(50)
	for s := 50.5; s < 60; s++ {
		look(s)
	}
	look(70)
	if got, want := c.wall(), 70*time.Second; got != want {
		t.Errorf("told %v, want %v: %+v", got, want, c.told)
	}
	if got := len(c.told); got != 3 { // a until b starts, b until a wakes, a since then
		t.Errorf("%d parts, want 3", got)
	}
}
