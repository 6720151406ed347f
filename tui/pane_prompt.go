package tui

import (
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func (c *Console) drawEditor(p *panel) {
	v := &c.prompt
	model := v.modelName(c.snap)
	if model == "" {
		p.say(stDim, "no model: the engine has no workers")
		return
	}
	m := c.model(model)
	p.show(stDim, "model")
	p.show(stStrong, clean(model))
	if len(c.snap.Models) > 1 {
		p.show(stDim, "m next")
	}
	switch {
	case m == nil || m.Ready > 0:
	case m.Servable():
		p.show(stWarn, "goes to "+clean(m.Providers[0])+", for money")
	default:
		p.show(stWarn, "no worker ready")
	}
	if c.opt.ReadOnly {
		p.row().put(stDim, "read-only: prompts are not sent from here")
		return
	}
	h := p.height()
	v.editor.SetWidth(max(p.width(), 4))
	v.editor.SetHeight(max(h, 1))
	if v.editor.Value() == "" {
		hint := Text("write a prompt, enter sends it, alt+enter begins a new line")
		if !c.typing() {
			hint = "i to write a prompt"
		}
		p.row().put(stFaint, hint)
		return
	}
	for l := range strings.SplitSeq(v.editor.View(), "\n") {
		if p.free() <= 0 {
			return
		}
		// The editor adds resets of its own; its text went through Sanitize before.
		p.row().put(stText, clean(strings.TrimRight(stripSGR(l), " ")))
	}
}

// stripSGR takes the style sequences of our own editor out of a line.
func stripSGR(s string) string {
	for {
		i := strings.Index(s, "\x1b[")
		if i < 0 {
			return s
		}
		j := strings.IndexByte(s[i:], 'm')
		if j < 0 {
			return s
		}
		s = s[:i] + s[i+j+1:]
	}
}

func (c *Console) model(name string) *api.Model {
	for i := range c.snap.Models {
		if c.snap.Models[i].Name == name {
			return &c.snap.Models[i]
		}
	}
	return nil
}

func (c *Console) drawAnswer(p *panel) {
	v := &c.prompt
	if v.id == "" {
		p.say(stDim, "The answer streams here, with its time to first token, pace and cost both ways.")
		return
	}
	t := v.test(c.snap)
	c.answerTitle(p, t)
	asked := clean(v.asked)
	if asked == "" && t != nil {
		asked = clean(t.Prompt)
	}
	foot := 2
	if p.height() < 8 {
		foot = 1
	}
	if p.height() >= 8 {
		p.row().put(stA, "› ").put(stDim, asked.cut(p.width()-2))
	}
	v.height = max(p.free()-foot, 1)
	text := v.lay(p.width())
	from := v.top
	if !v.held {
		from = max(len(text)-v.height, 0)
	}
	for i := from; i < len(text) && i < from+v.height; i++ {
		p.row().put(stText, text[i])
	}
	if v.held {
		p.foot = "held, G to the end"
	}
	switch {
	case v.err != "":
		p.say(stBad, v.err)
	case t != nil && t.Error != "":
		p.say(stBad, clean(t.Error))
	case v.raw.Len() == 0 && v.running(c.snap):
		p.row().put(stDim, "waiting for the first token"+loading)
	}
	for p.free() > foot {
		p.row()
	}
	if t != nil {
		c.answerFigures(p, t)
	}
}

func (c *Console) answerTitle(p *panel, t *api.Prompt) {
	if t == nil {
		return
	}
	if t.Simulated {
		p.show(stBadge, " SIMULATED ")
	}
	st := stA
	switch t.State {
	case "done":
		st = stOK
	case "failed":
		st = stBad
	case "cancelled":
		st = stDim
	}
	p.show(stDim, clean(t.Model))
	if t.Worker != "" {
		p.show(stDim, "on "+clean(t.Worker))
	}
	p.show(st, clean(t.State))
}

func (c *Console) answerFigures(p *panel, t *api.Prompt) {
	health := unknown
	if t.Health != nil {
		health = decimals(*t.Health, 2)
	}
	took := span(t.Duration)
	if t.Duration == 0 && !ended(t.State) && !t.Started.IsZero() {
		took = seconds(max(c.snap.Time.Sub(t.Started).Seconds(), 0))
	}
	groups := [][]part{
		{{stDim, "TTFT"}, {stStrong, span(t.TTFT)}},
		{{stDim, "pace"}, {stStrong, rate(val(t.Rate))}, {stDim, "tok/s"}},
		{{stDim, "tokens"}, {stText, metered(t.Usage.Prompt(), t.UsageSource) + " in, " + metered(t.Usage.Completion(), t.UsageSource) + " out"}},
		{{stDim, "took"}, {stText, took}},
		{{stDim, "health"}, {stText, health}},
		{{stDim, "finish"}, {stText, clean(t.Finish)}},
	}
	costs := [][]part{
		{{stDim, "actual"}, {stStrong, money(t.Actual)}},
		{{stDim, "would have cost"}, {stStrong, money(t.Would)}},
		{{stDim, (&moneyView{&c.snap.Money}).baseline()}},
	}
	if p.free() < 2 {
		groups = append(groups[:3:3], costs[0], costs[1])
		costs = nil
	}
	for _, row := range [][][]part{groups, costs} {
		if row == nil || p.free() <= 0 {
			continue
		}
		l := p.row()
		for _, g := range row {
			w := 0
			for _, f := range g {
				w += f.t.width() + 1
			}
			if w > l.left() || g[len(g)-1].t == "" {
				continue
			}
			for _, f := range g {
				l.put(f.st, f.t).gap(1)
			}
			l.gap(2)
		}
	}
}

func (c *Console) drawHistory(p *panel) {
	all := c.snap.Prompts
	if len(all) == 0 {
		p.row().put(stDim, "nothing asked yet")
		return
	}
	c.prompts.n = len(all)
	from, to := c.prompts.window(max(p.free()/2, 1))
	for i := from; i < to; i++ {
		t := &all[i]
		l := p.selected(i == c.prompts.sel)
		st := stText
		if t.ID == c.prompt.id {
			st = stStrong
		}
		l.put(stDim, clock(t.Started)).gap(1).put(st, clean(t.Prompt))
		l = p.selected(i == c.prompts.sel)
		l.gap(6)
		switch t.State {
		case "done":
			l.put(stDim, span(t.TTFT)+"  "+rate(val(t.Rate))+" tok/s  "+money(t.Actual))
		case "failed":
			l.put(stBad, "failed ").put(stDim, clean(t.Error))
		default:
			l.put(stDim, clean(t.State)+" "+long(max(c.snap.Time.Sub(t.Started), 0*time.Second)))
		}
	}
}
