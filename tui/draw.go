package tui

import (
	"image/color"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
)

// View draws. It joins lines that panes have cached; if nothing changed it gives the frame as it was.
func (c *Console) View() tea.View {
	if c.dirty {
		c.frame = c.draw()
		c.dirty = false
	}
	v := tea.NewView(c.frame)
	v.AltScreen = true
	v.WindowTitle = "vllmdeck"
	if c.mouse {
		v.MouseMode = tea.MouseModeCellMotion
	}
	if c.ground && c.th.dark != c.dark { // a theme chosen against the terminal's own background brings its own
		v.BackgroundColor = color.White
		if c.th.dark {
			v.BackgroundColor = color.Black
		}
	}
	v.Cursor = c.textCursor()
	return v
}

func (c *Console) draw() string {
	if c.w <= 0 || c.h <= 0 {
		return ""
	}
	zoom, one := c.zoom, c.focused()
	if c.help {
		zoom, one = paneHelp, paneHelp
	}
	c.rects = layout(c.view, c.w, c.h, c.need(), one, zoom)
	rows := make([][]string, len(c.rects))
	size := 0
	for i, r := range c.rects {
		rows[i] = c.pane(r)
	}
	rowsOut := make([]string, 0, c.h)
	var b strings.Builder
	for y := range c.h {
		b.Reset()
		for i, r := range c.rects { // rectangles of one row lie in order of X
			if y >= r.Y && y < r.Y+r.H {
				b.WriteString(rows[i][y-r.Y])
			}
		}
		rowsOut = append(rowsOut, b.String())
		size += b.Len() + 1
	}
	c.overlay(rowsOut)
	b.Reset()
	b.Grow(size)
	for y, row := range rowsOut {
		if y > 0 {
			b.WriteByte('\n')
		}
		if c.opt.ASCII {
			row = asciiRow(row)
		}
		b.WriteString(row)
	}
	return b.String()
}

// pane gives the lines of one rectangle, from the cache if nothing they depend on changed.
func (c *Console) pane(r Rect) []string {
	key := cacheKey{snap: c.snap, rect: r, focus: r.Pane == c.focused(), rev: c.rev, extra: c.extra(r.Pane)}
	if old, ok := c.cache[r.Pane]; ok && old.key == key {
		return old.lines
	} else if ok && c.mayWait(r.Pane, key, old) {
		return old.lines
	}
	lines := c.drawPane(r, key.focus)
	c.cache[r.Pane] = cached{key, lines}
	return lines
}

// mayWait says that a pane stays as it was although the snapshot is newer. Panes side by side take turns:
// the terminal is sent every line from its first change to its last, so that two charts that change
// together cost the whole line between them. All but the first chart take theirs every two seconds:
// nobody reads a table in which every line moves, or quantiles, twice as often.
func (c *Console) mayWait(id paneID, key cacheKey, old cached) bool {
	turn, of := uint64(0), uint64(4)
	switch id {
	case paneThroughput: // the pulse of the place
		of = 2
	case paneLatency, paneMoney:
		turn = 1
	case paneStages, paneHealth:
		turn = 3
	case paneRequests:
		turn = 2
	default:
		return false
	}
	if c.zoom != paneNone || old.key.snap == nil {
		return false
	}
	key.snap = old.key.snap
	return key == old.key && c.fetched%of != turn
}

// extra is what a pane depends on besides snapshot and rev.
func (c *Console) extra(id paneID) int64 {
	switch id {
	case paneHeader, paneList, paneWorkers:
		if away := c.away(); away > 0 {
			return int64(away/time.Second) + 1
		}
		if c.resting {
			return -1
		}
	case paneLogs, paneWorker:
		return c.logs.rev
	case paneAnswer:
		return c.prompt.rev
	}
	return 0
}

// away is how old the snapshot is, 0 while the engine answers.
func (c *Console) away() time.Duration {
	if c.err == nil {
		return 0
	}
	if c.gotAt.IsZero() {
		return time.Nanosecond
	}
	return max(c.now().Sub(c.gotAt), time.Nanosecond)
}

func (c *Console) need() need {
	if c.snap == nil {
		return need{workers: 2, requests: 10}
	}
	return need{
		workers: len(c.snap.Workers), requests: len(c.snap.Requests), trouble: len(c.trouble(c.w - 4)), noHealth: c.snap.Answers.Rated == 0, noCharts: c.noPoints(),
		logTab: c.view == viewWorkers && c.detailLog() != "", strays: len(c.snap.Strays), rolls: len(c.rollNotes()),
		costTabs: len(c.snap.Keys) > 0, keys: c.keysShown(), models: c.modelLines(), cache: c.snap.Cache != nil,
	}
}

// noPoints says that there is nothing to draw a chart of: no request has come since the engine
// started. Once there was one, the charts stay.
func (c *Console) noPoints() bool {
	if c.win() == nil {
		return true
	}
	if t := &c.snap.Traffic; t.Total > 0 || t.InFlight > 0 || t.Queued > 0 {
		return false
	}
	for i := range c.snap.Windows {
		if w := &c.snap.Windows[i]; w.Count > 0 || peakOf(w.Output) > 0 {
			return false
		}
	}
	return true
}

func (c *Console) drawPane(r Rect, focus bool) []string {
	switch r.Pane {
	case paneHeader:
		return []string{c.header(r.W)}
	case paneTabs:
		return []string{c.tabs(r.W)}
	case paneFooter:
		return []string{c.footer(r.W)}
	case paneSubtabs:
		return []string{c.subtabs(r.W)}
	case paneList:
		return c.plainList(r.W, r.H)
	}
	p := newPanel(c.th, c.g, r, focus)
	s := spec(r.Pane)
	p.name = s.name
	if n := c.paneNumber(r.Pane); n > 0 && n < len(c.g.super) && p.boxed && r.W >= 30 {
		p.name = c.g.super[n] + s.name
	}
	switch {
	case r.Pane == paneHelp:
		p.name = "Help"
		c.drawHelp(p)
	case c.snap == nil && r.Pane != paneLogs:
		c.connecting(p)
	default:
		s.draw(c, p)
	}
	if f, ok := c.filters[c.filterPane(r.Pane)]; ok && f.text != "" && s.filters {
		p.value = append([]part{{stWarn, "/" + clean(f.text)}}, p.value...)
	}
	return p.lines()
}

func (c *Console) connecting(p *panel) {
	if c.err == nil {
		p.row().put(stDim, "connecting"+loading)
		return
	}
	p.say(stWarn, clean(c.err.Error()))
	p.row().put(stDim, "retrying"+loading)
}
