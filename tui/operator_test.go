package tui

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// starting is a host whose only worker starts, for the first time or again after a failure.
func starting(kind string) *api.Snapshot {
	s := fixture("cpu", fixedNow)
	s.Engine.Status, s.Traffic, s.Requests, s.Prompts = "down", api.Traffic{}, nil, nil
	for i := range s.Windows {
		w := &s.Windows[i]
		*w = api.Window{Span: w.Span, Bucket: w.Bucket, End: w.End, Output: api.Series{0, 0}}
	}
	w := &s.Workers[0]
	w.State, w.Phase, w.Since, w.Trend, w.HourCost = api.Starting, api.PhaseEngine, fixedNow.Add(-20*time.Second), nil, nil
	w.KV, w.OutRate, w.InRate, w.Running, w.Waiting, w.TTFT95, w.Prefix, w.Preempt = nil, nil, nil, nil, nil, nil, nil, nil
	w.Phases = []api.PhaseTime{{Name: api.PhaseImports, Seconds: 14, Done: true}, {Name: api.PhaseEngine, Seconds: 6}}
	switch kind {
	case "again":
		w.LastStart = []api.PhaseTime{{Name: api.PhaseImports, Seconds: 15, Done: true}, {Name: api.PhaseEngine, Seconds: 50, Done: true}, {Name: api.PhaseWeights, Seconds: .5, Done: true}, {Name: api.PhaseServer, Seconds: 2.5, Done: true}}
		w.Error, w.Exit, w.Restarts = "killed by SIGKILL", "signal: killed", 1
	case "bad flag":
		w.State, w.Phase, w.Error, w.Exit = api.Failed, "", "vLLM does not know the flag --no-such-flag", "exit 2"
		w.Remedy = `correct or remove it under args:; a configuration error is not retried; "vllmdeck worker start w0" tries again`
	}
	return s
}

func screen(t *testing.T, c *Console) string {
	t.Helper()
	return ansi.Strip(frame(t, c))
}

func TestAnEngineThatStartsIsNotDown(t *testing.T) {
	for kind, want := range map[string]string{"first": "● starting", "again": "● starting", "bad flag": "● down"} {
		if got := screen(t, at(80, 24, starting(kind), Options{})); !strings.Contains(got, want) {
			t.Errorf("%s: header lacks %q:\n%s", kind, want, got)
		}
	}
	s := fixture("real", fixedNow) // one model has nobody, another serves: that is no start
	s.Engine.Status = "down"
	if got := screen(t, at(80, 24, s, Options{})); !strings.Contains(got, "● down") {
		t.Errorf("a model without workers is not said to be down:\n%s", got)
	}
}

// Before the first request there is no chart to look at: the start and its log get the room.
func TestBeforeTheFirstRequestTheLogIsShown(t *testing.T) {
	for _, size := range sizes {
		c := at(size[0], size[1], starting("first"), Options{})
		c.logs.busy = false // the fetch that the snapshot asked for was not run
		settle(c, c.follow())
		got := screen(t, c)
		for _, want := range []string{"no traffic yet", "engine  for 20s", "api_server.py:1772", "point an OpenAI client at", "set cost.host_hour to see savings"} {
			if !strings.Contains(got, want) {
				t.Errorf("%dx%d lacks %q:\n%s", size[0], size[1], want, got)
			}
		}
	}
	c := at(80, 24, starting("first"), Options{})
	s := starting("first")
	s.Traffic.Total = 1
	c.Update(snapshotMsg{snap: s})
	if got := screen(t, c); strings.Contains(got, "no traffic yet") || !strings.Contains(got, "TTFT") {
		t.Errorf("after the first request there is no chart:\n%s", got)
	}
}

func TestAStartSaysHowLongItStillTakes(t *testing.T) {
	s := starting("again") // 44 s of the engine, then 3 s are to come
	if got := screen(t, at(120, 40, s, Options{})); !strings.Contains(got, "about 47s left") {
		t.Errorf("overview does not say how long the start takes:\n%s", got)
	}
	got := screen(t, at(120, 40, s, Options{View: int(viewWorkers)}))
	for _, want := range []string{"~500ms", "about 47s left, last start took 68.0s", "killed by SIGKILL"} {
		if !strings.Contains(got, want) {
			t.Errorf("the worker's detail lacks %q:\n%s", want, got)
		}
	}
	s.Workers[0].Phases[1].Seconds = 70
	s.Workers[0].Phases = append(s.Workers[0].Phases, api.PhaseTime{Name: api.PhaseWeights, Seconds: 1, Done: true}, api.PhaseTime{Name: api.PhaseServer, Seconds: 9})
	s.Workers[0].Phases[1].Done = true
	if got := eta(&s.Workers[0]); got != "longer than last time, 68.0s" {
		t.Errorf("eta of a late start = %q", got)
	}
	if got := eta(&starting("first").Workers[0]); got != "" {
		t.Errorf("eta without an earlier start = %q, want nothing", got)
	}
}

// A worker that does not start says why, and what mends it, on the first screen anybody sees.
func TestAFailedStartIsExplainedAtOnce(t *testing.T) {
	for _, v := range []viewID{viewOverview, viewWorkers} {
		for _, size := range sizes {
			got := screen(t, at(size[0], size[1], starting("bad flag"), Options{View: int(v)}))
			flat := strings.Join(strings.Fields(strings.NewReplacer("│", " ").Replace(got)), " ")
			for _, want := range []string{"vLLM does not know the flag --no-such-flag", "correct or remove it under args:", "exit 2"} {
				if !strings.Contains(flat, want) {
					t.Errorf("view %d at %dx%d lacks %q:\n%s", v, size[0], size[1], want, got)
				}
			}
		}
	}
	got := screen(t, at(80, 24, starting("again"), Options{}))
	if !strings.Contains(got, "w0 starts again after: killed by SIGKILL") {
		t.Errorf("a restart does not say after what:\n%s", got)
	}
}

func TestErrorsAreOfWhatWasTakenOn(t *testing.T) {
	for _, tc := range []struct {
		count, failed, rejected, cancelled int64
		want                               Text
	}{{0, 0, 0, 0, unknown}, {100, 1, 0, 0, "1.0%"}, {100, 1, 40, 10, "2.0%"}, {50, 0, 40, 10, unknown}} {
		w := api.Window{Count: tc.count, Failed: tc.failed, Rejected: tc.rejected, Cancelled: tc.cancelled}
		if got := errorShare(&w).t; got != tc.want {
			t.Errorf("%+v: errors %q, want %q", tc, got, tc.want)
		}
	}
}

// The figure in a title is of five seconds, whatever the window's buckets are.
func TestLatelyIsFiveSeconds(t *testing.T) {
	w := api.Window{Bucket: api.Span(500 * time.Millisecond), Partial: 0.3}
	s := api.Series{99, 99, 0, 2, 4, 6, 0, 2, 4, 6, 0, 6, 1e6} // the last is still filling
	if got := lately(&w, s, foldMean); got != 3 {
		t.Errorf("mean of the last ten full buckets = %v, want 3", got)
	}
	if got := lately(&w, s, foldMax); got != 6 {
		t.Errorf("greatest of the last ten full buckets = %v, want 6", got)
	}
	w.Bucket = api.Span(time.Minute)
	if got := lately(&w, s, foldMean); got != 6 {
		t.Errorf("of buckets of a minute = %v, want the last full one, 6", got)
	}
	if got := lately(&w, nil, foldMean); known(got) {
		t.Errorf("of nothing = %v, want unknown", got)
	}
}

func TestAmountsUnderEachOtherHaveTheSameDecimals(t *testing.T) {
	for _, tc := range []struct {
		in   []float64
		want string
	}{
		{[]float64{0.0168, 0.00143, 0.0223, 0.00552}, "$0.0168 $0.0014 $0.0223 $0.0055"},
		{[]float64{14.48, 3.1042, 0.001, 0}, "$14.48 $3.10 <$0.01 $0.00"},
		{[]float64{1234, 0.5, -20}, "$1,234 $0.500 -$20.00"},
		{[]float64{0.0000103, 0}, "$0.0000103 $0.0000000"},
	} {
		var ns []*api.Nanos
		for _, v := range tc.in {
			ns = append(ns, nd(v))
		}
		p := purseOf(ns...)
		var got []string
		for _, n := range ns {
			got = append(got, string(p.money(n)))
		}
		if s := strings.Join(got, " "); s != tc.want {
			t.Errorf("%v = %q, want %q", tc.in, s, tc.want)
		}
	}
}

// What does not matter must not redraw a screen at rest.
func TestHostFiguresHoldStill(t *testing.T) {
	s := fixture("cpu", fixedNow)
	c := at(120, 40, s, Options{})
	first := frame(t, c)
	for i := range 10 {
		next := *s
		next.Seq += uint64(i + 1)
		next.Host.CPU = new(3.7 + float64(i%3)*0.2)
		next.Host.MemoryFree = s.Host.MemoryFree + int64(i)*50<<20
		next.Workers = append([]api.Worker{}, s.Workers...)
		next.Workers[0].CPU = new(3.8 + float64(i%2)*0.04)
		c.Update(snapshotMsg{snap: &next})
		if frame(t, c) != first {
			t.Fatalf("the frame changed for a host at %v cores", *next.Host.CPU)
		}
	}
	busy := *s
	busy.Host.CPU = new(1.0)
	c.Update(snapshotMsg{snap: &busy})
	if got := screen(t, c); !strings.Contains(got, "host 1.0 of 4 cores") {
		t.Errorf("a real change is not shown:\n%s", got)
	}
}

func TestNoticesDoNotRepeatTheirWorker(t *testing.T) {
	for text, want := range map[string]Text{"w1 failed: killed": "failed: killed", "w1: does not serve": "does not serve", "w10 failed": "w10 failed", "price table read": "price table read"} {
		if got := noticeText(&api.Notice{Worker: "w1", Text: text}); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
}

func TestWhatIsNotKnownOfARequestIsNotShown(t *testing.T) {
	open := api.Request{Outcome: api.OutcomeOpen, UsageSource: api.UsageCounted, Usage: api.Usage{Output: 40}}
	if got := promptTokens(&open); got != unknown {
		t.Errorf("prompt of a stream under way = %q, want unknown", got)
	}
	s := fixture("real", fixedNow)
	r := &s.Requests[2]
	r.TTFT, r.Stream, r.Queue = 0, false, 0
	c := at(120, 40, s, Options{View: int(viewRequests)})
	press(c, "j", "j")
	if got := screen(t, c); strings.Contains(got, "prefill") || !strings.Contains(got, fmt.Sprintf("worker %s", span(r.Duration))) {
		t.Errorf("an answer that was not streamed is split into prefill and decode:\n%s", got)
	}
}

// The terminal is sent a line from its first change to its last: charts side by side must not change
// with the same snapshot, or the whole line between them goes over the wire.
func TestChartsSideBySideTakeTurns(t *testing.T) {
	for _, tc := range []struct {
		size  [2]int
		every map[paneID]int
	}{{sizes[1], map[paneID]int{paneThroughput: 2, paneLatency: 4}}, {sizes[2], map[paneID]int{paneThroughput: 2, paneLatency: 4, paneStages: 4}}} {
		c := at(tc.size[0], tc.size[1], fixture("real", fixedNow), Options{})
		frame(t, c)
		drawn := map[paneID]int{}
		for i := range 12 {
			before := map[paneID]*api.Snapshot{}
			for id := range tc.every {
				before[id] = c.cache[id].key.snap
			}
			c.Update(snapshotMsg{snap: fixture("real", fixedNow.Add(time.Duration(i+1)*api.Tick))})
			frame(t, c)
			n := 0
			for id := range tc.every {
				if c.cache[id].key.snap != before[id] {
					drawn[id]++
					n++
				}
			}
			if n > 1 {
				t.Errorf("%v: %d charts changed at once", tc.size, n)
			}
		}
		for id, every := range tc.every {
			if want := 12 / every; drawn[id] != want {
				t.Errorf("%v: %s was drawn %d times in 12 snapshots, want %d", tc.size, spec(id).name, drawn[id], want)
			}
		}
		press(c, "tab") // a key is answered at once
		if id := c.focused(); c.cache[id].key.snap != c.snap {
			frame(t, c)
			if c.cache[id].key.snap != c.snap {
				t.Errorf("%s is not drawn anew after a key", spec(id).name)
			}
		}
	}
}

func TestOptionsSuitTheTerminal(t *testing.T) {
	for _, tc := range []struct {
		opt   Options
		env   map[string]string
		ascii bool
		theme string
	}{
		{Options{Theme: "dark"}, map[string]string{"TERM": "xterm-256color"}, false, "dark"},
		{Options{Theme: "dark"}, map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, false, "mono"},
		{Options{}, map[string]string{"TERM": "linux"}, true, ""},
		{Options{Graph: graphBlock}, map[string]string{"TERM": "linux"}, false, ""}, // asked for by name
	} {
		got := tc.opt.suited(func(k string) string { return tc.env[k] })
		if got.ASCII != tc.ascii || got.Theme != tc.theme {
			t.Errorf("%v: ASCII %v, theme %q; want %v, %q", tc.env, got.ASCII, got.Theme, tc.ascii, tc.theme)
		}
	}
}

// In reverse video every colour becomes a background: the selected row has none.
func TestTheSelectedRowOfSixteenColoursIsOneBlock(t *testing.T) {
	l := newLine(themeNamed("tty16", true), 20)
	l.sel = true
	l.put(stOK, "ready").gap(1).put(stStrong, "12").gap(1).put(stBad, "x")
	for _, colour := range []string{"32", "97", "91"} {
		if got := string(l.end()); strings.Contains(got, ";"+colour) {
			t.Errorf("the selected row holds colour %s: %q", colour, got)
		}
	}
}

// A small amount is not cut to a sign that means "not there yet".
func TestSmallAmountsFitTheirColumn(t *testing.T) {
	for usd, want := range map[float64]Text{0.0000393: "$0.0000393", 0.00000864: "$0.000009", 0.000000123: "<$0.000001", 0.012: "$0.0120", 1234.5: "$1,234", 0: "$0.00"} {
		if got := cellMoney(nd(usd)); got != want {
			t.Errorf("%v in ten cells = %q, want %q", usd, got, want)
		}
	}
	if got := cellMoney(nil); got != unknown {
		t.Errorf("an unknown amount = %q", got)
	}
	s := fixture("real", fixedNow)
	s.Requests[2].Actual, s.Requests[2].Would = nd(0.00000864), nd(0.000000123)
	if got := screen(t, at(120, 40, s, Options{View: int(viewRequests)})); !strings.Contains(got, "$0.000009") || !strings.Contains(got, "<$0.000001") {
		t.Errorf("small amounts are not in the table:\n%s", got)
	}
}
