package backend

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/gateway"
	"github.com/vllmdeck/vllmdeck/backend/launch"
	"github.com/vllmdeck/vllmdeck/backend/worker"
)

// TestSnapshotSize fills every part of an engine with 16 workers in the middle of an outage: each
// request failed on several workers, with long errors.
func TestSnapshotSize(t *testing.T) {
	const limit = 256 << 10
	var b strings.Builder
	b.WriteString("workers:\n")
	for i := range 16 {
		fmt.Fprintf(&b, "  - {name: worker-number-%d, model: some/quite-long-model-name-70b-instruct, attach: \"http://127.0.0.1:%d\", gpus: 1}\n", i, 20000+i)
	}
	hub := t.TempDir()
	t.Setenv("HF_HUB_CACHE", hub)
	for i := range 110 {
		snap := filepath.Join(hub, fmt.Sprintf("models--some--quite-long-model-name-70b-instruct-%d", i), "snapshots", strings.Repeat("a", 40))
		var index []string
		for j := range 9 {
			index = append(index, fmt.Sprintf(`"t%d":"model-%05d-of-00009.safetensors"`, j, j))
		}
		err := os.MkdirAll(snap, 0o700)
		if err == nil {
			err = os.WriteFile(filepath.Join(snap, "model.safetensors.index.json"), []byte(`{"weight_map":{`+strings.Join(index, ",")+`}}`), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	e := idleEngine(t, b.String())
	now := time.Now()
	long := strings.Repeat("it ended the answer in the middle, ünd sö ön; ", 30)[:1000]
	for i := range 200 {
		r := &api.Request{
			ID: fmt.Sprintf("01M87H67T7925N7AKFR1QF%04d", i), Started: now.Add(-time.Duration(i) * time.Second), Route: "completions",
			Model: "some/quite-long-model-name-70b-instruct", Worker: "worker-number-11", Key: "the-key-of-a-team", Class: api.ClassServed, Stream: true,
			Outcome: api.OutcomeError, Status: 502, Error: long, Finish: "tool_calls", UsageSource: api.UsageUpstream,
			Usage: api.Usage{Input: 123456, CacheRead: 123456, Output: 123456, Reasoning: 123456},
			Queue: 123456789, TTFT: 123456789, Duration: 123456789012, ITL: 12345678, MaxGap: 123456789,
		}
		for range 4 {
			r.Attempts = append(r.Attempts, api.Attempt{Upstream: "worker-number-11", Outcome: api.OutcomeError, Error: long, Share: 123456789})
		}
		e.pricing.Load().price(r)
		e.recent.add(r)
		e.notices.add(api.Notice{Level: "error", Text: long, Worker: "worker-number-11"})
	}
	for i := range maxPrompts {
		e.tester.runs = append(e.tester.runs, &promptRun{state: api.Prompt{
			ID: strconv.Itoa(i), Model: "some/quite-long-model-name-70b-instruct", Worker: "worker-number-11", Prompt: strings.Repeat("ü", 200), State: "failed",
			Error: long, Started: now,
		}})
	}
	book := filepath.Join(e.config.Load().State, "crashes")
	if err := os.MkdirAll(book, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		text, err := json.Marshal(api.Crash{
			Worker: "worker-number-11", Model: "some/quite-long-model-name-70b-instruct", Time: now, Up: 123456789, Exit: "signal: killed",
			Phase: api.PhaseWeights, Cause: long[:600], Remedy: long[:600], Version: "0.32.0", Command: strings.Fields(strings.Repeat("--some-flag=with-a-value ", 40)),
		})
		if err == nil {
			err = os.WriteFile(filepath.Join(book, fmt.Sprintf("20261124-2145%02d.345678-worker-number-11.json", i)), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	e.pool = worker.NewPool(worker.Options{State: e.config.Load().State, Launchers: map[string]launch.Launcher{"attach": launch.Attach{}}})
	if err := e.pool.Apply(e.config.Load()); err != nil {
		t.Fatal(err)
	}
	var keys []gateway.Key
	for i := range 300 {
		k := gateway.Key{Key: api.Key{Name: fmt.Sprintf("the-key-of-team-%d", i), ID: fmt.Sprint("abcd", i), Source: api.KeyFromDatabase, Created: now, Expires: now.Add(time.Hour)}}
		k.Limits = api.KeyLimits{
			Models: []string{"some/quite-long-model-name-70b-instruct", "default"}, Requests: 123456, Tokens: 123456789, Parallel: 12345,
			Day: new(api.Nanos(1234567891234)), Month: new(api.Nanos(1234567891234)), Priority: api.PriorityNormal,
		}
		k.Spent = gateway.Spent{Day: 123456789123, Month: 123456789123, Unpriced: 123456}
		keys = append(keys, k)
	}
	e.gateway.Keys.Set(keys)
	for i := range 100 {
		e.machine.strays = append(e.machine.strays, launch.Stray{PID: 4000000 + i, Name: "VLLM::EngineCor", Worker: "worker-number-11/0123456789abcdef", Started: now, RSS: 123456789012})
	}
	var cards board
	for i := range 8 {
		g := api.GPU{
			Index: strconv.Itoa(i), UUID: "GPU-a008e90f-259e-df57-7988-63b6831fff68", Name: "NVIDIA GeForce RTX 4080 SUPER", Utilisation: new(0.123456), MemoryUsed: new(int64(12345678901)),
			MemoryTotal: new(int64(12345678901)), Temperature: new(81.5), Power: new(123.45), PowerLimit: new(123.45), Clock: new(1905.0), Energy: new(123456.123456789),
			ECC: new(int64(12345)), Throttle: []string{"power cap", "thermal", "thermal (hardware)"},
		}
		for range 8 {
			g.Xids = append(g.Xids, api.Xid{Time: now, Code: 63, Text: "a memory row was remapped or a page retired: a GPU reset completes it", PID: 4000000})
		}
		for range 32 {
			g.Processes = append(g.Processes, api.GPUProcess{PID: 4000000, Name: long[:64], User: "somebody-of-a-team", Memory: new(int64(12345678901)), Worker: "worker-number-11"})
		}
		cards = append(cards, g)
	}
	e.machine.gpus = cards
	e.machine.owners = map[int]launch.Owner{4000000: {Name: "VLLM::EngineCor", User: "somebody-of-a-team", Worker: "worker-number-11"}}
	looking, stop := context.WithCancel(t.Context())
	looked := make(chan error, 1)
	go func() { looked <- e.cache.Run(looking) }()
	until(t, "the cache is read", func() bool { return e.cache.Latest() != nil })
	stop()
	if err := <-looked; err != nil {
		t.Fatal(err)
	}
	s := e.look(now)
	noise := func(n int) api.Series {
		out := make(api.Series, n)
		for i := range out {
			out[i] = 1234.5678 * math.Sqrt(float64(i)+0.1)
		}
		return out
	}
	for i := range s.Windows {
		w := &s.Windows[i]
		for _, to := range []*api.Series{&w.Requests, &w.Errors, &w.Output, &w.Prompt, &w.InFlight, &w.TTFT50, &w.TTFT95, &w.E2E95, &w.ITL95, &w.Savings} {
			*to = noise(120)
		}
	}
	for i := range s.Workers {
		w := &s.Workers[i]
		w.Trend, w.Error, w.Remedy = noise(60), long[:600], long[:600]
		w.Command = strings.Fields(strings.Repeat("--some-flag=with-a-value ", 40))
		for range 6 {
			w.Phases = append(w.Phases, api.PhaseTime{Name: api.PhaseWeights, Seconds: 123.456789, Done: true})
		}
	}
	fix := &api.Fix{Set: []string{"--max-model-len=8192"}, Command: s.Workers[0].Command, Why: long[:100]}
	for i := range s.Workers {
		w := &s.Workers[i]
		w.LastStart, w.Blocked, w.Fix, w.Fixed = w.Phases, long[:200], fix, []string{"--max-model-len=8192", "without --enable-sleep-mode"}
		s.Rolls = append(s.Rolls, api.Roll{
			Model: "some/quite-long-model-name-70b-instruct", Started: now, Workers: []string{"worker-number-10", "worker-number-11"}, State: "failed", Error: long[:600],
		})
	}
	for range 32 {
		s.Advice = append(s.Advice, api.Advice{
			Rule: "preemptions", Worker: "worker-number-11", Model: "some/quite-long-model-name-70b-instruct", Since: now, Text: long[:250], Remedy: long[:250], Fix: fix,
		})
	}
	for range 4 {
		s.Providers = append(s.Providers, api.Provider{
			Name: "openai", Host: "api.openai.com", Models: []string{"some/quite-long-model-name-70b-instruct"}, State: api.ProviderOpen, SpentDay: new(api.Nanos(1234567891234)),
			SpentMonth: new(api.Nanos(1234567891234)), CapDay: new(api.Nanos(1234567891234)), CapMonth: new(api.Nanos(1234567891234)), Error: long[:200],
		})
		s.Cache.Downloads = append(s.Cache.Downloads, api.Download{
			Name: "some/quite-long-model-name-70b-instruct", State: "failed", Started: now, Size: 123456789012, Done: 12345678901, Rate: 123456789.123, File: "model-00001-of-00009.safetensors", Error: long[:500],
		})
	}
	whole := jsonSize(s)
	fit(s)
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) >= limit {
		t.Errorf("the snapshot has %d bytes, want less than %d:%s", len(text), limit, sizes(t, text))
	}
	t.Logf("of %d bytes are left %d:%s", whole, len(text), sizes(t, text))
	if len(s.Cache.Models) < 12 || len(s.Cache.Downloads) != 4 || len(s.Advice) < 12 || len(s.Rolls) != 16 {
		t.Errorf("it has %d models of the cache, %d downloads, %d advice and %d rolls, want at least 12, 4, 12 and 16", len(s.Cache.Models), len(s.Cache.Downloads), len(s.Advice), len(s.Rolls))
	}
	if len(s.Crashes) < 16 || len(s.Workers) != 16 {
		t.Errorf("it has %d of 40 crashes and %d workers, want at least 16 and 16", len(s.Crashes), len(s.Workers))
	}
	if len(s.Keys) < 20 || len(s.Keys) > 100 {
		t.Errorf("it has %d of 300 keys, want some", len(s.Keys))
	}
	if len(s.Requests) < 40 || len(s.Notices) != maxNotices || len(s.Windows) == 0 {
		t.Errorf("it has %d requests, %d notices and %d windows, want at least 40 and all of the others", len(s.Requests), len(s.Notices), len(s.Windows))
	}
	if got := s.Requests[0].Error; len(got) < 490 || strings.Contains(got, "\ufffd") {
		t.Errorf("the newest error is cut to %d bytes, or within a character: %q", len(got), got)
	}
	if got, _ := e.recent.find(s.Requests[0].ID); got.Error != long || got.Attempts[0].Error != long || got.Prices == nil {
		t.Error("the request that is kept was cut too")
	}
}

// board is cards that always say the same.
type board []api.GPU

func (b board) Latest() []api.GPU {
	out := slices.Clone(b)
	for i := range out {
		out[i].Processes = slices.Clone(b[i].Processes)
	}
	return out
}

func (b board) Settled() bool { return true }

// sizes says how many bytes each part of a JSON object takes.
func sizes(t *testing.T, text []byte) string {
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(text, &parts); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for name, part := range parts {
		fmt.Fprintf(&out, " %s %d", name, len(part))
	}
	return out.String()
}

func TestCommandLinesHaveABound(t *testing.T) {
	long := api.Fix{Set: []string{"--max-model-len=1"}, Command: strings.Fields(strings.Repeat("--some-flag=with-a-value ", 100)), Why: "it does not fit"}
	workers := make([]api.Worker, 16)
	for i := range workers {
		workers[i].Command, workers[i].Fix = long.Command[:20], &long
	}
	advice := trimWorkers(workers, []api.Advice{{Rule: "x", Text: "t", Remedy: "r", Fix: &long}})
	commands := 0
	for i := range workers {
		commands += jsonSize(workers[i].Command)
		if f := workers[i].Fix; f.Command != nil {
			commands += jsonSize(f.Command)
		}
	}
	if commands > commandsRoom {
		t.Errorf("the command lines take %d bytes, want at most %d", commands, commandsRoom)
	}
	if len(workers[15].Command) != 20 || workers[0].Fix.Command == nil || workers[15].Fix.Command != nil || workers[15].Fix.Set == nil || advice[0].Fix.Command != nil || long.Command == nil {
		t.Errorf("the last command line and fix: %q, %+v", workers[15].Command, workers[15].Fix)
	}
	workers[0].Command = long.Command[:100:100]
	for i := range workers {
		workers[i].Command = workers[0].Command
	}
	trimWorkers(workers, nil)
	if first, last := workers[0].Command, workers[15].Command; len(first) != 100 || len(last) < 10 || last[len(last)-1] != "…" {
		t.Errorf("of long command lines the first has %d words, the last is %q: want 100, and one that is cut", len(first), last)
	}
}

// BenchmarkFit is what keeping a snapshot of an outage within its size takes, twice a second.
func BenchmarkFit(b *testing.B) {
	s := api.Snapshot{Windows: make([]api.Window, 7)}
	for i := range s.Windows {
		w := &s.Windows[i]
		for _, to := range []*api.Series{&w.Requests, &w.Errors, &w.Output, &w.Prompt, &w.InFlight, &w.TTFT50, &w.TTFT95, &w.E2E95, &w.ITL95, &w.Savings} {
			*to = make(api.Series, 120)
			for j := range *to {
				(*to)[j] = 1.2345 * float64(j)
			}
		}
	}
	for i := range 8 {
		s.Workers = append(s.Workers, api.Worker{Name: fmt.Sprint("w", i), Model: "some-model", State: api.Ready, Trend: make(api.Series, 60), Command: make([]string, 20)})
	}
	for i := range maxRequests {
		s.Requests = append(s.Requests, api.Request{ID: strconv.Itoa(i), Model: "some-model", Worker: "w0", Attempts: []api.Attempt{{Upstream: "w0"}}})
	}
	for b.Loop() {
		t := s
		fit(&t)
	}
}
