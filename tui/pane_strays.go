package tui

// drawStrays lists the processes of servers that nobody looks after.
func (c *Console) drawStrays(p *panel) {
	rows := c.snap.Strays
	held := int64(0)
	for i := range rows {
		held += rows[i].GPU
	}
	if held > 0 {
		p.show(stWarn, "hold "+size(held)+" of GPU memory")
	} else {
		p.show(stWarn, plural(int64(len(rows)), "process", "processes")+" without a server")
	}
	cols := []tcol{{head: "PROCESS", w: 15, max: 20}, {head: "PID", w: 8, right: true}, {head: "AGE", w: 5, right: true}, {head: "MEMORY", w: 7, right: true}, {head: "GPU MEMORY", w: 10, right: true}, {head: "OF", w: 10, max: 30}}
	ws := fit(cols, p.width())
	if p.height() > 1 {
		p.head(cols, ws)
	}
	c.strays.n = len(rows)
	from, to := c.strays.window(p.free())
	for i := from; i < to; i++ {
		s := &rows[i]
		of, gpu := Text("not known"), unknown
		if s.Worker != "" {
			of = clean(s.Worker)
		}
		if s.GPU > 0 {
			gpu = size(s.GPU)
		}
		l := p.selected(i == c.strays.sel)
		l.cell(stText, clean(s.Name), ws[0]).gap(2).rcell(stText, whole(s.PID), ws[1]).gap(2).rcell(stDim, age(c.snap.Time.Sub(s.Started)), ws[2]).gap(2).
			rcell(stText, size(s.RSS), ws[3]).gap(2).rcell(stStrong, gpu, ws[4]).gap(2).cell(stText, of, ws[5])
	}
	if !c.opt.ReadOnly {
		p.foot = "x ends one, after asking"
	}
}
