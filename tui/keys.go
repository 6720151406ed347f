package tui

import (
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"
)

// binding is one row of the table that dispatches keys, fills the footer and writes the help.
type binding struct {
	keys    []string
	show    Text // how the keys are written in help
	help    Text
	group   Text
	hintKey Text // in the footer; "" not there
	hint    Text
	write   bool // changes something: not there in read-only mode
	when    func(*Console) bool
	do      func(*Console) tea.Cmd
}

func always(*Console) bool { return true }

func in(ids ...paneID) func(*Console) bool {
	return func(c *Console) bool {
		f := c.focused()
		return slices.Contains(ids, f)
	}
}

// bindings is the table. Of two rows with the same key the first whose when holds is taken.
func bindings() []binding {
	onWorker := in(paneWorkers, paneWorker)
	onLog := (*Console).onLog
	sorts := func(c *Console) bool { return len(orders(c.focused())) > 0 }
	inDetail := func(c *Console) bool {
		return c.view == viewWorkers || c.view == viewCosts && c.snap != nil && len(c.snap.Keys) > 0
	}
	charts := func(c *Console) bool {
		switch c.focused() {
		case paneThroughput, paneLatency, paneStages, paneMoney, paneHealth:
			return true
		}
		return c.zoom != paneNone
	}
	do := func(f func(*Console)) func(*Console) tea.Cmd {
		return func(c *Console) tea.Cmd { f(c); return c.follow() }
	}
	bs := []binding{
		{keys: []string{"?"}, show: "?", help: "help for where you are", group: "Everywhere", hintKey: "?", hint: "help", do: do(func(c *Console) { c.help, c.helpTop = true, 0 })},
		{keys: []string{":", "ctrl+p"}, show: ": ctrl+p", help: "type a command", group: "Everywhere", hintKey: ":", hint: "command", do: do((*Console).openPalette)},

		// What acts on a worker.
		{keys: []string{"s"}, show: "s", help: "start or stop the worker", group: "Worker", hintKey: "s", hint: "start/stop", write: true, when: onWorker, do: do((*Console).askStartStop)},
		{keys: []string{"r"}, show: "r", help: "restart the worker", group: "Worker", hintKey: "r", hint: "restart", write: true, when: onWorker, do: do((*Console).askRestart)},
		{keys: []string{"d"}, show: "d", help: "drain the worker, or route to it again", group: "Worker", hintKey: "d", hint: "drain/resume", write: true, when: onWorker, do: do((*Console).askDrain)},
		{keys: []string{"["}, show: "[ ]", help: "previous, next tab", group: "Here", hintKey: "[ ]", hint: "tabs", when: inDetail, do: do(func(c *Console) { c.turnTab(-1) })},
		{keys: []string{"]"}, when: inDetail, do: do(func(c *Console) { c.turnTab(1) })},
		{keys: []string{"v"}, show: "v", help: "the worker's log", group: "Worker", when: onWorker, do: do(func(c *Console) { c.openLogs() })},

		// Logs.
		{keys: []string{"f"}, show: "f", help: "follow the log's end", group: "Log", hintKey: "f", hint: "follow", when: onLog, do: do(func(c *Console) { c.logs.jump(true) })},
		{keys: []string{"l"}, show: "l", help: "least level shown: all, info, warning, error", group: "Log", hintKey: "l", hint: "level", when: onLog, do: do(func(c *Console) { c.logs.nextLevel() })},
		{keys: []string{"w"}, show: "w", help: "wrap long lines", group: "Log", hintKey: "w", hint: "wrap", when: onLog, do: do(func(c *Console) { c.logs.wrap = !c.logs.wrap; c.logs.rev++ })},
		{keys: []string{"t"}, show: "t", help: "times of lines", group: "Log", when: onLog, do: do(func(c *Console) { c.logs.times = !c.logs.times; c.logs.rev++ })},
		{keys: []string{"n"}, show: "n N", help: "next, previous error", group: "Log", when: onLog, do: do(func(c *Console) { c.logs.nextError(1) })},
		{keys: []string{"N"}, when: onLog, do: do(func(c *Console) { c.logs.nextError(-1) })},

		// The prompt tester.
		{keys: []string{"enter", "i"}, show: "i enter", help: "write the prompt", group: "Prompt", hintKey: "i", hint: "write", write: true, when: func(c *Console) bool { return c.view == viewPrompt && c.focused() == paneAnswer }, do: (*Console).editPrompt},
		{keys: []string{"enter"}, when: in(paneHistory), do: do((*Console).openHistory)},
		{keys: []string{"ctrl+x"}, show: "ctrl+x", help: "cancel the running prompt", group: "Prompt", hintKey: "ctrl+x", hint: "cancel", write: true, when: func(c *Console) bool { return c.prompt.running(c.live) }, do: (*Console).cancelPrompt},
		{keys: []string{"m"}, show: "m", help: "next model", group: "Prompt", hintKey: "m", hint: "model", when: func(c *Console) bool { return c.view == viewPrompt }, do: do(func(c *Console) { c.prompt.nextModel(c.snap) })},

		// Lists and text.
		{keys: []string{"enter"}, show: "enter", help: "open what is selected", group: "Here", hintKey: "enter", hint: "open", when: (*Console).canOpen, do: do((*Console).open)},
		{keys: []string{"j", "down"}, show: "j k ↓ ↑", help: "down, up", group: "Here", do: do(func(c *Console) { c.move(1) })},
		{keys: []string{"k", "up"}, do: do(func(c *Console) { c.move(-1) })},
		{keys: []string{"ctrl+d", "pgdown"}, show: "ctrl+d ctrl+u pgdn pgup", help: "half a page down, up", group: "Here", do: do(func(c *Console) { c.move(c.page()) })},
		{keys: []string{"ctrl+u", "pgup"}, do: do(func(c *Console) { c.move(-c.page()) })},
		{keys: []string{"g", "home"}, show: "g G", help: "first, last", group: "Here", do: do(func(c *Console) { c.move(-1 << 30) })},
		{keys: []string{"G", "end"}, do: do(func(c *Console) { c.move(1 << 30) })},
		{keys: []string{"/"}, show: "/", help: "filter: words that must occur, !word that must not, e.g. state:failed !llama", group: "Here", hintKey: "/", hint: "filter", when: func(c *Console) bool { return spec(c.focused()).filters }, do: do((*Console).openFilter)},
		{keys: []string{">"}, show: "< > O", help: "sort by the column before, after; the other way round", group: "Here", hintKey: "<>", hint: "sort", when: sorts, do: do(func(c *Console) { c.sortBy(1) })},
		{keys: []string{"<"}, when: sorts, do: do(func(c *Console) { c.sortBy(-1) })},
		{keys: []string{"O"}, when: sorts, do: do((*Console).flipOrder)},
		{keys: []string{"left", "h"}, show: "← →", help: "chart cursor: all charts show that moment", group: "Charts", hintKey: "←→", hint: "cursor", when: charts, do: do(func(c *Console) { c.moveCursor(1) })},
		{keys: []string{"right", "l"}, when: charts, do: do(func(c *Console) { c.moveCursor(-1) })},
		{keys: []string{"E"}, show: "E", help: "explain the figures of this pane", group: "Here", hintKey: "E", hint: "explain", do: do((*Console).explain)},
		{keys: []string{"y"}, show: "y Y", help: "copy what is selected; Y as JSON", group: "Here", hintKey: "y", hint: "copy", do: (*Console).copyValue},
		{keys: []string{"Y"}, do: (*Console).copyJSON},

		{keys: []string{"ctrl+s"}, show: "ctrl+s", help: "save this pane as text, its data as CSV", group: "Here", do: (*Console).export},

		// Getting about.
		{keys: []string{"tab", "J", "L"}, show: "tab shift+tab H J K L", help: "next, previous pane", group: "Everywhere", hintKey: "tab", hint: "pane", do: do(func(c *Console) { c.cycle(1) })},
		{keys: []string{"shift+tab", "K", "H"}, do: do(func(c *Console) { c.cycle(-1) })},
		{keys: []string{"z"}, show: "z", help: "zoom the pane; charts get axes", group: "Everywhere", hintKey: "z", hint: "zoom", do: do((*Console).toggleZoom)},
		{keys: []string{"p", "space"}, show: "p", help: "hold the screen; data keeps flowing behind it", group: "Everywhere", hintKey: "p", hint: "pause", do: do((*Console).togglePause)},
		{keys: []string{"+"}, show: "+ - =", help: "longer, shorter, first time window", group: "Everywhere", hintKey: "+-", hint: "window", do: do(func(c *Console) { c.moveWindow(1) })},
		{keys: []string{"-", "_"}, do: do(func(c *Console) { c.moveWindow(-1) })},
		{keys: []string{"="}, do: do(func(c *Console) {
			if c.snap != nil {
				c.window = c.firstWindow()
			}
		})},
		{keys: []string{"T"}, show: "T", help: "next theme", group: "Everywhere", do: do((*Console).nextTheme)},
		{keys: []string{"ctrl+l"}, show: "ctrl+l", help: "draw the screen anew", group: "Everywhere", do: func(*Console) tea.Cmd { return tea.ClearScreen }},
		{keys: []string{"ctrl+z"}, show: "ctrl+z", help: "suspend", group: "Everywhere", do: func(*Console) tea.Cmd { return tea.Suspend }},
		{keys: []string{"esc", "q"}, show: "esc q", help: "back", group: "Everywhere", when: (*Console).nested, hintKey: "q", hint: "back", do: do((*Console).back)},
		{keys: []string{"q"}, show: "q", help: "leave; the engine goes on (in the demo: end it)", group: "Everywhere", hintKey: "q", hint: "leave", do: (*Console).leave},
		{keys: []string{"Q"}, show: "Q", help: "leave, the screen stays in the terminal", group: "Everywhere", do: (*Console).leaveScreen},
	}
	bs = slices.Insert(bs, 2, operating()...) // after help and the command line, before what they share a key with
	for _, v := range views {
		id := v.id
		bs = append(bs, binding{keys: []string{string(id.key())}, show: id.key(), help: v.name, group: "Views", do: do(func(c *Console) { c.goTo(id) })})
	}
	for i := range bs {
		if bs[i].when == nil {
			bs[i].when = always
		}
	}
	return bs
}

// usable says that a binding works here and now.
func (c *Console) usable(b *binding) bool { return (!b.write || !c.opt.ReadOnly) && b.when(c) }

// hints are the bindings for the footer, what belongs to this place first.
func (c *Console) hints() []binding {
	if c.help {
		return []binding{{hintKey: "j k", hint: "scroll"}, {hintKey: "esc", hint: "back"}}
	}
	if c.typing() {
		return []binding{
			{hintKey: "enter", hint: "send"},
			{hintKey: "esc", hint: "leave the editor"},
			{hintKey: "alt+enter", hint: "new line"},
			{hintKey: "ctrl+n", hint: "model"},
			{hintKey: "↑↓", hint: "history"},
			{hintKey: "ctrl+x", hint: "cancel"},
		}
	}
	var first, rest []binding
	for i := range c.keys {
		b := &c.keys[i]
		if b.hintKey == "" || !c.usable(b) {
			continue
		}
		if b.hint == "leave" && c.nested() {
			continue
		}
		if b.group == "Everywhere" {
			rest = append(rest, *b)
		} else {
			first = append(first, *b)
		}
	}
	if n := len(rest); n > 3 { // help, commands and the way out come first, whatever fits
		first = append([]binding{rest[0], rest[1], rest[n-1]}, first...)
		rest = rest[2 : n-1]
	}
	return append(first, rest...)
}

// key dispatches one key.
func (c *Console) key(msg tea.KeyPressMsg) tea.Cmd {
	k := msg.String()
	if k == "ctrl+c" {
		return c.interrupt()
	}
	c.quitArmed = time.Time{}
	switch {
	case c.dialog != nil:
		return c.dialogKey(k, msg)
	case c.input != nil:
		return c.inputKey(k, msg)
	case c.help:
		return c.helpKey(k)
	case c.typing():
		if cmd, taken := c.editorKey(k, msg); taken {
			return cmd
		}
	}
	for i := range c.keys {
		b := &c.keys[i]
		for _, want := range b.keys {
			if want == k && c.usable(b) {
				c.toast = ""
				return b.do(c)
			}
		}
	}
	return nil
}

// interrupt is ctrl+c: the first one says what a second one does.
func (c *Console) interrupt() tea.Cmd {
	if t := c.now(); !c.quitArmed.IsZero() && t.Sub(c.quitArmed) <= quitWithin {
		return tea.Quit
	} else {
		c.quitArmed = t
	}
	c.input, c.dialog = nil, nil
	c.say(stWarn, "ctrl+c again leaves; "+c.afterQuit())
	c.toastUntil = c.quitArmed.Add(quitWithin)
	return nil
}

// afterQuit says what leaving does.
func (c *Console) afterQuit() Text {
	switch {
	case c.opt.OnQuitText != "":
		return clean(c.opt.OnQuitText)
	case c.opt.Demo:
		return "the demo ends with it"
	default:
		return "the engine and its workers go on"
	}
}

func (c *Console) leave() tea.Cmd {
	if !c.opt.Demo || c.w < 30 || c.h < 8 {
		return tea.Quit
	}
	c.ask(&dialog{
		title: "Leave the demo?", lines: []part{{stText, "The demo ends: its simulated workers, clients and files are gone."}},
		yes: "leave", do: func(*Console) tea.Cmd { return tea.Quit },
	})
	return nil
}

func (c *Console) leaveScreen() tea.Cmd {
	c.result.Frame = c.frame
	return tea.Quit
}

// nested says that there is something to go back from.
func (c *Console) nested() bool {
	return c.crash != "" && c.view == viewWorkers || c.zoom != paneNone || c.cursor >= 0 || c.filters[c.filterPane(c.focused())].text != "" || c.view != viewOverview
}

func (c *Console) back() {
	f := c.filterPane(c.focused())
	switch {
	case c.filters[f].text != "":
		c.setFilter(f, "")
	case c.crash != "" && c.view == viewWorkers:
		c.crash = ""
	case c.cursor >= 0:
		c.cursor = -1
	case c.zoom != paneNone:
		c.zoom = paneNone
	default:
		c.view = viewOverview
	}
}

func (c *Console) goTo(v viewID) {
	c.view = v
	c.zoom = paneNone
}

func (c *Console) toggleZoom() {
	if c.zoom != paneNone {
		c.zoom = paneNone
	} else {
		c.zoom = c.focused()
	}
}

func (c *Console) togglePause() {
	c.paused = !c.paused
	if !c.paused {
		c.snap = c.live
		c.sync()
	}
}

func (c *Console) moveWindow(by int) {
	if c.snap == nil || len(c.snap.Windows) == 0 {
		return
	}
	c.window = max(min(c.window+by, len(c.snap.Windows)-1), 0)
	c.cursor = -1
	c.say(stDim, "window "+windowName(c.snap.Windows[c.window].Span))
}

func (c *Console) moveCursor(by int) {
	if w := c.win(); w != nil && len(w.Output) > 0 {
		// A key moves by what one cell shows in a chart of half the screen.
		step := max(len(w.Output)/max(c.w/2-axisWidth-4, 1), 1)
		c.cursor += by * step
		c.cursor = max(min(c.cursor, len(w.Output)-1), -1)
		if c.cursor < 0 || by > 0 && c.cursor < step {
			c.cursor = map[bool]int{true: 0, false: -1}[by > 0]
		}
	}
}

func (c *Console) nextTheme() {
	names := ThemeNames()
	next := names[0]
	for i, n := range names {
		if n == c.theme || n == "auto" && c.theme == "" {
			next = names[(i+1)%len(names)]
		}
	}
	c.setTheme(next)
}

func (c *Console) setTheme(name string) {
	c.theme = name
	c.th = themeNamed(name, c.dark)
	c.say(stDim, "theme "+clean(name))
}
