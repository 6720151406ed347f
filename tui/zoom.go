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
		v, when := c.under(w, b.s)
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
	out := asciigraph.Plot(pts, asciigraph.Height(height-1), asciigraph.LowerBound(0), asciigraph.UpperBound(nice(peakOf(pts))),
		asciigraph.YAxisValueFormatter(func(v float64) string {
			t := string(b.label(math.Max(v, 0)))
			return strings.Repeat(" ", max(7-len([]rune(t)), 0)) + t
		}))
	var rows []Text
	for l := range strings.SplitSeq(out, "\n") {
		rows = append(rows, clean(l).cut(width))
	}
	return rows
}
