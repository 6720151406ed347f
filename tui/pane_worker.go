package tui

import (
	"math"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	tabCharts = iota
	tabLogs
	tabArgs
	tabTimeline
)

var workerTabs = []Text{"Overview", "Log", "Args", "Timeline"}

// drawWorker is the detail of the selected worker.
func (c *Console) drawWorker(p *panel) {
	w := c.worker()
	if w == nil {
		p.row().put(stDim, "no worker selected")
		return
	}
	p.name = clean(w.Name)
	if w.Simulated {
		p.show(stBadge, " SIMULATED ")
	}
	p.show(stDim, clean(w.Kind))
	if p.w > 60 {
		p.show(stDim, clean(w.Model))
	}
	if w.Version != "" && p.w > 100 {
		p.show(stDim, "vLLM "+clean(w.Version))
	}
	l := p.row()
	for i, t := range workerTabs {
		if i == c.tab {
			l.put(stTab, " "+t+" ")
		} else {
			l.put(stDim, " "+t+" ")
		}
		l.gap(1)
	}
	l.right(stFaint, "[ ] turn", 0)
	if w.Error != "" && c.tab != tabArgs {
		c.trouble(p, w)
	}
	switch c.tab {
	case tabCharts:
		if (w.State == api.Starting || w.State == api.Failed) && len(w.Phases) > 0 {
			c.timeline(p, w)
			p.row()
		}
		c.workerFigures(p, w)
	case tabLogs:
		c.drawLogs(p)
	case tabArgs:
		c.workerArgs(p, w)
	case tabTimeline:
		c.timeline(p, w)
	}
}

// trouble pins the first error and its remedy above everything else.
func (c *Console) trouble(p *panel, w *api.Worker) {
	for i, t := range clean(w.Error).wrap(max(p.width()-2, 1)) {
		if i == 3 {
			break
		}
		mark := Text(" ")
		if i == 0 {
			mark = c.g.bad
		}
		p.row().put(stBad, mark).gap(1).put(stBad, t)
	}
	if w.Remedy != "" {
		for i, t := range clean(w.Remedy).wrap(max(p.width()-2, 1)) {
			mark := Text(" ")
			if i == 0 {
				mark = c.g.arrow
			}
			p.row().put(stOK, mark).gap(1).put(stText, t)
		}
	}
	if w.Exit != "" || w.Restarts > 0 || !w.NextStart.IsZero() {
		l := p.row()
		l.gap(2)
		if w.Exit != "" {
			l.put(stDim, clean(w.Exit)).gap(2)
		}
		l.put(stDim, plural(int64(w.Restarts), "restart", "restarts")+" unasked").gap(2)
		if !w.NextStart.IsZero() {
			l.put(stDim, "next try at "+hms(w.NextStart))
		}
	}
}

// workerFigures is a grid of figures over the worker's throughput.
func (c *Console) workerFigures(p *panel, w *api.Worker) {
	g := c.cardsOf(w)
	type fig struct {
		name, v Text
		st      style
	}
	gpus := Text("")
	for i, id := range w.GPUs {
		if i > 0 {
			gpus += ","
		}
		gpus += clean(id)
	}
	if gpus == "" {
		gpus = "none"
	}
	kv := percentInt(val(w.KV))
	if w.KVTokens > 0 {
		kv += " of " + count(w.KVTokens)
	}
	vram := unknown
	if known(g.used) && known(g.total) {
		vram = decimals(g.used/(1<<30), 1) + "/" + decimals(g.total/(1<<30), 0) + " GiB"
	}
	power := unknown
	if known(g.power) {
		power = decimals(g.power, 0) + " W"
	}
	temp := unknown
	if known(g.temp) {
		temp = decimals(g.temp, 0) + "°C"
	}
	rss := unknown
	if w.RSS > 0 {
		rss = size(w.RSS)
	}
	pid := unknown
	if w.PID > 0 {
		pid = whole(w.PID)
	}
	limit := func(n int) Text {
		if n == 0 {
			return unknown
		}
		return count(int64(n))
	}
	st, _ := c.stateMark(w)
	figs := []fig{
		{"state", c.stateWord(w) + " " + age(c.snap.Time.Sub(w.Since)), st},
		{"running", decimals(val(w.Running), 0), stStrong},
		{"KV cache", kv, severity2(val(w.KV), 0.85, 0.95)},
		{"GPUs", gpus, stText},
		{"in flight", whole(w.InFlight), stText},
		{"waiting", decimals(val(w.Waiting), 0), waitStyle(w)},
		{"preemptions/s", rate(val(w.Preempt)), stText},
		{"utilisation", percentInt(g.util), stText},
		{"out tok/s", rate(val(w.OutRate)), stStrong},
		{"TTFT p95", seconds(val(w.TTFT95)), stText},
		{"prefix hit", percentInt(val(w.Prefix)), stText},
		{"VRAM", vram, stText},
		{"prompt tok/s", rate(val(w.InRate)), stText},
		{"max seqs", limit(w.MaxSeqs), stText},
		{"max length", limit(w.MaxLen), stText},
		{"power, temp", power + " " + temp, stText},
		{"CPU cores", decimals(val(w.CPU), 1), stText},
		{"memory", rss, stText},
		{"pid", pid, stText},
		{"cost per hour", money(w.HourCost), stText},
	}
	per := 4
	switch {
	case p.width() < 60:
		per = 2
	case p.width() < 100:
		per = 3
	}
	cw := p.width() / per
	for i := 0; i < len(figs) && p.free() > 0; i += per {
		l := p.row()
		for j := range min(per, len(figs)-i) {
			f := figs[i+j]
			l.to(j*cw).cell(stDim, f.name, 13).gap(1).num(f.st, f.v.cut(cw-15))
		}
	}
	if p.free() < 5 || len(w.Trend) == 0 {
		return
	}
	p.row()
	n := chartPoints(p.width())
	p.row().gap(axisWidth).put(stDim, "output tok/s, last 2 minutes")
	// The trend has a point every two seconds and no clock of its own: it is drawn as it came.
	pts := make([]float64, n)
	for i := range pts {
		j := len(w.Trend) - 60 + i*60/n
		pts[i] = math.NaN()
		if j >= 0 && j < len(w.Trend) {
			pts[i] = w.Trend[j]
		}
	}
	ch := chart{graph: c.graph, upper: pts, top: c.scaleOf("worker "+w.Name, peakOf(pts), 10), label: rate, ramp: [3]style{stA, stA2, stA3}, dim: n, cursor: -1, span: api.Span(2 * time.Minute)}
	ch.draw(p, p.free()-1, true)
}

func severity2(v, warn, bad float64) style {
	if st := severity(v, warn, bad); st == stWarn || st == stBad {
		return st
	}
	return stText
}

// workerArgs is the command as run, one flag a line.
func (c *Console) workerArgs(p *panel, w *api.Worker) {
	if len(w.Command) == 0 {
		p.row().put(stDim, "not launched by us: no command line")
		if w.URL != "" {
			p.row().put(stDim, "url ").put(stText, clean(w.URL))
		}
		return
	}
	var lines []part
	for i := 0; i < len(w.Command); i++ {
		t := clean(w.Command[i])
		st := stText
		if i == 0 {
			st = stStrong
		} else {
			t = "  " + t
		}
		// A flag and its value stand together.
		if len(w.Command[i]) > 1 && w.Command[i][0] == '-' && i+1 < len(w.Command) && (w.Command[i+1] == "" || w.Command[i+1][0] != '-') {
			i++
			t += " " + clean(w.Command[i])
		}
		for _, part1 := range t.wrap(p.width()) {
			lines = append(lines, part{st, part1})
		}
	}
	lines = append(lines, part{stText, ""}, part{stDim, "url " + clean(w.URL)}, part{stDim, "y copies the command; secrets are redacted"})
	c.scrolled(p, lines)
}

// scrolled shows lines from where the pane is scrolled to.
func (c *Console) scrolled(p *panel, lines []part) {
	id := c.focused()
	top := max(min(c.scroll[id], len(lines)-p.free()), 0)
	if c.scroll[id] > top {
		c.scroll[id] = top
	}
	for i := top; i < len(lines) && p.free() > 0; i++ {
		p.row().put(lines[i].st, lines[i].t)
	}
	if rest := len(lines) - top - p.height(); rest > 0 {
		p.foot = "more below, j"
	}
}

// timeline is the phases of the last start with how long each took.
func (c *Console) timeline(p *panel, w *api.Worker) {
	if len(w.Phases) == 0 {
		p.row().put(stDim, "no start of ours to show")
		return
	}
	total := 0.0
	for _, ph := range w.Phases {
		if known(ph.Seconds) && ph.Seconds > 0 {
			total += ph.Seconds
		}
	}
	cells := max(p.width()-12-9-3, 4)
	at := 0.0
	for _, ph := range w.Phases {
		if p.free() <= 0 {
			return
		}
		s := max(ph.Seconds, 0)
		if !known(s) {
			s = 0
		}
		l := p.row()
		st := stA
		if !ph.Done {
			st = stC
			if w.State == api.Failed {
				st = stBad
			}
		}
		l.cell(stText, clean(ph.Name), 12)
		if total > 0 {
			off := int(at / total * float64(cells))
			n := max(int(math.Round((at+s)/total*float64(cells)))-off, 1)
			l.fill(stFaint, p.g.sep, off).fill(st, p.g.block, n)
		}
		l.to(12+cells).gap(1).rcell(stStrong, seconds(s), 8)
		at += s
	}
	p.row().cell(stDim, "in all", 12).put(stStrong, seconds(total))
	if !w.Started.IsZero() {
		p.row().cell(stDim, "started", 12).put(stText, day(w.Started)+" "+hms(w.Started))
	}
	if w.Adopted {
		p.row().put(stDim, "taken over from an earlier engine")
	}
}
