package tui

import (
	"context"
	"errors"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// maxLogLines is how many lines of one log a console keeps; older ones are let go.
const maxLogLines = 100_000

// logView is one log as it is followed: only the lines on screen are ever sanitised and drawn.
type logView struct {
	name   string // of the log
	after  uint64 // cursor
	busy   bool   // a fetch is under way
	err    Text
	lines  []api.Line
	errors []int // indexes into lines, of level error
	f      filter
	level  int   // least level shown, index into logLevels
	shows  []int // indexes into lines that filter and level let through
	all    bool  // shows is not used: everything is
	follow bool
	top    int // first visible, index into what is shown
	wrap   bool
	times  bool
	height int // rows at the last drawing
	gap    bool
	back   bool // older lines than the first are wanted
	start  bool // there are none: the engine keeps no more
	rev    int64
}

var logLevels = []Text{"all", "info", "warning", "error"}

func levelRank(level string) int {
	switch level {
	case "debug", "":
		return 0
	case "info":
		return 1
	case "warning":
		return 2
	case "error":
		return 3
	}
	return 0
}

type logMsg struct {
	name   string
	before uint64 // 0: these are the newest lines; else those before this one
	lines  []api.Line
	err    error
}

// wanted is the log that is on screen, "" for none.
func (c *Console) wanted() string {
	w := c.worker()
	if w == nil {
		return ""
	}
	for _, r := range layout(c.view, c.w, c.h, c.need(), c.focused(), c.zoom) {
		switch {
		case r.Pane == paneWorker && c.detailLog() != "":
			return c.detailLog()
		case r.Pane == paneLogs, r.Pane == paneWorker && c.detailTab() == tabCharts && !serves(w):
			return w.Name
		}
	}
	return ""
}

// detailLog is the log that fills the worker's detail: its own, or the last lines of a crash.
func (c *Console) detailLog() string {
	w := c.worker()
	if w == nil {
		return ""
	}
	switch c.detailTab() {
	case tabLogs:
		return w.Name
	case tabCrashes:
		if c.crash != "" {
			return "crash/" + c.crash
		}
	}
	return ""
}

// onLog says that keys go to a log.
func (c *Console) onLog() bool {
	f := c.focused()
	return f == paneLogs || f == paneWorker && c.detailLog() != ""
}

// follow asks for the newest lines of the log on screen, and of the prompt's answer.
func (c *Console) follow() tea.Cmd {
	return tea.Batch(c.followLog(), c.followPrompt())
}

func (c *Console) followLog() tea.Cmd {
	name := c.wanted()
	if name == "" {
		return nil
	}
	l := &c.logs
	if l.name != name {
		*l = logView{name: name, follow: true, wrap: l.wrap, times: l.times, level: l.level, f: l.f, rev: l.rev + 1}
		l.refilter()
		c.dirty = true
	}
	if l.busy {
		return nil
	}
	l.busy = true
	if l.back && !l.start && len(l.lines) > 0 {
		return fetchOlder(c.src, name, l.lines[0].Seq)
	}
	return fetchLog(c.src, name, l.after)
}

func fetchLog(src api.Source, name string, after uint64) tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
		defer cancel()
		lines, err := src.Log(ctx, name, after)
		return logMsg{name: name, lines: lines, err: err}
	}
}

// logPage is how many lines Source.Log gives at once.
const logPage = 2000

// fetchOlder asks for the page of lines before one. A cursor of 0 would mean the newest: of a log
// that is longer than a page, the very first line is out of reach.
func fetchOlder(src api.Source, name string, before uint64) tea.Cmd {
	after := uint64(1)
	if before > logPage+2 {
		after = before - logPage - 1
	}
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
		defer cancel()
		lines, err := src.Log(ctx, name, after)
		return logMsg{name: name, before: before, lines: lines, err: err}
	}
}

func (c *Console) logArrived(msg logMsg) tea.Cmd {
	if id, ok := strings.CutPrefix(msg.name, "prompt/"); ok {
		return c.promptArrived(id, msg)
	}
	l := &c.logs
	if msg.name != l.name {
		return nil
	}
	l.busy = false
	switch {
	case errors.Is(msg.err, api.ErrUnknown):
		l.err = "no log: this worker was not started by the engine"
	case msg.err != nil:
		l.err = clean(msg.err.Error())
	default:
		l.err = ""
	}
	if msg.before > 0 && msg.err == nil {
		l.prepend(msg.before, msg.lines)
		c.dirty = true
		return c.followLog()
	}
	if len(msg.lines) == 0 && msg.err == nil {
		return nil
	}
	l.add(msg.lines)
	c.dirty = true
	if len(msg.lines) >= logPage { // there is more: catch up at once
		return c.followLog()
	}
	return nil
}

// add appends lines that the cursor has not seen.
func (l *logView) add(lines []api.Line) {
	for i := range lines {
		line := lines[i]
		if line.Seq <= l.after && l.after != 0 {
			continue
		}
		if l.after != 0 && line.Seq > l.after+1 {
			l.gap = true
		}
		l.after = line.Seq
		l.lines = append(l.lines, line)
		l.admit(len(l.lines) - 1)
	}
	if over := len(l.lines) - maxLogLines; over > maxLogLines/10 { // in batches: moving is not free
		l.lines = append([]api.Line(nil), l.lines[over:]...)
		l.top = max(l.top-over, 0)
		l.start = false
		l.refilter()
	}
	l.rev++
}

// prepend puts older lines before the first one, which keeps its place on the screen.
func (l *logView) prepend(before uint64, lines []api.Line) {
	l.back = false
	n := 0
	for n < len(lines) && lines[n].Seq < before {
		n++
	}
	if n == 0 || len(l.lines) >= maxLogLines {
		l.start = true
		l.rev++
		return
	}
	shown := l.count()
	l.lines = append(append(make([]api.Line, 0, n+len(l.lines)), lines[:n]...), l.lines...)
	l.refilter()
	l.top = max(min(l.top+l.count()-shown, l.count()-1), 0)
}

func (l *logView) admit(i int) {
	line := &l.lines[i]
	if line.Level == "error" {
		l.errors = append(l.errors, i)
	}
	if !l.all && l.passes(line) {
		l.shows = append(l.shows, i)
	}
}

func (l *logView) passes(line *api.Line) bool {
	if l.level > 0 && levelRank(line.Level) < l.level {
		return false
	}
	return l.f.match(line.Text)
}

func (l *logView) refilter() {
	l.all = l.level == 0 && len(l.f.terms) == 0
	l.shows, l.errors = l.shows[:0], l.errors[:0]
	for i := range l.lines {
		l.admit(i)
	}
	l.top = max(min(l.top, l.count()-1), 0)
	l.rev++
}

func (l *logView) setFilter(f filter) { l.f = f; l.follow = true; l.refilter() }

func (l *logView) nextLevel() { l.level = (l.level + 1) % len(logLevels); l.refilter() }

func (l *logView) count() int {
	if l.all {
		return len(l.lines)
	}
	return len(l.shows)
}

func (l *logView) at(i int) *api.Line {
	if l.all {
		return &l.lines[i]
	}
	return &l.lines[l.shows[i]]
}

// move scrolls; going up stops following, reaching the end resumes it.
func (l *logView) move(by int) {
	last := max(l.count()-max(l.height, 1), 0)
	if l.follow {
		l.top = last
	}
	l.top = max(min(l.top+by, last), 0)
	l.follow = l.top >= last && by > 0 || last == 0
	l.back = by < 0 && l.top == 0
	l.rev++
}

func (l *logView) jump(end bool) { l.follow = end; l.rev++ }

// nextError scrolls to the next line of level error, or the one before.
func (l *logView) nextError(by int) {
	if len(l.errors) == 0 {
		return
	}
	here := -1
	if l.top < l.count() && !l.follow {
		here = l.top
		if !l.all {
			here = l.shows[l.top]
		}
	}
	pick := -1
	for _, e := range l.errors {
		if by > 0 && e > here && pick < 0 || by < 0 && e < here {
			pick = e
		}
	}
	if pick < 0 {
		pick = l.errors[0]
	}
	for i := range l.count() {
		if l.all && i == pick || !l.all && l.shows[i] == pick {
			l.top, l.follow = i, false
			l.rev++
			return
		}
	}
}

// shown is the text of the lines on screen, for the clipboard.
func (l *logView) shown() string {
	var b strings.Builder
	from := l.top
	if l.follow {
		from = max(l.count()-l.height, 0)
	}
	for i := from; i < min(from+max(l.height, 1), l.count()); i++ {
		b.WriteString(l.at(i).Text)
		b.WriteByte('\n')
	}
	return b.String()
}
