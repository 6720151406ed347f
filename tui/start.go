package tui

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// steady is a figure that is never quite still, held until it has moved by a step: what does not
// matter must not redraw a screen at rest.
func (c *Console) steady(name string, v, step float64) float64 {
	held, ok := c.held[name]
	if !ok || !known(v) || !known(held) || math.Abs(v-held) >= step {
		held = v
		c.held[name] = v
	}
	return held
}

// coming is how long a start is expected to take in all and from now on, by the last start that
// came to ready; ok is false where there was none.
func coming(w *api.Worker) (whole, left float64, ok bool) {
	if w.State != api.Starting || len(w.LastStart) == 0 {
		return 0, 0, false
	}
	taken := map[string]api.PhaseTime{}
	for _, p := range w.Phases {
		taken[p.Name] = p
	}
	for _, last := range w.LastStart {
		s := last.Seconds
		if !known(s) || s < 0 {
			return 0, 0, false
		}
		whole += s
		switch now, begun := taken[last.Name]; {
		case now.Done:
		case begun && known(now.Seconds):
			left += max(s-now.Seconds, 0)
		default:
			left += s
		}
	}
	return whole, left, whole > 0
}

// lastStart is how long the last start that came to ready took, in seconds; 0 where there was none.
func lastStart(w *api.Worker) float64 {
	s := 0.0
	for _, p := range w.LastStart {
		if known(p.Seconds) && p.Seconds > 0 {
			s += p.Seconds
		}
	}
	return s
}

// eta says when a starting worker should be ready.
func eta(w *api.Worker) Text {
	whole, left, ok := coming(w)
	switch {
	case !ok:
		return ""
	case left < 1:
		return "longer than last time, " + seconds(whole)
	}
	return "about " + long(time.Duration(math.Ceil(left))*time.Second) + " left"
}

// workerStory takes the rest of the row of a worker that does not serve: how far the start is, or
// why there is none.
func (c *Console) workerStory(l *line, w *api.Worker, st style) {
	if w.Blocked != "" && !serves(w) {
		l.cell(st, "blocked", 10).gap(2).put(stText, clean(w.Blocked)).right(stDim, "for "+age(c.snap.Time.Sub(w.Since)), 0)
		return
	}
	switch w.State {
	case api.Starting:
		l.cell(st, c.stateWord(w), 10).gap(2).put(stText, clean(w.Phase))
		if w.Phase == "" {
			l.put(stText, "launch")
		}
		if w.Progress != nil {
			l.gap(1)
			c.g.gauge(l, stA, *w.Progress, 10)
			l.gap(1).put(stText, percentInt(*w.Progress))
		}
		l.gap(2).put(stDim, "for "+long(c.snap.Time.Sub(w.Since)))
		if t := eta(w); t != "" && t.width()+2 <= l.left() {
			l.gap(2).put(stText, t)
		}
		if w.Error != "" && !c.ails(w) && l.left() > 24 {
			l.gap(2).put(stWarn, "after: "+clean(w.Error))
		}
	case api.Failed:
		l.cell(st, "failed", 10).gap(2)
		next := Text("")
		if !w.NextStart.IsZero() {
			next = "again at " + hms(w.NextStart)
		}
		why := clean(w.Error)
		if why == "" || c.ails(w) { // said in full below
			why = clean(w.Exit)
			if w.Restarts > 0 {
				why += ", " + plural(int64(w.Restarts), "restart", "restarts")
			}
			if t, ok := strings.CutPrefix(string(why), ", "); ok {
				why = clean(t)
			}
		}
		room := l.left()
		if next != "" && room > 40 {
			room -= next.width() + 2
		} else {
			next = ""
		}
		l.put(stBad, why.cut(room))
		l.right(stDim, next, 0)
	case api.Asleep:
		if w.Phase == api.PhaseWaking {
			l.cell(stA, "waking", 10).gap(2).put(stText, "its weights come back").gap(2).put(stDim, "level "+whole(w.Level))
			return
		}
		l.cell(st, "asleep", 10).gap(2).put(stDim, "since "+clock(w.Since)+", level "+whole(w.Level))
		if w.Level == 2 {
			l.put(stDim, ", weights dropped")
		} else {
			l.put(stDim, ", weights in memory")
		}
		l.gap(2).put(stDim, "a request wakes it")
	default:
		l.cell(st, c.stateWord(w), 10).gap(2).put(stDim, "since "+clock(w.Since))
		if w.State == api.Stopping {
			l.gap(2).put(stDim, whole(w.InFlight)+" in flight")
		}
	}
}

// ailing is the worker whose trouble is said in full on the overview: the selected one if it has any,
// else the first that failed, else the first that starts again after a failure.
func (c *Console) ailing() *api.Worker {
	rows := c.workerRows()
	if w := c.worker(); w != nil && w.Error != "" {
		return w
	}
	for _, state := range []api.State{api.Failed, api.Starting} {
		for i := range rows {
			if rows[i].State == state && rows[i].Error != "" {
				return &rows[i]
			}
		}
	}
	return nil
}

// ails says that the overview says in full what ails a worker.
func (c *Console) ails(w *api.Worker) bool {
	a := c.ailing()
	return c.view == viewOverview && a != nil && a.Name == w.Name
}

// trouble is what ails a worker and what mends it, in lines for below the table of the overview: the
// reader should not have to go anywhere to see why it does not serve.
func (c *Console) trouble(width int) []part {
	w := c.ailing()
	if w == nil || c.view != viewOverview {
		return nil
	}
	var out []part
	add := func(st style, mark, t Text, most int) {
		lines := t.wrap(max(width-5, 8))
		for i, line := range lines[:min(len(lines), most)] {
			if i == most-1 && len(lines) > most {
				line = (line + loading).cut(max(width-5, 8))
			}
			out = append(out, part{st, mark + " " + line})
			mark = " "
		}
	}
	name := clean(w.Name) + ": "
	if w.State == api.Starting {
		name = clean(w.Name) + " starts again after: "
	}
	add(stBad, c.g.bad, name+clean(w.Error), 2)
	if w.Remedy != "" {
		remedy := clean(w.Remedy)
		if w.Fix != nil && !c.opt.ReadOnly {
			remedy = "F carries it out: " + remedy
		}
		add(stText, c.g.arrow, remedy, 2)
	}
	return out
}

// timeline is the phases of the last start with how long each took; of one under way also those to
// come, as long as they took the last time.
func (c *Console) timeline(p *panel, w *api.Worker) {
	if len(w.Phases) == 0 {
		p.row().put(stDim, "no start of ours to show")
		return
	}
	type bar struct {
		name        Text
		took, still float64 // seconds
		st          style
	}
	var bars []bar
	took, all := 0.0, 0.0
	last := map[string]float64{}
	_, _, estimated := coming(w)
	if estimated {
		for _, ph := range w.LastStart {
			last[ph.Name] = ph.Seconds
		}
	}
	for _, ph := range w.Phases {
		s := max(ph.Seconds, 0)
		if !known(s) {
			s = 0
		}
		b := bar{name: clean(ph.Name), took: s, st: stA}
		if !ph.Done {
			b.st, b.still = stC, max(last[ph.Name]-s, 0)
			if w.State == api.Failed {
				b.st = stBad
			}
		}
		delete(last, ph.Name)
		bars = append(bars, b)
	}
	if estimated {
		for _, ph := range w.LastStart {
			if s, ok := last[ph.Name]; ok {
				bars = append(bars, bar{name: clean(ph.Name), still: s})
			}
		}
	}
	for _, b := range bars {
		took, all = took+b.took, all+b.took+b.still
	}
	before := map[string]float64{} // how long the phases took the last time, where that differs
	if p.width() >= 70 && !slices.EqualFunc(w.Phases, w.LastStart, func(a, b api.PhaseTime) bool { return a.Name == b.Name && a.Seconds == b.Seconds }) {
		for _, ph := range w.LastStart {
			before[ph.Name] = ph.Seconds
		}
	}
	cells := max(p.width()-12-9-3, 4)
	if len(before) > 0 {
		cells -= 15
	}
	at := 0.0
	for _, b := range bars {
		if p.free() <= 0 {
			return
		}
		l := p.row()
		name, amount := stText, seconds(b.took)
		if b.took == 0 && b.still > 0 {
			name, amount = stDim, "~"+seconds(b.still)
		}
		l.cell(name, b.name, 12)
		if all > 0 {
			cell := func(s float64) int { return int(math.Round(s / all * float64(cells))) }
			from := cell(at)
			now := cell(at+b.took) - from
			if b.took > 0 {
				now = max(now, 1)
			}
			l.fill(stFaint, p.g.sep, from).fill(b.st, p.g.block, now).fill(stFaint, p.g.rest, cell(at+b.took+b.still)-from-now)
		}
		l.to(12 + cells).gap(1)
		if name == stDim {
			l.rcell(stDim, amount, 8)
		} else {
			l.rcell(stStrong, amount, 8)
		}
		if s, ok := before[string(b.name)]; ok {
			l.gap(2).put(stDim, "last ").rcell(stDim, seconds(s), 7)
		}
		at += b.took + b.still
	}
	l := p.row()
	l.cell(stDim, "in all", 12).put(stStrong, seconds(took))
	if t := eta(w); t != "" {
		l.gap(2).put(stText, t)
		if whole, _, _ := coming(w); t.width() < 20 {
			l.put(stDim, ", last start took "+seconds(whole))
		}
	}
	if !w.Started.IsZero() {
		since := hms(w.Started)
		if day(w.Started) != day(c.snap.Time) {
			since = day(w.Started) + " " + since
		}
		l.gap(2).put(stDim, "since "+since)
	}
	if w.Adopted {
		p.row().put(stDim, "taken over from an earlier engine")
	}
}
