package tui

import (
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// drawLogs shows the log on screen: that of a worker, or the last lines of a crash.
func (c *Console) drawLogs(p *panel) {
	l := &c.logs
	w := c.worker()
	if w == nil {
		p.row().put(stDim, "no worker selected")
		return
	}
	if strings.HasSuffix(string(p.name), "Log") {
		p.name += " " + clean(w.Name)
	}
	if l.level > 0 {
		p.show(stWarn, "from "+logLevels[l.level])
	}
	if l.follow {
		p.show(stOK, "following")
	} else {
		p.show(stWarn, "held at "+whole(l.top+1)+", f follows")
	}
	p.show(stDim, plural(int64(l.count()), "line", "lines"))
	if l.start && !l.follow && l.top == 0 {
		p.foot = "the engine keeps no older lines in reach; all are in the log's file, in the state folder"
	}
	if l.err != "" {
		p.row().put(stDim, l.err)
	}
	// The first error explains most failures: it stays in sight when it has scrolled away.
	if len(l.errors) > 0 && w.Error == "" && p.free() > 6 {
		e := &l.lines[l.errors[0]]
		p.row().put(stBad, c.g.bad+" first error ").put(stDim, hms(e.Time)).gap(1).put(stBad, clean(e.Text))
	}
	h := p.free()
	l.height = h
	n := l.count()
	if n == 0 {
		if l.err == "" && len(l.lines) > 0 {
			what := "no line of the newest " + whole(len(l.lines)) + " passes the filter"
			if !l.start {
				what += "; k reads older ones"
			}
			p.row().put(stDim, what)
		} else if l.err == "" {
			p.row().put(stDim, "no line yet")
		}
		return
	}
	if !l.wrap {
		from := l.top
		if l.follow {
			from = max(n-h, 0)
		}
		for i := from; i < min(from+h, n); i++ {
			c.logLine(p, l.at(i))
		}
		return
	}
	c.wrappedLog(p, h)
}

// wrappedLog fills the pane with whole lines; following, it is filled from the end.
func (c *Console) wrappedLog(p *panel, h int) {
	l := &c.logs
	prefix := 2
	if l.times {
		prefix += 9
	}
	rows := func(i int) []Text { return Sanitize(l.at(i).Text).wrap(max(p.width()-prefix, 8)) }
	from := l.top
	if l.follow {
		from = l.count()
		for used := 0; from > 0; from-- {
			if used += len(rows(from - 1)); used > h {
				break
			}
		}
		from = min(from, l.count()-1)
	}
	for i := from; i < l.count() && p.free() > 0; i++ {
		st := logStyle(l.at(i).Level)
		for j, t := range rows(i) {
			if p.free() <= 0 {
				return
			}
			r := p.row()
			if j == 0 {
				c.logHead(r, l.at(i))
			} else {
				r.gap(prefix)
			}
			r.put(st, t)
		}
	}
}

func logStyle(level string) style {
	switch level {
	case "error":
		return stBad
	case "warning":
		return stWarn
	case "debug":
		return stDim
	}
	return stText
}

func (c *Console) logHead(r *line, line *api.Line) {
	if c.logs.times {
		r.cell(stFaint, hms(line.Time), 8).gap(1)
	}
	switch line.Level {
	case "error":
		r.put(stBad, c.g.bad).gap(1)
	case "warning":
		r.put(stWarn, c.g.warn).gap(1)
	default:
		r.gap(2)
	}
}

func (c *Console) logLine(p *panel, line *api.Line) {
	r := p.row()
	c.logHead(r, line)
	text := line.Text
	if len(text) > 4*p.width()+64 { // what is off the screen need not be sanitised
		text = strings.ToValidUTF8(text[:4*p.width()+64], "�")
	}
	r.put(logStyle(line.Level), clean(text))
}
