package tui

import (
	"github.com/vllmdeck/vllmdeck/backend/api"
)

// moneyTitle is the period and the labels that no amount may be seen without.
func (c *Console) moneyTitle(p *panel) {
	m := &c.snap.Money
	if m.Simulated {
		p.show(stBadge, " SIMULATED ")
	}
	if m.Period != "" {
		p.show(stDim, clean(m.Period)+" "+since(m.From)+" "+clean(m.Zone))
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

// moneyView adds words to api.Money.
type moneyView struct{ *api.Money }

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
	return signed(m.Low) + " to " + signed(m.High)
}

func (m *moneyView) rate() Text {
	t := clean(m.RateLabel)
	if m.Idle != nil {
		if t != "" {
			t += ", "
		}
		t += money(m.Idle) + " idle"
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
	amountW := 9
	for _, n := range []*api.Nanos{m.Actual, m.Would, m.Savings} {
		amountW = max(amountW, signed(n).width())
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
		idle = money(m.Idle) + " idle"
	}
	date := Text("")
	if m.PriceDate != "" {
		date = "at " + clean(m.PriceDate)
	}
	if n := len(m.Missing); n > 0 && p.height() < 3+n { // what is missing matters more than three dashes
		l := p.row()
		for _, f := range []part{{stText, "Actual " + money(m.Actual)}, {stText, "Would have cost " + money(m.Would)}, {netStyle(m.Savings), "Net " + signed(m.Savings)}} {
			l.put(f.st, f.t).gap(3)
		}
		c.missing(p, p.free())
		return
	}
	row("Actual", money(m.Actual), stText, m.rate(), idle)
	dated := row("Would have cost", money(m.Would), stText, m.baseline(), date)
	p.foot = clean(m.RateLabel)
	wide := p.width() >= 74
	share, short := m.share(), m.shortShare()
	if !dated || !wide && p.height() < 5 { // no percentage without what it is a percentage of
		share, short = "", ""
	}
	if band := m.band(); wide && band != "" {
		row("Net", signed(m.Savings), netStyle(m.Savings), "band "+band+sep(share), share)
	} else {
		row("Net", signed(m.Savings), netStyle(m.Savings), share, short)
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
			p.row().cell(stDim, "  low to high", nameW).gap(1).put(netStyle2(m.Low), signed(m.Low)).put(stDim, " to ").put(netStyle2(m.High), signed(m.High))
		}
		line("  against", clean(m.Baseline), stDim)
	}
	if h := m.Hostile; h != nil {
		if p.free() > 0 {
			p.row().cell(stDim, "  elsewhere", nameW).gap(1).put(netStyle2(h.Savings), signed(h.Savings)).put(stDim, "  "+clean(h.Name))
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
	vs := points(w, w.Savings, max(p.width()-16, 0), foldMax)
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

// drawCosts is the same, at length.
func (c *Console) drawCosts(p *panel) {
	m := &moneyView{&c.snap.Money}
	c.moneyTitle(p)
	roomy := p.height() >= 19
	title := func(t Text) {
		if roomy {
			p.row()
			p.row().put(stTitle, t)
		}
	}
	row := func(name, amount Text, st style, note Text) {
		p.row().cell(stDim, name, 17).rcell(st, amount, 11).gap(2).put(stDim, note)
	}
	row("Actual", money(m.Actual), stStrong, clean(m.RateLabel))
	row("  of it idle", money(m.Idle), stText, "nobody in flight, start-up included")
	for i := range c.snap.Providers {
		pr := &c.snap.Providers[i]
		st, note := providerNote(pr)
		p.row().cell(stDim, "  to "+clean(pr.Name), 17).rcell(stText, money(pr.SpentDay), 11).gap(2).put(st, note)
	}
	row("Would have cost", money(m.Would), stStrong, m.baseline())
	row("Net", signed(m.Savings), netStyle(m.Savings), m.share())
	if b := m.band(); b != "" {
		row("  low", signed(m.Low), netStyle(m.Low), "cheapest credible prices and counts")
		row("  high", signed(m.High), netStyle(m.High), "list price, no discounts")
	}
	if h := m.Hostile; h != nil {
		title("The least flattering comparison")
		row("Hosted elsewhere", money(h.Would), stText, clean(h.Name)+", "+clean(h.Date))
		row("  net against it", signed(h.Savings), netStyle(h.Savings), "the least flattering comparison")
	}
	if len(m.Missing) > 0 {
		title("What is missing")
		c.missing(p, p.free())
	}
	title("What it is counted from")
	note := func(name, v Text) {
		if v != "" {
			p.row().cell(stDim, name, 18).put(stText, v)
		}
	}
	note("Requests", count(m.Requests)+" count for savings")
	if m.Unmetered > 0 {
		note("Unmetered", count(m.Unmetered)+" of unknown usage, in no sum")
	}
	u := m.Usage
	note("Prompt tokens", count(u.Prompt())+" ("+count(u.CacheRead)+" from a prefix cache)")
	note("Completion tokens", count(u.Completion())+reasoning(u))
	switch m.Basis {
	case api.BasisGPUTime:
		note("Basis", "worker time, divided among those in flight")
	case api.BasisPerToken:
		note("Basis", "flat rates per token from the config: an assumption")
	case api.BasisProviderPrice:
		note("Basis", "what a paid API charges")
	}
	if m.Utilisation != nil {
		note("Utilisation", percent(*m.Utilisation)+" of worker time has a request in flight")
	}
	note("Price source", clean(m.PriceSource))
	c.savingsSpark(p)
}

// providerNote is how a provider stands beside what it cost today. What is wrong comes first: the line
// may be cut off.
func providerNote(p *api.Provider) (style, Text) {
	st, t := stDim, Text("")
	switch p.State {
	case api.ProviderOK:
	case api.ProviderUnaccountable:
		st, t = stBad, "takes nothing: "+clean(p.Error)
	default:
		st, t = stWarn, clean(p.State)+": "+clean(p.Error)
	}
	add := func(s Text) {
		if t != "" {
			t += ", "
		}
		t += s
	}
	switch {
	case p.CapDay != nil:
		add("of " + money(p.CapDay))
	case p.CapMonth == nil:
		add("no cap")
	}
	if p.CapMonth != nil {
		add("month " + money(p.SpentMonth) + " of " + money(p.CapMonth))
	}
	if p.InFlight > 0 {
		add(count(int64(p.InFlight)) + " in flight")
	}
	return st, t
}

func reasoning(u api.Usage) Text {
	if u.Reasoning == 0 {
		return ""
	}
	return " (" + count(u.Reasoning) + " reasoning)"
}

func (c *Console) drawClasses(p *panel) {
	m := &c.snap.Money
	cols := []tcol{{head: "CLASS", w: 10, max: 14}, {head: "REQUESTS", w: 8, right: true}, {head: "ACTUAL", w: 10, right: true}, {head: "", w: 6, max: 30, drop: 1}}
	ws := fit(cols, p.width())
	p.head(cols, ws)
	top := api.Nanos(0)
	for _, k := range m.Classes {
		if k.Actual != nil {
			top = max(top, *k.Actual)
		}
	}
	if m.Idle != nil {
		top = max(top, *m.Idle)
	}
	put := func(name Text, n Text, a *api.Nanos, st style) {
		l := p.row()
		l.cell(stText, name, ws[0]).gap(2).rcell(stText, n, ws[1]).gap(2).rcell(stStrong, money(a), ws[2]).gap(2)
		if a != nil && top > 0 {
			c.g.bar(l, st, float64(*a)/float64(top), ws[3])
		}
	}
	for _, k := range m.Classes {
		put(clean(k.Class), count(k.Requests), k.Actual, stA2)
	}
	put("idle", unknown, m.Idle, stC2)
	if len(m.Classes) == 0 {
		p.row().put(stDim, "no request has ended yet")
	}
}

func (c *Console) drawRates(p *panel) {
	m := &moneyView{&c.snap.Money}
	nameW := min(20, max(p.width()/3, 14))
	row := func(name, v Text, st style) { p.row().cell(stDim, name, nameW).put(st, v) }
	be, st := m.breakEven(p.g)
	if be == "" {
		be = unknown
	}
	row("Break-even", be, st)
	if m.BreakEven != nil && m.OutputRate != nil && *m.BreakEven > 0 {
		l := p.row()
		l.gap(nameW)
		share := *m.OutputRate / *m.BreakEven
		c.g.gauge(l, st, min(share/2, 1), min(l.left()-7, 40))
		l.gap(1).put(stDim, rate(share)+"x")
	}
	row("Workers cost", money(m.HourRate)+" an hour", stText)
	row("Baseline now", money(m.HourWould)+" an hour", stText)
	if p.free() > 1 {
		p.row()
	}
	if pr := m.Prices; pr != nil {
		p.row().put(stTitle, "Prices of "+clean(m.Baseline)).right(stDim, clean(m.PriceDate), 0)
		row("input", perMillion(pr.Input), stText)
		if pr.CacheRead != nil {
			row("cached input", perMillion(pr.CacheRead), stText)
		}
		row("output", perMillion(pr.Output), stText)
	}
}
