package tui

import (
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// glyphs are the signs that frames and marks are made of, in Unicode or in ASCII.
type glyphs struct {
	h, v, tl, tr, bl, br        Text // frame
	ok, warn, bad, wait, off    Text // state, always beside a word or in a column of its own
	cursor                      Text // selected row where colour cannot say it
	on, rest                    Text // gauge
	tick, axis, marker          Text // chart
	up, down, sep, arrow, block Text
	spark                       [9]Text // sparkline, 0 is nothing known
	eighths                     [9]Text // horizontal bar
	super                       [10]Text
}

var unicodeGlyphs = glyphs{
	h: "─", v: "│", tl: "╭", tr: "╮", bl: "╰", br: "╯",
	ok: "✓", warn: "!", bad: "✗", wait: "◌", off: "○", cursor: "▸", on: "━", rest: "─",
	tick: "┤", axis: "│", marker: "│", up: "▲", down: "▼", sep: "·", arrow: "→", block: "█",
	spark:   [9]Text{" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"},
	eighths: [9]Text{"", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"},
	super:   [10]Text{"", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"},
}

var asciiGlyphs = glyphs{
	h: "-", v: "|", tl: "+", tr: "+", bl: "+", br: "+",
	ok: "+", warn: "!", bad: "x", wait: ".", off: "o", cursor: ">", on: "=", rest: ".",
	tick: "+", axis: "|", marker: "|", up: "^", down: "v", sep: "|", arrow: ">", block: "#",
	spark:   [9]Text{" ", "_", "_", ".", ".", "-", "-", "'", "'"},
	eighths: [9]Text{"", "", "", "", "", "", "", "", "#"},
	super:   [10]Text{"", "1 ", "2 ", "3 ", "4 ", "5 ", "6 ", "7 ", "8 ", "9 "},
}

// onlyASCII replaces the few signs that are written in words rather than taken from glyphs, cell for cell.
var onlyASCII = strings.NewReplacer("…", "~", "–", "-", "●", "*", "≈", "~", "°", " ", "µ", "u", "›", ">", "▏", "_", "↑", "^", "↓", "v", "←", "<", "→", ">", "✓", "+", "✗", "x", "◌", ".")

// asciiRow is a row in ASCII alone, cell for cell; what has no counterpart is a question mark.
func asciiRow(row string) string {
	row = onlyASCII.Replace(row)
	if ascii(row) {
		return row
	}
	var b strings.Builder
	for row != "" {
		cluster, width := ansi.FirstGraphemeCluster(row, ansi.GraphemeWidth)
		if cluster == "" {
			break
		}
		if row = row[len(cluster):]; ascii(cluster) {
			b.WriteString(cluster)
		} else {
			b.WriteString(strings.Repeat("?", width))
		}
	}
	return b.String()
}

// part is a styled piece of text.
type part struct {
	st style
	t  Text
}

// panel is one pane being drawn: a frame (a box, or a rule above where rows are scarce) and rows of
// content. It gives back exactly its height in lines of exactly its width, whatever is written.
type panel struct {
	th    *theme
	g     *glyphs
	w, h  int
	boxed bool
	focus bool
	name  Text
	value []part // at the right of the title; dropped from the left where they do not fit
	foot  Text   // in the lower frame
	rows  []*line
}

func newPanel(th *theme, g *glyphs, r Rect, focus bool) *panel {
	return &panel{th: th, g: g, w: r.W, h: r.H, boxed: r.Boxed && r.H >= 3 && r.W >= 6, focus: focus}
}

// width and height of the content.
func (p *panel) width() int {
	if p.boxed {
		return p.w - 4
	}
	return max(p.w-2, 0)
}

func (p *panel) height() int {
	if p.boxed {
		return p.h - 2
	}
	return max(p.h-1, 0)
}

// free is how many rows of content are not written yet.
func (p *panel) free() int { return p.height() - len(p.rows) }

// row begins the next row of content. A row past the end is written to nowhere.
func (p *panel) row() *line {
	l := newLine(p.th, p.width())
	if p.free() > 0 {
		p.rows = append(p.rows, l)
	}
	return l
}

// selected begins a row that is drawn as selected.
func (p *panel) selected(on bool) *line {
	l := p.row()
	l.sel = on && p.focus
	return l
}

// say adds a line of prose, wrapped.
func (p *panel) say(st style, t Text) {
	for _, part := range t.wrap(p.width()) {
		if p.free() <= 0 {
			return
		}
		p.row().put(st, part)
	}
}

// show adds a value at the right of the title.
func (p *panel) show(st style, t Text) { p.value = append(p.value, part{st, t}) }

// lines ends the panel.
func (p *panel) lines() []string {
	out := make([]string, 0, p.h)
	frame := stFaint
	if p.focus {
		frame = stFocus
	}
	out = append(out, p.top(frame))
	edge, inner, selected := "", " ", ""
	if p.boxed {
		edge = newLine(p.th, 1).put(frame, p.g.v).string()
	}
	if p.width() == p.w { // too narrow for margins
		inner = ""
	}
	empty := ""
	scratch := make([]byte, 0, 1024)
	for i := range p.height() {
		if i >= len(p.rows) {
			if empty == "" {
				empty = edge + blank(p.w-2*p.g.edges(p.boxed)) + edge
			}
			out = append(out, empty)
			continue
		}
		r := p.rows[i]
		scratch = append(scratch[:0], edge...)
		row := r.end()
		if r.sel { // the bar of a selected row reaches to the frame
			if selected == "" {
				l := newLine(p.th, 1)
				l.sel = true
				l.use(stText)
				selected = string(l.buf)
				linePool.Put(l)
			}
			scratch = append(append(append(scratch, selected...), inner...), row[:len(row)-len("\x1b[m")]...)
			scratch = append(append(scratch, inner...), "\x1b[m"...)
		} else {
			scratch = append(append(append(scratch, inner...), row...), inner...)
		}
		out = append(out, string(append(scratch, edge...)))
		linePool.Put(r)
	}
	p.rows = nil
	if p.boxed {
		l := newLine(p.th, p.w)
		l.put(frame, p.g.bl)
		n := p.w - 2
		if f := p.foot.width(); f > 0 && f+4 <= n {
			l.fill(frame, p.g.h, n-f-3).put(stFaint, " ").put(stDim, p.foot).put(stFaint, " ").fill(frame, p.g.h, 1)
		} else {
			l.fill(frame, p.g.h, n)
		}
		l.put(frame, p.g.br)
		out = append(out, l.string())
	}
	return out
}

func (g *glyphs) edges(boxed bool) int {
	if boxed {
		return 1
	}
	return 0
}

// top is the line of the title.
func (p *panel) top(frame style) string {
	l := newLine(p.th, p.w)
	end := p.g.h
	if p.boxed {
		end = p.g.tr
		l.put(frame, p.g.tl)
	}
	l.put(frame, p.g.h)
	title := stTitle
	if p.focus {
		title = stFocus
	}
	// Room for the values: what the title, a dash, the spaces around both and the end leave.
	room := p.w - l.used - (p.name.width() + 2) - 1 - 4
	vals := p.value
	for len(vals) > 0 && partsWidth(vals) > room {
		vals = vals[1:]
	}
	if p.name != "" {
		l.put(frame, " ").put(title, p.name.cut(p.w-6)).put(frame, " ")
	}
	tail := 1
	if len(vals) > 0 {
		tail = partsWidth(vals) + 4
	}
	l.fill(frame, p.g.h, l.left()-tail)
	if len(vals) > 0 {
		l.put(frame, " ")
		for i, v := range vals {
			if i > 0 {
				l.gap(2)
			}
			l.put(v.st, v.t)
		}
		l.put(frame, " ").put(frame, p.g.h)
	}
	l.put(frame, end)
	return l.string()
}

func partsWidth(ps []part) int {
	n := 2 * (len(ps) - 1)
	for _, p := range ps {
		n += p.t.width()
	}
	return n
}
