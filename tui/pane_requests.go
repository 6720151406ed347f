package tui

import (
	"math"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// ending is how a request ended, in a word, and its severity.
func (c *Console) ending(r *api.Request) (style, Text) {
	switch r.Outcome {
	case api.OutcomeOpen:
		if r.Position > 0 {
			return stWarn, "waits " + ordinal(r.Position)
		}
		if r.TTFT > 0 {
			return stA, "streams"
		}
		if r.Worker == "" {
			return stWarn, "queued"
		}
		return stA, "waits"
	case api.OutcomeOK:
		return stOK, "ok"
	case api.OutcomeCancelled:
		return stDim, "cancelled"
	case api.OutcomeRejected:
		return stWarn, "rejected"
	case api.OutcomeError:
		return stBad, "error"
	case api.OutcomeLost:
		return stBad, "cut off"
	case api.OutcomeInterrupted:
		return stWarn, "interrupted"
	}
	return stDim, clean(r.Outcome)
}

// ordinal writes a place in line: 1st, 2nd, 3rd, 11th.
func ordinal(n int) Text {
	end := Text("th")
	if n/10%10 != 1 {
		switch n % 10 {
		case 1:
			end = "st"
		case 2:
			end = "nd"
		case 3:
			end = "rd"
		}
	}
	return whole(n) + end
}

// metered writes a token count, marked where the server did not give it.
func metered(n int64, source string) Text {
	switch source {
	case api.UsageUpstream:
		return count(n)
	case api.UsageCounted, api.UsageTokenized:
		return "≈" + count(n)
	}
	return unknown
}

// promptTokens is metered for the prompt: what was counted as it passed says nothing of it.
func promptTokens(r *api.Request) Text {
	if n := r.Usage.Prompt(); n > 0 || r.UsageSource == api.UsageUpstream {
		return metered(n, r.UsageSource)
	}
	return unknown
}

// elapsed is how long a request has taken, or took.
func (c *Console) elapsed(r *api.Request) float64 {
	if r.Duration > 0 {
		return time.Duration(r.Duration).Seconds()
	}
	if r.Outcome == api.OutcomeOpen && !r.Started.IsZero() {
		return max(c.snap.Time.Sub(r.Started).Seconds(), 0)
	}
	return math.NaN()
}

// pace is completion tokens per second after the first.
func (c *Console) pace(r *api.Request) float64 {
	decode := c.elapsed(r) - time.Duration(r.TTFT).Seconds()
	n := r.Usage.Completion()
	if r.TTFT <= 0 || n < 2 || !(decode > 0.01) || r.UsageSource == api.UsageUnknown || r.UsageSource == "" {
		return math.NaN()
	}
	return float64(n-1) / decode
}

func (c *Console) drawRequests(p *panel) {
	rows := c.requestRows()
	w := c.win()
	if n := c.snap.Traffic.Queued; n > 0 {
		p.show(stWarn, whole(n)+" wait for a worker")
	}
	p.show(stDim, whole(c.snap.Traffic.InFlight)+" in flight")
	if t := c.orderText(paneRequests); t != "" {
		p.show(stKey, t)
	}
	if w != nil {
		p.show(stDim, count(w.Count)+" ended in "+windowName(w.Span))
	}
	if len(rows) == 0 {
		if c.filters[paneRequests].text != "" {
			p.row().put(stDim, "no request matches the filter, esc clears it")
		} else {
			p.say(stDim, "no request yet; point an OpenAI client at "+clean(c.snap.Engine.URL)+"/v1, or press 8 to try a prompt")
		}
		return
	}
	model, worker, key := 6, 6, 3
	for i := range rows {
		model = min(max(model, clean(rows[i].Model).width()), 30)
		worker = min(max(worker, clean(rows[i].Worker).width()), 16)
		key = min(max(key, clean(rows[i].Key).width()), 14)
	}
	cols := []tcol{
		{head: "TIME", w: 8, drop: 3},
		{head: "STATUS", w: 12},
		{head: "MODEL", w: min(model, 10), max: model, drop: 2},
		{head: "WORKER", w: min(worker, 6), max: worker, drop: 6},
		{head: "KEY", w: min(key, 6), max: key, drop: 10},
		{head: "PROMPT", w: 6, right: true, drop: 5},
		{head: "OUT", w: 6, right: true},
		{head: "TTFT", w: 6, right: true, drop: 1},
		{head: "TOOK", w: 6, right: true},
		{head: "TOK/S", w: 5, right: true, drop: 4},
		{head: "ACTUAL", w: moneyWidth, right: true, drop: 7},
		{head: "WOULD", w: moneyWidth, right: true, drop: 8},
		{head: "HEALTH", w: 6, right: true, drop: 9},
		{head: "CLASS", w: 9, drop: 12},
		{head: "NOTE", w: 10, max: 80, drop: 11},
	}
	ws := fit(cols, p.width())
	p.head(cols, ws)
	c.requests.n = len(rows)
	from, to := c.requests.window(p.free())
	for i := from; i < to; i++ {
		r := &rows[i]
		l := p.selected(i == c.requests.sel)
		st, word := c.ending(r)
		if r.Outcome == api.OutcomeRejected || r.Outcome == api.OutcomeError {
			if r.Status > 0 {
				word = whole(r.Status) + " " + word
			}
		}
		note := clean(r.Error)
		if note == "" && r.Finish != "" && r.Finish != "stop" {
			note = "finish " + clean(r.Finish)
		}
		if note == "" && len(r.Attempts) > 1 {
			note = "moved, " + plural(int64(len(r.Attempts)), "attempt", "attempts")
		}
		if note == "" && r.Position > 0 && r.Wait > 0 {
			note = "about " + span(r.Wait) + " to wait"
		}
		health := unknown
		if r.Health != nil {
			health = decimals(*r.Health, 2)
		}
		cells := []part{
			{stDim, hms(r.Started)},
			{st, word},
			{stText, clean(r.Model)},
			{stText, clean(r.Worker)},
			{stDim, clean(r.Key)},
			{stText, promptTokens(r)},
			{stStrong, metered(r.Usage.Completion(), r.UsageSource)},
			{stText, span(r.TTFT)},
			{stText, seconds(c.elapsed(r))},
			{stText, rate(c.pace(r))},
			{stText, cellMoney(r.Actual)},
			{stDim, cellMoney(r.Would)},
			{stText, health},
			{stDim, clean(r.Class)},
			{stDim, note},
		}
		l.cells(cols, ws, cells)
	}
	if hidden := len(rows) - (to - from); hidden > 0 {
		p.foot = whole(hidden) + " more, j k"
	}
}

// drawRequest is the detail of the selected request.
func (c *Console) drawRequest(p *panel) {
	r := c.request()
	if r == nil {
		p.row().put(stDim, "no request selected")
		return
	}
	p.name = "Request"
	if r.Simulated {
		p.show(stBadge, " SIMULATED ")
	}
	p.show(stDim, clean(r.ID))
	st, word := c.ending(r)
	l := p.row()
	l.put(st, word)
	if r.Status > 0 {
		l.gap(1).put(stText, "HTTP "+whole(r.Status))
	}
	for _, t := range []Text{clean(r.Model), "on " + clean(r.Worker), clean(r.Route), "key " + clean(r.Key), "class " + clean(r.Class)} {
		if t.width()+2 < l.left() && t != "on " && t != "key " {
			l.gap(2).put(stDim, t)
		}
	}
	if id := clean(r.Client); id != "" {
		p.row().put(stDim, "client's id  ").put(stText, id)
	}
	if r.Error != "" {
		for i, t := range clean(r.Error).wrap(max(p.width()-2, 1)) {
			if i == 3 {
				break
			}
			p.row().gap(2).put(stBad, t)
		}
	}
	if r.Position > 0 {
		l := p.row()
		l.cell(stDim, "Queue", 14).put(stWarn, ordinal(r.Position)+" in line for a worker").put(stText, ", waits for "+span(r.Queue))
		if r.Wait > 0 {
			l.put(stText, ", about "+span(r.Wait)+" more")
		}
	}
	c.waterfall(p, r)
	row := func(name Text, v Text, st style, note Text) {
		if p.free() > 0 {
			p.row().cell(stDim, name, 14).put(st, v).gap(2).put(stDim, note)
		}
	}
	u := r.Usage
	in := promptTokens(r) + " prompt"
	if u.CacheRead > 0 {
		in += " (" + count(u.CacheRead) + " cached)"
	}
	in += ", " + metered(u.Completion(), r.UsageSource) + " completion"
	if u.Reasoning > 0 {
		in += " (" + count(u.Reasoning) + " reasoning)"
	}
	source := Text("")
	switch r.UsageSource {
	case api.UsageCounted:
		source = "≈ content events counted as they passed"
	case api.UsageTokenized:
		source = "≈ counted by /tokenize"
	case api.UsageUnknown, "":
		in, source = unknown, "not known"
	}
	row("Tokens", in, stText, source)
	pace := rate(c.pace(r)) + " tok/s after the first"
	if r.ITL > 0 {
		pace += ", " + span(r.ITL) + " between, longest gap " + span(r.MaxGap)
	}
	if r.TTFT > 0 {
		row("Pace", pace, stText, "")
	}
	basis := clean(r.Basis)
	switch r.Basis {
	case api.BasisGPUTime:
		basis = "share of worker time"
	case api.BasisPerToken:
		basis = "flat rates, an assumption"
	case api.BasisProviderPrice:
		basis = "what the provider charges"
	}
	if r.Actual == nil {
		basis = ""
		if r.Outcome == api.OutcomeOpen {
			basis = "fixed when it ends"
		}
	}
	row("Actual", money(r.Actual), stText, basis)
	base := clean(r.Baseline)
	if r.PriceDate != "" {
		base += ", prices of " + clean(r.PriceDate)
	}
	if r.Prices != nil {
		base += " (" + perMillion(r.Prices.Input) + " in, " + perMillion(r.Prices.Output) + " out)"
	}
	row("Would have", money(r.Would), stText, base)
	if r.Actual != nil && r.Would != nil {
		net := *r.Would - *r.Actual
		note := Text("")
		switch {
		case r.Simulated:
			note = "simulated"
		case r.Class != api.ClassServed:
			note = "class " + clean(r.Class) + " earns no savings"
		}
		row("Net", signed(&net), netStyle(&net), note)
	}
	if r.Health != nil {
		row("Health", decimals(*r.Health, 2), stText, "a detector of defects, not quality")
	}
	if r.Finish != "" {
		row("Finish", clean(r.Finish), stText, "")
	}
	if len(r.Attempts) > 0 && p.free() > 1 {
		p.row().put(stTitle, "Attempts")
		for i := range r.Attempts {
			a := &r.Attempts[i]
			if p.free() <= 0 {
				return
			}
			ast := stText
			if a.Outcome != api.OutcomeOK && a.Outcome != api.OutcomeOpen {
				ast = stWarn
			}
			p.row().gap(1).rcell(stDim, whole(i+1), 2).gap(2).cell(stText, clean(a.Upstream), 14).gap(1).cell(ast, clean(a.Outcome), 16).gap(1).
				put(stDim, span(a.Share)+" of worker time").gap(2).put(stText, money(a.Actual)).gap(2).put(stBad, clean(a.Error))
		}
	}
}

// waterfall shows where the time went: waiting, prefill, decode, or all of it with the worker.
func (c *Console) waterfall(p *panel, r *api.Request) {
	total := c.elapsed(r)
	if !known(total) || total <= 0 || p.free() < 3 {
		return
	}
	q, t := min(time.Duration(r.Queue).Seconds(), total), min(time.Duration(r.TTFT).Seconds(), total)
	prefill, decode, answer := 0.0, 0.0, 0.0
	switch {
	case t > 0:
		prefill, decode = max(t-q, 0), max(total-t, 0)
	case r.Worker == "" && r.Outcome == api.OutcomeOpen:
		q = total
	case r.Stream && r.Outcome == api.OutcomeOpen:
		prefill = max(total-q, 0)
	default: // not streamed, or nothing came: only the whole is known
		answer = max(total-q, 0)
	}
	with := Text("worker")
	if r.Worker == "" {
		with = "gateway" // it was answered here
	}
	cells := p.width()
	bar, legend := p.row(), p.row()
	at := 0.0
	for _, s := range []struct {
		name Text
		v    float64
		st   style
	}{{"queue", q, stC2}, {"prefill", prefill, stB2}, {"decode", decode, stA2}, {with, answer, stA2}} {
		if s.v <= 0 {
			continue
		}
		from := int(at / total * float64(cells))
		at += s.v
		to := int(math.Round(at / total * float64(cells)))
		bar.fill(s.st, p.g.block, max(to-from, 1))
		legend.put(s.st, p.g.block).gap(1).put(stDim, s.name).gap(1).put(stText, seconds(s.v)).gap(3)
	}
	legend.right(stDim, "in all "+seconds(total), 0)
}
