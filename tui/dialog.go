package tui

import (
	"encoding/json"
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// dialog asks before something is done, or only says something.
type dialog struct {
	title Text
	lines []part
	yes   Text   // what y does; "" : nothing to decide, any key closes
	typed string // must be typed instead of y
	got   string
	do    func(*Console) tea.Cmd
}

// ask opens a dialog, unless the terminal is too small to show it whole: what cannot be read must
// not be answered.
func (c *Console) ask(d *dialog) {
	if c.w < 30 || c.h < 8 {
		c.say(stWarn, "too small to ask: enlarge the terminal")
		return
	}
	c.dialog = d
}

func (c *Console) dialogKey(k string, msg tea.KeyPressMsg) tea.Cmd {
	d := c.dialog
	switch {
	case k == "esc", d.yes == "", d.typed == "" && (k == "n" || k == "N" || k == "q"):
		c.dialog = nil
	case d.typed == "" && (k == "y" || k == "Y"):
		c.dialog = nil
		return d.do(c)
	case d.typed == "":
	case k == "enter" && d.got == d.typed:
		c.dialog = nil
		return d.do(c)
	case k == "backspace":
		if r := []rune(d.got); len(r) > 0 {
			d.got = string(r[:len(r)-1])
		}
	case k == "ctrl+u":
		d.got = ""
	case msg.Text != "" && len(d.got) < 200:
		d.got += string(clean(msg.Text))
	}
	return nil
}

// overlay draws what lies above the panes: the completions of a command, a dialog.
func (c *Console) overlay(rows []string) {
	if c.input != nil && c.input.complete {
		c.drawCompletions(rows)
	}
	if c.dialog == nil || len(rows) < 5 || c.w < 20 {
		return
	}
	d := c.dialog
	w := min(76, c.w-4)
	inner := w - 4
	type styled struct {
		st style
		t  Text
	}
	var body []styled
	for _, l := range d.lines {
		for _, t := range l.t.wrap(inner) {
			body = append(body, styled{l.st, t})
		}
	}
	h := min(len(body)+4, len(rows))
	p := newPanel(c.th, c.g, Rect{W: w, H: h, Boxed: true}, true)
	p.name = d.title
	for _, l := range body[:min(len(body), max(h-4, 0))] {
		p.row().put(l.st, l.t)
	}
	p.row()
	l := p.row()
	switch {
	case d.yes == "":
		l.put(stDim, "any key closes")
	case d.typed != "":
		l.put(stDim, "type ").put(stStrong, clean(d.typed)).put(stDim, " and enter: ").put(stText, clean(d.got)).put(stStrong, "▏")
		l.right(stDim, "esc cancels", 0)
	default:
		l.put(stKey, "y").gap(1).put(stText, d.yes).gap(3).put(stKey, "n").gap(1).put(stText, "cancel")
	}
	box := p.lines()
	for i := range box {
		box[i] = " " + box[i] + " "
	}
	paste(rows, box, (c.w-w)/2-1, max((c.h-h)/2, 0), c.w)
}

// paste writes a box over the rows at x, y.
func paste(rows, box []string, x, y, width int) {
	for i, b := range box {
		if y+i < 0 || y+i >= len(rows) {
			continue
		}
		w := ansi.StringWidth(b)
		under := rows[y+i]
		left := ansi.Truncate(under, x, "")
		right := ansi.TruncateLeft(under, x+w, "")
		// A wide character under the edge is cut away whole: blanks take its place.
		left += "\x1b[m" + blank(x-ansi.StringWidth(left))
		right = blank(width-x-w-ansi.StringWidth(right)) + right
		rows[y+i] = left + b + right + "\x1b[m"
	}
}

func verbName(v api.Verb) Text {
	switch v {
	case api.WorkerStart:
		return "start"
	case api.WorkerStop:
		return "stop"
	case api.WorkerRestart:
		return "restart"
	case api.WorkerDrain:
		return "drain"
	case api.WorkerResume:
		return "resume"
	case api.PromptSend:
		return "prompt"
	case api.PromptCancel:
		return "cancel prompt"
	case api.EngineStop:
		return "stop engine"
	case api.EngineReload:
		return "reload"
	}
	return clean(string(v))
}

func (c *Console) askStartStop() {
	if w := c.worker(); w != nil {
		if w.State == api.Stopped || w.State == api.Failed {
			c.askWorker(api.WorkerStart, w)
		} else {
			c.askWorker(api.WorkerStop, w)
		}
	}
}

func (c *Console) askRestart() {
	if w := c.worker(); w != nil {
		c.askWorker(api.WorkerRestart, w)
	}
}

func (c *Console) askDrain() {
	if w := c.worker(); w != nil {
		if w.State == api.Draining {
			c.askWorker(api.WorkerResume, w)
		} else {
			c.askWorker(api.WorkerDrain, w)
		}
	}
}

// askWorker says what an order does to a worker, and to whom, before it is given.
func (c *Console) askWorker(verb api.Verb, w *api.Worker) {
	others := 0
	for i := range c.snap.Workers {
		if o := &c.snap.Workers[i]; o.Model == w.Model && o.Name != w.Name && o.State == api.Ready {
			others++
		}
	}
	lines := []part{
		{stText, "worker   " + clean(w.Name) + ", " + c.stateWord(w) + sim(w.Simulated)},
		{stText, "model    " + clean(w.Model)},
		{stText, "requests " + whole(w.InFlight) + " in flight"},
	}
	if verb == api.WorkerStop || verb == api.WorkerRestart || verb == api.WorkerDrain { // first: a low terminal cuts the end
		if others == 0 {
			lines = append(lines, part{stBad, "No other ready worker has this model: clients will wait or get an error."})
		} else {
			lines = append(lines, part{stText, plural(int64(others), "other ready worker keeps", "other ready workers keep") + " serving this model."})
		}
	}
	flight := plural(int64(w.InFlight), "request", "requests")
	first := Text("") // what happens to requests
	switch {
	case w.InFlight > 0 && others > 0:
		first = "New requests go elsewhere at once; the " + flight + " in flight may finish. "
	case w.InFlight > 0:
		first = "The " + flight + " in flight may finish. "
	}
	why := Text("")
	switch verb {
	case api.WorkerStop:
		why = first + "Its whole process tree ends, after the grace time at the latest."
		if w.InFlight == 0 {
			why = "Its whole process tree ends."
		}
	case api.WorkerRestart:
		why = first + "Its process tree ends, then it starts again: weights are loaded anew."
		if s := lastStart(w); s > 0 {
			why += " The last start took " + seconds(s) + "."
		}
	case api.WorkerDrain:
		why = first + "The process stays; d routes to it again."
	case api.WorkerResume:
		why = "New requests are routed to it again."
	case api.WorkerStart:
		why = "Its process is started now."
		if s := lastStart(w); s > 0 {
			why += " The last start took " + seconds(s) + "."
		}
		if w.Error != "" {
			lines = append(lines, part{stWarn, "Last error: " + clean(w.Error)})
		}
	}
	lines = append(lines, part{stDim, why})
	a := api.Action{Verb: verb, Target: w.Name}
	c.ask(&dialog{title: verbName(verb) + " " + clean(w.Name) + "?", lines: lines, yes: verbName(verb), do: func(c *Console) tea.Cmd { return c.act(a) }})
}

// askStop names all that ends with the engine.
func (c *Console) askStop(keep bool) {
	if c.snap == nil {
		c.say(stWarn, "not connected")
		return
	}
	var names []string
	for i := range c.snap.Workers {
		if w := &c.snap.Workers[i]; w.State != api.Stopped && w.State != api.Failed && w.Kind != "attach" {
			names = append(names, string(clean(w.Name)))
		}
	}
	t := c.snap.Traffic
	lines := []part{{stText, "The engine at " + clean(c.snap.Engine.URL) + " stops serving; " + plural(int64(t.InFlight), "request is", "requests are") + " in flight, " + whole(t.Queued) + " queued."}}
	args := map[string]string{"workers": "stop"}
	if keep {
		args["workers"] = "keep"
		lines = append(lines, part{stText, "Its workers go on; the next engine takes them over."})
	} else if len(names) > 0 {
		lines = append(lines, part{stBad, "These workers stop with it: " + clean(strings.Join(names, ", ")) + "."})
	}
	c.ask(&dialog{
		title: "Stop the engine?", lines: lines, yes: "stop", typed: "stop",
		do: func(c *Console) tea.Cmd { return c.act(api.Action{Verb: api.EngineStop, Args: args}) },
	})
}

func sim(on bool) Text {
	if on {
		return "  SIMULATED"
	}
	return ""
}

// explain shows what the figures of a pane mean.
func (c *Console) explain() {
	s := spec(c.focused())
	var lines []part
	for l := range strings.SplitSeq(string(s.explain), "\n") {
		lines = append(lines, part{stText, clean(l)})
	}
	c.ask(&dialog{title: s.name, lines: lines})
}

// clipLimit is the most that terminals take through OSC 52, before base64.
const clipLimit = 74994

func (c *Console) clip(what Text, s string) tea.Cmd {
	if s == "" {
		c.say(stDim, "nothing to copy here")
		return nil
	}
	safe := string(Sanitize(s))
	if len(safe) > clipLimit {
		safe = strings.ToValidUTF8(safe[:clipLimit], "")
		what += ", cut at 74 kB"
	}
	c.say(stOK, "copied "+what)
	return tea.SetClipboard(safe)
}

func (c *Console) copyValue() tea.Cmd {
	switch id := c.focused(); {
	case c.snap == nil:
		return nil
	case id == paneLogs || id == paneWorker && c.tab == tabLogs:
		return c.clip("the log lines shown", c.logs.shown())
	case id == paneWorkers || id == paneWorker:
		if w := c.worker(); w != nil {
			if id == paneWorker && c.tab == tabArgs {
				return c.clip("the command of "+clean(w.Name), shellQuote(w.Command))
			}
			return c.clip("the URL of "+clean(w.Name), w.URL)
		}
	case id == paneRequests || id == paneRequest:
		if r := c.request(); r != nil {
			return c.clip("request "+clean(r.ID), r.ID)
		}
	case id == paneNotices || id == paneEvents:
		if rows := c.noticeRows(); c.notices.sel < len(rows) {
			return c.clip("the notice", rows[c.notices.sel].Text)
		}
	case id == paneAnswer || id == panePrompt:
		return c.clip("the answer", c.prompt.answer())
	}
	return c.clip("the URL of the gateway", c.snap.Engine.URL)
}

func (c *Console) copyJSON() tea.Cmd {
	if c.snap == nil {
		return nil
	}
	var v any
	what := Text("the pane")
	switch c.focused() {
	case paneWorkers, paneWorker:
		if w := c.worker(); w != nil {
			v, what = w, "worker "+clean(w.Name)
		}
	case paneRequests, paneRequest:
		if r := c.request(); r != nil {
			v, what = r, "request "+clean(r.ID)
		}
	case paneMoney, paneCosts, paneClasses, paneRates:
		v, what = c.snap.Money, "the costs"
	case paneHealth:
		v, what = c.snap.Answers, "answer health"
	case paneNotices, paneEvents:
		v, what = c.snap.Notices, "the events"
	case paneThroughput, paneLatency, paneStages:
		v, what = c.win(), "the window"
	}
	if v == nil {
		return c.clip(what, "")
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		c.say(stBad, "copy: "+clean(err.Error()))
		return nil
	}
	return c.clip(what+" as JSON", string(b))
}

// shellQuote writes a command as one can paste it into a shell.
func shellQuote(args []string) string {
	out := make([]string, len(args))
	for i, a := range args {
		if a != "" && strings.IndexFunc(a, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_./:=,@+", r)
		}) < 0 {
			out[i] = a
			continue
		}
		out[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
	}
	return strings.Join(out, " ")
}
