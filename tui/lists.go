package tui

import (
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// list is the selection in a table. It follows the selected item by its key when rows move.
type list struct {
	sel, top, n int
	key         string
	moved       bool // the user chose a row; before that the first one is selected
	at          func(int) string
}

// sync takes over the new rows.
func (l *list) sync(n int, key func(int) string) {
	l.n, l.at = n, key
	if l.moved && key != nil && l.key != "" {
		for i := range n {
			if key(i) == l.key {
				l.sel = i
				return
			}
		}
	}
	if !l.moved {
		l.sel = 0
	}
	l.set(l.sel)
}

func (l *list) set(i int) {
	l.sel = max(min(i, l.n-1), 0)
	if l.at != nil && l.sel < l.n {
		l.key = l.at(l.sel)
	}
}

func (l *list) move(by int) { l.moved = true; l.set(l.sel + by) }

// window gives the rows to draw in h lines, scrolled so that the selected one is among them.
func (l *list) window(h int) (from, to int) {
	if h <= 0 {
		return 0, 0
	}
	if l.sel < l.top {
		l.top = l.sel
	}
	if l.sel >= l.top+h {
		l.top = l.sel - h + 1
	}
	l.top = max(min(l.top, l.n-h), 0)
	return l.top, min(l.top+h, l.n)
}

// filter keeps the rows in which every term occurs; a term that begins with ! must not occur. Rows
// are matched as "field:value" words, so that both "failed" and "state:failed" find a worker.
type filter struct {
	text  string
	terms []string
}

func newFilter(s string) filter { return filter{s, strings.Fields(strings.ToLower(s))} }

func (f filter) match(haystack string) bool {
	if len(f.terms) == 0 {
		return true
	}
	for _, t := range f.terms {
		if no, ok := strings.CutPrefix(t, "!"); ok {
			if no != "" && holds(haystack, no) {
				return false
			}
		} else if !holds(haystack, t) {
			return false
		}
	}
	return true
}

// holds says that a text has a term in it, which is in lower case, whatever the text's case. Every letter
// of a filter looks through all lines of a log: no copy is made of them.
func holds(text, term string) bool {
	if !ascii(term) {
		return strings.Contains(strings.ToLower(text), term)
	}
	lower := func(c byte) byte {
		if 'A' <= c && c <= 'Z' {
			return c + ('a' - 'A')
		}
		return c
	}
	for i := 0; i+len(term) <= len(text); i++ {
		j := 0
		for j < len(term) && lower(text[i+j]) == term[j] {
			j++
		}
		if j == len(term) {
			return true
		}
	}
	return false
}

func (c *Console) workerRows() []api.Worker {
	if c.snap == nil {
		return nil
	}
	rows := keep(c.snap.Workers, c.filters[paneWorkers], func(w *api.Worker) string {
		return "name:" + w.Name + " model:" + w.Model + " state:" + string(w.State) + " kind:" + w.Kind + " " + w.Error
	})
	return sorted(rows, c.orders[paneWorkers], workerOrders)
}

func (c *Console) requestRows() []api.Request {
	if c.snap == nil {
		return nil
	}
	rows := keep(c.snap.Requests, c.filters[paneRequests], func(r *api.Request) string {
		return "id:" + r.ID + " client:" + r.Client + " model:" + r.Model + " worker:" + r.Worker + " key:" + r.Key + " outcome:" + r.Outcome + " class:" + r.Class +
			" route:" + r.Route + " status:" + string(whole(r.Status)) + " finish:" + r.Finish + map[bool]string{true: " queued "}[r.Position > 0] + " " + r.Error
	})
	if c.view == viewOverview && c.orders[paneRequests].col == 0 {
		rows = c.mixed(rows)
	}
	return sorted(rows, c.orders[paneRequests], requestOrders)
}

// mixed keeps what is in flight to a third of the overview's table: what has ended, with its cost, is
// what one looks for there. The rest of those in flight come after it.
func (c *Console) mixed(rows []api.Request) []api.Request {
	open := 0
	for open < len(rows) && rows[open].Outcome == api.OutcomeOpen {
		open++
	}
	most := 2
	for _, r := range c.rects {
		if r.Pane == paneRequests {
			most = max(r.H/3, 2)
		}
	}
	if open <= most || open == len(rows) {
		return rows
	}
	out := append(make([]api.Request, 0, len(rows)), rows[:most]...)
	return append(append(out, rows[open:]...), rows[most:open]...)
}

func (c *Console) noticeRows() []api.Notice {
	if c.snap == nil {
		return nil
	}
	return keep(c.snap.Notices, c.filters[paneEvents], func(n *api.Notice) string {
		return "level:" + n.Level + " worker:" + n.Worker + " " + n.Text
	})
}

func keep[T any](rows []T, f filter, text func(*T) string) []T {
	if len(f.terms) == 0 {
		return rows
	}
	var out []T
	for i := range rows {
		if f.match(text(&rows[i])) {
			out = append(out, rows[i])
		}
	}
	return out
}

func (c *Console) worker() *api.Worker {
	rows := c.workerRows()
	if c.workers.sel >= len(rows) {
		return nil
	}
	return &rows[c.workers.sel]
}

func (c *Console) request() *api.Request {
	rows := c.requestRows()
	if c.requests.sel >= len(rows) {
		return nil
	}
	return &rows[c.requests.sel]
}

// tcol is a column of a table: what it needs, and which go first where the width does not do.
type tcol struct {
	head  Text
	w     int // least width
	max   int // most it can use; 0: w
	right bool
	drop  int // columns with the greatest go first; 0 never goes
}

// cells writes the columns of a row, each with a gap behind it; a column of no width is left out.
func (l *line) cells(cols []tcol, ws []int, cells []part) {
	for j, c := range cells {
		switch {
		case ws[j] == 0:
			continue
		case cols[j].right:
			l.rcell(c.st, c.t, ws[j])
		default:
			l.cell(c.st, c.t, ws[j])
		}
		l.gap(2)
	}
}

// fit chooses the columns that fit a width and how wide each is; 0 for one that is left out.
func fit(cols []tcol, width int) []int {
	out := make([]int, len(cols))
	total := -2
	for i, c := range cols {
		if c.w > 0 {
			out[i] = c.w
			total += c.w + 2
		}
	}
	for total > width {
		worst := -1
		for i, c := range cols {
			if out[i] > 0 && c.drop > 0 && (worst < 0 || c.drop > cols[worst].drop) {
				worst = i
			}
		}
		if worst < 0 {
			break
		}
		total -= out[worst] + 2
		out[worst] = 0
	}
	for grown := true; grown && total < width; {
		grown = false
		for i, c := range cols {
			if out[i] > 0 && c.max > out[i] && total < width {
				out[i]++
				total++
				grown = true
			}
		}
	}
	return out
}

// head writes the titles of a table.
func (p *panel) head(cols []tcol, widths []int) {
	l := p.row()
	for i, c := range cols {
		if widths[i] == 0 {
			continue
		}
		if c.right {
			l.rcell(stDim, c.head, widths[i])
		} else {
			l.cell(stDim, c.head, widths[i])
		}
		l.gap(2)
	}
}
