package tui

import (
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// views are the tabs, by key.
var views = []struct {
	id   viewID
	name Text
}{
	{viewOverview, "Overview"},
	{viewWorkers, "Workers"},
	{viewRequests, "Requests"},
	{viewCosts, "Costs"},
	{viewPrompt, "Prompt"},
	{viewEvents, "Events"},
	{viewModels, "Models"},
}

// header is the first line: what one must never miss. What does not fit goes from the right.
func (c *Console) header(w int) string {
	l := newLine(c.th, w)
	if away := c.away(); away > 0 && c.snap == nil {
		l.put(stAlarm, " engine does not answer, retrying ").gap(1).put(stDim, clean(c.err.Error()))
		return l.string()
	} else if away > 0 {
		if simulated(c.snap) {
			l.put(stBadge, " SIMULATED ").gap(1)
		}
		if w >= 90 {
			l.put(stAlarm, " engine does not answer, "+long(away)+" old, retrying ").gap(1)
		} else {
			l.put(stAlarm, " away "+long(away)+", retrying ").gap(1)
		}
	}
	if c.snap == nil {
		l.put(stStrong, " vllmdeck").gap(2).put(stDim, "connecting"+loading)
		return l.string()
	}
	s := c.snap
	host := clean(s.Engine.Host)
	if host == "" {
		host = "vllmdeck"
	}
	l.gap(1).put(stStrong, host.cut(max(w/5, 12))).gap(2)
	for _, b := range c.badges() { // before what may be cut off
		if b.t.width()+3 <= l.left() {
			l.put(b.st, " "+b.t+" ").gap(1)
		}
	}
	switch {
	case c.paused:
		l.put(stBadge, " PAUSED "+clock(s.Time)+" ").gap(1)
		if n := c.newer(); n > 0 {
			l.put(stDim, count(n)+" newer").gap(1)
		}
		l.put(stDim, "p resumes").gap(1)
	case c.err == nil && s.Engine.Stopping:
		l.put(stBadge, " STOPPING ").gap(1)
	case c.err == nil:
		st, word := standing(s)
		l.put(st, "●").gap(1).put(st, word).gap(1)
		if c.resting { // see adopt
			l.put(stDim, "at rest since "+clock(c.movedAt)).gap(1)
		} else {
			l.put(stDim, clock(s.Time)).gap(1)
		}
	}
	for _, group := range c.headline() {
		if partsWidth(group)-len(group)+1+4 > l.left() {
			continue
		}
		l.gap(3)
		for i, p := range group {
			if i > 0 {
				l.gap(1)
			}
			l.put(p.st, p.t)
		}
	}
	return l.string()
}

// standing is the state of the service in a word. What serves nothing yet but is about to is starting,
// not down: nobody need do anything.
func standing(s *api.Snapshot) (style, Text) {
	switch s.Engine.Status {
	case "degraded":
		return stWarn, "degraded"
	case "down":
		for i := range s.Workers {
			if w := &s.Workers[i]; w.State == api.Ready || w.State == api.Draining {
				return stBad, "down" // a model of several has nobody
			}
		}
		for i := range s.Workers {
			if w := &s.Workers[i]; w.State == api.Starting {
				return stA, "starting"
			}
		}
		return stBad, "down"
	}
	return stOK, "live"
}

// newer is how many snapshots came since the pause.
func (c *Console) newer() int64 {
	if c.live == nil || c.snap == nil || c.live.Seq < c.snap.Seq {
		return 0
	}
	return int64(c.live.Seq - c.snap.Seq)
}

func (c *Console) badges() []part {
	s := c.snap
	var out []part
	if simulated(s) && c.err == nil {
		out = append(out, part{stBadge, "SIMULATED"})
	}
	if s.Engine.Exposed {
		out = append(out, part{stBadge, "NO TLS"})
	}
	if s.Engine.Ledger.Error != "" || s.Engine.Ledger.Spooled > 0 {
		out = append(out, part{stAlarm, "LEDGER " + count(int64(s.Engine.Ledger.Spooled)) + " SPOOLED"})
	}
	if c.opt.ReadOnly {
		out = append(out, part{stDim, "read-only"})
	}
	return out
}

// simulated says that something on the screen is not real.
func simulated(s *api.Snapshot) bool {
	if s.Engine.Simulated || s.Engine.Demo || s.Money.Simulated {
		return true
	}
	for i := range s.Workers {
		if s.Workers[i].Simulated {
			return true
		}
	}
	return false
}

func (c *Console) headline() [][]part {
	s := c.snap
	ready, bad := 0, 0
	for i := range s.Workers {
		switch w := &s.Workers[i]; {
		case w.State == api.Ready && !w.Stalled:
			ready++
		case w.State == api.Failed || w.Stalled:
			bad++
		}
	}
	st := stStrong
	if bad > 0 {
		st = stBad
	}
	out := [][]part{{{stDim, "workers"}, {st, whole(ready) + "/" + whole(len(s.Workers))}}}
	if bad > 0 {
		out[0] = append(out[0], part{stBad, c.g.bad})
	}
	flight := []part{{stDim, "in flight"}, {stStrong, whole(s.Traffic.InFlight)}}
	if s.Traffic.Queued > 0 {
		flight = append(flight, part{stWarn, "+" + whole(s.Traffic.Queued) + " queued"})
	}
	out = append(out, flight)
	if w := c.win(); w != nil {
		out = append(out, []part{{stDim, "errors"}, errorShare(w)})
	}
	if n := s.Money.Savings; n != nil {
		out = append(out, []part{{stDim, "net " + clean(s.Money.Period)}, {netStyle(n), signed(n)}})
	}
	if w := c.win(); w != nil {
		if w.Rejected > 0 {
			out = append(out, []part{{stDim, "rejected"}, {stWarn, count(w.Rejected)}})
		}
		out = append(out, []part{{stDim, "window"}, {stStrong, windowName(w.Span)}})
	}
	if v := c.opt.Version; v != "" && s.Engine.Version != "" && v != s.Engine.Version {
		out = append(out, []part{{stWarn, "engine " + clean(s.Engine.Version)}})
	}
	return out
}

// errorShare is the share of requests that failed, of those that we took on and nobody cancelled.
func errorShare(w *api.Window) part {
	st, n := stStrong, w.Count-w.Rejected-w.Cancelled
	if w.Failed > 0 {
		st = stBad
	}
	if n <= 0 {
		return part{st, unknown}
	}
	return part{st, percent(float64(w.Failed) / float64(n))}
}

func netStyle(n *api.Nanos) style {
	if n != nil && *n < 0 {
		return stBad
	}
	return stStrong
}

// tabs is the second line.
func (c *Console) tabs(w int) string {
	l := newLine(c.th, w)
	full := 3 // of the count behind the last
	for _, v := range views {
		full += v.name.width() + 4
	}
	for _, v := range views {
		key, name := v.id.key(), v.name
		if full > w && v.id != c.view {
			name = name.cut(3)
		}
		if v.id == viewEvents {
			if n := c.activeNotices(); n > 0 {
				name += " " + whole(n) + "!"
			}
		}
		if v.id == c.view {
			l.put(stTab, " "+key+" "+name+" ")
		} else {
			l.gap(1).put(stKey, key).gap(1).put(stDim, name).gap(1)
		}
	}
	if c.zoom != paneNone {
		l.right(stDim, spec(c.zoom).name+" zoomed, esc back", 1)
	}
	return l.string()
}

func (c *Console) activeNotices() int {
	n := 0
	if c.snap != nil {
		for i := range c.snap.Notices {
			if c.snap.Notices[i].Active && c.snap.Notices[i].Level != "info" {
				n++
			}
		}
	}
	return n
}

// footer is the last line: what one can do here, or what just happened.
func (c *Console) footer(w int) string {
	l := newLine(c.th, w)
	switch {
	case c.input != nil:
		l.put(stKey, c.input.prompt).put(stText, tailOf(clean(c.input.text), w-c.input.prompt.width()-1)).put(stStrong, "▏")
		return l.string()
	case c.toast != "":
		l.gap(1).put(c.toastStyle, c.toast)
		return l.string()
	}
	hidden := c.hidden()
	room := w
	if hidden != "" {
		room = w - hidden.width() - 3
	}
	l.gap(1)
	for _, b := range c.hints() {
		if l.used+b.hintKey.width()+1+b.hint.width()+2 > room {
			break
		}
		l.put(stKey, b.hintKey).gap(1).put(stDim, b.hint).gap(2)
	}
	l.right(stFaint, hidden, 1)
	return l.string()
}

// tailOf keeps the end of a text that is too long.
func tailOf(t Text, n int) Text {
	for t.width() > n && t != "" {
		r := []rune(t)
		t = clean(string(r[1:]))
	}
	return t
}

// hidden names the panes of the overview that this size does not show.
func (c *Console) hidden() Text {
	if c.zoom != paneNone || c.help {
		return ""
	}
	if c.w < 60 || c.h < 15 {
		return ""
	}
	if c.w < 80 || c.h < 24 {
		all := c.visible()
		for i, id := range all {
			if id == c.focused() && len(all) > 1 {
				return "pane " + whole(i+1) + " of " + whole(len(all)) + ", tab"
			}
		}
		return ""
	}
	if c.view != viewOverview || c.snap == nil || c.noPoints() { // what is not there has nothing to show yet
		return ""
	}
	var out Text
	for _, id := range []paneID{paneThroughput, paneLatency, paneMoney, paneHealth, paneWorkers, paneRequests, paneNotices} {
		shown := false
		for _, r := range c.rects {
			shown = shown || r.Pane == id
		}
		if !shown {
			if out != "" {
				out += ", "
			}
			out += spec(id).name
		}
	}
	if out == "" {
		return ""
	}
	return "hidden: " + out
}

// since says when a period began.
func since(t time.Time) Text {
	if t.IsZero() {
		return ""
	}
	return "since " + clock(t)
}
