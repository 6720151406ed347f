package tui

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/exp/golden"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// operated is the busy host with all that an operator has to do with.
func operated(now time.Time) *api.Snapshot {
	s := fixture("real", now)
	sec := func(v float64) api.Span { return api.Span(v * float64(time.Second)) }
	w0, w1, w2, w3 := &s.Workers[0], &s.Workers[1], &s.Workers[2], &s.Workers[3]
	w0.Accept, w0.CanSleep, w0.Crashes, w0.LastStart = new(0.71), true, 1, w0.Phases
	w0.Fixed = []string{"--max-model-len=8192", "without --enforce-eager", "env VLLM_USE_V1=1"}
	w1.Preempt, w1.Crashes = new(0.4), 0
	w1.Command = []string{"vllm", "serve", "Qwen/Qwen3-30B-A3B", "--max-num-seqs", "256", "--port", "40012"}
	w2.LastStart = []api.PhaseTime{{Name: api.PhaseImports, Seconds: 8, Done: true}, {Name: api.PhaseEngine, Seconds: 5, Done: true}, {Name: api.PhaseWeights, Seconds: 40, Done: true}, {Name: api.PhaseKV, Seconds: 2, Done: true}, {Name: api.PhaseGraphs, Seconds: 18, Done: true}, {Name: api.PhaseServer, Seconds: 1, Done: true}}
	w3.Crashes = 2
	w3.Command = []string{"vllm", "serve", "meta-llama/Llama-3.1-8B-Instruct", "--host", "127.0.0.1", "--port", "40014", "--max-model-len", "131072", "--enable-sleep-mode"}
	w3.Fix = &api.Fix{
		Set: []string{"--max-model-len=94368"}, Unset: []string{"--enable-sleep-mode"}, Why: "the KV cache has room for 94,368 tokens",
		Command: []string{"vllm", "serve", "meta-llama/Llama-3.1-8B-Instruct", "--host", "127.0.0.1", "--port", "40014", "--max-model-len=94368"},
	}
	s.Workers = append(s.Workers,
		api.Worker{Name: "w4", Model: "qwen3-30b-a3b", Kind: "vllm", State: api.Asleep, Level: 1, CanSleep: true, Since: now.Add(-40 * time.Minute), GPUs: []string{"2"}, PID: 6000, Command: []string{"vllm", "serve", "x"}},
		api.Worker{Name: "w5", Model: "qwen3-30b-a3b", Kind: "vllm", State: api.Starting, Since: now.Add(-95 * time.Second), GPUs: []string{"2"}, Blocked: "w2 is starting on GPU 2", Command: []string{"vllm", "serve", "x"}})
	g := &s.GPUs[0]
	g.Clock, g.Energy, g.ECC, g.Throttle = new(1755.0), new(31240.0), new(int64(0)), []string{"power cap"}
	g.Xids = []api.Xid{{Time: now.Add(-50 * time.Minute), Code: 31, Text: "GPU memory page fault", PID: 5120}}
	g.Processes = []api.GPUProcess{
		{PID: 5120, Name: "VLLM::EngineCore", User: "serve", Memory: new(int64(66 << 30)), Worker: "w0"},
		{PID: 9001, Name: "VLLM::EngineCore", User: "serve", Memory: new(int64(3 << 30)), Worker: "w0", Stray: true},
		{PID: 777, Name: "python3", User: "anna", Memory: new(int64(1 << 30))},
		{PID: 778, Name: "Xorg\x1b[31m", User: "root"},
	}
	s.Strays = []api.Stray{
		{PID: 9001, Name: "VLLM::EngineCor", Worker: "w0", Started: now.Add(-26 * time.Hour), RSS: 5 << 30, GPU: 3 << 30},
		{PID: 9002, Name: "VLLM::Worker_TP", Started: now.Add(-26 * time.Hour), RSS: 800 << 20},
	}
	s.Crashes = []api.Crash{
		{ID: "c3", Worker: "long-context-w3", Model: "llama-3.1-8b", Time: now.Add(-3 * time.Minute), Up: sec(32), Phase: api.PhaseKV, Exit: "exit 1", Cause: w3.Error, Remedy: w3.Remedy, Lines: 200, Version: "0.32.0"},
		{ID: "c2", Worker: "w0", Model: "llama-3.1-8b", Time: now.Add(-40 * time.Minute), Up: sec(3 * 86400), Exit: "signal: killed", Cause: "killed by the kernel: out of memory", Remedy: "give the host more memory, or lower --max-num-seqs", Lines: 120, Version: "0.32.0"},
		{ID: "c1", Worker: "long-context-w3", Model: "llama-3.1-8b", Time: now.Add(-30 * time.Hour), Up: sec(31), Phase: api.PhaseKV, Exit: "exit 1", Cause: w3.Error, Lines: 200},
	}
	s.Advice = []api.Advice{
		{Rule: "preempts", Worker: "w1", Model: "qwen3-30b-a3b", Since: now.Add(-9 * time.Minute), Text: "0.4 requests per second are preempted while the KV cache is 96% full", Remedy: "lower --max-num-seqs from 256 to 96: fewer requests at once, none computed twice", Fix: &api.Fix{Set: []string{"--max-num-seqs=96"}, Command: []string{"vllm", "serve", "Qwen/Qwen3-30B-A3B", "--max-num-seqs=96", "--port", "40012"}, Why: "fewer requests share the KV cache"}},
		{Rule: "truncated", Model: "qwen3-30b-a3b", Since: now.Add(-2 * time.Hour), Text: "31% of the answers end by their length limit", Remedy: "clients send max_tokens=64; raise it there"},
	}
	s.Rolls = []api.Roll{{Model: "mistral-small-3.2-24b-instruct-2506-fp8-dynamic", Started: now.Add(-time.Minute), Workers: []string{"w2", "w6"}, State: "running"}}
	s.Keys = []api.Key{
		{Name: "batch", ID: "a1", Source: api.KeyFromDatabase, Capture: true, Limits: api.KeyLimits{Requests: 60, Tokens: 100_000, Parallel: 8, Day: nd(5), Month: nd(50), Priority: api.PriorityLow, Failover: api.FailoverNever, Models: []string{"llama-3.1-8b", "small"}}, Use: &api.KeyUse{InFlight: 8, Requests: 57, Tokens: 61_200, Day: 4_620_000_000, Month: 31_000_000_000, Last: now}},
		{Name: "web", Source: api.KeyFromConfig, Use: &api.KeyUse{InFlight: 3, Requests: 212, Tokens: 81_000, Day: 6_300_000_000, Month: 90_000_000_000, Unpriced: 3, Last: now.Add(-4 * time.Minute)}},
		{Name: "trial", ID: "a2", Source: api.KeyFromDatabase, Expires: now.Add(40 * time.Hour), Limits: api.KeyLimits{Day: nd(1)}, Use: &api.KeyUse{}},
		{Name: "old", ID: "a3", Source: api.KeyFromDatabase, Expires: now.Add(-time.Hour)},
	}
	s.Models[0].Aliases, s.Models[0].Baseline = []string{"default", "small"}, "openai/gpt-4o-mini"
	s.Models[2].Providers, s.Models[2].Backed = []string{"openai"}, true
	s.Models[1].Providers = []string{"mistral"}
	s.Providers = []api.Provider{
		{Name: "openai", State: api.ProviderOK, SpentDay: nd(4.62), CapDay: nd(5), SpentMonth: nd(12.3), CapMonth: nd(50), InFlight: 2, Models: []string{s.Models[2].Name}},
		{Name: "mistral", State: api.ProviderOpen, SpentDay: nd(0), SpentMonth: nd(0.4), Error: "HTTP 429: slow down", Models: []string{"qwen3-30b-a3b"}},
	}
	s.Cache = &api.Cache{
		Path: "/home/serve/.cache/huggingface/hub", Size: 191 << 30, Free: 402 << 30,
		Models: []api.CacheModel{
			{Name: "Qwen/Qwen3-30B-A3B", Size: 57 << 30, Used: now.Add(-70 * time.Hour), Workers: []string{"w1", "w4", "w5"}},
			{Name: "meta-llama/Llama-3.1-8B-Instruct", Size: 15 << 30, Used: now.Add(-72 * time.Hour), Workers: []string{"w0"}},
			{Name: "mistralai/Mistral-Small-3.2-24B-Instruct-2506", Size: 90 << 30, Used: now.Add(-time.Hour), Missing: []string{"model-00007-of-00010.safetensors", "model-00009-of-00010.safetensors"}},
			{Name: "nvidia/absent", Workers: []string{"w9"}},
			{Name: "openai/gpt-oss-20b", Size: 13 << 30, Used: now.Add(-900 * time.Hour), Partial: 2 << 30},
		},
		Downloads: []api.Download{
			{Name: "Qwen/Qwen3-8B", State: "running", Started: now.Add(-time.Minute), Size: 16 << 30, Done: 6 << 30, Rate: 110 << 20, File: "model-00003-of-00005.safetensors"},
			{Name: "google/gemma-3-27b-it", State: "failed", Size: 50 << 30, Done: 1 << 30, Error: "HTTP 401: this model is gated; set HF_TOKEN"},
		},
	}
	q := &s.Requests[0]
	q.Position, q.Wait, q.Queue = 3, sec(2.1), sec(1.4)
	return s
}

// What an operator sees of each new tab, pane and dialog.
func TestOperating(t *testing.T) {
	for _, tc := range []struct {
		name string
		w, h int
		keys []string
	}{
		{"workers", 80, 24, []string{"2"}},
		{"workers", 160, 50, []string{"2"}},
		{"gpu", 160, 50, []string{"2", "]", "]", "]"}},
		{"host", 120, 40, []string{"2", "]", "]", "]"}},
		{"args", 120, 40, []string{"2", "]", "]"}},
		{"timeline", 120, 40, []string{"2", "]", "]", "]", "]"}},
		{"crashes", 120, 40, []string{"2", "j", "j", "j", "]", "]", "]", "]", "a"}},
		{"crash lines", 80, 24, []string{"2", "]", "]", "]", "]", "]", "enter"}},
		{"advice", 120, 40, []string{"2", "j", "["}},
		{"failed", 120, 40, []string{"2", "j", "j", "j"}},
		{"fix dialog", 80, 24, []string{"2", "j", "j", "j", "F"}},
		{"roll dialog", 120, 40, []string{"2", "R"}},
		{"stray dialog", 80, 24, []string{"2", "tab", "x"}},
		{"sleep dialog", 80, 24, []string{"2", "Z"}},
		{"keys", 80, 24, []string{"4", "]"}},
		{"keys", 160, 50, []string{"4", "]"}},
		{"models", 80, 24, []string{"0"}},
		{"models", 200, 60, []string{"0"}},
		{"remove dialog", 120, 40, []string{"0", "tab", "j", "j", "delete"}},
		{"queue", 120, 40, []string{"3"}},
	} {
		t.Run(fmt.Sprintf("%s_%dx%d", tc.name, tc.w, tc.h), func(t *testing.T) {
			s := operated(fixedNow)
			if tc.name == "host" {
				s = fixture("cpu", fixedNow)
			}
			c := at(tc.w, tc.h, s, Options{})
			press(c, tc.keys...)
			golden.RequireEqual(t, ansi.Strip(frame(t, c)))
		})
	}
}

// Every order of an operator names what it acts on and what will stop, is sent once, and not at all
// when it is declined or in read-only mode.
func TestOperatorsOrders(t *testing.T) {
	for _, tc := range []struct {
		name string
		keys []string
		says []string
		yes  string
		want api.Action
	}{
		{"fix", []string{"2", "j", "j", "j", "F"}, []string{"long-context-w3", "--max-model-len=94368, was 131072", "--enable-sleep-mode, goes", "meta-llama/Llama-3.1-8B-Instruct"}, "y", api.Action{Verb: api.WorkerFix, Target: "long-context-w3", Args: map[string]string{"set": "--max-model-len=94368", "unset": "--enable-sleep-mode"}}},
		{"fix by enter", []string{"2", "j", "j", "j", "enter", "enter"}, []string{"long-context-w3"}, "y", api.Action{Verb: api.WorkerFix, Target: "long-context-w3", Args: map[string]string{"set": "--max-model-len=94368", "unset": "--enable-sleep-mode"}}},
		{"advice", []string{"2", "j", "[", "enter"}, []string{"w1", "31 in flight", "--max-num-seqs=96, was 256", "No other ready worker"}, "y", api.Action{Verb: api.WorkerFix, Target: "w1", Args: map[string]string{"set": "--max-num-seqs=96"}}},
		{"unfix", []string{"2", "u"}, []string{"w0", "14 in flight", "--max-model-len=8192"}, "y", api.Action{Verb: api.WorkerUnfix, Target: "w0"}},
		{"sleep 1", []string{"2", "Z"}, []string{"w0", "14 in flight", "weights kept", "weights dropped"}, "1", api.Action{Verb: api.WorkerSleep, Target: "w0", Args: map[string]string{"level": "1"}}},
		{"sleep 2", []string{"2", "Z"}, nil, "2", api.Action{Verb: api.WorkerSleep, Target: "w0", Args: map[string]string{"level": "2"}}},
		{"wake", []string{"2", "j", "j", "j", "j", "Z"}, []string{"w4", "asleep, level 1"}, "y", api.Action{Verb: api.WorkerWake, Target: "w4"}},
		{"roll", []string{"2", "R"}, []string{"Restart 2 workers of llama-3.1-8b one by one?", "1 long-context-w3, failed", "2 w0, ready, 14 in flight", "restarted when another does"}, "y", api.Action{Verb: api.ModelRoll, Target: "llama-3.1-8b"}},
		{"roll of the only one", []string{"2", "j", "R"}, []string{"Restart w1 of qwen3-30b-a3b?", "1 w1, preempts", "w4 stays asleep", "w5 stays blocked", "no other is ready"}, "y", api.Action{Verb: api.ModelRoll, Target: "qwen3-30b-a3b", Args: map[string]string{"alone": "true"}}},
		{"past the gate", []string{"2", "j", "j", "j", "j", "j", "s"}, []string{"w5", "w2 is starting on GPU 2"}, "y", api.Action{Verb: api.WorkerStart, Target: "w5", Args: map[string]string{"gate": "off"}}},
		{"give up the start", []string{"2", "j", "j", "j", "j", "j", "s"}, nil, "s", api.Action{Verb: api.WorkerStop, Target: "w5"}},
		{"unroll", []string{"2", "j", "j", "R"}, []string{"w2 is still restarted", "w6 as they are"}, "y", api.Action{Verb: api.ModelUnroll, Target: "mistral-small-3.2-24b-instruct-2506-fp8-dynamic"}},
		{"stray", []string{"2", "tab", "x"}, []string{"pid 9001", "VLLM::EngineCor", "5.0G", "3.0G"}, "y", api.Action{Verb: api.StrayEnd, Target: "9001", Args: map[string]string{"started": fixedNow.Add(-26 * time.Hour).Format(time.RFC3339Nano)}}},
		{"fetch", []string{"0", "f", "a", "/", "b"}, []string{"a/b"}, "enter", api.Action{Verb: api.CacheFetch, Target: "a/b"}},
		{"cancel", []string{"0", "tab", "x"}, []string{"Qwen/Qwen3-8B", "6.0G of 16G"}, "y", api.Action{Verb: api.CacheCancel, Target: "Qwen/Qwen3-8B"}},
		{"remove", []string{"0", "tab", "j", "j", "delete"}, []string{"Qwen/Qwen3-30B-A3B", "57.0 GiB", "w1, w4, w5"}, "y", api.Action{Verb: api.CacheRemove, Target: "Qwen/Qwen3-30B-A3B"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := operated(fixedNow)
			f := &fake{still: s, now: time.Now, kind: "real"}
			c := at(120, 40, s, Options{Source: f})
			press(c, tc.keys...)
			flat := strings.Join(strings.Fields(strings.ReplaceAll(screen(t, c), "│", " ")), " ")
			for _, want := range tc.says {
				if !strings.Contains(flat, strings.Join(strings.Fields(want), " ")) {
					t.Errorf("the question lacks %q:\n%s", want, screen(t, c))
				}
			}
			press(c, "esc")
			if did := f.actions(); len(did) != 0 {
				t.Fatalf("declined, and yet %+v", did)
			}
			c = at(120, 40, s, Options{Source: f})
			press(c, append(append([]string{}, tc.keys...), tc.yes)...)
			press(c, "esc")
			if did := f.actions(); len(did) != 1 || fmt.Sprint(did[0]) != fmt.Sprint(tc.want) {
				t.Errorf("sent %+v, want one %+v", did, tc.want)
			}
			c = at(120, 40, s, Options{Source: f, ReadOnly: true})
			press(c, append(append([]string{}, tc.keys...), tc.yes)...)
			if did := f.actions(); len(did) != 1 {
				t.Errorf("read-only sent %+v", did[1:])
			}
		})
	}
}

// A tab that has nothing to show is not there.
func TestTabsAreThoseThatHaveSomething(t *testing.T) {
	s := fixture("cpu", fixedNow)
	w := &s.Workers[0]
	w.Kind, w.Command, w.CPU, w.RSS, w.Phases = "attach", nil, nil, 0, nil
	s.Notices = nil
	c := at(120, 40, s, Options{View: int(viewWorkers)})
	if got := c.tabsOf(c.worker()); len(got) != 2 || got[0] != tabCharts || got[1] != tabArgs {
		t.Errorf("an attached worker has tabs %v, want overview and args", got)
	}
	for _, gone := range []string{"GPU", "Crashes", "Advice", "Timeline", "Keys"} {
		press(c, "2")
		if strings.Contains(screen(t, c), " "+gone+" ") {
			t.Errorf("tab %s of a worker without:\n%s", gone, screen(t, c))
		}
	}
	c = at(120, 40, operated(fixedNow), Options{View: int(viewWorkers)})
	press(c, "[") // round to the last
	if got := c.detailTab(); got != tabCrashes {
		t.Errorf("the last tab of w0 is %d, want the crashes: it has no advice", got)
	}
	press(c, "esc", "2")
	c.selectWorker("w1")
	press(c, "[", "[", "[", "[")
	press(c, "4")
	if strings.Contains(screen(t, at(120, 40, fixture("real", fixedNow), Options{View: int(viewCosts)})), "Keys") {
		t.Error("a tab of keys where there are none")
	}
}

func TestACrashLeadsToItsLinesAndToTheCharts(t *testing.T) {
	s := operated(fixedNow)
	f := &fake{still: s, now: time.Now, logs: map[string][]api.Line{
		"long-context-w3": {{Seq: 1, Text: "the worker's own log"}},
		"crash/c3":        {{Seq: 1, Text: "before it"}, {Seq: 2, Level: "error", Text: "ValueError: \x1b[2Jno room"}},
	}}
	c := at(120, 40, s, Options{Source: f, View: int(viewWorkers)})
	c.selectWorker("long-context-w3")
	c.tab, c.focus[viewWorkers] = tabCrashes, paneWorker
	c.turned()
	press(c, "enter")
	got := screen(t, c)
	for _, want := range []string{"before it", "ValueError: ␛[2Jno room", "exit 1 at 12:01:31 after 32.0s", "esc back to the crashes"} {
		if !strings.Contains(got, want) {
			t.Errorf("the crash's lines lack %q:\n%s", want, got)
		}
	}
	press(c, "esc")
	if c.crash != "" || c.view != viewWorkers {
		t.Error("esc does not go back to the list of crashes")
	}
	press(c, "c")
	if c.view != viewOverview || c.cursor < 0 || !strings.Contains(screen(t, c), "at -3m") {
		t.Errorf("c does not put the charts' cursor at three minutes ago: cursor %d\n%s", c.cursor, screen(t, c))
	}
}

// Scrolling up past the first line reads on backwards, as far as the engine keeps lines.
func TestScrollingBackReadsOlderLines(t *testing.T) {
	s := fixture("real", fixedNow)
	var all []api.Line
	for i := range 5000 { // what the engine keeps of a longer log
		all = append(all, api.Line{Seq: uint64(90_001 + i), Level: "info", Text: fmt.Sprint("line ", 90_001+i)})
	}
	f := &fake{still: s, now: time.Now, logs: map[string][]api.Line{"w0": all}}
	c := at(120, 40, s, Options{Source: f, View: int(viewWorkers)})
	c.logs.busy = false // the fetch that the snapshot asked for was not run
	press(c, "v")
	if n := c.logs.count(); n != logPage {
		t.Fatalf("opens with %d lines, want %d", n, logPage)
	}
	for range 4 {
		press(c, "g")
	}
	if n, first := c.logs.count(), c.logs.at(0).Seq; n != len(all) || first != 90_001 {
		t.Errorf("%d lines from %d, want all of what is kept", n, first)
	}
	for i := 1; i < c.logs.count(); i++ {
		if c.logs.at(i).Seq != c.logs.at(i-1).Seq+1 {
			t.Fatalf("line %d follows line %d", c.logs.at(i).Seq, c.logs.at(i-1).Seq)
		}
	}
	press(c, "g")
	if got := screen(t, c); !strings.Contains(got, "line 90001") || !strings.Contains(got, "keeps no older lines") {
		t.Errorf("the first line, or that there is no older one, is not said:\n%s", got)
	}
}

func TestALongRefusalIsReadWhole(t *testing.T) {
	c := at(80, 24, operated(fixedNow), Options{})
	why := fmt.Errorf("%w: %s is needed by w1, w4 and w5; take them out of the config and run \"vllmdeck reload\" first", api.ErrRefused, "Qwen/Qwen3-30B-A3B")
	c.Update(doneMsg{api.Action{Verb: api.CacheRemove, Target: "Qwen/Qwen3-30B-A3B"}, why})
	flat := strings.Join(strings.Fields(strings.ReplaceAll(screen(t, c), "│", " ")), " ")
	if !strings.Contains(flat, `run "vllmdeck reload" first`) {
		t.Errorf("a refusal is cut off:\n%s", screen(t, c))
	}
}

// A dialog that is higher than the terminal can be read to its end before it is answered.
func TestALongDialogScrolls(t *testing.T) {
	s := operated(fixedNow)
	w := &s.Workers[3]
	for i := range 120 {
		w.Fix.Command = append(w.Fix.Command, fmt.Sprintf("--flag-number-%d=a-long-value", i))
	}
	c := at(80, 24, s, Options{View: int(viewWorkers)})
	c.selectWorker(w.Name)
	press(c, "F")
	if got := screen(t, c); !strings.Contains(got, "lines 1 to") || strings.Contains(got, "number-119") {
		t.Fatalf("the start of a long dialog:\n%s", got)
	}
	press(c, "j", "j", "j", "j", "j", "j", "j", "j", "j", "j")
	if got := screen(t, c); !strings.Contains(got, "number-119=") || !strings.Contains(got, "restart so") {
		t.Errorf("the end of a long dialog is out of reach:\n%s", got)
	}
}

// The new views hold at every size, in ASCII, and whatever names come from outside.
func TestOperatingAtEverySize(t *testing.T) {
	s := operated(fixedNow)
	for _, size := range [][2]int{{40, 12}, {60, 15}, {79, 23}, {80, 24}, {100, 30}, {120, 40}, {160, 50}, {200, 60}} {
		for _, v := range []string{"2", "4", "0"} {
			c := at(size[0], size[1], s, Options{ASCII: true})
			press(c, v)
			for range 8 {
				for _, r := range screen(t, c) {
					if r >= 0x80 {
						t.Fatalf("view %s at %v shows %q in ASCII mode", v, size, r)
					}
				}
				press(c, "]")
			}
			press(c, "tab", "z", "tab", "E", "esc", "?")
			frame(t, c)
		}
	}
}

// A hundred megabytes of log pass through a console page by page: what it costs is in the benchmark.
func BenchmarkLogOf100MB(b *testing.B) {
	text := "INFO 11-24 12:04:30 [loggers.py:123] Engine 000: Avg prompt throughput: 812.3 tokens/s, running 14 reqs"
	page := make([]api.Line, logPage)
	b.ReportAllocs()
	for b.Loop() {
		c := at(160, 50, fixture("real", fixedNow), Options{View: int(viewWorkers)})
		c.tab, c.logs = tabLogs, logView{name: "w0", follow: true, all: true}
		for seq := uint64(1); seq < 1_000_000; seq += logPage {
			for i := range page {
				page[i] = api.Line{Seq: seq + uint64(i), Level: "info", Text: text}
			}
			c.logs.add(page)
			c.dirty = true
			_ = c.View()
		}
	}
}

// Typing a letter of a filter looks through every line that the console keeps.
func BenchmarkLogFilter(b *testing.B) {
	c := at(160, 50, fixture("real", fixedNow), Options{View: int(viewWorkers)})
	c.tab, c.logs = tabLogs, logView{name: "w0", follow: true, all: true}
	for i := range maxLogLines {
		c.logs.add([]api.Line{{Seq: uint64(i + 1), Text: fmt.Sprint("INFO 11-24 12:04:30 [loggers.py:123] Engine 000: Avg prompt throughput: tokens/s, running reqs ", i)}})
	}
	for b.Loop() {
		c.setFilter(paneLogs, "99")
		_ = c.View()
		c.setFilter(paneLogs, "")
	}
}

func TestASmallModelIsNotRemovedAsZeroGiB(t *testing.T) {
	s := operated(fixedNow)
	s.Cache.Models = []api.CacheModel{{Name: "a/b", Size: 20 << 20}}
	s.Cache.Downloads = nil
	c := at(80, 24, s, Options{})
	press(c, "0", "tab")
	if got := screen(t, c); !strings.Contains(got, "MODEL ON DISK") {
		t.Errorf("the head of the table is cut:\n%s", got)
	}
	press(c, "delete")
	if got := screen(t, c); !strings.Contains(got, "Remove a/b, 20M?") {
		t.Errorf("the question lacks its size:\n%s", got)
	}
}
