package tui

import "github.com/vllmdeck/vllmdeck/backend/api"

// plainList is what very small terminals get: one metric a line, or one line in all.
func (c *Console) plainList(w, h int) []string {
	var rows []*line
	row := func(name, value Text, st style, vs []float64) {
		l := newLine(c.th, w)
		l.gap(1).cell(stDim, name, min(14, w/3)).gap(1).num(st, value)
		if n := w - 26; n >= 6 && vs != nil && l.used < 26 {
			l.to(25)
			c.g.spark1(l, stA, tail(vs, n), 0)
		}
		rows = append(rows, l)
	}
	switch {
	case c.snap == nil:
		row("vllmdeck", "connecting"+loading, stDim, nil)
	case w < 40 || h < 10:
		rows = append(rows, c.statusLine(w))
	default:
		c.listRows(row)
	}
	out := make([]string, h)
	for i := range out {
		if i < len(rows) {
			out[i] = rows[i].string()
		} else {
			out[i] = blank(w)
		}
	}
	return out
}

// statusLine is the whole console in one line.
func (c *Console) statusLine(w int) *line {
	s := c.snap
	l := newLine(c.th, w)
	if away := c.away(); away > 0 {
		if simulated(s) {
			l.put(stBadge, "SIM").gap(1)
		}
		return l.put(stAlarm, "away "+long(away))
	}
	ready := 0
	for i := range s.Workers {
		if s.Workers[i].State == api.Ready {
			ready++
		}
	}
	st := stOK
	if ready < len(s.Workers) {
		st = stWarn
	}
	parts := []part{{st, whole(ready) + "/" + whole(len(s.Workers)) + " up"}}
	if simulated(s) {
		parts = append(parts, part{stBadge, "SIM"})
	}
	if win := c.win(); win != nil {
		parts = append(parts, part{stText, rate(lately(win, win.Output, foldMean)) + " tok/s"})
		if win.TTFT.P95 != nil {
			parts = append(parts, part{stText, "p95 " + seconds(*win.TTFT.P95)})
		}
	}
	parts = append(parts, part{stText, whole(s.Traffic.InFlight) + " run"})
	for i, p := range parts {
		if p.t.width()+1 > l.left() {
			break
		}
		if i > 0 {
			l.gap(1)
		}
		l.put(p.st, p.t)
	}
	return l
}

func (c *Console) listRows(row func(name, value Text, st style, vs []float64)) {
	s, win := c.snap, c.win()
	if win != nil {
		row("output tok/s", rate(lately(win, win.Output, foldMean)), stStrong, win.Output)
		row("TTFT p95", seconds(val(win.TTFT.P95)), stStrong, win.TTFT95)
	}
	row("run + queue", whole(s.Traffic.InFlight)+" + "+whole(s.Traffic.Queued), stStrong, nil)
	for _, good := range []bool{false, true} { // trouble first: there may not be room for all
		for i := range s.Workers {
			if w := &s.Workers[i]; (w.State == api.Ready) == good {
				st, mark := c.stateMark(w)
				row(clean(w.Name), mark+" "+c.stateWord(w), st, w.Trend)
			}
		}
	}
	row("net "+clean(s.Money.Period), signed(s.Money.Savings), netStyle(s.Money.Savings), nil)
	row("actual", money(s.Money.Actual), stStrong, nil)
	row("would have", money(s.Money.Would), stStrong, nil)
	if win != nil {
		row("requests/s", rate(lately(win, win.Requests, foldMean)), stStrong, win.Requests)
		row("E2E p95", seconds(val(win.E2E.P95)), stStrong, win.E2E95)
	}
}
