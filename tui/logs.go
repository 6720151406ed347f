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
	name  string
	lines []api.Line
	err   error
}

// wanted is the log that is on screen, "" for none.
func (c *Console) wanted() string {
	show := false
	w := c.worker()
	if w == nil {
		return ""
	}
	for _, r := range layout(c.view, c.w, c.h, c.need(), c.focused(), c.zoom) {
		show = show || r.Pane == paneLogs || r.Pane == paneWorker && (c.tab == tabLogs || c.tab == tabCharts && !serves(w))
	}
	if show {
		return w.Name
	}
	return ""
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
	return fetchLog(c.src, name, l.after)
}

func fetchLog(src api.Source, name string, after uint64) tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
		defer cancel()
		lines, err := src.Log(ctx, name, after)
		return logMsg{name, lines, err}
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
	if len(msg.lines) == 0 && msg.err == nil {
		return nil
	}
	l.add(msg.lines)
	c.dirty = true
	if len(msg.lines) >= 2000 { // there is more: catch up at once
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
		l.refilter()
	}
	l.rev++
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

func (c *Console) drawLogs(p *panel) {
	l := &c.logs
	w := c.worker()
	if w == nil {
		p.row().put(stDim, "no worker selected")
		return
	}
	if p.name == "Log" || p.name == c.g.super[c.paneNumber(paneLogs)%10]+"Log" {
		p.name += " " + clean(w.Name)
	}
	if l.level > 0 {
		p.show(stWarn, "from "+logLevels[l.level])
	}
	if l.follow {
		p.show(stOK, "following")
	} else {
		p.show(stWarn, "held at "+whole(l.top+1)+", f follows")
	}
	p.show(stDim, plural(int64(l.count()), "line", "lines"))
	if l.err != "" {
		p.row().put(stDim, l.err)
	}
	// The first error explains most failures: it stays in sight when it has scrolled away.
	if len(l.errors) > 0 && w.Error == "" && p.free() > 6 {
		e := &l.lines[l.errors[0]]
		p.row().put(stBad, c.g.bad+" first error ").put(stDim, hms(e.Time)).gap(1).put(stBad, clean(e.Text))
	}
	h := p.free()
	l.height = h
	n := l.count()
	if n == 0 {
		if l.err == "" && len(l.lines) > 0 {
			p.row().put(stDim, "no line passes the filter")
		} else if l.err == "" {
			p.row().put(stDim, "no line yet")
		}
		return
	}
	if !l.wrap {
		from := l.top
		if l.follow {
			from = max(n-h, 0)
		}
		for i := from; i < min(from+h, n); i++ {
			c.logLine(p, l.at(i))
		}
		return
	}
	c.wrappedLog(p, h)
}

// wrappedLog fills the pane with whole lines; following, it is filled from the end.
func (c *Console) wrappedLog(p *panel, h int) {
	l := &c.logs
	prefix := 2
	if l.times {
		prefix += 9
	}
	rows := func(i int) []Text { return Sanitize(l.at(i).Text).wrap(max(p.width()-prefix, 8)) }
	from := l.top
	if l.follow {
		from = l.count()
		for used := 0; from > 0; from-- {
			if used += len(rows(from - 1)); used > h {
				break
			}
		}
		from = min(from, l.count()-1)
	}
	for i := from; i < l.count() && p.free() > 0; i++ {
		st := logStyle(l.at(i).Level)
		for j, t := range rows(i) {
			if p.free() <= 0 {
				return
			}
			r := p.row()
			if j == 0 {
				c.logHead(r, l.at(i))
			} else {
				r.gap(prefix)
			}
			r.put(st, t)
		}
	}
}

func logStyle(level string) style {
	switch level {
	case "error":
		return stBad
	case "warning":
		return stWarn
	case "debug":
		return stDim
	}
	return stText
}

func (c *Console) logHead(r *line, line *api.Line) {
	if c.logs.times {
		r.cell(stFaint, hms(line.Time), 8).gap(1)
	}
	switch line.Level {
	case "error":
		r.put(stBad, c.g.bad).gap(1)
	case "warning":
		r.put(stWarn, c.g.warn).gap(1)
	default:
		r.gap(2)
	}
}

func (c *Console) logLine(p *panel, line *api.Line) {
	r := p.row()
	c.logHead(r, line)
	text := line.Text
	if len(text) > 4*p.width()+64 { // what is off the screen need not be sanitised
		text = strings.ToValidUTF8(text[:4*p.width()+64], "�")
	}
	r.put(logStyle(line.Level), clean(text))
}
