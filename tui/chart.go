package tui

import (
	"math"
	"time"
	"unicode/utf8"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// fold says how several buckets become one point.
type fold uint8

const (
	foldMax  fold = iota // latencies: a spike must stay
	foldMean             // rates: the sum over the time it took
)

// points folds a series of a window into n points, oldest first, NaN where nothing is known. Points
// lie on multiples of span/n of the wall clock, so that a point, once passed, keeps its value
// and the chart moves only when a new one begins.
func points(w *api.Window, s api.Series, n int, f fold) []float64 {
	out := make([]float64, max(n, 0))
	for i := range out {
		out[i] = math.NaN()
	}
	bucket := int64(w.Bucket)
	newest, step := newestPoint(w, n)
	if step <= 0 || len(s) == 0 {
		return out
	}
	end := w.End.UnixNano()
	start := end - int64(len(s))*bucket
	counts := make([]int, len(out))
	for j, v := range s {
		i := n - 1 - int(newest-(start+int64(j)*bucket)/step)
		if i < 0 || i >= n || !known(v) {
			continue
		}
		switch {
		case counts[i] == 0:
			out[i] = v
		case f == foldMax:
			out[i] = math.Max(out[i], v)
		default:
			out[i] += v
		}
		counts[i]++
	}
	for i, c := range counts {
		if c > 1 && f == foldMean {
			out[i] /= float64(c)
		}
	}
	if step < bucket { // wider than its data: a bucket fills all the points it covers
		for i := range out {
			t := (newest - int64(n-1-i)) * step
			if t >= start && t < end {
				if v := s[(t-start)/bucket]; known(v) {
					out[i] = v
				} else {
					out[i] = math.NaN()
				}
			}
		}
	}
	return out
}

// newestPoint is the number of the last of n points since the epoch, and how long one is in
// nanoseconds; 0 where there can be none. A point begins with the first bucket that begins in it:
// else the chart would end in a hole whenever the clock has passed into a point but no bucket has.
func newestPoint(w *api.Window, n int) (newest, step int64) {
	if n <= 0 || w.Bucket <= 0 || w.Span <= 0 {
		return 0, 0
	}
	if step = int64(w.Span) / int64(n); step <= 0 {
		return 0, 0
	}
	end := w.End.UnixNano()
	if step < int64(w.Bucket) {
		return (end - 1) / step, step
	}
	return (end - int64(w.Bucket)) / step, step
}

// cellPoints is points for a chart with per of them in a cell. It moves by blocks of cells, at the
// price of some at its right that are empty until their time has come: moved by each point, every
// cell of the chart would be sent with it.
func cellPoints(w *api.Window, s api.Series, n, per int, f fold) []float64 {
	pts := points(w, s, n, f)
	for range min(ahead(w, n, per), len(pts)) {
		pts = append(pts[1:], math.NaN())
	}
	return pts
}

// moveEvery is how often a chart moves at most.
const moveEvery = 3 * time.Second

// block is how many points a chart of n moves by: whole cells, and a tenth of it at most.
func block(n, per int, step int64) int {
	cell := int64(per) * step
	if cell <= 0 {
		return per
	}
	cells := (int64(moveEvery) + cell - 1) / cell
	return per * int(max(min(cells, int64(n/per/10)), 1))
}

// ahead is how many points of a chart's last block have not begun.
func ahead(w *api.Window, n, per int) int {
	newest, step := newestPoint(w, n)
	size := int64(block(n, per, step))
	return int(size - 1 - newest%size)
}

// partialFrom is the first of n points of a chart that is still filling.
func partialFrom(w *api.Window, n int) int {
	newest, step := newestPoint(w, n)
	if step <= 0 || w.Partial >= 1 {
		return n
	}
	return n - 1 - int(newest-(w.End.UnixNano()-int64(w.Bucket))/step) - ahead(w, n, 2)
}

// nice is the least top of an axis for v: a small multiple of a 1-2-5 step, so that its half is a
// round number too and little of the chart stays empty.
func nice(v float64) float64 {
	if !known(v) || v <= 0 {
		return 1
	}
	base := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range [...]float64{1, 1.5, 2, 3, 4, 5, 6, 8, 10} {
		if v <= m*base*(1+1e-9) {
			return m * base
		}
	}
	return 10 * base
}

// scale is the upper end of one chart's axis. It grows at once and shrinks only when a lower one
// would have done for 30 s, so that the axis does not jump with every tick.
type scale struct {
	top  float64
	low  time.Time // since when a lower one would do
	need float64   // the greatest that was needed since
}

const shrinkAfter = 30 * time.Second

func (s *scale) fit(peak, least float64, now time.Time) float64 {
	want := nice(math.Max(peak, least))
	switch {
	case s.top == 0 || want > s.top:
		s.top, s.low = want, time.Time{}
	case want == s.top:
		s.low = time.Time{}
	case s.low.IsZero():
		s.low, s.need = now, want
	default:
		s.need = math.Max(s.need, want)
		if now.Sub(s.low) >= shrinkAfter {
			s.top, s.low = s.need, time.Time{}
		}
	}
	return s.top
}

func peakOf(vs ...[]float64) float64 {
	top := 0.0
	for _, s := range vs {
		for _, v := range s {
			if known(v) && v > top {
				top = v
			}
		}
	}
	return top
}

// Graph styles.
const (
	graphBraille = "braille"
	graphBlock   = "block"
	graphASCII   = "ascii"
)

// chart is an area over time: one series, or two of which the second is the lower (p95 and p50).
type chart struct {
	graph  string
	upper  []float64 // two points a cell
	lower  []float64 // nil: none
	top    float64
	label  func(float64) Text
	ramp   [3]style // from the top of the area to its foot
	below  [2]style // the lower series
	dim    int      // first point that is still filling
	cursor int      // cell of the chart cursor, -1 for none
	span   api.Span
}

const axisWidth = 6 // "1.20k┤"

// chartPoints is how many points fit a pane of this width.
func chartPoints(width int) int { return max(width-axisWidth, 0) * 2 }

var (
	brailleLeft  = [5]rune{0, 0x40, 0x44, 0x46, 0x47}
	brailleRight = [5]rune{0, 0x80, 0xa0, 0xb0, 0xb8}
)

// draw writes the chart in rows lines, and a line of times below it if axis is set.
func (c *chart) draw(p *panel, rows int, axis bool) {
	if rows <= 0 {
		return
	}
	cells := len(c.upper) / 2
	levels := rows * 4
	at := func(s []float64, i int) int {
		if i >= len(s) || !known(s[i]) || s[i] <= 0 || c.top <= 0 {
			return 0
		}
		return min(max(int(math.Round(s[i]/c.top*float64(levels))), 1), levels)
	}
	middle := (rows - 1) / 2 // its upper edge is half of the top, or its centre where rows is odd
	for r := rows - 1; r >= 0; r-- {
		l := p.row()
		switch {
		case r == rows-1:
			l.rcell(stDim, c.label(c.top), axisWidth-1).put(stFaint, p.g.tick)
		case r == 0:
			l.rcell(stDim, "0", axisWidth-1).put(stFaint, p.g.tick)
		case r == middle && rows >= 4:
			l.rcell(stDim, c.label(c.top/2), axisWidth-1).put(stFaint, p.g.tick)
		default:
			l.gap(axisWidth-1).put(stFaint, p.g.axis)
		}
		st := c.ramp[min((rows-1-r)*len(c.ramp)/rows, len(c.ramp)-1)]
		for x := range cells {
			a := min(max(at(c.upper, 2*x)-4*r, 0), 4)
			b := min(max(at(c.upper, 2*x+1)-4*r, 0), 4)
			one := st
			if c.lower != nil && max(at(c.lower, 2*x), at(c.lower, 2*x+1)) >= 4*r+2 {
				one = c.below[min((rows-1-r)*2/rows, 1)]
			}
			if 2*x+1 >= c.dim {
				one = stFaint
			}
			switch {
			case x == c.cursor && a+b == 0:
				l.put(stCursor, p.g.marker)
			case x == c.cursor:
				c.cell(l, stCursor, a, b)
			case a+b == 0:
				l.gap(1)
			default:
				c.cell(l, one, a, b)
			}
		}
	}
	if axis {
		timeAxis(p.row(), c.span, cells)
	}
}

// cell writes one cell of an area whose left half is a and whose right half is b quarters high.
func (c *chart) cell(l *line, st style, a, b int) {
	switch c.graph {
	case graphASCII:
		l.put(st, [...]Text{" ", ".", ":", "|", "#"}[max(a, b)])
	case graphBlock:
		l.put(st, [...]Text{" ", "▂", "▄", "▆", "█"}[max(a, b)])
	default:
		l.use(st)
		if l.left() > 0 {
			l.buf = utf8.AppendRune(l.buf, 0x2800+brailleLeft[a]+brailleRight[b])
			l.used++
		}
	}
}

// timeAxis writes how long ago the ends and the middle of a chart are.
func timeAxis(l *line, span api.Span, cells int) {
	first, half := "-"+windowName(span), "-"+halfOf(span)
	l.gap(axisWidth).put(stFaint, first)
	if mid := axisWidth + cells/2 - half.width()/2; mid > l.used+2 && cells > 30 {
		l.to(mid).put(stFaint, half)
	}
	l.to(axisWidth+cells-3).put(stFaint, "now")
}

func halfOf(s api.Span) Text {
	switch d := time.Duration(s) / 2; {
	case d < time.Minute:
		return whole(int(d/time.Second)) + "s"
	case d < time.Hour && d%time.Minute != 0:
		return whole(int(d/time.Minute)) + "m" + whole(int(d%time.Minute/time.Second))
	case d < time.Hour:
		return whole(int(d/time.Minute)) + "m"
	case d < 24*time.Hour && d%time.Hour != 0:
		return whole(int(d/time.Hour)) + "h" + whole(int(d%time.Hour/time.Minute))
	case d < 48*time.Hour:
		return whole(int(d/time.Hour)) + "h"
	default:
		return decimals(d.Hours()/24, 1) + "d"
	}
}

// spark1 writes a series as one row of n cells. The greatest is not full height: rows of sparks
// under each other must not run into one.
func (g *glyphs) spark1(l *line, st style, vs []float64, top float64) {
	if top <= 0 {
		top = peakOf(vs)
	}
	for _, v := range vs {
		switch {
		case !known(v):
			l.gap(1)
		case v <= 0 || top <= 0:
			l.put(stFaint, g.spark[1])
		default:
			l.put(st, g.spark[min(max(int(math.Ceil(v/top*7)), 1), 7)])
		}
	}
}

// tail gives the last n values, with unknown ones before them if there are fewer.
func tail(s api.Series, n int) []float64 {
	out := make([]float64, max(n, 0))
	for i := range out {
		out[i] = math.NaN()
		if j := len(s) - len(out) + i; j >= 0 {
			out[i] = s[j]
		}
	}
	return out
}

// bar writes a horizontal bar of a share of n cells, in eighths.
func (g *glyphs) bar(l *line, st style, share float64, n int) {
	end := l.used + n
	if known(share) && share > 0 && n > 0 {
		e := min(max(int(math.Round(math.Min(share, 1)*float64(n)*8)), 1), n*8)
		l.fill(st, g.block, e/8).put(st, g.eighths[e%8])
	}
	l.to(end)
}

// gauge writes how full something is in n cells.
func (g *glyphs) gauge(l *line, st style, share float64, n int) {
	if !known(share) {
		l.fill(stFaint, g.rest, n)
		return
	}
	on := min(max(int(math.Round(share*float64(n))), 0), n)
	if share > 0 && on == 0 {
		on = 1
	}
	l.fill(st, g.on, on).fill(stFaint, g.rest, n-on)
}
