package tui

import (
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// input is a line being typed in the footer: a command or a filter.
type input struct {
	prompt   Text
	text     string
	complete bool   // commands are completed
	pick     int    // chosen completion, -1 for what is typed
	pane     paneID // whose filter it is
	was      string
	do       func(*Console, string) tea.Cmd // takes the line; nil: a command or a filter
}

// filters says that the line is a filter, which works as it is typed.
func (in *input) filters() bool { return !in.complete && in.do == nil }

// command is one that can be typed after a colon.
type command struct {
	name  string
	help  Text
	write bool
	do    func(*Console) tea.Cmd
}

// commands are all that can be typed now: those with an argument once for each value there is.
func (c *Console) commands() []command {
	run := func(f func(*Console)) func(*Console) tea.Cmd {
		return func(c *Console) tea.Cmd { f(c); return c.follow() }
	}
	var out []command
	for _, v := range views {
		id := v.id
		out = append(out, command{name: strings.ToLower(string(v.name)), help: "view " + id.key(), do: run(func(c *Console) { c.goTo(id) })})
	}
	if c.snap != nil {
		for i := range c.snap.Windows {
			name := windowName(c.snap.Windows[i].Span)
			out = append(out, command{name: "window " + string(name), help: "charts of the last " + name, do: run(func(c *Console) { c.window, c.cursor = i, -1 })})
		}
		for i := range c.snap.Workers {
			w := &c.snap.Workers[i]
			name := string(clean(w.Name))
			out = append(out,
				command{name: "worker " + name, help: clean(w.Model), do: run(func(c *Console) { c.goTo(viewWorkers); c.setFilter(paneWorkers, ""); c.selectWorker(w.Name) })},
				command{name: "logs " + name, help: "its log", do: run(func(c *Console) { c.openLogs(); c.setFilter(paneWorkers, ""); c.selectWorker(w.Name) })})
			out = append(out, workerCommands(w)...)
			for _, v := range []api.Verb{api.WorkerStart, api.WorkerStop, api.WorkerRestart, api.WorkerDrain, api.WorkerResume} {
				if orderFits(v, w.State) {
					out = append(out, command{name: string(verbName(v)) + " " + name, help: "asks first", write: true, do: run(func(c *Console) { c.askWorker(v, w) })})
				}
			}
		}
	}
	out = append(out, c.modelCommands()...)
	for _, name := range ThemeNames() {
		out = append(out, command{name: "theme " + name, help: "colours", do: run(func(c *Console) { c.setTheme(name) })})
	}
	for _, name := range []string{graphBraille, graphBlock, graphASCII} {
		out = append(out, command{name: "graph " + name, help: "what charts are made of", do: run(func(c *Console) { c.graph = name })})
	}
	out = append(out,
		command{name: "pause", help: "hold the screen", do: run((*Console).togglePause)},
		command{name: "mouse", help: "clicks and wheel on or off", do: run(func(c *Console) { c.mouse = !c.mouse })},
		command{name: "help", help: "keys", do: run(func(c *Console) { c.help = true })},
		command{name: "reload", help: "the engine reads its config again", write: true, do: func(c *Console) tea.Cmd { return c.act(api.Action{Verb: api.EngineReload}) }},
		command{name: "quit", help: "leave; " + c.afterQuit(), do: (*Console).leave},
		command{name: "stop", help: "stop the engine and its workers; asks first", write: true, do: run(func(c *Console) { c.askStop(false) })},
		command{name: "stop keep", help: "stop the engine, its workers go on; asks first", write: true, do: run(func(c *Console) { c.askStop(true) })},
	)
	return out
}

func orderFits(v api.Verb, s api.State) bool {
	switch v {
	case api.WorkerStart:
		return s == api.Stopped || s == api.Failed
	case api.WorkerResume:
		return s == api.Draining
	case api.WorkerDrain:
		return s == api.Ready
	case api.WorkerStop, api.WorkerRestart:
		return s != api.Stopped && s != api.Stopping
	}
	return false
}

// matches are the commands that what is typed may become: those that begin with it first, then
// those that have its letters in order.
func (c *Console) matches(typed string) []command {
	typed = strings.ToLower(strings.Join(strings.Fields(typed), " "))
	var begin, rest []command
	for _, cmd := range c.commands() {
		if cmd.write && c.opt.ReadOnly {
			continue
		}
		switch {
		case strings.HasPrefix(strings.ToLower(cmd.name), typed):
			begin = append(begin, cmd)
		case inOrder(typed, strings.ToLower(cmd.name)):
			rest = append(rest, cmd)
		}
	}
	return append(begin, rest...)
}

func inOrder(letters, s string) bool {
	for _, r := range letters {
		i := strings.IndexRune(s, r)
		if i < 0 {
			return false
		}
		s = s[i+len(string(r)):]
	}
	return true
}

func (c *Console) openPalette() { c.input = &input{prompt: ":", complete: true, pick: -1} }

func (c *Console) openFilter() {
	id := c.filterPane(c.focused())
	was := c.filters[id].text
	c.input = &input{prompt: "/", pane: id, text: was, was: was}
}

// filterPane is the pane whose filter a pane is under: a worker's detail searches its log where it
// shows it.
func (c *Console) filterPane(id paneID) paneID {
	switch id {
	case paneWorker:
		if c.onLog() {
			return paneLogs
		}
		return paneWorkers
	case paneNotices:
		return paneEvents
	}
	return id
}

func (c *Console) setFilter(id paneID, text string) {
	f := newFilter(text)
	if text == "" {
		delete(c.filters, id)
	} else {
		c.filters[id] = f
	}
	if id == paneLogs {
		c.logs.setFilter(f)
	}
	c.sync()
}

func (c *Console) inputKey(k string, msg tea.KeyPressMsg) tea.Cmd {
	in := c.input
	changed := false
	switch {
	case k == "esc":
		c.input = nil
		if in.filters() {
			c.setFilter(in.pane, in.was)
		}
		return nil
	case k == "enter":
		c.input = nil
		if in.do != nil {
			return in.do(c, strings.TrimSpace(in.text))
		}
		if in.complete {
			return c.runCommand(in)
		}
		return nil
	case k == "backspace" && in.text == "":
		c.input = nil
		return nil
	case k == "backspace":
		r := []rune(in.text)
		in.text, changed = string(r[:len(r)-1]), true
	case k == "ctrl+u":
		in.text, changed = "", true
	case k == "ctrl+w":
		in.text, changed = in.text[:strings.LastIndexByte(strings.TrimRight(in.text, " "), ' ')+1], true
	case in.complete && (k == "down" || k == "tab" || k == "ctrl+n"):
		in.pick = min(in.pick+1, len(c.matches(in.text))-1)
	case in.complete && (k == "up" || k == "shift+tab" || k == "ctrl+p"):
		in.pick = max(in.pick-1, -1)
	case msg.Text != "":
		in.text, changed = in.text+string(clean(msg.Text)), true
	}
	if changed {
		in.pick = -1
		if len(in.text) > 200 {
			in.text = strings.ToValidUTF8(in.text[:200], "")
		}
		if in.filters() {
			c.setFilter(in.pane, in.text)
		}
	}
	return nil
}

func (c *Console) runCommand(in *input) tea.Cmd {
	all := c.matches(in.text)
	typed := strings.ToLower(strings.Join(strings.Fields(in.text), " "))
	if in.pick >= 0 && in.pick < len(all) {
		return all[in.pick].do(c)
	}
	if typed == "" {
		return nil
	}
	for _, cmd := range all {
		if strings.ToLower(cmd.name) == typed {
			return cmd.do(c)
		}
	}
	switch { // short forms that fingers know
	case typed == "q" || typed == "q!" || typed == "exit":
		return c.leave()
	case len(all) == 1:
		return all[0].do(c)
	case len(all) > 1:
		c.say(stWarn, clean(in.text)+" may be "+clean(all[0].name)+", "+clean(all[1].name)+loading)
	default:
		c.say(stWarn, "no command "+clean(in.text)+"; : and tab list them")
	}
	return nil
}

func (c *Console) drawCompletions(rows []string) {
	all := c.matches(c.input.text)
	n := min(len(all), 10, len(rows)-3)
	if n <= 0 || c.w < 24 {
		return
	}
	from := max(min(c.input.pick-n/2, len(all)-n), 0)
	w := min(60, c.w-2)
	p := newPanel(c.th, c.g, Rect{W: w, H: n + 2, Boxed: true}, true)
	p.name = "Commands"
	p.show(stDim, whole(len(all)))
	for i := from; i < from+n; i++ {
		l := p.selected(i == c.input.pick)
		mark := Text(" ")
		if i == c.input.pick {
			mark = c.g.cursor
		}
		l.put(stKey, mark).gap(1).cell(stText, clean(all[i].name), 24).gap(1).put(stDim, all[i].help)
	}
	paste(rows, p.lines(), 0, len(rows)-1-n-2, c.w)
}

func (c *Console) paste(s string) {
	switch {
	case c.dialog != nil || c.help:
	case c.input != nil:
		c.input.text += string(clean(s))
		if len(c.input.text) > 200 {
			c.input.text = strings.ToValidUTF8(c.input.text[:200], "")
		}
		if c.input.filters() {
			c.setFilter(c.input.pane, c.input.text)
		}
	case c.typing():
		c.prompt.insert(s)
	}
}
