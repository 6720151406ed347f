package tui

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// keysByUse are the client keys, what was spent most with today first.
func (c *Console) keysByUse() []api.Key {
	if c.snap == nil {
		return nil
	}
	use := func(k *api.Key) api.KeyUse {
		if k.Use == nil {
			return api.KeyUse{Day: -1}
		}
		return *k.Use
	}
	out := slices.Clone(c.snap.Keys)
	slices.SortStableFunc(out, func(a, b api.Key) int {
		x, y := use(&a), use(&b)
		return cmp.Or(cmp.Compare(y.Day, x.Day), cmp.Compare(y.Requests, x.Requests), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// drawKeys is what each client key may do and has done.
func (c *Console) drawKeys(p *panel) {
	rows := c.keysByUse()
	p.show(stDim, plural(int64(len(rows)), "key", "keys"))
	name := 6
	for i := range rows {
		name = min(max(name, clean(rows[i].Name).width()), 24)
	}
	cols := []tcol{
		{head: "KEY", w: min(name, 14), max: name},
		{head: "SOURCE", w: 8, drop: 9},
		{head: "STATE", w: 8, drop: 1},
		{head: "REQ/MIN", w: 9, right: true, drop: 2},
		{head: "TOKENS/MIN", w: 12, right: true, drop: 3},
		{head: "NOW", w: 6, right: true},
		{head: "TODAY", w: 26, max: 40},
		{head: "MONTH", w: 18, max: 22, drop: 6},
		{head: "EXPIRES", w: 10, drop: 5},
		{head: "USED", w: 5, right: true, drop: 8},
		{head: "FAILOVER", w: 8, drop: 10},
		{head: "CAPTURE", w: 7, drop: 11},
	}
	ws := fit(cols, p.width())
	p.head(cols, ws)
	c.keyRows.n = len(rows)
	room := p.free()
	detail := c.keyDetail(p.width())
	if room < min(len(rows), 3)+len(detail) {
		detail = nil
	}
	from, to := c.keyRows.window(room - len(detail))
	for i := from; i < to; i++ {
		c.keyRow(p.selected(i == c.keyRows.sel), &rows[i], ws)
	}
	for _, t := range detail {
		p.row().put(t.st, t.t)
	}
	p.foot = `"vllmdeck keys" makes, changes and revokes them`
	if hidden := len(rows) - (to - from); hidden > 0 {
		p.foot = whole(hidden) + " more, j k; " + p.foot
	}
}

// keyDetail is what the selected key may do beside its limits, and what is kept of it; after an empty line.
func (c *Console) keyDetail(width int) []part {
	rows := c.keysByUse()
	if c.keyRows.sel >= len(rows) {
		return nil
	}
	k := &rows[c.keyRows.sel]
	models := Text("all models")
	if len(k.Limits.Models) > 0 {
		models = clean(strings.Join(k.Limits.Models, ", "))
	}
	priority := clean(k.Limits.Priority)
	if priority == "" {
		priority = api.PriorityNormal
	}
	failover := Text("to paid APIs as its model says")
	switch k.Limits.Failover {
	case api.FailoverNever:
		failover = "never to paid APIs, whatever its model says"
	case api.FailoverDown:
		failover = "to paid APIs while no worker can, if its model allows it"
	case api.FailoverOverload:
		failover = "to paid APIs also for overload, if its model allows it"
	}
	out := []part{{stText, ""}, {stTitle, clean(k.Name)}}
	for _, l := range []struct {
		st      style
		name, t Text
	}{
		{stText, "models    ", models},
		{stText, "priority  ", priority + " while requests wait"},
		{stText, "failover  ", failover},
		{stText, "capture   ", "off: no prompt and no answer of it is kept"},
	} {
		if l.name == "capture   " && k.Capture {
			l.st, l.t = stWarn, "on, prompts and answers are kept: vllmdeck keys captured "+clean(k.Name)
		}
		out = append(out, part{l.st, (l.name + l.t).cut(width)})
	}
	return out
}

func (c *Console) keyRow(l *line, k *api.Key, ws []int) {
	st, state := stOK, clean(k.State(c.snap.Time))
	if state != "active" {
		st = stWarn
	}
	cell := func(col int, st style, t Text) {
		if ws[col] > 0 {
			l.cell(st, t, ws[col]).gap(2)
		}
	}
	right := func(col int, st style, t Text) {
		if ws[col] > 0 {
			l.rcell(st, t, ws[col]).gap(2)
		}
	}
	// A limit stands behind the use, which warns from nine tenths of it on.
	of := func(col int, used, most int64) {
		t, st := count(used), stText
		if most > 0 {
			t += "/" + count(most)
			st = severity2(float64(used)/float64(most), 0.9, 1)
		}
		right(col, st, t)
	}
	cell(0, stText, clean(k.Name))
	cell(1, stDim, clean(k.Source))
	cell(2, st, state)
	u := k.Use
	if u == nil {
		for col := 3; col <= 5; col++ {
			right(col, stDim, unknown)
		}
		cell(6, stDim, "use not known")
		cell(7, stDim, unknown)
	} else {
		of(3, u.Requests, k.Limits.Requests)
		of(4, u.Tokens, k.Limits.Tokens)
		of(5, int64(u.InFlight), int64(k.Limits.Parallel))
		c.budget(l, u.Day, k.Limits.Day, ws[6])
		month := money(&u.Month)
		if k.Limits.Month != nil {
			month = capped(&u.Month, k.Limits.Month)
		}
		if u.Unpriced > 0 {
			month += " +?"
		}
		cell(7, capStyle(&u.Month, k.Limits.Month), month)
	}
	expires, st := Text("never"), stDim
	if !k.Expires.IsZero() {
		expires = day(k.Expires)
		if left := k.Expires.Sub(c.snap.Time); left < 7*24*time.Hour {
			st = stWarn
		}
	}
	cell(8, st, expires)
	used := unknown
	if u != nil && !u.Last.IsZero() {
		used = age(c.snap.Time.Sub(u.Last))
	}
	right(9, stDim, used)
	failover := clean(k.Limits.Failover)
	if failover == "" {
		failover = "model's"
	}
	cell(10, stDim, failover)
	if k.Capture {
		cell(11, stWarn, "on")
	} else {
		cell(11, stDim, "off")
	}
}

// budget is what was spent of a day's budget, with a bar where there is one.
func (c *Console) budget(l *line, spent api.Nanos, most *api.Nanos, width int) {
	end := l.used + width + 2
	if most == nil || *most <= 0 {
		l.cell(stText, money(&spent)+", no limit", width)
	} else {
		share := float64(spent) / float64(*most)
		figures := money(&spent) + " of " + money(most)
		if bar := width - 1 - figures.width(); bar >= 4 {
			c.g.gauge(l, severity(share, 0.9, 1), share, bar)
			l.gap(1)
		}
		l.put(capStyle(&spent, most), figures.cut(end-2-l.used))
	}
	l.to(end)
}
