package tui

import (
	"math"
	"strings"

	"github.com/guptarohit/asciigraph"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// bigChart is one series of a zoomed pane.
type bigChart struct {
	name  Text
	s     api.Series
	f     fold
	label func(float64) Text
	st    style
}

// bigCharts stacks zoomed charts with full axes, as many as have room for eight rows.
func (c *Console) bigCharts(p *panel, w *api.Window, charts []bigChart) {
	p.show(stDim, "last "+windowName(w.Span)+", "+windowName2(w.Bucket)+" a bucket")
	charts = charts[:max(min(len(charts), p.height()/9), 1)]
	for i, b := range charts {
		rows := p.free() / (len(charts) - i)
		v, when := c.under(w, b.s, b.f)
		l := p.row()
		l.put(b.st, p.g.block).gap(1).put(stTitle, b.name).gap(2)
		if when != "" {
			l.put(stCursor, "at "+when+" ")
		}
		l.put(stStrong, b.label(v)).gap(2)
		top := peakOf(b.s)
		l.put(stDim, "greatest ").put(stText, b.label(top))
		for _, row := range plot(b, w, p.width(), rows-3) {
			l := p.row()
			if i := strings.IndexAny(string(row), "┤┼"); i >= 0 {
				axis := row[:i+len("┤")]
				l.put(stDim, axis[:i]).put(stFaint, axis[i:]).put(b.st, row[len(axis):])
			} else {
				l.put(stDim, row)
			}
		}
		axis := p.row()
		timeAxis(axis, w.Span, p.width()-axisWidth-2)
	}
}

func windowName2(s api.Span) Text { return span(s) }

// steps gives the least round step with which at most rows of them reach up to peak, and how many do.
func steps(peak float64, rows int) (float64, int) {
	if !(peak > 0) || peak > 1e300 {
		peak = 1
	}
	base := math.Pow(10, math.Floor(math.Log10(peak/float64(max(rows, 1)))))
	for _, m := range [...]float64{1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10} {
		if n := int(math.Ceil(peak/(m*base) - 1e-9)); n <= rows {
			return m * base, max(n, 1)
		}
	}
	return 10 * base, max(rows, 1)
}

// plot draws one series with asciigraph, which panics on an empty series and on infinities and
// draws noise for one that is all unknown: those are said in words. It also interpolates between
// points, which loses spikes: so it is given exactly one point a column, folded here.
func plot(b bigChart, w *api.Window, width, height int) []Text {
	n := width - 10
	if n < 4 || height < 2 {
		return nil
	}
	pts := points(w, b.s, n, b.f)
	known1 := false
	for i, v := range pts {
		if math.IsInf(v, 0) || math.Abs(v) > 1e300 {
			pts[i] = math.NaN()
		}
		known1 = known1 || !math.IsNaN(pts[i])
	}
	if !known1 {
		return []Text{"no data in this window"}
	}
	step, rows := steps(peakOf(pts), height-1)
	out := asciigraph.Plot(pts, asciigraph.Height(rows), asciigraph.LowerBound(0), asciigraph.UpperBound(step*float64(rows)),
		asciigraph.YAxisValueFormatter(func(v float64) string {
			t := string(b.label(math.Max(v, 0)))
			return strings.Repeat(" ", max(7-len([]rune(t)), 0)) + t
		}))
	var lines []Text
	for l := range strings.SplitSeq(out, "\n") {
		lines = append(lines, clean(l).cut(width))
	}
	return lines
}
