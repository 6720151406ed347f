package tui

import (
	"strings"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

// dialog asks before something is done, or only says something.
type dialog struct {
	title Text
	lines []part
	flow  []part // a command line below them, broken between its arguments
	yes   Text   // what y does; "": nothing to decide, any key closes
	typed string // must be typed instead of y
	got   string
	picks []pick // what there is to choose from instead of y
	do    func(*Console) tea.Cmd
	top   int // first line shown
	rows  int // lines there are room for, when it was last drawn
	all   int // lines there are
}

// pick is one of several answers, given by its key.
type pick struct {
	key string
	yes Text
	do  func(*Console) tea.Cmd
}

// ask opens a dialog, unless the terminal is too small to show it whole: what cannot be read must
// not be answered.
func (c *Console) ask(d *dialog) {
	if c.w < 30 || c.h < 8 {
		c.say(stWarn, "too small to ask: enlarge the terminal")
		return
	}
	c.dialog = d
}

func (c *Console) dialogKey(k string, msg tea.KeyPressMsg) tea.Cmd {
	d := c.dialog
	for i := range d.picks {
		if d.picks[i].key == k {
			c.dialog = nil
			return d.picks[i].do(c)
		}
	}
	plain := d.typed == ""
	switch {
	case d.all > d.rows && (k == "down" || k == "pgdown" || plain && k == "j"):
		d.top = min(d.top+max(d.rows/2, 1), d.all-d.rows)
	case d.all > d.rows && (k == "up" || k == "pgup" || plain && k == "k"):
		d.top = max(d.top-max(d.rows/2, 1), 0)
	case k == "esc", d.yes == "" && len(d.picks) == 0, plain && (k == "n" || k == "N" || k == "q"):
		c.dialog = nil
	case plain && d.yes != "" && (k == "y" || k == "Y"):
		c.dialog = nil
		return d.do(c)
	case plain:
	case k == "enter" && d.got == d.typed:
		c.dialog = nil
		return d.do(c)
	case k == "backspace":
		if r := []rune(d.got); len(r) > 0 {
			d.got = string(r[:len(r)-1])
		}
	case k == "ctrl+u":
		d.got = ""
	case msg.Text != "" && len(d.got) < 200:
		d.got += string(clean(msg.Text))
	}
	return nil
}

// overlay draws what lies above the panes: the completions of a command, a dialog.
func (c *Console) overlay(rows []string) {
	if c.input != nil && c.input.complete {
		c.drawCompletions(rows)
	}
	if c.dialog == nil || len(rows) < 5 || c.w < 20 {
		return
	}
	d := c.dialog
	w := min(76, c.w-4)
	if len(d.flow) > 0 {
		w = min(100, c.w-4)
	}
	var body [][]part
	for _, l := range d.lines {
		for _, t := range l.t.wrap(w - 4) {
			body = append(body, []part{{l.st, t}})
		}
	}
	body = append(body, flowed(d.flow, w-4)...)
	h := min(len(body)+4, len(rows))
	d.all, d.rows = len(body), max(h-4, 1)
	d.top = max(min(d.top, d.all-d.rows), 0)
	p := newPanel(c.th, c.g, Rect{W: w, H: h, Boxed: true}, true)
	p.name = d.title
	for _, l := range body[d.top:min(d.top+d.rows, len(body))] {
		r := p.row()
		for i, t := range l {
			if i > 0 {
				r.gap(1)
			}
			r.put(t.st, t.t)
		}
	}
	if d.all > d.rows {
		p.foot = "lines " + whole(d.top+1) + " to " + whole(min(d.top+d.rows, d.all)) + " of " + whole(d.all) + ", j k"
	}
	p.row()
	c.answers(p.row(), d)
	box := p.lines()
	for i := range box {
		box[i] = " " + box[i] + " "
	}
	paste(rows, box, (c.w-w)/2-1, max((c.h-h)/2, 0), c.w)
}

// answers is the last line of a dialog.
func (c *Console) answers(l *line, d *dialog) {
	switch {
	case len(d.picks) > 0:
		for _, a := range d.picks {
			l.put(stKey, clean(a.key)).gap(1).put(stText, a.yes).gap(3)
		}
		l.put(stKey, "n").gap(1).put(stText, "cancel")
	case d.yes == "":
		l.put(stDim, "any key closes")
	case d.typed != "":
		l.put(stDim, "type ").put(stStrong, clean(d.typed)).put(stDim, " and enter: ").put(stText, clean(d.got)).put(stStrong, "▏")
		l.right(stDim, "esc cancels", 0)
	default:
		l.put(stKey, "y").gap(1).put(stText, d.yes).gap(3).put(stKey, "n").gap(1).put(stText, "cancel")
	}
}

// flowed breaks arguments into rows; one that is longer than a row is broken itself.
func flowed(args []part, width int) [][]part {
	var out [][]part
	used := width + 1
	for _, a := range args {
		for i, t := range a.t.wrap(width) {
			if n := t.width(); i > 0 || used+1+n > width {
				out = append(out, nil)
				used = n
			} else {
				used += 1 + n
			}
			out[len(out)-1] = append(out[len(out)-1], part{a.st, t})
		}
	}
	return out
}

// paste writes a box over the rows at x, y.
func paste(rows, box []string, x, y, width int) {
	for i, b := range box {
		if y+i < 0 || y+i >= len(rows) {
			continue
		}
		w := ansi.StringWidth(b)
		under := rows[y+i]
		left := ansi.Truncate(under, x, "")
		right := ansi.TruncateLeft(under, x+w, "")
		// A wide character under the edge is cut away whole: blanks take its place.
		left += "\x1b[m" + blank(x-ansi.StringWidth(left))
		right = blank(width-x-w-ansi.StringWidth(right)) + right
		rows[y+i] = left + b + right + "\x1b[m"
	}
}

// explain shows what the figures of a pane mean.
func (c *Console) explain() {
	s := spec(c.focused())
	var lines []part
	for l := range strings.SplitSeq(string(s.explain), "\n") {
		lines = append(lines, part{stText, clean(l)})
	}
	c.ask(&dialog{title: s.name, lines: lines})
}
