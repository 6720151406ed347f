package tui

import (
	"strings"
	"sync"
)

// line is one row of cells being written: it knows its width, never exceeds it, and remembers the
// style it is in so that a run of one style costs one escape sequence.
type line struct {
	th    *theme
	buf   []byte
	used  int // cells written
	width int // cells there are
	style style
	on    bool // style is in force
	sel   bool // drawn as the selected row
}

// lines are many and short-lived: half a thousand a frame.
var linePool = sync.Pool{New: func() any { return &line{buf: make([]byte, 0, 512)} }}

func newLine(th *theme, width int) *line {
	l := linePool.Get().(*line)
	*l = line{th: th, width: max(width, 0), buf: l.buf[:0]}
	return l
}

// left is how many cells are free.
func (l *line) left() int { return l.width - l.used }

func (l *line) use(st style) {
	if l.on && l.style == st {
		return
	}
	sgr := l.th.sgr[st]
	switch {
	case l.sel && l.th.sel == reverse: // with colours the row would be a patchwork of their backgrounds
		sgr = reverse
	case l.sel && sgr != "":
		sgr += ";" + l.th.sel
	case l.sel:
		sgr = l.th.sel
	}
	l.buf = append(l.buf, "\x1b["...)
	if sgr != "" {
		l.buf = append(l.buf, "0;"...)
		l.buf = append(l.buf, sgr...)
	}
	l.buf = append(l.buf, 'm')
	l.style, l.on = st, true
}

// put writes a text, cut where the line ends. Text is safe by its type; a control character that
// got into one all the same is stopped here.
func (l *line) put(st style, t Text) *line {
	if t == "" || l.left() <= 0 {
		return l
	}
	for i := 0; i < len(t); i++ {
		if t[i] < 0x20 || t[i] == 0x7f {
			t = clean(string(t))
			break
		}
	}
	w := t.width()
	if w > l.left() {
		t = t.cut(l.left())
		w = t.width()
	}
	l.use(st)
	l.buf = append(l.buf, t...)
	l.used += w
	return l
}

// num writes a number, or an ellipsis where it does not fit: half a number is a lie.
func (l *line) num(st style, t Text) {
	if t.width() > l.left() {
		t = "…"
	}
	l.put(st, t)
}

// gap writes n blanks.
func (l *line) gap(n int) *line {
	if n = min(n, l.left()); n <= 0 {
		return l
	}
	if l.on && (l.style == stBadge || l.style == stAlarm || l.style == stTab) || !l.on {
		l.use(stText)
	}
	for range n {
		l.buf = append(l.buf, ' ')
	}
	l.used += n
	return l
}

// to writes blanks up to a column.
func (l *line) to(col int) *line { return l.gap(col - l.used) }

// cell writes a text left-aligned in n cells.
func (l *line) cell(st style, t Text, n int) *line {
	n = min(n, l.left())
	end := l.used + n
	return l.put(st, t.cut(n)).to(end)
}

// rcell writes a number right-aligned in n cells.
func (l *line) rcell(st style, t Text, n int) *line {
	n = min(n, l.left())
	if t.width() > n {
		t = "…"
	}
	return l.gap(n-t.width()).put(st, t)
}

// right writes a text so that it ends pad cells before the end of the line, if it fits whole.
func (l *line) right(st style, t Text, pad int) {
	if w := t.width(); w+pad < l.left() {
		l.gap(l.left()-w-pad).put(st, t)
	}
}

// fill writes one character n times.
func (l *line) fill(st style, ch Text, n int) *line {
	if n = min(n, l.left()); n <= 0 {
		return l
	}
	l.use(st)
	for range n {
		l.buf = append(l.buf, ch...)
	}
	l.used += n
	return l
}

// end fills the line with blanks and returns to the plain style.
func (l *line) end() []byte {
	l.gap(l.left())
	l.buf = append(l.buf, "\x1b[m"...)
	return l.buf
}

// string ends the line and gives it back for the next one: it must not be used again.
func (l *line) string() string {
	s := string(l.end())
	linePool.Put(l)
	return s
}

// blank is a row of nothing.
func blank(width int) string { return strings.Repeat(" ", max(width, 0)) }
