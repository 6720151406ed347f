package tui

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/exp/golden"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

var sizes = [][2]int{{80, 24}, {120, 40}, {200, 60}}

// at builds a console of a size that has one snapshot, without a program around it.
func at(w, h int, s *api.Snapshot, opt Options) *Console {
	if opt.Source == nil {
		opt.Source = &fake{still: s, now: func() time.Time { return fixedNow }, kind: "real"}
	}
	if opt.Now == nil {
		opt.Now = func() time.Time { return fixedNow }
	}
	c := New(opt)
	c.Update(tea.WindowSizeMsg{Width: w, Height: h})
	c.Update(snapshotMsg{snap: s})
	return c
}

// press gives keys and runs the commands that follow, but for timers.
func press(c *Console, keys ...string) {
	for _, k := range keys {
		_, cmd := c.Update(keyOf(k))
		settle(c, cmd)
	}
}

// settle runs a command that does not wait, and what follows from it.
func settle(c *Console, cmd tea.Cmd) {
	if cmd == nil {
		return
	}
	got := make(chan tea.Msg, 1)
	go func() { got <- cmd() }()
	select {
	case msg := <-got:
		switch msg := msg.(type) {
		case tea.BatchMsg:
			for _, m := range msg {
				settle(c, m)
			}
		case logMsg, doneMsg:
			_, next := c.Update(msg)
			settle(c, next)
		}
	case <-time.After(20 * time.Millisecond): // a timer: it fires into the buffer and is forgotten
	}
}

func keyOf(k string) tea.KeyPressMsg {
	named := map[string]tea.KeyPressMsg{
		"enter": {Code: tea.KeyEnter}, "esc": {Code: tea.KeyEscape}, "tab": {Code: tea.KeyTab}, "shift+tab": {Code: tea.KeyTab, Mod: tea.ModShift}, "up": {Code: tea.KeyUp}, "down": {Code: tea.KeyDown},
		"left": {Code: tea.KeyLeft}, "right": {Code: tea.KeyRight}, "backspace": {Code: tea.KeyBackspace}, "ctrl+c": {Code: 'c', Mod: tea.ModCtrl}, "ctrl+x": {Code: 'x', Mod: tea.ModCtrl}, "delete": {Code: tea.KeyDelete}, "alt+enter": {Code: tea.KeyEnter, Mod: tea.ModAlt},
	}
	if m, ok := named[k]; ok {
		return m
	}
	r := []rune(k)
	return tea.KeyPressMsg{Code: r[0], Text: k}
}

// frame gives the screen and checks that it is exactly the terminal's size.
func frame(t *testing.T, c *Console) string {
	t.Helper()
	s := c.View().Content
	rows := strings.Split(s, "\n")
	if len(rows) != c.h {
		t.Fatalf("view %d at %dx%d has %d rows", c.view, c.w, c.h, len(rows))
	}
	for y, row := range rows {
		if w := ansi.StringWidth(row); w != c.w {
			t.Fatalf("view %d at %dx%d: row %d is %d cells wide:\n%q", c.view, c.w, c.h, y, w, row)
		}
	}
	return s
}

func TestViews(t *testing.T) {
	for _, size := range sizes {
		for _, v := range views {
			t.Run(fmt.Sprintf("%s_%dx%d", v.name, size[0], size[1]), func(t *testing.T) {
				c := at(size[0], size[1], fixture("real", fixedNow), Options{})
				settle(c, c.follow())
				press(c, string(v.id.key()))
				golden.RequireEqual(t, ansi.Strip(frame(t, c)))
			})
		}
	}
}

func TestProvidersAreInTheCosts(t *testing.T) {
	show := func(p api.Provider) string {
		s := fixture("real", fixedNow)
		s.Providers = []api.Provider{p}
		c := at(120, 40, s, Options{})
		press(c, "4")
		for line := range strings.Lines(ansi.Strip(frame(t, c))) {
			if strings.Contains(line, "  to ") {
				return strings.Join(strings.Fields(strings.Trim(strings.TrimSpace(line), "│")), " ")
			}
		}
		return ""
	}
	for _, tc := range []struct {
		p    api.Provider
		want string
	}{
		{api.Provider{Name: "openai", State: api.ProviderOK, SpentDay: nd(0.4211), SpentMonth: nd(12.3), CapDay: nd(5), CapMonth: nd(50), InFlight: 2}, "to openai $0.421 of $5.00, month $12.30 of $50.00"},
		{api.Provider{Name: "openai", State: api.ProviderOK, SpentDay: nd(0)}, "to openai $0.00 no cap"},
		{api.Provider{Name: "mine", State: api.ProviderOpen, Error: "HTTP 429: no"}, "to mine - open: HTTP 429: no, no cap"},
		{api.Provider{Name: "openai", State: api.ProviderUnaccountable, Error: "the \x1b[31mledger cannot be written", CapDay: nd(5)}, "to openai - takes nothing: the ␛[31mledger"},
	} {
		if got := show(tc.p); !strings.HasPrefix(got, tc.want) {
			t.Errorf("got %q, want it to begin with %q", got, tc.want)
		}
	}
	c := at(120, 40, fixture("real", fixedNow), Options{})
	press(c, "4")
	if strings.Contains(ansi.Strip(frame(t, c)), "  to ") {
		t.Error("a line about providers where there is none")
	}
}

func TestKinds(t *testing.T) {
	for _, kind := range []string{"empty", "cpu", "sim", "unknown"} {
		for _, size := range sizes[:2] {
			t.Run(fmt.Sprintf("%s_%dx%d", kind, size[0], size[1]), func(t *testing.T) {
				c := at(size[0], size[1], fixture(kind, fixedNow), Options{Demo: kind == "sim"})
				golden.RequireEqual(t, ansi.Strip(frame(t, c)))
			})
		}
	}
}

// What is on screen in special states, at one size each.
func TestStates(t *testing.T) {
	for _, tc := range []struct {
		name string
		w, h int
		keys []string
		opt  Options
	}{
		{"failed", 100, 30, []string{"2", "j", "j", "j", "["}, Options{}},
		{"starting", 100, 30, []string{"2", "j", "j"}, Options{}},
		{"args", 100, 30, []string{"2", "]", "]"}, Options{}},
		{"log", 120, 40, []string{"2", "v"}, Options{}},
		{"zoom", 120, 40, []string{"tab", "tab", "tab", "z"}, Options{}},
		{"cursor", 120, 40, []string{"tab", "tab", "left", "left", "left"}, Options{}},
		{"stop dialog", 80, 24, []string{"s"}, Options{}},
		{"palette", 80, 24, []string{":", "s", "t"}, Options{}},
		{"help", 100, 40, []string{"?"}, Options{}},
		{"explain", 80, 24, []string{"4", "E"}, Options{}},
		{"readonly help", 100, 40, []string{"?"}, Options{ReadOnly: true}},
		{"one pane", 70, 20, nil, Options{}},
		{"list", 50, 12, nil, Options{}},
		{"line", 38, 5, nil, Options{}},
		{"ascii", 100, 34, nil, Options{ASCII: true}},
		{"paused", 80, 24, []string{"p"}, Options{}},
		{"no match", 80, 24, []string{"/", "q", "q", "q", "enter"}, Options{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := at(tc.w, tc.h, fixture("real", fixedNow), tc.opt)
			press(c, tc.keys...)
			golden.RequireEqual(t, ansi.Strip(frame(t, c)))
		})
	}
}

func TestASCIIModeIsASCII(t *testing.T) {
	for _, v := range views {
		c := at(120, 40, fixture("real", fixedNow), Options{ASCII: true})
		press(c, string(v.id.key()))
		for _, r := range ansi.Strip(frame(t, c)) {
			if r >= 0x80 {
				t.Errorf("view %s shows %q in ASCII mode", v.name, r)
			}
		}
	}
}

// What is simulated says so at every size and while the engine is away.
func TestSimulatedIsAlwaysSaid(t *testing.T) {
	s := fixture("sim", fixedNow)
	s.Engine.Host = strings.Repeat("long-host-name.", 4)
	for _, size := range [][2]int{{40, 10}, {39, 5}, {60, 15}, {70, 20}, {80, 24}, {100, 30}, {120, 40}, {200, 60}} {
		for _, err := range []error{nil, api.ErrAway} {
			c := at(size[0], size[1], s, Options{Demo: true})
			if err != nil {
				c.Update(snapshotMsg{err: err})
			}
			if got := ansi.Strip(frame(t, c)); !strings.Contains(got, "SIM") {
				t.Errorf("at %v, error %v:\n%s", size, err, got)
			}
		}
	}
}

// A percentage of savings is never seen without its period, baseline, price date and utilisation.
func TestNoPercentageAlone(t *testing.T) {
	for w := 40; w <= 200; w += 7 {
		for h := 10; h <= 60; h += 5 {
			for _, focus := range []paneID{paneWorkers, paneMoney} {
				c := at(w, h, fixture("real", fixedNow), Options{})
				c.focus[viewOverview] = focus
				got := ansi.Strip(frame(t, c))
				if !strings.Contains(got, "72%") {
					continue
				}
				for _, want := range []string{"today", "openai/gpt-4o-mini", "2026-11-01", "61%"} {
					if !strings.Contains(got, want) {
						t.Errorf("%dx%d shows 72%% without %q:\n%s", w, h, want, got)
					}
				}
			}
		}
	}
	s := fixture("real", fixedNow)
	s.Money.Utilisation = nil
	if got := ansi.Strip(frame(t, at(120, 40, s, Options{}))); strings.Contains(got, "72%") {
		t.Errorf("a percentage without utilisation:\n%s", got)
	}
}

func TestColours(t *testing.T) {
	c := at(100, 30, fixture("real", fixedNow), Options{Theme: "dark"})
	golden.RequireEqual(t, frame(t, c))
}

func TestAwayKeepsTheLastSnapshot(t *testing.T) {
	now := fixedNow
	c := at(120, 40, fixture("real", fixedNow), Options{Now: func() time.Time { return now }})
	now = now.Add(12 * time.Second)
	c.Update(snapshotMsg{err: api.ErrAway})
	got := ansi.Strip(frame(t, c))
	for _, want := range []string{"engine does not answer, 12s old, retrying", "llama-3.1-8b"} {
		if !strings.Contains(got, want) {
			t.Errorf("screen lacks %q:\n%s", want, got)
		}
	}
	c.Update(snapshotMsg{snap: fixture("real", now)})
	if got := ansi.Strip(frame(t, c)); strings.Contains(got, "does not answer") {
		t.Errorf("still away after an answer:\n%s", got)
	}
}

func TestFirstFrameNeedsNoEngine(t *testing.T) {
	c := New(Options{Source: &fake{err: api.ErrAway}})
	c.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
	if got := ansi.Strip(frame(t, c)); !strings.Contains(got, "connecting…") {
		t.Errorf("first frame:\n%s", got)
	}
	c.Update(snapshotMsg{err: errors.New("dial unix /run/x.sock: connect: no such file")})
	if got := ansi.Strip(frame(t, c)); !strings.Contains(got, "engine does not answer") || !strings.Contains(got, "no such file") {
		t.Errorf("frame after a failed fetch:\n%s", got)
	}
}

// ends runs a command and says whether it quits.
func ends(cmd tea.Cmd) bool {
	if cmd == nil {
		return false
	}
	_, quit := cmd().(tea.QuitMsg)
	return quit
}

func TestConfirmSendsExactlyOneAction(t *testing.T) {
	for _, tc := range []struct {
		row  int
		key  string
		want api.Verb
	}{{0, "s", api.WorkerStop}, {0, "r", api.WorkerRestart}, {0, "d", api.WorkerDrain}, {3, "s", api.WorkerStart}} {
		s := fixture("real", fixedNow)
		f := &fake{still: s, now: time.Now}
		c := at(120, 40, s, Options{Source: f})
		for range tc.row {
			press(c, "j")
		}
		name := s.Workers[tc.row].Name
		press(c, tc.key)
		got := ansi.Strip(frame(t, c))
		if !strings.Contains(got, name) || !strings.Contains(got, "in flight") {
			t.Errorf("dialog for %s does not name worker and requests:\n%s", tc.key, got)
		}
		press(c, "n")
		press(c, tc.key, "esc", tc.key, "enter", "x")
		if n := len(f.actions()); n != 0 {
			t.Fatalf("%s, cancelled: %v", tc.key, f.actions())
		}
		press(c, "y", "y", "y")
		if did := f.actions(); len(did) != 1 || did[0].Verb != tc.want || did[0].Target != name {
			t.Errorf("%s then y: %+v, want one %s of %s", tc.key, did, tc.want, name)
		}
	}
}

func TestDrainedWorkerResumes(t *testing.T) {
	s := fixture("real", fixedNow)
	s.Workers[0].State = api.Draining
	f := &fake{still: s, now: time.Now}
	c := at(120, 40, s, Options{Source: f})
	press(c, "d", "y")
	if did := f.actions(); len(did) != 1 || did[0].Verb != api.WorkerResume {
		t.Errorf("d on a draining worker: %+v", did)
	}
}

func TestStoppingTheEngineMustBeTyped(t *testing.T) {
	s := fixture("real", fixedNow)
	f := &fake{still: s, now: time.Now}
	c := at(120, 40, s, Options{Source: f})
	press(c, ":", "s", "t", "o", "p", "enter")
	got := ansi.Strip(frame(t, c))
	if !strings.Contains(got, "w0, w1, w2") || strings.Contains(got, "w2, long") {
		t.Errorf("the dialog does not name the workers that will stop:\n%s", got)
	}
	press(c, "enter", "y", "enter", "backspace")
	if len(f.actions()) != 0 {
		t.Fatalf("engine stopped without the word: %+v", f.actions())
	}
	press(c, "s", "t", "o", "p", "enter")
	if did := f.actions(); len(did) != 1 || did[0].Verb != api.EngineStop || did[0].Args["workers"] != "stop" {
		t.Fatalf("after the word: %+v", did)
	}
	if !c.result.Stopped {
		t.Error("Result.Stopped is false after the order was taken")
	}
	if _, cmd := c.Update(snapshotMsg{err: api.ErrAway}); !ends(cmd) {
		t.Error("console stays after the engine it stopped is gone")
	}
}

func TestReadOnlyChangesNothing(t *testing.T) {
	s := fixture("real", fixedNow)
	f := &fake{still: s, now: time.Now}
	c := at(120, 40, s, Options{Source: f, ReadOnly: true})
	press(c, "s", "y", "r", "y", "d", "y", ":", "s", "t", "o", "p", "enter", "s", "t", "o", "p", "enter", "esc", "8", "h", "i", "enter", "i", "enter")
	if did := f.actions(); len(did) != 0 {
		t.Errorf("read-only sent %+v", did)
	}
	press(c, "esc", "1", "?")
	if got := ansi.Strip(frame(t, c)); strings.Contains(got, "restart the worker") {
		t.Errorf("help in read-only mode offers actions:\n%s", got)
	}
}

func TestQuit(t *testing.T) {
	c := at(120, 40, fixture("real", fixedNow), Options{})
	press(c, "2")
	if _, cmd := c.Update(keyOf("q")); ends(cmd) {
		t.Fatal("q in a view leaves the console")
	}
	if c.view != viewOverview {
		t.Fatalf("q in a view goes to %d, want the overview", c.view)
	}
	if _, cmd := c.Update(keyOf("q")); !ends(cmd) {
		t.Error("q at the root does not leave")
	}
	c = at(120, 40, fixture("real", fixedNow), Options{})
	if _, cmd := c.Update(keyOf("ctrl+c")); ends(cmd) {
		t.Error("one ctrl+c leaves")
	}
	if _, cmd := c.Update(keyOf("ctrl+c")); !ends(cmd) {
		t.Error("two ctrl+c do not leave")
	}
	c = at(120, 40, fixture("sim", fixedNow), Options{Demo: true})
	if _, cmd := c.Update(keyOf("q")); ends(cmd) {
		t.Error("q ends the demo unasked")
	}
	if _, cmd := c.Update(keyOf("y")); !ends(cmd) {
		t.Error("y does not end the demo")
	}
}

func TestPromptIsSentAndItsAnswerShown(t *testing.T) {
	s := fixture("real", fixedNow)
	f := &fake{still: s, now: time.Now, logs: map[string][]api.Line{}}
	c := at(120, 40, s, Options{Source: f})
	press(c, "8", "h", "é", "alt+enter", "世", "enter")
	did := f.actions()
	if len(did) != 1 || did[0].Verb != api.PromptSend || did[0].Text != "hé\n世" || did[0].Target != "llama-3.1-8b" || did[0].ID == "" {
		t.Fatalf("enter sent %+v", did)
	}
	id := did[0].ID
	press(c, "x", "enter")
	if len(f.actions()) != 1 {
		t.Errorf("a second prompt went out while one was running: %+v", f.actions())
	}
	c.Update(logMsg{name: "prompt/" + id, lines: []api.Line{{Seq: 1, Text: "Hello "}, {Seq: 2, Text: "\x1b[2Jwor"}, {Seq: 3, Text: "ld\nnext"}}})
	c.Update(logMsg{name: "prompt/" + id, lines: []api.Line{{Seq: 3, Text: "ld\nnext"}}})
	got := ansi.Strip(frame(t, c))
	for _, want := range []string{"Hello ␛[2Jworld", "next", "› hé 世"} {
		if !strings.Contains(got, want) {
			t.Errorf("answer lacks %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "nextld") {
		t.Errorf("a piece was shown twice:\n%s", got)
	}
	press(c, "ctrl+x")
	if did := f.actions(); len(did) != 2 || did[1].Verb != api.PromptCancel || did[1].Target != id {
		t.Errorf("ctrl+x sent %+v", did)
	}
}

func TestLogScrollStopsFollowing(t *testing.T) {
	var l logView
	l.follow, l.height = true, 20
	l.refilter()
	var lines []api.Line
	for i := range 150_000 {
		level := "info"
		if i == 149_000 {
			level = "error"
		}
		lines = append(lines, api.Line{Seq: uint64(i + 1), Level: level, Text: fmt.Sprint("line ", i)})
	}
	l.add(lines)
	if n := l.count(); n > maxLogLines*11/10 || n < maxLogLines {
		t.Fatalf("keeps %d lines, want about %d", n, maxLogLines)
	}
	l.move(-5)
	if l.follow {
		t.Error("follows after scrolling up")
	}
	top := l.at(l.top).Text
	l.add([]api.Line{{Seq: 150_001, Text: "new"}})
	if got := l.at(l.top).Text; got != top {
		t.Errorf("a new line moved the held screen from %q to %q", top, got)
	}
	l.move(1 << 29)
	if !l.follow {
		t.Error("does not follow again at the end")
	}
	l.setFilter(newFilter("line 149000"))
	if l.count() != 1 {
		t.Errorf("filter leaves %d lines, want 1", l.count())
	}
	l.setFilter(newFilter(""))
	l.nextError(1)
	if got := l.at(l.top).Text; got != "line 149000" {
		t.Errorf("next error is at %q", got)
	}
}

// A console at rest writes nothing: snapshots keep coming, the frame stays the same byte for byte.
func TestAtRestNothingIsWritten(t *testing.T) {
	s := fixture("real", fixedNow)
	f := &fake{still: s, now: time.Now}
	var out counter
	c := New(Options{Source: f, Now: func() time.Time { return fixedNow }, Theme: "dark"})
	r, w := io.Pipe()
	p := tea.NewProgram(c, tea.WithInput(r), tea.WithOutput(&out), tea.WithWindowSize(160, 50), tea.WithFPS(60), tea.WithColorProfile(colorprofile.TrueColor), tea.WithoutSignals())
	ended := make(chan error, 1)
	go func() { _, err := p.Run(); ended <- err }()
	wait(t, "the first frames", func() bool { return f.fetched() >= 3 && out.n.Load() > 5000 })
	before, seq := out.n.Load(), f.fetched()
	for range 5 {
		p.Send(tickMsg{})
	}
	wait(t, "more snapshots", func() bool { return f.fetched() >= seq+5 })
	if now := out.n.Load(); now != before {
		t.Errorf("%d snapshots without a change wrote %d bytes, want 0", f.fetched()-seq, now-before)
	}
	w.Write([]byte("q"))
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	w.Close()
}

type counter struct{ n atomic.Int64 }

func (c *counter) Write(b []byte) (int, error) { c.n.Add(int64(len(b))); return len(b), nil }

func (f *fake) fetched() uint64 { f.mu.Lock(); defer f.mu.Unlock(); return f.seq }

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestUnchangedSnapshotGivesTheSameFrame(t *testing.T) {
	for _, size := range sizes {
		s := fixture("real", fixedNow)
		c := at(size[0], size[1], s, Options{})
		first := frame(t, c)
		again := *s
		again.Seq++
		c.Update(snapshotMsg{snap: &again})
		if second := frame(t, c); second != first {
			t.Errorf("frame differs at %v without a change", size)
		}
	}
}

// wild is a snapshot of anything that could come.
func wild(r *rand.Rand) *api.Snapshot {
	s := fixture([]string{"real", "sim", "cpu", "empty", "unknown"}[r.IntN(5)], fixedNow)
	text := func() string { return hostile[r.IntN(len(hostile))] }
	f := func() *float64 {
		vs := []float64{0, -1, 1, 0.5, 1e300, math.NaN(), math.Inf(1), math.Inf(-1), 1e-9, 123456789, 99.95}
		return []*float64{nil, &vs[r.IntN(len(vs))]}[r.IntN(2)]
	}
	n := func() *api.Nanos {
		vs := []api.Nanos{0, -1, 1, math.MaxInt64, math.MinInt64, 1234567890, -99999}
		return []*api.Nanos{nil, &vs[r.IntN(len(vs))]}[r.IntN(2)]
	}
	for range r.IntN(64) {
		s.Workers = append(s.Workers, api.Worker{
			Name: text(), Model: text(), State: api.State([]string{"ready", "failed", "starting", "stopped", "", "odd"}[r.IntN(6)]), Error: text(), Remedy: text(), Phase: text(), Progress: f(), KV: f(), Running: f(), Waiting: f(), OutRate: f(), TTFT95: f(), Prefix: f(), CPU: f(), Preempt: f(),
			RSS: r.Int64() - 1<<62, HourCost: n(), Trend: api.Series{math.NaN(), 1, math.Inf(1)}, Command: []string{text(), text()}, GPUs: []string{text(), "0"}, Phases: []api.PhaseTime{{Name: text(), Seconds: math.NaN()}, {Name: text(), Seconds: 1e12}, {Name: "x", Seconds: -4}}, Exit: text(), Version: text(), Since: time.Unix(r.Int64N(1e12), 0),
		})
	}
	for range r.IntN(80) {
		s.Requests = append(s.Requests, api.Request{
			ID: text(), Model: text(), Worker: text(), Key: text(), Outcome: []string{"open", "ok", "error", "", text()}[r.IntN(5)], Status: r.IntN(1000), Error: text(), Finish: text(), Usage: api.Usage{Input: r.Int64(), Output: r.Int64() - 1<<62}, UsageSource: []string{"upstream", "counted", "unknown", ""}[r.IntN(4)],
			TTFT: api.Span(r.Int64() - 1<<62), Duration: api.Span(r.Int64() - 1<<62), Queue: api.Span(r.Int64()), Actual: n(), Would: n(), Health: f(), Attempts: []api.Attempt{{Upstream: text(), Error: text(), Actual: n()}}, Baseline: text(), Class: text(),
		})
	}
	several := func(n int) int { return r.IntN(n + 1) }
	when := func() time.Time { return time.Unix(r.Int64N(4e9), 0) }
	fix := func() *api.Fix {
		return []*api.Fix{nil, {Set: []string{text(), "--a=" + text()}, Unset: []string{text()}, Env: []string{text()}, Command: []string{text(), "--a", text()}, Why: text()}}[r.IntN(2)]
	}
	for i := range s.Workers {
		w := &s.Workers[i]
		w.Accept, w.Blocked, w.Fix, w.Fixed, w.Crashes, w.Level = f(), []string{"", text()}[r.IntN(2)], fix(), []string{text()}[:r.IntN(2)], several(3), r.IntN(3)
		if r.IntN(6) == 0 {
			w.State = api.Asleep
		}
	}
	for i := range s.GPUs {
		g := &s.GPUs[i]
		g.Clock, g.Energy, g.Throttle = f(), f(), []string{text()}
		g.Xids = []api.Xid{{Time: when(), Code: 31, Text: text()}}
		g.Processes = []api.GPUProcess{{Name: text(), User: text(), Worker: text(), Memory: new(r.Int64())}, {Name: text(), Stray: true}}
	}
	for range several(60) {
		s.Crashes = append(s.Crashes, api.Crash{ID: text(), Worker: "w0", Model: text(), Time: when(), Up: api.Span(r.Int64()), Phase: text(), Exit: text(), Cause: text(), Remedy: text(), Version: text()})
		s.Strays = append(s.Strays, api.Stray{PID: several(1e6), Name: text(), Worker: text(), Started: when(), RSS: r.Int64(), GPU: r.Int64() - 1<<62})
		s.Advice = append(s.Advice, api.Advice{Rule: text(), Worker: []string{"", "w0"}[r.IntN(2)], Model: "llama-3.1-8b", Since: when(), Text: text(), Remedy: text(), Fix: fix()})
		s.Rolls = append(s.Rolls, api.Roll{Model: []string{text(), "llama-3.1-8b"}[r.IntN(2)], Workers: []string{"w0", text()}, Done: r.IntN(4), State: []string{"running", "failed", text()}[r.IntN(3)], Error: text()})
		s.Keys = append(s.Keys, api.Key{Name: text(), Source: text(), Expires: when(), Limits: api.KeyLimits{Requests: r.Int64(), Day: n()}, Use: []*api.KeyUse{nil, {Requests: r.Int64(), Day: api.Nanos(r.Int64() - 1<<62)}}[r.IntN(2)]})
		s.Providers = append(s.Providers, api.Provider{Name: text(), State: text(), Error: text(), Models: []string{text()}, SpentDay: n(), CapDay: n()})
	}
	if r.IntN(2) == 0 {
		s.Cache = &api.Cache{Path: text(), Size: r.Int64(), Error: text(), Offline: r.IntN(2) == 0}
		for range several(40) {
			s.Cache.Models = append(s.Cache.Models, api.CacheModel{Name: text(), Size: r.Int64(), Used: when(), Workers: []string{text()}, Missing: []string{text()}[:r.IntN(2)], Partial: r.Int64(), Path: text()})
			s.Cache.Downloads = append(s.Cache.Downloads, api.Download{Name: text(), State: []string{"running", "failed", text()}[r.IntN(3)], Size: r.Int64(), Done: r.Int64(), Rate: []float64{0, -1, 1e300, math.NaN()}[r.IntN(4)], File: text(), Error: text()})
		}
	}
	for range r.IntN(30) {
		s.Notices = append(s.Notices, api.Notice{Level: []string{"error", "warning", "info", ""}[r.IntN(4)], Text: text(), Worker: text(), Active: r.IntN(2) == 0})
	}
	for i := range s.Windows {
		w := &s.Windows[i]
		for _, series := range []api.Series{w.Output, w.TTFT95, w.TTFT50, w.E2E95, w.Requests, w.Savings} {
			for j := range series {
				if v := f(); v != nil && r.IntN(3) == 0 {
					series[j] = *v
				}
			}
		}
		w.TTFT.P95, w.E2E.P99, w.ITL.Max = f(), f(), f()
		switch r.IntN(6) {
		case 0:
			w.Output, w.TTFT95 = nil, api.Series{math.NaN()}
		case 1:
			w.Bucket = 0
		case 2:
			w.Span = 0
		}
	}
	s.Money.Actual, s.Money.Would, s.Money.Savings, s.Money.Low, s.Money.High, s.Money.Idle = n(), n(), n(), n(), n(), n()
	s.Money.Percent, s.Money.Utilisation, s.Money.BreakEven, s.Money.OutputRate = f(), f(), f(), f()
	s.Money.Baseline, s.Money.RateLabel, s.Money.Missing = text(), text(), []string{text(), text(), ""}
	s.Answers.Median, s.Answers.Target = f(), 0.8
	s.Engine.Host, s.Engine.URL, s.Engine.Ledger.Error = text(), text(), text()
	s.Prompts = append(s.Prompts, api.Prompt{ID: "x", Prompt: text(), Model: text(), State: text(), Error: text(), Rate: f()})
	if r.IntN(8) == 0 {
		s.Windows = nil
	}
	return s
}

func TestEveryFrameFitsWhateverComes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	keys := []string{"1", "2", "3", "4", "8", "9", "tab", "tab", "j", "j", "k", "G", "g", "z", "]", "]", "[", "left", "left", "right", "+", "-", "p", "p", "esc", "E", "esc", "?", "j", "esc", ":", "w", "o", "tab", "esc", "/", "a", "esc", "T", "s", "n", "r", "esc", "enter", "v", "w", "l", "n", "t", "y", "Y", "f", "esc", "0", "0", "]", "]", "c", "a", "F", "u", "R", "Z", "x", "delete", "esc", "enter"}
	for range 50 {
		s := wild(r)
		f := &fake{still: s, now: func() time.Time { return fixedNow }, kind: "real"}
		c := at(1+r.IntN(240), 1+r.IntN(80), s, Options{Source: f, ASCII: r.IntN(4) == 0, Graph: []string{"", "block", "ascii"}[r.IntN(3)]})
		frame(t, c)
		for range 8 {
			_, cmd := c.Update(keyOf(keys[r.IntN(len(keys))]))
			_ = cmd
			if r.IntN(4) == 0 {
				settle(c, c.followLog())
			}
			if r.IntN(3) == 0 {
				c.Update(tea.WindowSizeMsg{Width: 1 + r.IntN(240), Height: 1 + r.IntN(80)})
			}
			for _, ch := range frame(t, c) {
				if ch < 0x20 && ch != '\n' && ch != 0x1b || ch >= 0x7f && ch < 0xa0 {
					t.Fatalf("frame holds %U", ch)
				}
			}
		}
	}
}

// Escapes on screen are ours alone: after taking out the SGR sequences none is left.
func TestOnlyOurOwnEscapesReachTheTerminal(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		c := at(160, 50, wild(r), Options{})
		for _, v := range views {
			press(c, "esc", string(v.id.key()))
			if rest := stripSGR(frame(t, c)); strings.ContainsRune(rest, 0x1b) {
				t.Fatalf("an escape that is not a colour: %q", rest[strings.IndexByte(rest, 0x1b):][:20])
			}
		}
	}
}

func TestProgramDrawsAndQuits(t *testing.T) {
	f := &fake{still: fixture("real", fixedNow), now: time.Now}
	var out bytes.Buffer
	r, w := io.Pipe()
	c := New(Options{Source: f, Now: func() time.Time { return fixedNow }})
	p := tea.NewProgram(c, tea.WithInput(r), tea.WithOutput(&out), tea.WithWindowSize(120, 40), tea.WithFPS(30), tea.WithColorProfile(colorprofile.ASCII), tea.WithoutSignals())
	ended := make(chan error, 1)
	go func() { _, err := p.Run(); ended <- err }()
	wait(t, "a snapshot", func() bool { return f.fetched() >= 2 })
	w.Write([]byte("2"))
	w.Write([]byte("\x03\x03"))
	if err := <-ended; err != nil {
		t.Fatalf("Run: %v", err)
	}
	w.Close()
	if got := out.String(); !strings.Contains(got, "llama-3.1-8b") || !strings.Contains(got, "\x1b[?1049l") {
		t.Errorf("no workers drawn, or the alternate screen not left: %d bytes", len(got))
	}
}

func BenchmarkFrame160x50(b *testing.B) {
	s := fixture("real", fixedNow)
	c := at(160, 50, s, Options{Theme: "dark"})
	snaps := []*api.Snapshot{s, fixture("real", fixedNow.Add(api.Tick))}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		c.Update(snapshotMsg{snap: snaps[i%2]})
		_ = c.View()
	}
}
