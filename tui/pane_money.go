package tui

import "github.com/vllmdeck/vllmdeck/backend/api"

// moneyTitle is the period and the labels that no amount may be seen without.
func (c *Console) moneyTitle(p *panel) {
	m := &c.snap.Money
	if m.Period != "" {
		t := clean(m.Period) + " " + since(m.From) + " " + clean(m.Zone)
		if m.Simulated && p.name.width()+t.width()+24 > p.w {
			t = clean(m.Period)
		}
		p.show(stDim, t)
	}
	if m.Simulated { // the last: it stays where there is no room for both
		p.show(stBadge, " SIMULATED ")
	}
}

// missing says what must be set to see the rest.
func (c *Console) missing(p *panel, rows int) {
	for _, s := range c.snap.Money.Missing {
		if rows <= 0 {
			return
		}
		for i, t := range clean(s).wrap(p.width() - 2) {
			if rows--; rows < 0 {
				return
			}
			mark := Text(" ")
			if i == 0 {
				mark = "!"
			}
			p.row().put(stWarn, mark).gap(1).put(stText, t)
		}
	}
}

// baseline names what is compared with, and of which day the prices are.
func (m *moneyView) baseline() Text {
	t := clean(m.Baseline)
	if t == "" {
		return ""
	}
	if m.PriceDate != "" {
		t += ", list of " + clean(m.PriceDate)
	}
	return t
}

// compared is the baseline, or why nothing is compared yet.
func (m *moneyView) compared() Text {
	if m.Would == nil && m.Requests == 0 && m.Baseline != "" {
		return "no request counts yet; prompt tests do not"
	}
	return m.baseline()
}

// moneyView adds words to api.Money.
type moneyView struct{ *api.Money }

// purse is that of the pane's amounts, the bounds of the net included.
func (m *moneyView) purse() purse { return purseOf(m.Actual, m.Would, m.Savings, m.Idle) }

// share is the saved share, only ever with the utilisation beside it, and nothing if the baseline or its date is not known.
func (m *moneyView) share() Text {
	if m.Percent == nil || m.Utilisation == nil || m.Baseline == "" || m.PriceDate == "" || m.Period == "" {
		return ""
	}
	return percentOf(*m.Percent) + " at " + percent(*m.Utilisation) + " utilisation"
}

func (m *moneyView) shortShare() Text {
	if m.share() == "" {
		return ""
	}
	return percentOf(*m.Percent) + ", " + percent(*m.Utilisation) + " busy"
}

// percentOf writes a percentage that is already one.
func percentOf(v float64) Text { return percent(v / 100) }

func (m *moneyView) band() Text {
	if m.Low == nil || m.High == nil {
		return ""
	}
	return m.purse().signed(m.Low) + " to " + m.purse().signed(m.High)
}

func (m *moneyView) rate() Text {
	t := clean(m.RateLabel)
	if m.Idle != nil {
		if t != "" {
			t += ", "
		}
		t += m.purse().money(m.Idle) + " idle"
	}
	return t
}

// breakEven compares the pace that pays with the pace there is.
func (m *moneyView) breakEven(g *glyphs) (Text, style) {
	if m.BreakEven == nil {
		return "", stDim
	}
	t := rate(*m.BreakEven) + " tok/h"
	if m.OutputRate == nil {
		return t, stText
	}
	if *m.OutputRate >= *m.BreakEven {
		return t + ", now " + rate(*m.OutputRate) + " " + g.up, stOK
	}
	return t + ", now " + rate(*m.OutputRate) + " " + g.down, stWarn
}

func (c *Console) drawMoney(p *panel) {
	m := &moneyView{&c.snap.Money}
	c.moneyTitle(p)
	be, beStyle := m.breakEven(p.g)
	amountW, in := 9, m.purse()
	for _, n := range []*api.Nanos{m.Actual, m.Would, m.Savings} {
		amountW = max(amountW, in.signed(n).width())
	}
	const nameW = 15
	row := func(name, amount Text, st style, notes ...Text) bool {
		l := p.row()
		l.cell(stDim, name, nameW).gap(1).rcell(st, amount, amountW).gap(2)
		for _, n := range notes { // the longest that fits whole
			if n != "" && n.width() <= l.left() {
				l.put(stDim, n)
				return true
			}
		}
		return false
	}
	idle := Text("")
	if m.Idle != nil {
		idle = in.money(m.Idle) + " idle"
	}
	date := Text("")
	if m.PriceDate != "" {
		date = "at " + clean(m.PriceDate)
	}
	if n := len(m.Missing); n > 0 && p.height() < 3+n { // what is missing matters more than three dashes
		l := p.row()
		for _, f := range []struct {
			name, v Text
			st      style
		}{{"Would have cost", in.money(m.Would), stStrong}, {"Actual", in.money(m.Actual), stText}, {"Net", in.signed(m.Savings), netStyle(m.Savings)}} {
			l.put(stDim, f.name).gap(1).put(f.st, f.v).gap(3)
		}
		c.missing(p, p.free())
		if p.free() > 0 {
			p.row().put(stDim, m.compared())
		}
		return
	}
	row("Actual", in.money(m.Actual), stText, m.rate(), idle)
	dated := row("Would have cost", in.money(m.Would), stText, m.compared(), date)
	p.foot = clean(m.RateLabel)
	wide := p.width() >= 74
	share, short := m.share(), m.shortShare()
	if !dated || !wide && p.height() < 5 { // no percentage without what it is a percentage of
		share, short = "", ""
	}
	if band := m.band(); wide && band != "" {
		row("Net", in.signed(m.Savings), netStyle(m.Savings), "band "+band+sep(share), share)
	} else {
		row("Net", in.signed(m.Savings), netStyle(m.Savings), share, short)
	}
	if len(m.Missing) > 0 {
		c.missing(p, p.free())
	}
	line := func(name, v Text, st style) {
		if v != "" && p.free() > 0 {
			p.row().cell(stDim, name, nameW).gap(1).put(st, v)
		}
	}
	if !wide {
		if m.Low != nil && m.High != nil && p.free() > 0 {
			p.row().cell(stDim, "  low to high", nameW).gap(1).put(netStyle2(m.Low), in.signed(m.Low)).put(stDim, " to ").put(netStyle2(m.High), in.signed(m.High))
		}
		line("  against", clean(m.Baseline), stDim)
	}
	if h := m.Hostile; h != nil {
		if p.free() > 0 {
			l := p.row()
			l.cell(stDim, "  elsewhere", nameW).gap(1).put(netStyle2(h.Savings), in.signed(h.Savings)).gap(2)
			if name := clean(h.Name); name.width() <= l.left() { // half a name says nothing
				l.put(stDim, name)
			} else {
				l.put(stDim, "same models")
			}
		}
	}
	line("Break-even", be, beStyle)
	if p.free() > 0 {
		c.savingsSpark(p)
	}
	if p.free() > 0 && m.Requests > 0 {
		note := plural(m.Requests, "request counts", "requests count")
		if m.Unmetered > 0 {
			note += ", " + count(m.Unmetered) + " unmetered"
		}
		p.row().put(stDim, note)
	}
}

// netStyle2 is netStyle for figures that are not the headline.
func netStyle2(n *api.Nanos) style {
	if netStyle(n) == stBad {
		return stBad
	}
	return stText
}

func sep(t Text) Text {
	if t == "" {
		return ""
	}
	return ", " + t
}

// savingsSpark is the net over the window, drawn only where it is known and above zero.
func (c *Console) savingsSpark(p *panel) {
	w := c.win()
	if w == nil || c.snap.Money.Savings == nil {
		return
	}
	vs := cellPoints(w, w.Savings, max(p.width()-16, 0), 1, foldMax)
	lo, any1 := 0.0, false
	for _, v := range vs {
		if known(v) {
			if !any1 || v < lo {
				lo = v
			}
			any1 = true
		}
	}
	if !any1 || len(vs) < 8 {
		return
	}
	top := 0.0
	for i := range vs {
		vs[i] -= lo
		if known(vs[i]) && vs[i] > top {
			top = vs[i]
		}
	}
	l := p.row()
	l.cell(stDim, "Net, last "+windowName(w.Span), 15).gap(1)
	c.g.spark1(l, stB2, vs, top)
}
