package tui

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func (c *Console) drawHealth(p *panel) {
	a := &c.snap.Answers
	if a.Rated == 0 {
		p.show(stDim, "no answer rated yet")
		p.row().put(stDim, "no answer rated yet")
		return
	}
	p.show(stDim, "n "+count(a.Rated))
	if a.Median != nil {
		p.show(stStrong, "median "+decimals(*a.Median, 2))
	}
	if p.height() < 7 {
		c.healthColumns(p, a)
	} else {
		c.healthBars(p, a)
	}
	if p.free() > 0 {
		l := p.row()
		l.put(stDim, "target "+decimals(a.Target, 2))
		if !a.Calibrated {
			l.put(stDim, ", uncalibrated")
		}
		for _, d := range []struct {
			name Text
			n    int64
		}{{"truncated", a.Truncated}, {"looping", a.Looping}, {"refused", a.Refused}} {
			if v := count(d.n); d.n > 0 && l.left() > d.name.width()+v.width()+3 {
				l.gap(2).put(stDim, d.name).gap(1).put(stText, v)
			}
		}
	}
	if p.free() > 0 {
		l := p.row()
		for _, f := range []struct {
			name Text
			v    *float64
		}{{"length", a.Length}, {"coherence", a.Coherence}, {"engagement", a.Engagement}} {
			if v := decimals(val(f.v), 2); l.left() > f.name.width()+v.width() {
				l.put(stDim, f.name).gap(1).put(stText, v).gap(2)
			}
		}
	}
	for i := range a.ByModel {
		if p.free() <= 0 || len(a.ByModel) < 2 {
			return
		}
		m := &a.ByModel[i]
		p.row().cell(stText, clean(m.Model), max(p.width()-20, 8)).gap(1).put(stDim, "n ").rcell(stText, count(m.Rated), 6).gap(1).put(stStrong, decimals(val(m.Median), 2))
	}
}

// healthStyle is calm on purpose: an uncalibrated target is no reason for an alarm.
func healthStyle(a *api.Answers, lo float64) style {
	if lo+1e-9 < a.Target {
		return stA3
	}
	return stA2
}

// healthBars is the histogram lying on its side: a row for one, two or five tenths.
func (c *Console) healthBars(p *panel, a *api.Answers) {
	foot := 1
	if p.height() >= 12 {
		foot = 2
	}
	bins := 5
	if p.height()-foot >= 10 {
		bins = 10
	}
	step := 10 / bins
	sums := make([]int64, bins)
	for i, n := range a.Bins {
		sums[i/step] += n
	}
	top := slices.Max(sums)
	for i := bins - 1; i >= 0; i-- {
		l := p.row()
		lo, hi := float64(i*step)/10, float64((i+1)*step)/10
		l.put(stDim, decimals(lo, 1)+"–"+decimals(hi, 1)).gap(1)
		c.g.bar(l, healthStyle(a, lo), float64(sums[i])/float64(max(top, 1)), l.left()-6)
		l.rcell(stText, count(sums[i]), 6)
	}
}

// healthColumns is the histogram upright, for few rows.
func (c *Console) healthColumns(p *panel, a *api.Answers) {
	rows := max(p.height()-2, 1)
	wide := max(min((p.width()-axisWidth)/10, 6), 1)
	top := max(slices.Max(a.Bins[:]), 1)
	for r := rows - 1; r >= 0; r-- {
		l := p.row()
		if r == rows-1 {
			l.rcell(stDim, count(top), axisWidth-1).gap(1)
		} else {
			l.gap(axisWidth)
		}
		for i, n := range a.Bins {
			level := int(math.Ceil(float64(n) / float64(top) * float64(rows*8)))
			l.fill(healthStyle(a, float64(i)/10), c.g.spark[min(max(level-8*r, 0), 8)], wide)
		}
	}
	if p.free() > 1 {
		l := p.row()
		l.gap(axisWidth)
		for i := range 5 {
			l.to(axisWidth+2*i*wide).put(stFaint, decimals(float64(2*i)/10, 1))
		}
		l.to(axisWidth+10*wide-1).put(stFaint, "1")
	}
}

// noticeMark gives the sign of a notice; what is over is dim.
func (c *Console) noticeMark(n *api.Notice) (style, Text) {
	switch {
	case n.Level == "error" && n.Active:
		return stBad, c.g.bad
	case n.Level == "error":
		return stDim, c.g.bad
	case n.Level == "warning" && n.Active:
		return stWarn, c.g.warn
	case n.Level == "warning":
		return stDim, c.g.warn
	}
	return stDim, c.g.sep
}

// noticeText is a notice without its worker's name, which stands before it.
func noticeText(n *api.Notice) Text {
	t := n.Text
	if rest, ok := strings.CutPrefix(t, n.Worker); ok && n.Worker != "" {
		if r := strings.TrimLeft(rest, ": "); r != rest {
			t = r
		}
	}
	return clean(t)
}

func (c *Console) noticeTime(t time.Time) Text {
	if !t.IsZero() && c.snap.Time.Sub(t) > 20*time.Hour {
		return monthDay(t)
	}
	return clock(t)
}

// drawNotices is the short list beside other panes.
func (c *Console) drawNotices(p *panel) {
	rows := c.noticeRows()
	if n := c.activeNotices(); n > 0 {
		p.show(stWarn, whole(n)+" active")
	}
	if len(rows) == 0 {
		p.row().put(stDim, "nothing to report")
		return
	}
	for i := range rows {
		if p.free() <= 0 {
			p.foot = whole(len(rows)-i) + " more, enter"
			return
		}
		n := &rows[i]
		st, mark := c.noticeMark(n)
		text := stText
		if !n.Active {
			text = stDim
		}
		l := p.row()
		l.put(st, mark).gap(1).cell(stDim, c.noticeTime(n.Time), 5).gap(1)
		t := noticeText(n)
		if n.Worker != "" {
			t = clean(n.Worker) + " " + t
		}
		parts := t.wrap(max(p.width()-8, 4))
		l.put(text, parts[0])
		if len(parts) > 1 && n.Active && p.free() > 0 { // what is still true is read whole
			p.row().gap(8).put(text, parts[1].cut(p.width()-8))
		}
	}
}

// drawEvents is the whole list, the selected one in full.
func (c *Console) drawEvents(p *panel) {
	rows := c.noticeRows()
	if n := c.activeNotices(); n > 0 {
		p.show(stWarn, whole(n)+" active")
	}
	p.show(stDim, plural(int64(len(rows)), "event", "events"))
	if len(rows) == 0 {
		p.row().put(stDim, "nothing to report")
		return
	}
	var full []Text
	if c.notices.sel < len(rows) {
		full = noticeText(&rows[c.notices.sel]).wrap(max(p.width()-2, 1))
	}
	detail := min(len(full)+1, p.height()/3)
	c.notices.n = len(rows)
	name := 6
	for i := range rows {
		name = min(max(name, clean(rows[i].Worker).width()), 20)
	}
	cols := []tcol{{head: " ", w: 1}, {head: "TIME", w: 8}, {head: "WORKER", w: name, drop: 1}, {head: "EVENT", w: 20, max: 1000}}
	ws := fit(cols, p.width())
	p.head(cols, ws)
	from, to := c.notices.window(p.free() - detail)
	for i := from; i < to; i++ {
		n := &rows[i]
		st, mark := c.noticeMark(n)
		text := stText
		if !n.Active {
			text = stDim
		}
		l := p.selected(i == c.notices.sel)
		t := hms(n.Time)
		if c.snap.Time.Sub(n.Time) > 20*time.Hour {
			t = monthDay(n.Time)
		}
		l.put(st, mark).gap(2).cell(stDim, t, ws[1]).gap(2)
		if ws[2] > 0 {
			l.cell(stText, clean(n.Worker), ws[2]).gap(2)
		}
		l.put(text, noticeText(n))
	}
	for p.free() > detail {
		p.row()
	}
	if detail > 1 {
		p.row()
		for _, t := range full[:detail-1] {
			p.row().put(stText, t)
		}
	}
}
