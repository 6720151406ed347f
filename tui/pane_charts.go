package tui

import (
	"math"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// scaleOf fits the axis of a chart, named so that two charts keep their own.
func (c *Console) scaleOf(name string, peak, least float64) float64 {
	s := c.scales[name]
	if s == nil {
		s = &scale{}
		c.scales[name] = s
	}
	return s.fit(peak, least, c.snap.Time)
}

// cursorCell is the cell of the chart cursor among n points, -1 if it is off.
func (c *Console) cursorCell(w *api.Window, n int) int {
	newest, step := newestPoint(w, n)
	if c.cursor < 0 || step <= 0 {
		return -1
	}
	t := w.End.UnixNano() - int64(c.cursor+1)*int64(w.Bucket)
	return (n - 1 - int(newest-t/step) - ahead(w, n, 2)) / 2
}

// under is the value of a series under the chart cursor, or what it was lately, and when that is.
func (c *Console) under(w *api.Window, s api.Series, f fold) (float64, Text) {
	if c.cursor < 0 {
		return lately(w, s, f), ""
	}
	ago := "-" + long(time.Duration(c.cursor)*time.Duration(w.Bucket)+time.Duration(w.Bucket)/2)
	if i := len(s) - 1 - c.cursor; i >= 0 {
		return s[i], ago
	}
	return math.NaN(), ago
}

// lately folds the full buckets of the last five seconds, or the last one where it is longer: one
// of half a second alone would jump about.
func lately(w *api.Window, s api.Series, f fold) float64 {
	end := len(s)
	if end >= 2 && w.Partial < 1 {
		end--
	}
	n := 1
	if w.Bucket > 0 {
		n = int((5*time.Second + time.Duration(w.Bucket) - 1) / time.Duration(w.Bucket))
	}
	out, count := math.NaN(), 0.0
	for _, v := range s[max(end-n, 0):end] {
		switch {
		case !known(v):
			continue
		case count == 0:
			out = v
		case f == foldMax:
			out = math.Max(out, v)
		default:
			out += v
		}
		count++
	}
	if f == foldMean && count > 1 {
		out /= count
	}
	return out
}

func (p *panel) showAt(when Text) {
	if when != "" {
		p.show(stCursor, "at "+when)
	}
}

func (c *Console) drawThroughput(p *panel) {
	w := c.win()
	if w == nil || c.noPoints() {
		p.show(stDim, "no traffic yet")
		p.row().put(stDim, "no traffic yet")
		return
	}
	if c.zoomed(p) {
		c.bigCharts(p, w, []bigChart{{"output tokens/s", w.Output, foldMean, rate, stA}, {"requests/s", w.Requests, foldMean, rate, stB}, {"in flight", w.InFlight, foldMean, rate, stC}})
		return
	}
	out, when := c.under(w, w.Output, foldMean)
	req, _ := c.under(w, w.Requests, foldMean)
	p.showAt(when)
	p.show(stStrong, rate(out)+" tok/s")
	p.show(stText, rate(req)+" req/s")
	n := chartPoints(p.width())
	pts := cellPoints(w, w.Output, n, 2, foldMean)
	extra := 0
	switch h := p.height(); {
	case h >= 11:
		extra = 4
	case h >= 9:
		extra = 3
	case h >= 7:
		extra = 2
	case h >= 6:
		extra = 1
	}
	ch := chart{
		graph: c.graph, upper: pts, top: c.scaleOf("out", peakOf(pts), 10), label: axisRate, ramp: [3]style{stA, stA2, stA3},
		dim: partialFrom(w, n), cursor: c.cursorCell(w, n), span: w.Span,
	}
	ch.draw(p, p.free()-extra-1, true)
	c.throughputRows(p, w, extra)
}

// throughputRows are the one-line figures below the chart.
func (c *Console) throughputRows(p *panel, w *api.Window, n int) {
	cells := p.width() - 24
	sparkRow := func(name Text, s api.Series, st style, f fold, unit Text) {
		l := p.row()
		l.cell(stDim, name, axisWidth-1).gap(1)
		vs := cellPoints(w, s, max(cells, 0), 1, f)
		c.g.spark1(l, st, vs, 0)
		v, _ := c.under(w, s, f)
		l.gap(1).rcell(stText, rate(v), 6).gap(1).put(stDim, unit)
	}
	if n >= 2 && cells >= 8 {
		sparkRow("req", w.Requests, stB2, foldMean, "req/s")
	}
	if n >= 4 && cells >= 8 {
		sparkRow("run", w.InFlight, stC2, foldMean, "in flight")
	}
	if n >= 3 && cells >= 8 {
		sparkRow("prmpt", w.Prompt, stA3, foldMean, "tok/s in")
	}
	if n >= 1 {
		l := p.row()
		t := c.snap.Traffic
		share := errorShare(w)
		l.put(stDim, "peak ").put(stText, rate(w.PeakOutput)).gap(2).put(stDim, "errors ").put(share.st, share.t)
		for _, f := range []struct {
			name Text
			n    int64
		}{{"rejected", w.Rejected}, {"cancelled", w.Cancelled}, {"moved", t.Moved}} {
			if v := count(f.n); f.n > 0 && l.left() > f.name.width()+v.width()+3 {
				l.gap(2).put(stDim, f.name).gap(1).put(stText, v)
			}
		}
	}
}

func (c *Console) zoomed(p *panel) bool {
	return c.zoom != paneNone && p.height() >= 12 && p.width() >= 40
}

func (c *Console) drawLatency(p *panel) {
	w := c.win()
	if w == nil || c.noPoints() {
		p.show(stDim, "no traffic yet")
		p.row().put(stDim, "no traffic yet")
		return
	}
	if c.zoomed(p) {
		c.bigCharts(p, w, []bigChart{{"TTFT p95", w.TTFT95, foldMax, seconds, stA}, {"TTFT p50", w.TTFT50, foldMax, seconds, stB}, {"E2E p95", w.E2E95, foldMax, seconds, stC}})
		return
	}
	v, when := c.under(w, w.TTFT95, foldMax)
	p.showAt(when)
	if when == "" { // the last is what stays where there is no room for both
		p.show(stB, "p50 "+seconds(val(w.TTFT.P50)))
		p.show(stA, "TTFT p95 "+quantile(w.TTFT.P95, w.TTFT.Count, 20))
	} else {
		v50, _ := c.under(w, w.TTFT50, foldMax)
		p.show(stB, "p50 "+seconds(v50))
		p.show(stA, "TTFT p95 "+seconds(v))
	}
	table := 5
	if p.height() < 9 {
		table = 0
	}
	n := chartPoints(p.width())
	hi, lo := cellPoints(w, w.TTFT95, n, 2, foldMax), cellPoints(w, w.TTFT50, n, 2, foldMax)
	ch := chart{
		graph: c.graph, upper: hi, lower: lo, top: c.scaleOf("ttft", peakOf(hi, lo), 0.01), label: axisSeconds,
		ramp: [3]style{stA, stA2, stA2}, below: [2]style{stB, stB2}, dim: partialFrom(w, n), cursor: c.cursorCell(w, n), span: w.Span,
	}
	rows := p.free() - table - 1
	ch.draw(p, rows, true)
	if table > 0 {
		c.quantiles(p, w)
	}
}

// axisSeconds labels an axis in at most five cells.
func axisSeconds(v float64) Text {
	switch {
	case v < 0.001:
		return decimals(v*1e6, 0) + "µs"
	case v < 1:
		return decimals(v*1e3, 0) + "ms"
	case v < 10 && v != math.Trunc(v):
		return decimals(v, 1) + "s"
	case v < 1000:
		return decimals(v, 0) + "s"
	}
	return rate(v) + "s"
}

// quantile writes a quantile with a mark where there are fewer samples than it needs.
func quantile(v *float64, n, need int64) Text {
	if v == nil {
		return unknown
	}
	if n < need {
		return "~" + seconds(*v)
	}
	return seconds(*v)
}

func (c *Console) quantiles(p *panel, w *api.Window) {
	cols := []tcol{
		{head: "", w: 5},
		{head: "p50", w: 6, right: true},
		{head: "p95", w: 7, right: true},
		{head: "p99", w: 7, right: true},
		{head: "mean", w: 6, right: true, drop: 3},
		{head: "max", w: 6, right: true, drop: 2},
		{head: "n", w: 5, right: true, drop: 4},
		{head: "p95 trend", w: 9, max: 30, drop: 1},
	}
	ws := fit(cols, p.width())
	p.head(cols, ws)
	for _, r := range []struct {
		name Text
		q    api.Quantiles
		s    api.Series
	}{{"TTFT", w.TTFT, w.TTFT95}, {"E2E", w.E2E, w.E2E95}, {"ITL", w.ITL, w.ITL95}, {"queue", w.Queue, nil}} {
		l := p.row()
		cells := []Text{r.name, seconds(val(r.q.P50)), quantile(r.q.P95, r.q.Count, 20), quantile(r.q.P99, r.q.Count, 100), seconds(val(r.q.Mean)), seconds(val(r.q.Max)), count(r.q.Count)}
		for i, t := range cells {
			if ws[i] == 0 {
				continue
			}
			switch i {
			case 0:
				l.cell(stDim, t, ws[i])
			case 2:
				l.rcell(stStrong, t, ws[i])
			default:
				l.rcell(stText, t, ws[i])
			}
			l.gap(2)
		}
		if n := ws[7]; n > 0 && r.s != nil {
			c.g.spark1(l, stA3, cellPoints(w, r.s, n, 1, foldMax), 0)
		}
	}
}

func (c *Console) drawStages(p *panel) {
	w := c.win()
	if w == nil || c.noPoints() {
		p.show(stDim, "no traffic yet")
		p.row().put(stDim, "no traffic yet")
		return
	}
	if c.zoomed(p) {
		c.bigCharts(p, w, []bigChart{{"E2E p95", w.E2E95, foldMax, seconds, stC}, {"ITL p95", w.ITL95, foldMax, seconds, stB}})
		return
	}
	v, when := c.under(w, w.E2E95, foldMax)
	p.showAt(when)
	p.show(stDim, "E2E p95")
	if when == "" {
		p.show(stStrong, quantile(w.E2E.P95, w.E2E.Count, 20))
	} else {
		p.show(stStrong, seconds(v))
	}
	n := chartPoints(p.width())
	upper := max((p.height()-2)/2, 3)
	e := cellPoints(w, w.E2E95, n, 2, foldMax)
	ch := chart{
		graph: c.graph, upper: e, top: c.scaleOf("e2e", peakOf(e), 0.1), label: axisSeconds, ramp: [3]style{stC, stC2, stC2},
		dim: partialFrom(w, n), cursor: c.cursorCell(w, n), span: w.Span,
	}
	ch.draw(p, upper, false)
	if p.free() < 4 {
		return
	}
	itl := quantile(w.ITL.P95, w.ITL.Count, 20)
	if v, when := c.under(w, w.ITL95, foldMax); when != "" {
		itl = seconds(v)
	}
	p.row().gap(axisWidth).put(stDim, "ITL p95 ").put(stStrong, itl).put(stDim, " between tokens")
	g := cellPoints(w, w.ITL95, n, 2, foldMax)
	ch = chart{
		graph: c.graph, upper: g, top: c.scaleOf("itl", peakOf(g), 0.001), label: axisSeconds, ramp: [3]style{stB, stB2, stB2},
		dim: ch.dim, cursor: ch.cursor, span: w.Span,
	}
	ch.draw(p, p.free()-1, true)
}
