package tui

import (
	"cmp"
	"slices"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// when is a time of day, or a date and a time where that is not today's.
func (c *Console) when(t time.Time) Text {
	if t.IsZero() || c.snap == nil || day(t) == day(c.snap.Time) {
		return hms(t)
	}
	return monthDay(t) + " " + clock(t)
}

// crashRows is the crash book: of the selected worker, or of all.
func (c *Console) crashRows() []api.Crash {
	w := c.worker()
	if c.snap == nil || c.everyCrash || w == nil {
		if c.snap == nil {
			return nil
		}
		return c.snap.Crashes
	}
	var out []api.Crash
	for i := range c.snap.Crashes {
		if c.snap.Crashes[i].Worker == w.Name {
			out = append(out, c.snap.Crashes[i])
		}
	}
	return out
}

// theCrash is the selected entry, or the one whose lines are read.
func (c *Console) theCrash() *api.Crash {
	rows := c.crashRows()
	for i := range rows {
		if c.crash != "" && rows[i].ID == c.crash || c.crash == "" && i == c.crashes.sel {
			return &rows[i]
		}
	}
	return nil
}

func (c *Console) workerCrashes(p *panel) {
	rows := c.crashRows()
	if c.crash != "" {
		c.crashLines(p)
		return
	}
	if len(rows) == 0 {
		p.row().put(stDim, "no crash of this worker; a shows those of all")
		return
	}
	of := c.theCrash()
	var detail []part
	if of != nil {
		detail = c.crashStory(of, p.width())
	}
	detail = detail[:min(len(detail), p.height()/2)]
	cols := []tcol{
		{head: "TIME", w: 12},
		{head: "WORKER", w: 8, max: 16, drop: 3},
		{head: "UP", w: 7, right: true},
		{head: "PHASE", w: 8, drop: 2},
		{head: "EXIT", w: 9, max: 16, drop: 1},
		{head: "CAUSE", w: 12, max: 1000},
	}
	if !c.everyCrash {
		cols[1].w = 0
	}
	ws := fit(cols, p.width())
	p.head(cols, ws)
	from, to := c.crashes.window(p.free() - len(detail))
	for i := from; i < to; i++ {
		k := &rows[i]
		l := p.selected(i == c.crashes.sel)
		l.cells(cols, ws, []part{
			{stDim, c.when(k.Time)},
			{stText, clean(k.Worker)},
			{stText, span(k.Up)},
			{stDim, clean(k.Phase)},
			{stWarn, clean(k.Exit)},
			{stBad, clean(k.Cause)},
		})
	}
	for p.free() > len(detail) && len(detail) > 0 {
		p.row()
	}
	for _, t := range detail {
		p.row().put(t.st, t.t)
	}
	p.foot = "enter its last lines, c the charts then, a all or this worker's"
}

// crashStory is an entry in full.
func (c *Console) crashStory(k *api.Crash, width int) []part {
	var out []part
	add := func(st style, t Text, most int) {
		for i, row := range t.wrap(width) {
			if i == most {
				return
			}
			out = append(out, part{st, row})
		}
	}
	what := clean(k.Worker) + " of " + clean(k.Model) + ": " + clean(k.Exit) + " at " + c.when(k.Time)
	if k.Up > 0 {
		what += " after " + span(k.Up)
	}
	if k.Phase != "" {
		what += ", while starting: " + clean(k.Phase)
	}
	if k.Version != "" {
		what += ", vLLM " + clean(k.Version)
	}
	add(stDim, what, 2)
	add(stBad, c.g.bad+" "+clean(k.Cause), 3)
	if k.Remedy != "" {
		add(stText, c.g.arrow+" "+clean(k.Remedy), 3)
	}
	return out
}

// crashLines is the end of the log of a crash.
func (c *Console) crashLines(p *panel) {
	if k := c.theCrash(); k != nil {
		for _, t := range c.crashStory(k, p.width()) {
			p.row().put(t.st, t.t)
		}
	}
	c.drawLogs(p)
	if p.foot == "" {
		p.foot = "esc back to the crashes"
	}
}

// openCrash reads the last lines of the selected crash.
func (c *Console) openCrash() {
	if k := c.theCrash(); k != nil {
		c.crash = k.ID
	}
}

// chartsAt shows the charts with their cursor at a time.
func (c *Console) chartsAt(t time.Time) {
	if c.snap == nil || t.IsZero() {
		return
	}
	for i := range c.snap.Windows {
		w := &c.snap.Windows[i]
		if ago := w.End.Sub(t); w.Bucket > 0 && ago < time.Duration(w.Span) {
			back := int(ago / time.Duration(w.Bucket))
			if back >= len(w.Output) && i < len(c.snap.Windows)-1 {
				continue
			}
			c.goTo(viewOverview)
			c.window, c.cursor = i, max(back, 0)
			c.say(stDim, "charts of the last "+windowName(w.Span)+", cursor at "+hms(t)+"; esc takes it away")
			return
		}
	}
	c.say(stWarn, "no chart reaches back to "+c.when(t))
}

// chartsThen is chartsAt for what is selected.
func (c *Console) chartsThen() {
	if c.focused() == paneEvents {
		if rows := c.noticeRows(); c.notices.sel < len(rows) {
			c.chartsAt(rows[c.notices.sel].Time)
		}
	} else if k := c.theCrash(); k != nil {
		c.chartsAt(k.Time)
	}
}

// moment is one thing that befell a worker.
type moment struct {
	at time.Time
	part
	mark part
}

// lifeOf is what befell a worker, newest first: what the engine noted, and its crashes.
func (c *Console) lifeOf(w *api.Worker) []moment {
	var out []moment
	for i := range c.snap.Notices {
		if n := &c.snap.Notices[i]; n.Worker == w.Name {
			st, mark := c.noticeMark(n)
			out = append(out, moment{n.Time, part{stText, noticeText(n)}, part{st, mark}})
		}
	}
	for i := range c.snap.Crashes {
		if k := &c.snap.Crashes[i]; k.Worker == w.Name {
			out = append(out, moment{k.Time, part{stText, clean(k.Exit) + ": " + clean(k.Cause)}, part{stBad, c.g.bad}})
		}
	}
	slices.SortStableFunc(out, func(a, b moment) int { return cmp.Compare(b.at.UnixNano(), a.at.UnixNano()) })
	return out
}

// workerLife is the life of a worker below the timeline of its start.
func (c *Console) workerLife(p *panel, w *api.Worker) {
	all := c.lifeOf(w)
	if len(all) == 0 || p.free() < 2 {
		return
	}
	if p.free() > 4 {
		p.row()
	}
	from := max(min(c.scroll[paneWorker], len(all)-p.free()), 0)
	c.scroll[paneWorker] = min(c.scroll[paneWorker], from)
	for _, m := range all[from:] {
		if p.free() <= 0 {
			p.foot = "more below, j"
			return
		}
		p.row().put(m.mark.st, m.mark.t).gap(1).cell(stDim, c.when(m.at), 12).gap(1).put(m.st, m.t)
	}
}
