package tui

import (
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// modelLines is how many rows the table of models would fill, that of the providers included.
func (c *Console) modelLines() int {
	n := 1 + max(len(c.snap.Models), 1)
	if len(c.snap.Providers) > 0 {
		n += 2 + len(c.snap.Providers)
	}
	return n
}

// drawModels lists what clients may ask for, and the paid APIs that stand behind it.
func (c *Console) drawModels(p *panel) {
	all := c.snap.Models
	served := 0
	for i := range all {
		if all[i].Servable() {
			served++
		}
	}
	p.show(stDim, whole(served)+" of "+whole(len(all))+" served")
	if len(all) == 0 {
		p.row().put(stDim, "no models; a worker in the config brings one")
	} else {
		c.modelTable(p)
	}
	if len(c.snap.Providers) == 0 || p.free() < 2 {
		return
	}
	if p.free() > len(c.snap.Providers)+1 {
		p.row()
	}
	c.providerTable(p)
}

func (c *Console) modelTable(p *panel) {
	all := c.snap.Models
	name, aliases, baseline := 8, 0, 0
	for i := range all {
		m := &all[i]
		name = min(max(name, clean(m.Name).width()+2), 50)
		aliases = min(max(aliases, clean(strings.Join(m.Aliases, " ")).width()), 30)
		baseline = min(max(baseline, clean(m.Baseline).width()), 28)
	}
	cols := []tcol{
		{head: "  MODEL", w: min(name, 20), max: name},
		{head: "WORKERS READY", w: 15, right: true},
		{head: "LENGTH", w: 6, right: true, drop: 4},
		{head: "ALIASES", w: min(aliases, 7), max: aliases, drop: 2},
		{head: "COMPARED WITH", w: min(max(baseline, 1), 13), max: baseline, drop: 3},
		{head: "FAILOVER", w: 8, max: 40, drop: 1},
	}
	if aliases > 0 {
		cols[3].w = max(cols[3].w, 7)
	}
	if baseline == 0 {
		cols[4].w = 0
	} else {
		cols[4].w = 13
	}
	ws := fit(cols, p.width())
	p.head(cols, ws)
	c.models.n = len(all)
	room := p.free()
	if n := len(c.snap.Providers); n > 0 && room > len(all) {
		room = max(room-n-1, 1)
	}
	from, to := c.models.window(room)
	for i := from; i < to; i++ {
		m := &all[i]
		st, mark := stOK, c.g.ok
		switch {
		case m.Ready == 0 && m.Backed:
			st, mark = stWarn, c.g.warn
		case m.Ready == 0:
			st, mark = stBad, c.g.bad
		case m.Ready < m.Workers:
			st, mark = stWarn, c.g.warn
		}
		length, ready := unknown, whole(m.Ready)+" of "+whole(m.Workers)
		if m.Asleep > 0 {
			ready += ", " + whole(m.Asleep) + " asleep"
			if m.Ready == 0 {
				st, mark = stDim, c.g.off
			}
		}
		if m.MaxLen > 0 {
			length = count(int64(m.MaxLen))
		}
		if r := c.rollOf(m.Name); r != nil {
			ready = "rolling " + whole(r.Done) + "/" + whole(len(r.Workers))
		}
		back := Text("none")
		if len(m.Providers) > 0 {
			if back = clean(strings.Join(m.Providers, ", ")); !m.Backed {
				back += ", not now"
			}
		}
		l := p.selected(i == c.models.sel)
		l.put(st, mark).gap(1).cell(stText, clean(m.Name)+sim(m.Simulated), ws[0]-2).gap(2).rcell(st, ready, ws[1]).gap(2)
		l.cells(cols[2:], ws[2:], []part{{stDim, length}, {stDim, clean(strings.Join(m.Aliases, " "))}, {stDim, clean(m.Baseline)}, {stText, back}})
	}
	if hidden := len(all) - (to - from); hidden > 0 {
		p.foot = whole(hidden) + " more, j k"
	}
}

func (c *Console) providerTable(p *panel) {
	all := c.snap.Providers
	name := 8
	for i := range all {
		name = min(max(name, clean(all[i].Name).width()), 20)
	}
	cols := []tcol{{head: "PAID API", w: name}, {head: "STATE", w: 13}, {head: "NOW", w: 4, right: true}, {head: "TODAY, CAP", w: 20}, {head: "MONTH, CAP", w: 20, drop: 2}, {head: "MODELS", w: 6, max: 40, drop: 3}, {head: "", w: 10, max: 200, drop: 1}}
	ws := fit(cols, p.width())
	p.head(cols, ws)
	for i := range all {
		if p.free() <= 0 {
			return
		}
		pr := &all[i]
		st := stOK
		switch pr.State {
		case api.ProviderOK:
		case api.ProviderUnaccountable:
			st = stBad
		default:
			st = stWarn
		}
		l := p.row()
		l.cell(stText, clean(pr.Name), ws[0]).gap(2).cell(st, clean(pr.State), ws[1]).gap(2).rcell(stText, whole(pr.InFlight), ws[2]).gap(2).cell(capStyle(pr.SpentDay, pr.CapDay), capped(pr.SpentDay, pr.CapDay), ws[3]).gap(2)
		if ws[4] > 0 {
			l.cell(capStyle(pr.SpentMonth, pr.CapMonth), capped(pr.SpentMonth, pr.CapMonth), ws[4]).gap(2)
		}
		if ws[5] > 0 {
			l.cell(stDim, clean(strings.Join(pr.Models, " ")), ws[5]).gap(2)
		}
		if ws[6] > 0 {
			l.put(stDim, clean(pr.Error))
		}
	}
}

// capped is what is spent of what may be.
func capped(spent, most *api.Nanos) Text {
	if most == nil {
		return money(spent) + ", no cap"
	}
	return money(spent) + " of " + money(most)
}

// capStyle warns from nine tenths of a cap on.
func capStyle(spent, most *api.Nanos) style {
	switch {
	case spent == nil || most == nil:
		return stText
	case *spent >= *most:
		return stBad
	case float64(*spent) >= 0.9*float64(*most):
		return stWarn
	}
	return stText
}

// openModel goes from a model to its workers.
func (c *Console) openModel() {
	if c.models.sel < len(c.snap.Models) {
		name := c.snap.Models[c.models.sel].Name
		c.goTo(viewWorkers)
		c.focus[viewWorkers] = paneWorkers
		c.setFilter(paneWorkers, "model:"+name)
	}
}
