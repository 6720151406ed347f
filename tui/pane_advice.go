package tui

import (
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// adviceRows is what the selected worker, or its model as a whole, could do better.
func (c *Console) adviceRows() []api.Advice {
	w := c.worker()
	if c.snap == nil || w == nil {
		return nil
	}
	var out []api.Advice
	for i := range c.snap.Advice {
		if a := &c.snap.Advice[i]; a.Worker == w.Name || a.Worker == "" && a.Model == w.Model {
			out = append(out, *a)
		}
	}
	return out
}

// workerAdvice is that in full.
func (c *Console) workerAdvice(p *panel) {
	rows := c.adviceRows()
	from := min(max(c.advices.sel-(p.free()-4)/4, 0), max(len(rows)-1, 0))
	for i := from; i < len(rows); i++ {
		a := &rows[i]
		if p.free() < 2 {
			p.foot = whole(len(rows)-i) + " more, j"
			return
		}
		sel := i == c.advices.sel
		of := "since " + c.when(a.Since)
		if a.Worker == "" {
			of = "of the model, " + of
		}
		for j, t := range clean(a.Text).wrap(max(p.width()-2, 1)) {
			l := p.selected(sel)
			if j > 0 {
				l.gap(2).put(stText, t)
				continue
			}
			l.put(stWarn, c.g.warn).gap(1).put(stText, t)
			l.right(stDim, of, 0)
		}
		for j, t := range clean(a.Remedy).wrap(max(p.width()-2, 1)) {
			mark := Text(" ")
			if j == 0 {
				mark = c.g.arrow
			}
			p.row().put(stOK, mark).gap(1).put(stDim, t)
		}
		if a.Fix != nil && sel && !c.opt.ReadOnly {
			p.row().gap(2).put(stKey, "enter").put(stDim, " shows the new command line and asks: "+clean(strings.Join(fixSigns(a.Fix), " ")))
		}
		if p.free() > 3 {
			p.row()
		}
	}
}

// fixSigns is a change in short: what is set, and what goes with a sign before it.
func fixSigns(f *api.Fix) []string {
	out := append([]string{}, f.Set...)
	for _, u := range f.Unset {
		out = append(out, "without "+u)
	}
	for _, e := range f.Env {
		out = append(out, "env "+e)
	}
	return out
}
