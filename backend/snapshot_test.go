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
	s := e.build(now)
	if s.Cache == nil || len(s.Cache.Models) < 12 {
		t.Errorf("of the cache is left %+v, want 12 models at least", s.Cache)
	}
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
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) >= limit {
		t.Errorf("the snapshot has %d bytes, want less than %d:%s", len(text), limit, sizes(t, text))
	}
	if len(s.Crashes) < 16 || len(s.Workers) != 16 {
		t.Errorf("it has %d of 40 crashes and %d workers, want at least 16 and 16", len(s.Crashes), len(s.Workers))
	}
	if len(s.Keys) < 20 || len(s.Keys) > 100 {
		t.Errorf("it has %d of 300 keys, want some", len(s.Keys))
	}
	if len(s.Requests) < 16 || len(s.Notices) != maxNotices || len(s.Windows) == 0 {
		t.Errorf("it has %d requests, %d notices and %d windows, want at least 16 and all of the others", len(s.Requests), len(s.Notices), len(s.Windows))
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

func TestCommandLinesOfFixesHaveABound(t *testing.T) {
	long := api.Fix{Set: []string{"--max-model-len=1"}, Command: strings.Fields(strings.Repeat("--some-flag=with-a-value ", 100)), Why: "it does not fit"}
	workers := make([]api.Worker, 16)
	for i := range workers {
		workers[i].Fix = &long
	}
	advice := []api.Advice{{Rule: "x", Text: "t", Remedy: "r", Fix: &long}}
	size := trimFixes(workers, advice)
	text, err := json.Marshal([]any{workers, advice})
	if err != nil {
		t.Fatal(err)
	}
	plain, err := json.Marshal([]any{make([]api.Worker, 16), []any{}})
	if err != nil {
		t.Fatal(err)
	}
	if took := len(text) - len(plain); size > fixesRoom+8<<10 || took > size*11/10 {
		t.Errorf("estimated %d bytes, took %d, want at most %d and a true estimate", size, took, fixesRoom+8<<10)
	}
	if workers[0].Fix.Command == nil || workers[15].Fix.Command != nil || workers[15].Fix.Set == nil || long.Command == nil {
		t.Errorf("the first and the last fix: %+v, %+v", workers[0].Fix, workers[15].Fix)
	}
}

func TestOfRequestsThatWentWellAllAreShown(t *testing.T) {
	var all []api.Request
	for range maxRequests {
		all = append(all, api.Request{Attempts: []api.Attempt{{Upstream: "w0"}}})
	}
	if got := len(trim(all, requestsRoom)); got != maxRequests {
		t.Errorf("%d of %d are shown", got, maxRequests)
	}
}

func TestAnEmptyListIsNoNull(t *testing.T) {
	text, err := json.Marshal(idleEngine(t, "workers: [{name: w0, model: toy, attach: \"http://127.0.0.1:1\"}]").build(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(text, &parts); err != nil {
		t.Fatal(err)
	}
	for name, part := range parts {
		if string(part) == "null" {
			t.Errorf("%s is null: a script that loops over it would fail", name)
		}
	}
}

func TestALedgerThatCannotBeWrittenIsANoticeUntilItCan(t *testing.T) {
	var b noticeBoard
	broken := api.Notice{Level: "error", Text: "cannot be written"}
	for i, step := range []struct {
		n    api.Notice
		news bool
		want string
	}{
		{api.Notice{}, false, "[]"},
		{broken, true, "[cannot be written true]"},
		{broken, false, "[cannot be written true]"},
		{api.Notice{Level: "error", Text: "worse"}, true, "[worse true][cannot be written false]"},
		{api.Notice{}, true, "[worse false][cannot be written false]"},
		{api.Notice{}, false, "[worse false][cannot be written false]"},
	} {
		news := b.set("ledger", step.n)
		var notices strings.Builder
		for _, n := range b.list() {
			fmt.Fprintf(&notices, "[%s %v]", n.Text, n.Active)
		}
		got := notices.String()
		if got == "" {
			got = "[]"
		}
		if news != step.news || got != step.want {
			t.Errorf("step %d: news %v, notices %s; want %v, %s", i, news, got, step.news, step.want)
		}
	}
	b.set("ledger", broken)
	for range 2 * maxNotices {
		b.add(api.Notice{Text: "something else"})
	}
	if list := b.list(); len(list) != maxNotices || !list[maxNotices-1].Active {
		t.Errorf("%d notices, the last %+v: want %d, and that what is still true stays", len(list), list[len(list)-1], maxNotices)
	}
}

func TestTheKeysThatWereUsedLastAreShown(t *testing.T) {
	var all []api.Key
	for i := range 1000 {
		all = append(all, api.Key{Name: fmt.Sprintf("k%03d", i), Use: &api.KeyUse{Last: time.Unix(int64(i), 0)}})
	}
	got, _ := trimKeys(all)
	if len(got) < 20 || len(got) == 1000 || got[len(got)-1].Name != "k999" || got[0].Name != fmt.Sprintf("k%03d", 1000-len(got)) {
		t.Errorf("%d are shown, from %s to %s; want the last ones, by name", len(got), got[0].Name, got[len(got)-1].Name)
	}
	if got, _ := trimKeys(all[:10]); len(got) != 10 || got[0].Name != "k000" {
		t.Errorf("of ten %d are shown, from %s", len(got), got[0].Name)
	}
}

// TestAQuietEngineShowsItsWholeCache: where requests leave room, every model of the cache is shown.
func TestAQuietEngineShowsItsWholeCache(t *testing.T) {
	c := &api.Cache{}
	for i := range 80 {
		c.Models = append(c.Models, api.CacheModel{Name: fmt.Sprintf("org/model-%d", i), Size: 1})
	}
	size := trimCache(c, requestsRoom)
	if len(c.Models) != 80 || size > cacheRoom {
		t.Errorf("%d models in %d bytes, want all 80 in %d", len(c.Models), size, cacheRoom)
	}
	c.Models[7].Workers = []string{"w0"}
	if trimCache(c, 0); len(c.Models) < 12 || !slices.ContainsFunc(c.Models, func(m api.CacheModel) bool { return m.Name == "org/model-7" }) {
		t.Errorf("without room %d models are left, want 12 at least and among them the one that a worker needs", len(c.Models))
	}
	if trimCache(nil, requestsRoom) != 0 {
		t.Error("no cache takes room")
	}
}
