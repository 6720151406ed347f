package tui

import (
	"math"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// stateMark is the sign of a worker's state and its severity.
func (c *Console) stateMark(w *api.Worker) (style, Text) {
	switch {
	case w.Blocked != "" && !serves(w):
		return stWarn, c.g.wait
	case w.State == api.Failed:
		return stBad, c.g.bad
	case w.Stalled:
		return stBad, c.g.warn
	case w.State == api.Starting:
		return stA, c.g.wait
	case w.State == api.Draining || w.State == api.Stopping:
		return stWarn, c.g.down
	case w.State == api.Stopped, w.State == api.Asleep:
		return stDim, c.g.off
	case w.KV != nil && *w.KV >= 0.95 || w.Preempt != nil && *w.Preempt > 0:
		return stWarn, c.g.warn
	case w.State == api.Ready:
		return stOK, c.g.ok
	}
	return stDim, "?"
}

func (c *Console) stateWord(w *api.Worker) Text {
	switch {
	case w.Blocked != "" && !serves(w):
		return "blocked"
	case c.rolled(w):
		return "rolling"
	case w.State == api.Draining && w.Phase == api.PhaseSleeping:
		return "to sleep"
	case w.State == api.Asleep && w.Phase == api.PhaseWaking:
		return "waking"
	case w.State == api.Ready && w.Stalled:
		return "stalled"
	case w.State == api.Ready && w.Preempt != nil && *w.Preempt > 0:
		return "preempts"
	case w.State == api.Ready && w.KV != nil && *w.KV >= 0.95:
		return "KV full"
	}
	return clean(string(w.State))
}

// rolled says that a rolling restart is at a worker.
func (c *Console) rolled(w *api.Worker) bool {
	r := c.rollOf(w.Model)
	return r != nil && w.State != api.Ready && w.State != api.Failed && r.Done < len(r.Workers) && r.Workers[r.Done] == w.Name
}

// cards sums up the GPUs of a worker; n is how many of them are known.
type cards struct {
	n                        int
	util, temp, power, limit float64
	used, total              float64
}

func (c *Console) cardsOf(w *api.Worker) cards {
	nan := math.NaN()
	out := cards{util: nan, temp: nan, power: nan, limit: nan, used: nan, total: nan}
	sum := func(to *float64, v float64) {
		if math.IsNaN(*to) {
			*to = 0
		}
		*to += v
	}
	utils := 0
	for i := range c.snap.GPUs {
		g := &c.snap.GPUs[i]
		for _, id := range w.GPUs {
			if id == "" || id != g.Index && id != g.UUID {
				continue
			}
			out.n++
			if g.Utilisation != nil {
				sum(&out.util, *g.Utilisation)
				utils++
			}
			if g.Temperature != nil && !(out.temp >= *g.Temperature) {
				out.temp = *g.Temperature
			}
			if g.Power != nil {
				sum(&out.power, *g.Power)
			}
			if g.PowerLimit != nil {
				sum(&out.limit, *g.PowerLimit)
			}
			if g.MemoryUsed != nil {
				sum(&out.used, float64(*g.MemoryUsed))
			}
			if g.MemoryTotal != nil {
				sum(&out.total, float64(*g.MemoryTotal))
			}
		}
	}
	if utils > 0 {
		out.util /= float64(utils)
	}
	return out
}

const (
	colName = iota
	colModel
	colState
	colUtil
	colVRAM
	colKV
	colRun
	colTok
	colTTFT
	colHit
	colPreempt
	colSpec
	colTemp
	colPower
	colCPU
	colRSS
	colUp
	colTrend
)

func (c *Console) workerCols(ws []api.Worker, width int) []tcol {
	name, model, gpu, spec := 4, 8, false, false
	for i := range ws {
		name = min(max(name, clean(ws[i].Name).width()), 20)
		model = min(max(model, clean(ws[i].Model).width()), 34)
		gpu = gpu || c.cardsOf(&ws[i]).n > 0
		spec = spec || ws[i].Accept != nil
	}
	name = max(name, 6)
	least, leastModel := 11, 12 // narrow tables cut names before they drop figures
	if width >= 100 {
		least = 16
	}
	if width >= 150 {
		leastModel = 20
	}
	cols := []tcol{
		colName:  {head: "WORKER", w: min(name, least), max: name},
		colModel: {head: "MODEL", w: min(model, leastModel), max: model, drop: 5},
		colState: {head: "STATE", w: 10},
		colUtil:  {head: "GPU", w: 11, drop: 6}, colVRAM: {head: "VRAM", w: 9, right: true, drop: 9},
		colKV: {head: "KV", w: 11}, colRun: {head: "RUN/Q", w: 6, right: true},
		colTok: {head: "TOK/S", w: 5, right: true, drop: 1}, colTTFT: {head: "TTFT95", w: 6, right: true, drop: 4},
		colHit: {head: "HIT", w: 4, right: true, drop: 12}, colPreempt: {head: "PRE/S", w: 5, right: true, drop: 15}, colSpec: {head: "SPEC", w: 4, right: true, drop: 16}, colTemp: {head: "TEMP", w: 4, right: true, drop: 10},
		colPower: {head: "POWER", w: 8, right: true, drop: 11}, colCPU: {head: "CPU", w: 5, right: true, drop: 7}, colRSS: {head: "RSS", w: 5, right: true, drop: 8},
		colUp: {head: "UP", w: 4, right: true, drop: 13}, colTrend: {head: "TOK/S, LAST 2 MIN", w: 18, max: 60, drop: 14},
	}
	if c.view == viewWorkers { // the selected one's chart is below
		cols[colTrend].drop = 20
	}
	if !spec {
		cols[colSpec].w = 0
	}
	if gpu { // cores and memory of the host matter where there is no card
		cols[colCPU].w, cols[colRSS].w = 0, 0
	} else {
		cols[colUtil].w, cols[colVRAM].w, cols[colTemp].w, cols[colPower].w = 0, 0, 0, 0
	}
	return cols
}

func (c *Console) drawWorkers(p *panel) {
	rows := c.workerRows()
	ready := 0
	for i := range rows {
		if rows[i].State == api.Ready {
			ready++
		}
	}
	if h := &c.snap.Host; h.CPU != nil && p.w >= 100 {
		// The host's other business must not redraw a screen at rest.
		const half = 0.5
		free := size(int64(c.steady("host memory", float64(h.MemoryFree), 1<<30))) + " free of " + size(h.MemoryTotal)
		if c.resting {
			p.show(stDim, "host "+plural(int64(h.CPUs), "core", "cores")+", "+free)
		} else {
			cpu := c.steady("host cpu", *h.CPU, half)
			p.show(stDim, "host "+decimals(math.Round(cpu/half)*half, 1)+" of "+whole(h.CPUs)+" cores, "+free)
		}
	}
	if t := c.orderText(paneWorkers); t != "" {
		p.show(stKey, t)
	}
	for i := range c.snap.Rolls {
		if r := &c.snap.Rolls[i]; r.State == "running" {
			p.show(stA, "rolling "+clean(r.Model).cut(24)+" "+whole(r.Done)+"/"+whole(len(r.Workers)))
		}
	}
	if c.view == viewOverview {
		if n := len(c.snap.Strays); n > 0 {
			p.show(stWarn, plural(int64(n), "stray", "strays"))
		}
		if n := len(c.snap.Advice); n > 0 {
			p.show(stWarn, whole(n)+" to improve")
		}
	}
	p.show(stDim, whole(ready)+" of "+whole(len(rows))+" ready")
	if len(rows) == 0 {
		if c.filters[paneWorkers].text != "" {
			p.row().put(stDim, "no worker matches the filter, esc clears it")
		} else {
			p.row().put(stDim, "no workers; add some under workers: in the config, then :reload")
		}
		return
	}
	cols := c.workerCols(rows, p.width())
	cols[0].w += 2 // the mark
	cols[0].max += 2
	ws := fit(cols, p.width())
	cols[0].head = "  WORKER"
	if p.height() > 1 {
		p.head(cols, ws)
	}
	c.workers.n = len(rows)
	trouble := append(c.trouble(p.width()), c.rollNotes()...)
	if len(trouble) > p.free()-min(len(rows), 2) {
		trouble = nil
	}
	from, to := c.workers.window(p.free() - len(trouble))
	for i := from; i < to; i++ {
		c.workerRow(p, &rows[i], ws, i == c.workers.sel)
	}
	for _, t := range trouble {
		p.row().gap(2).put(t.st, t.t)
	}
	if hidden := len(rows) - (to - from); hidden > 0 {
		p.foot = whole(hidden) + " more, j k"
		if !p.boxed {
			p.value = append([]part{{stWarn, whole(hidden) + " more"}}, p.value...)
		}
	}
}

func (c *Console) workerRow(p *panel, w *api.Worker, ws []int, sel bool) {
	l := p.selected(sel)
	st, mark := c.stateMark(w)
	l.put(st, mark).gap(1).cell(stText, clean(w.Name), ws[colName]-2).gap(2)
	if ws[colModel] > 0 {
		l.cell(stDim, clean(w.Model), ws[colModel]).gap(2)
	}
	switch w.State {
	case api.Failed, api.Starting, api.Stopped, api.Stopping, api.Asleep:
		c.workerStory(l, w, st)
		return
	}
	l.cell(st, c.stateWord(w), ws[colState]).gap(2)
	g := c.cardsOf(w)
	meter := func(col int, v float64, warn, bad float64) {
		if n := ws[col]; n > 0 {
			c.g.gauge(l, severity(v, warn, bad), v, n-5)
			l.gap(1).rcell(stText, percentInt(v), 4).gap(2)
		}
	}
	num := func(col int, st style, t Text) {
		if n := ws[col]; n > 0 {
			l.rcell(st, t, n).gap(2)
		}
	}
	meter(colUtil, g.util, 2, 2)
	if known(g.used) && known(g.total) {
		num(colVRAM, stText, decimals(g.used/(1<<30), 0)+"/"+decimals(g.total/(1<<30), 0)+"G")
	} else {
		num(colVRAM, stText, unknown)
	}
	meter(colKV, val(w.KV), 0.85, 0.95)
	run := decimals(val(w.Running), 0)
	if w.Waiting != nil || w.Running != nil {
		run += "/" + decimals(val(w.Waiting), 0)
	}
	num(colRun, waitStyle(w), run)
	num(colTok, stStrong, rate(val(w.OutRate)))
	num(colTTFT, stText, seconds(val(w.TTFT95)))
	num(colHit, stText, percentInt(val(w.Prefix)))
	num(colPreempt, severity2(val(w.Preempt), 1e-9, 1), rate(val(w.Preempt)))
	num(colSpec, stText, percentInt(val(w.Accept)))
	if known(g.temp) {
		num(colTemp, severity2(g.temp, 83, 90), decimals(g.temp, 0)+"°")
	} else {
		num(colTemp, stText, unknown)
	}
	power := unknown
	if known(g.power) {
		power = decimals(g.power, 0)
		if known(g.limit) {
			power += "/" + decimals(g.limit, 0)
		}
		power += "W"
	}
	num(colPower, stText, power)
	num(colCPU, stText, cores(c.steady("cpu "+w.Name, val(w.CPU), 0.05)))
	if w.RSS > 0 {
		num(colRSS, stText, size(w.RSS))
	} else {
		num(colRSS, stText, unknown)
	}
	num(colUp, stDim, age(c.snap.Time.Sub(w.Since)))
	if n := ws[colTrend]; n > 0 {
		c.g.spark1(l, stA3, tail(w.Trend, n), 0)
	}
}

// severity colours a value by two limits; below the first it is plain.
func severity(v, warn, bad float64) style {
	switch {
	case !known(v):
		return stFaint
	case v >= bad:
		return stBad
	case v >= warn:
		return stWarn
	}
	return stA2
}

func waitStyle(w *api.Worker) style {
	if w.Waiting != nil && *w.Waiting >= 10 {
		return stWarn
	}
	return stText
}
