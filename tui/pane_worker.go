package tui

import (
	"math"
	"slices"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

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
	tabs, tab := c.tabsOf(w), c.detailTab()
	names := make([]Text, len(tabs))
	for i, t := range tabs {
		names[i] = c.tabName(t, w)
	}
	tabStrip(p.row(), names, slices.Index(tabs, tab))
	if tab == tabCharts || tab == tabLogs || tab == tabTimeline {
		c.pinned(p, w)
	}
	switch tab {
	case tabCharts:
		if (w.State == api.Starting || w.State == api.Failed) && len(w.Phases) > 0 {
			c.timeline(p, w)
			if p.free() > 8 {
				p.row()
			}
		}
		c.workerFigures(p, w)
	case tabLogs:
		c.drawLogs(p)
	case tabArgs:
		c.workerArgs(p, w)
	case tabGPU:
		c.workerCards(p, w)
	case tabTimeline:
		c.timeline(p, w)
		c.workerLife(p, w)
	case tabCrashes:
		c.workerCrashes(p)
	case tabAdvice:
		c.workerAdvice(p)
	}
}

// pinned shows what a worker waits for, or its first error and the remedy, above everything else.
func (c *Console) pinned(p *panel, w *api.Worker) {
	if w.Blocked != "" {
		p.marked(stWarn, c.g.wait, stText, "waits: "+clean(w.Blocked), 2)
	}
	if w.Error == "" {
		return
	}
	p.marked(stBad, c.g.bad, stBad, clean(w.Error), 3)
	if w.Remedy != "" {
		p.marked(stOK, c.g.arrow, stText, clean(w.Remedy), 3)
	}
	if w.Fix != nil && !c.opt.ReadOnly {
		p.row().gap(2).put(stKey, "enter").put(stDim, " shows the new command line and asks")
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

// marked writes a text behind a sign, in at most so many rows.
func (p *panel) marked(st style, mark Text, text style, t Text, most int) {
	lines := t.wrap(max(p.width()-2, 1))
	for i, part := range lines[:min(len(lines), most)] {
		if p.free() <= 0 {
			return
		}
		if i > 0 {
			mark = " "
		}
		if i == most-1 && len(lines) > most {
			part = (part + loading).cut(max(p.width()-2, 1))
		}
		p.row().put(st, mark).gap(1).put(text, part)
	}
}

// fig is one figure of a worker.
type fig struct {
	name, v Text
	st      style
}

// figures are what is known of a worker; what its host does not have is not among them.
func (c *Console) figures(w *api.Worker) []fig {
	g := c.cardsOf(w)
	gpus := Text("")
	for i, id := range w.GPUs {
		if i > 0 {
			gpus += ","
		}
		gpus += clean(id)
	}
	kv := percentInt(val(w.KV))
	if w.KVTokens > 0 {
		kv += " of " + count(w.KVTokens)
	}
	limit := func(n int) Text {
		if n == 0 {
			return unknown
		}
		return count(int64(n))
	}
	rss, pid := unknown, unknown
	if w.RSS > 0 {
		rss = size(w.RSS)
	}
	if w.PID > 0 {
		pid = whole(w.PID)
	}
	st, _ := c.stateMark(w)
	state := c.stateWord(w)
	if serves(w) {
		state += " " + age(c.snap.Time.Sub(w.Since))
	}
	figs := []fig{
		{"state", state, st},
		{"running", decimals(val(w.Running), 0), stStrong},
		{"waiting", decimals(val(w.Waiting), 0), waitStyle(w)},
		{"in flight", whole(w.InFlight), stText},
		{"out tok/s", rate(val(w.OutRate)), stStrong},
		{"prompt tok/s", rate(val(w.InRate)), stText},
		{"TTFT p95", seconds(val(w.TTFT95)), stText},
		{"prefix hit", percentInt(val(w.Prefix)), stText},
		{"KV cache", kv, severity2(val(w.KV), 0.85, 0.95)},
		{"preemptions/s", rate(val(w.Preempt)), severity2(val(w.Preempt), 1e-9, 1)},
		{"max seqs", limit(w.MaxSeqs), stText},
		{"max length", limit(w.MaxLen), stText},
		{"CPU cores", cores(c.steady("cpu "+w.Name, val(w.CPU), 0.05)), stText},
		{"memory", rss, stText},
		{"pid", pid, stText},
		{"cost per hour", money(w.HourCost), stText},
	}
	if w.HourCost == nil && w.State == api.Ready {
		figs[len(figs)-1] = fig{"cost per hour", "not set", stWarn}
	}
	if gpus != "" {
		vram, power, temp := unknown, unknown, unknown
		if known(g.used) && known(g.total) {
			vram = decimals(g.used/(1<<30), 1) + "/" + decimals(g.total/(1<<30), 0) + " GiB"
		}
		if known(g.power) {
			power = decimals(g.power, 0) + " W"
		}
		if known(g.temp) {
			temp = decimals(g.temp, 0) + "°C"
		}
		figs = append(figs, fig{"GPUs", gpus, stText}, fig{"utilisation", percentInt(g.util), stText}, fig{"VRAM", vram, stText}, fig{"power, temp", power + " " + temp, stText})
	}
	if w.Accept != nil {
		figs = append(figs, fig{"spec accept", percentInt(*w.Accept), stText})
	}
	if w.State == api.Asleep {
		figs[0].v += ", level " + whole(w.Level)
	}
	if n := len(w.Fixed); n > 0 {
		figs = append(figs, fig{"by order", plural(int64(n), "argument", "arguments"), stWarn})
	}
	if serves(w) {
		return figs
	}
	return slices.DeleteFunc(figs, func(f fig) bool { return f.v == unknown })
}

// serves says that a worker is up, so that its figures are of now.
func serves(w *api.Worker) bool { return w.State == api.Ready || w.State == api.Draining }

// workerFigures is a grid of figures over the worker's throughput, or, while it does not serve,
// over the end of its log.
func (c *Console) workerFigures(p *panel, w *api.Worker) {
	figs := c.figures(w)
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
	switch {
	case p.free() < 3:
	case !serves(w) && !c.shows(paneLogs):
		p.row()
		c.drawLogs(p)
	case p.free() >= 5 && len(w.Trend) > 0:
		c.workerTrend(p, w)
	}
}

// shows says that a pane is on screen.
func (c *Console) shows(id paneID) bool {
	return slices.ContainsFunc(c.rects, func(r Rect) bool { return r.Pane == id })
}

func (c *Console) workerTrend(p *panel, w *api.Worker) {
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
	ch := chart{graph: c.graph, upper: pts, top: c.scaleOf("worker "+w.Name, peakOf(pts), 10), label: axisRate, ramp: [3]style{stA, stA2, stA3}, dim: n, cursor: -1, span: api.Span(2 * time.Minute)}
	ch.draw(p, min(p.free()-1, 16), true)
}

func severity2(v, warn, bad float64) style {
	if st := severity(v, warn, bad); st == stWarn || st == stBad {
		return st
	}
	return stText
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
