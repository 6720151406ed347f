package tui

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"go.uber.org/goleak"
)

// TestMain also serves to look at the console: VLLMDECK_PREVIEW=real|ops|sim|empty|cpu|away|unknown
// runs it on a moving fake in this terminal.
func TestMain(m *testing.M) {
	if kind := os.Getenv("VLLMDECK_PREVIEW"); kind != "" {
		f := &fake{kind: kind, now: time.Now}
		res, err := Run(context.Background(), Options{Source: f, Demo: kind == "sim", Theme: os.Getenv("VLLMDECK_THEME"), Graph: os.Getenv("VLLMDECK_GRAPH"), ASCII: os.Getenv("VLLMDECK_ASCII") != ""})
		fmt.Printf("%+v %v\n", res.URL, err)
		return
	}
	code := m.Run()
	// A timer of Bubble Tea cannot be cancelled: it may outlive its program by one tick.
	leak := goleak.Find()
	for end := time.Now().Add(5 * time.Second); code == 0 && leak != nil && time.Now().Before(end); {
		leak = goleak.Find()
	}
	if code == 0 && leak != nil {
		fmt.Fprintln(os.Stderr, leak)
		code = 1
	}
	os.Exit(code)
}

// fake is a Source: its snapshot is fixture's, its clock the one it is given.
type fake struct {
	kind    string
	now     func() time.Time
	mu      sync.Mutex
	seq     uint64
	still   *api.Snapshot // always this one, if set
	err     error
	did     []api.Action
	logs    map[string][]api.Line
	prompts []api.Prompt
}

func (f *fake) Snapshot(context.Context) (*api.Snapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq++
	if f.err != nil {
		return nil, f.err
	}
	if f.still != nil {
		s := *f.still
		s.Seq = f.seq
		return &s, nil
	}
	if f.kind == "away" && f.seq > 3 {
		return nil, fmt.Errorf("dial unix /run/vllmdeck.sock: %w", api.ErrAway)
	}
	s := fixture(f.kind, f.now())
	if f.kind == "ops" {
		s = operated(f.now())
	}
	s.Seq = f.seq
	for i := range f.prompts {
		p := &f.prompts[i]
		n := time.Since(p.Started).Milliseconds() / 40
		p.State, p.TTFT, p.UsageSource = "streaming", api.Span(120*time.Millisecond), api.UsageCounted
		p.Usage = api.Usage{Input: 41, Output: min(n, 220)}
		p.Rate = new(25.1)
		if n >= 220 {
			p.State, p.Duration, p.UsageSource, p.Finish, p.Actual, p.Would, p.Health = "done", api.Span(9*time.Second), api.UsageUpstream, "stop", nd(0.000214), nd(0.00031), new(0.91)
		}
	}
	s.Prompts = append(append([]api.Prompt{}, f.prompts...), s.Prompts...)
	return s, nil
}

var words = strings.Fields("The three main causes are memory pressure, long prompts and a cold prefix cache. First, look at the KV cache: once it is full, requests are preempted and computed again.\n\nSecond, 長いプロンプト take the whole prefill. Third, measure before you tune.")

func (f *fake) Log(_ context.Context, name string, after uint64) ([]api.Line, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []api.Line
	if id, ok := strings.CutPrefix(name, "prompt/"); ok {
		for _, p := range f.prompts {
			if p.ID == id {
				for i := range min(int(time.Since(p.Started).Milliseconds()/40), 220) {
					all = append(all, api.Line{Seq: uint64(i + 1), Text: words[i%len(words)] + " "})
				}
			}
		}
	} else if all, ok = f.logs[name]; !ok {
		if f.logs == nil && f.kind != "" {
			all = vllmLog(f.now())
		} else {
			return nil, api.ErrUnknown
		}
	}
	var out []api.Line
	for _, l := range all {
		if l.Seq > after {
			out = append(out, l)
		}
	}
	if len(out) > 2000 {
		if after == 0 {
			out = out[len(out)-2000:]
		} else {
			out = out[:2000]
		}
	}
	return out, nil
}

func (f *fake) Spend(context.Context, api.Query) ([]api.Row, error) { return nil, nil }

func (f *fake) Do(_ context.Context, a api.Action) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did = append(f.did, a)
	if a.Verb == api.PromptSend {
		f.prompts = append([]api.Prompt{{ID: a.ID, Model: a.Target, Worker: "w0", Prompt: a.Text, Started: time.Now(), State: "waiting"}}, f.prompts...)
	}
	return nil
}

func (f *fake) actions() []api.Action {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]api.Action(nil), f.did...)
}

func vllmLog(now time.Time) []api.Line {
	texts := []struct{ level, text string }{
		{"info", "INFO 11-24 12:00:01 [api_server.py:1772] vLLM API server version 0.32.0"},
		{"info", "INFO 11-24 12:00:09 [gpu_model_runner.py:2602] Starting to load model meta-llama/Llama-3.1-8B-Instruct..."},
		{"warning", "WARNING 11-24 12:00:10 [arg_utils.py:1766] Chunked prefill is enabled with max_num_batched_tokens=2048."},
		{"info", "INFO 11-24 12:00:31 [default_loader.py:267] Loading weights took 20.71 seconds"},
		{"info", "INFO 11-24 12:00:44 [gpu_worker.py:298] Available KV cache memory: 46.12 GiB"},
		{"error", "ERROR 11-24 12:02:17 [core.py:710] RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB \x1b[31m(GPU 1)"},
		{"info", "INFO 11-24 12:04:30 [loggers.py:123] Engine 000: Avg prompt throughput: 812.3 tokens/s, Avg generation throughput: 1204.1 tokens/s, Running: 14 reqs, Waiting: 2 reqs, GPU KV cache usage: 61.2%, Prefix cache hit rate: 38.4%"},
	}
	var out []api.Line
	for i := range 60 {
		t := texts[i%len(texts)]
		out = append(out, api.Line{Seq: uint64(i + 1), Time: now.Truncate(time.Minute).Add(time.Duration(i-60) * time.Second), Level: t.level, Text: t.text})
	}
	return out
}

func nd(usd float64) *api.Nanos {
	n, _ := api.FromUSD(usd)
	return &n
}

var fixedNow = time.Date(2026, 11, 24, 12, 4, 31, 0, time.UTC)

// wave is a smooth, seeded curve with a little roughness, a function of absolute time.
func wave(t float64, seed, lo, hi float64) float64 {
	v := 0.5 + 0.32*math.Sin(t/37+seed) + 0.14*math.Sin(t/11+seed*3) + 0.07*math.Sin(t/3.1+seed*7)
	return lo + (hi-lo)*math.Min(math.Max(v, 0), 1)
}

func windowOf(span time.Duration, now time.Time, scale float64) api.Window {
	bucket := span / 120
	end := now.Truncate(bucket).Add(bucket)
	w := api.Window{Span: api.Span(span), Bucket: api.Span(bucket), End: end, Partial: 1 - float64(end.Sub(now))/float64(bucket)}
	for i := range 120 {
		t := float64(end.Add(-time.Duration(120-i)*bucket).UnixNano()) / 1e9 * (300 / span.Seconds())
		out := wave(t, 1, 600, 2900) * scale
		w.Output = append(w.Output, out)
		w.Prompt = append(w.Prompt, out*3.4)
		w.Requests = append(w.Requests, out/860)
		e := 0.0
		if i%37 == 5 {
			e = 0.2
		}
		w.Errors = append(w.Errors, e)
		w.InFlight = append(w.InFlight, wave(t, 1, 6, 45))
		p50 := wave(t, 1.6, 0.09, 0.21)
		p95 := p50 * wave(t, 4, 2.0, 4.2)
		if i == 71 {
			p95 = 0.93
		}
		w.TTFT50, w.TTFT95 = append(w.TTFT50, p50), append(w.TTFT95, p95)
		w.E2E95 = append(w.E2E95, wave(t, 2.2, 3.8, 7.9))
		w.ITL95 = append(w.ITL95, wave(t, 0.4, 0.022, 0.041))
		w.Savings = append(w.Savings, 30+float64(i)*0.06+wave(t, 5, 0, 0.5))
	}
	q := func(n int64, mean, p50, p95, p99, mx float64) api.Quantiles {
		return api.Quantiles{Count: n, Mean: &mean, P50: &p50, P95: &p95, P99: &p99, Max: &mx}
	}
	w.TTFT, w.E2E = q(412, .214, .182, .640, 1.12, 1.48), q(412, 2.6, 2.14, 6.02, 9.88, 12.4)
	w.ITL, w.Queue = q(38211, .0188, .018, .031, .044, .21), q(412, .021, .003, .09, .41, .62)
	w.Count, w.Failed, w.Rejected, w.Cancelled, w.PeakOutput = 412, 1, 4, 3, 2910
	return w
}

// fixture builds a snapshot: "real" is a busy host with trouble, "sim" the demo, "empty" an engine without
// anything, "cpu" one worker without a GPU, "unknown" one whose prices are not set.
func fixture(kind string, now time.Time) *api.Snapshot {
	s := &api.Snapshot{Schema: 1, Seq: 1, Time: now, Engine: api.Engine{Version: "1.0.0", PID: 4242, Host: "gpu-a1", Started: now.Add(-72 * time.Hour), URL: "http://127.0.0.1:8090", Status: "degraded", Memory: 41 << 20}}
	if kind == "empty" {
		s.Engine.Status = "down"
		s.Money = api.Money{Period: "today", From: now.Truncate(24 * time.Hour), Zone: "UTC", Missing: []string{"set cost.gpu_hour (USD per GPU and hour) to see what the workers cost", "set cost.baseline to see what the same tokens would have cost"}}
		s.Windows = []api.Window{{Span: api.Span(time.Minute), Bucket: api.Span(time.Minute / 120), End: now}}
		return s
	}
	for _, d := range []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour} {
		s.Windows = append(s.Windows, windowOf(d, now, 1))
	}
	fixtureWorkers(s, kind, now)
	fixtureMoney(s, kind, now)
	fixtureRequests(s, kind, now)
	s.Host = api.Host{CPUs: 64, CPU: new(11.4), MemoryTotal: 512 << 30, MemoryFree: 391 << 30}
	s.Traffic = api.Traffic{InFlight: 45, Queued: 14, Total: 81220, Failed: 31, Rejected: 114, Cancelled: 401, Moved: 2}
	s.Answers = api.Answers{
		Rated: 412, Bins: [10]int64{2, 3, 4, 9, 14, 28, 44, 77, 100, 131}, Median: new(0.87), Target: 0.8, Length: new(0.92), Coherence: new(0.88), Engagement: new(0.81), Truncated: 17, Looping: 3, Refused: 2,
		ByModel: []api.ModelAnswers{{Model: "llama-3.1-8b", Rated: 300, Median: new(0.88)}, {Model: "qwen3-30b-a3b", Rated: 112, Median: new(0.85)}},
	}
	s.Notices = []api.Notice{
		{Time: now.Add(-1 * time.Minute), Level: "warning", Text: "KV cache 96 % full: requests are preempted; lower --max-num-seqs or raise --gpu-memory-utilization", Worker: "w1", Active: true},
		{Time: now.Add(-3 * time.Minute), Level: "error", Text: "did not start: CUDA out of memory", Worker: "long-context-w3", Active: true},
		{Time: now.Add(-7 * time.Minute), Level: "warning", Text: "restarted after exit 137", Worker: "w2"},
		{Time: now.Add(-24 * time.Minute), Level: "info", Text: "configuration read again: 1 worker added"},
		{Time: now.Add(-62 * time.Minute), Level: "info", Text: "price table of 2026-11-01 in use"},
	}
	s.Prompts = []api.Prompt{{ID: "c01", Model: "llama-3.1-8b", Worker: "w0", Prompt: "Why is my KV cache full?", Started: now.Add(-4 * time.Minute), State: "done", TTFT: api.Span(96 * time.Millisecond), Duration: api.Span(2200 * time.Millisecond), Usage: api.Usage{Input: 21, Output: 388}, UsageSource: api.UsageUpstream, Rate: new(176.2), Finish: "stop", Actual: nd(0.00019), Would: nd(0.00026), Health: new(0.91)}}
	s.Models = []api.Model{{Name: "llama-3.1-8b", Ready: 1, Workers: 2, MaxLen: 8192}, {Name: "qwen3-30b-a3b", Ready: 1, Workers: 2}, {Name: "mistral-small-3.2-24b-instruct-2506-fp8-dynamic", Ready: 0, Workers: 1}}
	switch kind {
	case "cpu":
		s.GPUs, s.Engine.Status = nil, "ok"
		s.Workers = s.Workers[:1]
		w := &s.Workers[0]
		w.GPUs, w.Model, w.CPU, w.RSS, w.Command = nil, "smollm2-135m-instruct", new(3.8), 2<<30, []string{"vllm", "serve", "/models/smollm2", "--enforce-eager", "--dtype", "float32"}
		w.Running, w.Waiting = new(4.0), new(0.0)
		s.Traffic.Queued, s.Traffic.InFlight = 0, 4
		s.Notices = s.Notices[3:]
		s.Host = api.Host{CPUs: 4, CPU: new(3.9), MemoryTotal: 16 << 30, MemoryFree: 9 << 30}
		s.Answers = api.Answers{Target: 0.8}
		s.Money = api.Money{Period: "today", From: now.Truncate(24 * time.Hour), Zone: "UTC", Requests: 219, Would: nd(0.0412), Baseline: "openai/gpt-4o-mini", PriceDate: "2026-11-01", Missing: []string{"set cost.host_hour to see savings"}}
	case "sim":
		s.Engine.Demo, s.Engine.Simulated, s.Money.Simulated, s.Money.RateLabel = true, true, true, "demo rate, SIMULATED"
		s.Engine.Status = "ok"
		s.Engine.Host = "demo"
		for i := range s.Workers {
			s.Workers[i].Simulated, s.Workers[i].Kind = true, "sim"
		}
		for i := range s.Requests {
			s.Requests[i].Simulated = true
		}
	case "unknown":
		s.Money = api.Money{Period: "today", From: now.Truncate(24 * time.Hour), Zone: "UTC", Requests: 219, Missing: []string{"set cost.gpu_hour (USD per GPU and hour) to see what the workers cost", "set cost.baseline to see what the same tokens would have cost"}}
		s.Workers[0].KV, s.Workers[0].OutRate, s.Workers[0].TTFT95, s.Workers[0].Running, s.Workers[0].Waiting = nil, nil, nil, nil, nil
	}
	return s
}

func fixtureMoney(s *api.Snapshot, kind string, now time.Time) {
	s.Money = api.Money{
		Period: "today", From: now.Truncate(24 * time.Hour), Zone: "UTC", Requests: 8640, Usage: api.Usage{Input: 31_200_000, CacheRead: 12_400_000, Output: 9_120_000, Reasoning: 411_000}, Unmetered: 3,
		Actual: nd(14.48), Idle: nd(3.1042), Would: nd(51.98), Savings: nd(37.50), Low: nd(-2.20), High: nd(41.2), Percent: new(72.1), HourRate: nd(1.2), HourWould: nd(4.3),
		Basis: api.BasisGPUTime, RateLabel: "4 GPU x $0.30/h", Baseline: "openai/gpt-4o-mini", PriceDate: "2026-11-01", PriceSource: "embedded table 2026-11", Utilisation: new(0.61),
		Prices:  &api.Prices{Input: nd(0.15), CacheRead: nd(0.075), Output: nd(0.6)},
		Hostile: &api.Hostile{Name: "llama-3.1-8b at deepinfra", Would: nd(12.11), Savings: nd(-2.37), Date: "2026-11-01"}, BreakEven: new(310_000.0), OutputRate: new(1_120_000.0),
		Classes: []api.ClassCost{{Class: "served", Requests: 8640, Actual: nd(10.91)}, {Class: "tester", Requests: 12, Actual: nd(0.3)}, {Class: "retry", Requests: 2, Actual: nd(0.1658)}},
	}
}

func fixtureWorkers(s *api.Snapshot, kind string, now time.Time) {
	f := func(x float64) *float64 { return &x }
	var trend api.Series
	for i := range 60 {
		trend = append(trend, wave(float64(now.Unix()+int64(i)*2), 1, 600, 1300))
	}
	t := float64(now.UnixNano()) / 1e9
	s.Workers = []api.Worker{
		{
			Name: "w0", Model: "llama-3.1-8b", Kind: "vllm", State: api.Ready, Since: now.Add(-72 * time.Hour), GPUs: []string{"0"}, PID: 5120, URL: "http://127.0.0.1:40011", Version: "0.32.0", MaxLen: 8192, MaxSeqs: 256,
			InFlight: 14, Running: f(14), Waiting: f(2), KV: f(math.Round(wave(t, 1, .4, .75)*100) / 100), KVTokens: 381_000, Prefix: f(.38), OutRate: f(wave(t, 1, 900, 1300)), InRate: f(812), Preempt: f(0), TTFT95: f(.41), CPU: f(1.2), RSS: 9 << 30, Trend: trend, HourCost: nd(.3),
			Command: []string{"vllm", "serve", "meta-llama/Llama-3.1-8B-Instruct", "--host", "127.0.0.1", "--port", "40011", "--served-model-name", "llama-3.1-8b", "--max-model-len=8192", "--shutdown-timeout", "30", "--enable-prompt-tokens-details", "--enable-request-id-headers", "--api-key", "***"},
			Started: now.Add(-73 * time.Hour), Phases: []api.PhaseTime{{Name: api.PhaseImports, Seconds: 7.2, Done: true}, {Name: api.PhaseEngine, Seconds: 4.1, Done: true}, {Name: api.PhaseWeights, Seconds: 20.7, Done: true}, {Name: api.PhaseKV, Seconds: 1.9, Done: true}, {Name: api.PhaseGraphs, Seconds: 17.4, Done: true}, {Name: api.PhaseServer, Seconds: 0.8, Done: true}},
		},
		{
			Name: "w1", Model: "qwen3-30b-a3b", Kind: "vllm", State: api.Ready, Since: now.Add(-70 * time.Hour), GPUs: []string{"1"}, PID: 5391, URL: "http://127.0.0.1:40012", Version: "0.32.0", MaxLen: 32768,
			InFlight: 31, Running: f(31), Waiting: f(12), KV: f(.96), KVTokens: 212_000, Prefix: f(.63), OutRate: f(wave(t, 3, 700, 1000)), InRate: f(2210), Preempt: f(.4), TTFT95: f(1.32), CPU: f(1.4), RSS: 11 << 30, Trend: trend, HourCost: nd(.3),
		},
		{
			Name: "w2", Model: "mistral-small-3.2-24b-instruct-2506-fp8-dynamic", Kind: "vllm", State: api.Starting, Since: now.Add(-38 * time.Second), Phase: api.PhaseWeights, Progress: f(.62), GPUs: []string{"2"}, PID: 9121, HourCost: nd(.3),
			Phases: []api.PhaseTime{{Name: api.PhaseImports, Seconds: 8.1, Done: true}, {Name: api.PhaseEngine, Seconds: 5, Done: true}, {Name: api.PhaseWeights, Seconds: 25.1}}, Restarts: 1,
		},
		{
			Name: "long-context-w3", Model: "llama-3.1-8b", Kind: "vllm", State: api.Failed, Since: now.Add(-3 * time.Minute), GPUs: []string{"3"}, NextStart: now.Add(90 * time.Second), Restarts: 3, Exit: "exit 1",
			Error:  "ValueError: To serve at least one request with the models's max seq len (131072), 16.00 GiB KV cache is needed, which is larger than the available KV cache memory (11.52 GiB).",
			Remedy: "lower --max-model-len to 94368 or raise --gpu-memory-utilization in workers[3].vllm.args",
			Phases: []api.PhaseTime{{Name: api.PhaseImports, Seconds: 7.5, Done: true}, {Name: api.PhaseEngine, Seconds: 4.5, Done: true}, {Name: api.PhaseWeights, Seconds: 19.5, Done: true}, {Name: api.PhaseKV, Seconds: 0.4}},
		},
	}
	for i, u := range []float64{wave(t, 1, .5, .9), .99, .09, 0} {
		s.GPUs = append(s.GPUs, api.GPU{Index: strconv.Itoa(i), Name: "NVIDIA H100 80GB HBM3", Utilisation: f(math.Round(u*100) / 100), MemoryUsed: new(int64([]float64{71, 78, 24, 1}[i] * (1 << 30))), MemoryTotal: new(int64(80 << 30)), Temperature: f([]float64{71, 84, 44, 36}[i]), Power: f([]float64{498, 648, 92, 71}[i]), PowerLimit: f(700)})
	}
}

func fixtureRequests(s *api.Snapshot, kind string, now time.Time) {
	sec := func(v float64) api.Span { return api.Span(v * float64(time.Second)) }
	base := api.Request{Route: "chat", Model: "llama-3.1-8b", Worker: "w0", Key: "web", Class: api.ClassServed, Stream: true, Outcome: api.OutcomeOK, Status: 200, Finish: "stop", UsageSource: api.UsageUpstream, Basis: api.BasisGPUTime, Baseline: "openai/gpt-4o-mini", PriceDate: "2026-11-01", Prices: &api.Prices{Input: nd(.15), Output: nd(.6)}}
	add := func(i int, f func(*api.Request)) {
		r := base
		r.ID = fmt.Sprintf("01jd%06d", 900000-i)
		r.Started = now.Add(-time.Duration(i)*800*time.Millisecond - 300*time.Millisecond)
		f(&r)
		s.Requests = append(s.Requests, r)
	}
	add(0, func(r *api.Request) {
		r.Outcome, r.Status, r.Worker, r.Finish, r.UsageSource = api.OutcomeOpen, 0, "", "", api.UsageUnknown
	})
	add(2, func(r *api.Request) {
		r.Outcome, r.Model, r.Worker, r.TTFT, r.Queue, r.Usage, r.UsageSource, r.Finish = api.OutcomeOpen, "qwen3-30b-a3b", "w1", sec(.42), sec(.03), api.Usage{Input: 812, Output: 96}, api.UsageCounted, ""
	})
	for i := range 40 {
		k := float64(i)
		add(4+i, func(r *api.Request) {
			r.Usage = api.Usage{Input: int64(64 + i*37%900), CacheRead: int64(i % 3 * 128), Output: int64(40 + i*53%400)}
			r.Queue, r.TTFT, r.Duration, r.ITL, r.MaxGap = sec(.003+k/900), sec(.09+k/300), sec(.8+k/9), sec(.018), sec(.11)
			r.Actual, r.Would, r.Health = nd(.00011+k/1e5), nd(.00018+k/8e4), new(.72+float64(i%25)/100)
			r.Attempts = []api.Attempt{{Upstream: r.Worker, Outcome: api.OutcomeOK, Share: sec(.4), Actual: r.Actual}}
			switch i {
			case 1:
				r.Outcome, r.Status, r.Error, r.Worker, r.TTFT, r.Duration, r.UsageSource, r.Actual, r.Would, r.Health, r.Finish, r.Attempts = api.OutcomeRejected, 429, "rate limited: key batch has 8 requests in flight, its limit", "", 0, sec(.002), api.UsageUnknown, nil, nil, nil, "", nil
			case 3:
				r.Attempts = append([]api.Attempt{{Upstream: "w1", Outcome: api.OutcomeError, Error: "connection reset before content", Share: sec(.02), Actual: nd(.00001)}}, r.Attempts...)
			case 5:
				r.Outcome, r.Error, r.Finish, r.UsageSource = api.OutcomeLost, "worker w1 died after content was sent", "", api.UsageTokenized
			case 7:
				r.Finish, r.Model, r.Worker, r.Key = "length", "qwen3-30b-a3b", "w1", "batch"
			case 9:
				r.Outcome, r.Finish = api.OutcomeCancelled, ""
			}
		})
	}
}
