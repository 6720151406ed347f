package tui

import "github.com/vllmdeck/vllmdeck/backend/api"

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
		l := p.row()
		l.cell(stDim, name, 17).rcell(st, amount, 11).gap(2)
		for i, t := range note.wrap(max(l.left(), 8)) { // a label is read whole
			if i > 0 {
				l = p.row()
				l.gap(30)
			}
			l.put(stDim, t)
		}
	}
	in := m.purse()
	row("Actual", in.money(m.Actual), stStrong, clean(m.RateLabel))
	row("  of it idle", in.money(m.Idle), stText, "nobody in flight, start-up included")
	for i := range c.snap.Providers {
		pr := &c.snap.Providers[i]
		st, note := providerNote(pr)
		p.row().cell(stDim, "  to "+clean(pr.Name), 17).rcell(stText, money(pr.SpentDay), 11).gap(2).put(st, note)
	}
	row("Would have cost", in.money(m.Would), stStrong, m.compared())
	row("Net", in.signed(m.Savings), netStyle(m.Savings), m.share())
	if b := m.band(); b != "" {
		row("  low", in.signed(m.Low), netStyle(m.Low), "cheapest credible prices and counts")
		row("  high", in.signed(m.High), netStyle(m.High), "list price, no discounts")
	}
	if h := m.Hostile; h != nil {
		title("The least flattering comparison")
		row("Hosted elsewhere", in.money(h.Would), stText, clean(h.Name)+", "+clean(h.Date))
		least := Text("the least flattering comparison")
		if roomy { // its title says so
			least = ""
		}
		row("  net against it", in.signed(h.Savings), netStyle(h.Savings), least)
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
	top, amounts := api.Nanos(0), []*api.Nanos{m.Idle}
	for _, k := range m.Classes {
		amounts = append(amounts, k.Actual)
		if k.Actual != nil {
			top = max(top, *k.Actual)
		}
	}
	if m.Idle != nil {
		top = max(top, *m.Idle)
	}
	in := purseOf(amounts...)
	put := func(name Text, n Text, a *api.Nanos, st style) {
		l := p.row()
		l.cell(stText, name, ws[0]).gap(2).rcell(stText, n, ws[1]).gap(2).rcell(stStrong, in.money(a), ws[2]).gap(2)
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
