package tui

import (
	"slices"
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// gpusOf are the cards of a worker.
func (c *Console) gpusOf(w *api.Worker) []*api.GPU {
	var out []*api.GPU
	for i := range c.snap.GPUs {
		if g := &c.snap.GPUs[i]; slices.ContainsFunc(w.GPUs, func(id string) bool { return id != "" && (id == g.Index || id == g.UUID) }) {
			out = append(out, g)
		}
	}
	return out
}

// workerCards is how the cards of a worker fare and who is on them; on a host without, its processes.
func (c *Console) workerCards(p *panel, w *api.Worker) {
	cards := c.gpusOf(w)
	if len(cards) == 0 {
		c.workerHost(p, w)
		return
	}
	cols := []tcol{
		{head: "GPU", w: 4, max: 8},
		{head: "UTIL", w: 11},
		{head: "MEMORY", w: 19},
		{head: "TEMP", w: 5, right: true},
		{head: "POWER", w: 9, right: true, drop: 1},
		{head: "CLOCK", w: 8, right: true, drop: 4},
		{head: "ENERGY", w: 8, right: true, drop: 3},
		{head: "ECC", w: 4, right: true, drop: 2},
		{head: "NAME", w: 10, max: 30, drop: 5},
	}
	ws := fit(cols, p.width())
	p.head(cols, ws)
	for _, g := range cards {
		c.cardRow(p, g, ws)
		if len(g.Throttle) > 0 {
			p.marked(stWarn, c.g.warn, stWarn, "clock held down: "+clean(strings.Join(g.Throttle, ", ")), 2)
		}
		for i := range g.Xids {
			x := &g.Xids[i]
			t := "Xid " + whole(x.Code) + " " + clean(x.Text)
			if x.PID > 0 {
				t += ", hit pid " + whole(x.PID)
			}
			p.marked(stBad, c.g.bad, stText, c.when(x.Time)+" "+t, 2)
		}
	}
	if p.free() > 2 {
		p.row()
	}
	c.cardProcesses(p, cards)
}

func (c *Console) cardRow(p *panel, g *api.GPU, ws []int) {
	l := p.row()
	l.cell(stStrong, clean(g.Index), ws[0]).gap(2)
	util := val(g.Utilisation)
	c.g.gauge(l, severity(util, 2, 2), util, ws[1]-5)
	l.gap(1).rcell(stText, percentInt(util), 4).gap(2)
	used, total := val(bytesOf(g.MemoryUsed)), val(bytesOf(g.MemoryTotal))
	c.g.gauge(l, severity(used/total, 2, 2), used/total, 6)
	memory := unknown
	if known(used) && known(total) {
		memory = decimals(used/(1<<30), 1) + "/" + decimals(total/(1<<30), 0) + "G"
	}
	l.gap(1).rcell(stText, memory, ws[2]-7).gap(2)
	reading := func(col int, v float64, decs int, unit Text, st style) {
		if n := ws[col]; n > 0 {
			t := unknown
			if known(v) {
				t = decimals(v, decs) + unit
			}
			l.rcell(st, t, n).gap(2)
		}
	}
	temp := val(g.Temperature)
	reading(3, temp, 0, "°C", severity2(temp, 83, 90))
	if n := ws[4]; n > 0 {
		power := unknown
		if g.Power != nil {
			power = decimals(*g.Power, 0)
			if g.PowerLimit != nil {
				power += "/" + decimals(*g.PowerLimit, 0)
			}
			power += "W"
		}
		l.rcell(stText, power, n).gap(2)
	}
	reading(5, val(g.Clock), 0, " MHz", stText)
	energy, unit := val(g.Energy), Text("Wh")
	if energy >= 1000 {
		energy, unit = energy/1000, "kWh"
	}
	reading(6, energy, 1, unit, stText)
	ecc := val(bytesOf(g.ECC))
	reading(7, ecc, 0, "", severity2(ecc, 1, 1))
	if n := ws[8]; n > 0 {
		l.cell(stDim, clean(g.Name), n)
	}
}

// cardProcesses says who holds memory of the cards: ours, strays, and strangers, whom no key ends.
func (c *Console) cardProcesses(p *panel, cards []*api.GPU) {
	n := 0
	for _, g := range cards {
		n += len(g.Processes)
	}
	if n == 0 || p.free() < 2 {
		return
	}
	cols := []tcol{{head: "PROCESS", w: 16, max: 24}, {head: "PID", w: 8, right: true}, {head: "GPU", w: 4, max: 6}, {head: "MEMORY", w: 8, right: true}, {head: "USER", w: 8, max: 14, drop: 1}, {head: "WHOSE", w: 14, max: 40}}
	ws := fit(cols, p.width())
	p.head(cols, ws)
	for _, g := range cards {
		for i := range g.Processes {
			if p.free() <= 0 {
				p.foot = "more processes than rows: z zooms"
				return
			}
			pr := &g.Processes[i]
			memory := unknown // containers and MIG hide it
			if pr.Memory != nil {
				memory = size(*pr.Memory)
			}
			st, whose := stWarn, Text("a stranger")
			switch {
			case pr.Stray && pr.Worker != "":
				whose = "stray of " + clean(pr.Worker)
			case pr.Stray:
				whose = "stray"
			case pr.Preload:
				st, whose = stDim, "vllm preload: keeps weights for workers"
			case pr.Worker != "":
				st, whose = stText, clean(pr.Worker)
			}
			l := p.row()
			l.cell(stText, clean(pr.Name), ws[0]).gap(2).rcell(stText, whole(pr.PID), ws[1]).gap(2).cell(stDim, clean(g.Index), ws[2]).gap(2).rcell(stStrong, memory, ws[3]).gap(2)
			if ws[4] > 0 {
				l.cell(stDim, clean(pr.User), ws[4]).gap(2)
			}
			l.cell(st, whose, ws[5])
		}
	}
}

// workerHost is what the processes of a worker take of a host without cards.
func (c *Console) workerHost(p *panel, w *api.Worker) {
	h := &c.snap.Host
	row := func(name Text, v, of float64, text Text) {
		l := p.row()
		l.cell(stDim, name, 20)
		c.g.gauge(l, severity(v/of, 2, 2), v/of, min(max(l.left()-40, 6), 40))
		l.gap(1).put(stStrong, text)
	}
	cpu := c.steady("cpu "+w.Name, val(w.CPU), 0.05)
	row("CPU, its tree", cpu, float64(h.CPUs), cores(cpu)+" of "+plural(int64(h.CPUs), "core", "cores"))
	if w.RSS > 0 && h.MemoryTotal > 0 {
		row("Memory, its tree", float64(w.RSS), float64(h.MemoryTotal), size(w.RSS)+" of "+size(h.MemoryTotal))
	}
	if h.CPU != nil && !c.resting {
		row("CPU, whole host", *h.CPU, float64(h.CPUs), cores(*h.CPU)+" of "+plural(int64(h.CPUs), "core", "cores"))
	}
	if h.MemoryTotal > 0 {
		row("Memory, whole host", float64(h.MemoryTotal-h.MemoryFree), float64(h.MemoryTotal), size(h.MemoryTotal-h.MemoryFree)+" of "+size(h.MemoryTotal))
	}
}
