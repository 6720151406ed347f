package tui

import (
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// stops says what a restart of a worker does to requests: who is cut short, who else serves.
func (c *Console) stops(w *api.Worker) []part {
	others := 0
	for i := range c.snap.Workers {
		if o := &c.snap.Workers[i]; o.Model == w.Model && o.Name != w.Name && o.State == api.Ready {
			others++
		}
	}
	lines := []part{{stText, "worker   " + clean(w.Name) + ", " + c.stateWord(w) + sim(w.Simulated) + ", " + whole(w.InFlight) + " in flight"}, {stText, "model    " + clean(w.Model)}}
	if serves(w) && others == 0 {
		lines = append(lines, part{stBad, "No other ready worker has this model: clients will wait or get an error."})
	} else if serves(w) {
		lines = append(lines, part{stText, plural(int64(others), "other ready worker keeps", "other ready workers keep") + " serving this model."})
	}
	switch {
	case w.InFlight > 0:
		lines = append(lines, part{stDim, "The " + plural(int64(w.InFlight), "request", "requests") + " in flight may finish, then its process tree ends and it starts anew."})
	case serves(w):
		lines = append(lines, part{stDim, "Its process tree ends and it starts anew: weights are loaded again."})
	}
	return lines
}

// askFix shows what a change of a worker's command line would come to, and asks.
func (c *Console) askFix(w *api.Worker, f *api.Fix) {
	if f == nil {
		c.say(stDim, "no remedy of "+clean(w.Name)+" is a change of its command line")
		return
	}
	lines := c.stops(w)
	if f.Why != "" {
		lines = append(lines, part{stText, clean(f.Why)})
	}
	for _, set := range f.Set {
		was := Text(", new")
		if v, there := valueIn(w.Command, flagName(set)); there && v != "" {
			was = ", was " + clean(v)
		} else if there {
			was = ", as it is"
		}
		lines = append(lines, part{stWarn, "+ " + clean(set) + was})
	}
	for _, u := range f.Unset {
		lines = append(lines, part{stWarn, "- " + clean(u) + ", goes"})
	}
	for _, e := range f.Env {
		lines = append(lines, part{stWarn, "+ " + clean(e) + " in its environment"})
	}
	lines = append(lines, part{stDim, "The new command line, until u goes back to the config's:"})
	changed := flagsIn(f.Set)
	var flow []part
	for _, a := range argsOf(f.Command) {
		st := stText
		if a.flag != "" && changed[a.flag] {
			st = stWarn
		}
		flow = append(flow, part{st, clean(a.text)})
	}
	args := map[string]string{}
	if len(f.Set) > 0 {
		args["set"] = strings.Join(f.Set, "\n")
	}
	if len(f.Unset) > 0 {
		args["unset"] = strings.Join(f.Unset, "\n")
	}
	if len(f.Env) > 0 {
		args["env"] = strings.Join(f.Env, "\n")
	}
	a := api.Action{Verb: api.WorkerFix, Target: w.Name, Args: args}
	c.ask(&dialog{title: "Restart " + clean(w.Name) + " with other arguments?", lines: lines, flow: flow, yes: "restart so", do: func(c *Console) tea.Cmd { return c.act(a) }})
}

// remedy carries out what the detail shows: the selected advice, or the worker's own remedy.
func (c *Console) remedy() {
	w := c.worker()
	if w == nil {
		return
	}
	if rows := c.adviceRows(); c.focused() == paneWorker && c.detailTab() == tabAdvice && c.advices.sel < len(rows) {
		c.askFix(w, rows[c.advices.sel].Fix)
		return
	}
	c.askFix(w, w.Fix)
}

// canFix says that remedy has something to carry out.
func (c *Console) canFix() bool {
	w := c.worker()
	if w == nil {
		return false
	}
	if rows := c.adviceRows(); c.focused() == paneWorker && c.detailTab() == tabAdvice && c.advices.sel < len(rows) {
		return rows[c.advices.sel].Fix != nil
	}
	return w.Fix != nil
}

func (c *Console) askUnfix(w *api.Worker) {
	lines := append(c.stops(w), part{stWarn, "It runs by order with: " + clean(strings.Join(w.Fixed, ", "))}, part{stDim, "It starts anew with the config's own arguments."})
	a := api.Action{Verb: api.WorkerUnfix, Target: w.Name}
	c.ask(&dialog{title: "Restart " + clean(w.Name) + " as the config says?", lines: lines, yes: "restart so", do: func(c *Console) tea.Cmd { return c.act(a) }})
}

// askSleep puts a worker to sleep at one of two depths, or wakes it.
func (c *Console) askSleep(w *api.Worker) {
	order := func(a api.Action) func(*Console) tea.Cmd {
		return func(c *Console) tea.Cmd { return c.act(a) }
	}
	if w.State == api.Asleep {
		lines := []part{{stText, "worker   " + clean(w.Name) + ", asleep, level " + whole(w.Level)}, {stText, "model    " + clean(w.Model)}}
		why := Text("Its weights go back to the GPU from memory; then requests are routed to it.")
		if w.Level == 2 {
			why = "Its weights are loaded from disk again; then requests are routed to it."
		}
		c.ask(&dialog{title: "Wake " + clean(w.Name) + "?", lines: append(lines, part{stDim, why}), yes: "wake", do: order(api.Action{Verb: api.WorkerWake, Target: w.Name})})
		return
	}
	lines := c.stops(w)
	if n := len(lines); n > 2 {
		lines = lines[:n-1] // nothing restarts
	}
	lines = append(lines, part{stDim, "Requests in flight may finish first. The process stays, its GPU memory is free, its KV cache is lost. A request for its model wakes it."})
	level := func(n string) func(*Console) tea.Cmd {
		return order(api.Action{Verb: api.WorkerSleep, Target: w.Name, Args: map[string]string{"level": n}})
	}
	c.ask(&dialog{title: "Put " + clean(w.Name) + " to sleep?", lines: lines, picks: []pick{{"1", "weights kept in memory", level("1")}, {"2", "weights dropped", level("2")}}})
}

// rollOf is the rolling restart of a model that is under way, nil for none.
func (c *Console) rollOf(model string) *api.Roll {
	for i := range c.snap.Rolls {
		if r := &c.snap.Rolls[i]; r.Model == model && r.State == "running" {
			return r
		}
	}
	return nil
}

// askRoll restarts the workers of a model one by one, or ends that.
func (c *Console) askRoll(model string) {
	if r := c.rollOf(model); r != nil {
		lines := []part{{stText, "model    " + clean(model)}, {stText, "done     " + whole(r.Done) + " of " + whole(len(r.Workers))}}
		if r.Done < len(r.Workers) {
			lines = append(lines, part{stText, "now      " + clean(r.Workers[r.Done]) + " is still restarted"})
			if rest := r.Workers[r.Done+1:]; len(rest) > 0 {
				lines = append(lines, part{stText, "left     " + clean(strings.Join(rest, ", ")) + " as they are"})
			}
		}
		a := api.Action{Verb: api.ModelUnroll, Target: model}
		c.ask(&dialog{title: "End the rolling restart of " + clean(model) + "?", lines: lines, yes: "end it", do: func(c *Console) tea.Cmd { return c.act(a) }})
		return
	}
	plan := c.snap.RollPlan(model)
	if len(plan.Workers) == 0 {
		why := Text("none of its workers runs")
		if len(plan.Stay) > 0 && plan.Stay[0].Kind == "attach" {
			why = "its workers are attached, not ours to restart"
		}
		c.say(stWarn, "nothing of "+clean(model)+" to restart: "+why)
		return
	}
	lines := []part{{stText, "model    " + clean(model)}}
	for i, w := range plan.Workers {
		flight := Text("")
		if w.InFlight > 0 {
			flight = ", " + whole(w.InFlight) + " in flight"
		}
		lines = append(lines, part{stText, whole(i+1) + Text("         ")[:max(9-whole(i+1).width(), 1)] + clean(w.Name) + ", " + c.stateWord(w) + sim(w.Simulated) + flight})
	}
	for _, w := range plan.Stay {
		why := "stays " + c.stateWord(w)
		if w.Kind == "attach" {
			why = "is attached, not ours"
		}
		lines = append(lines, part{stDim, "-        " + clean(w.Name) + " " + why})
	}
	switch {
	case plan.Alone:
		lines = append(lines, part{stBad, "While it restarts no other is ready: clients will wait or get an error."})
	case plan.Serving == 0:
		lines = append(lines, part{stBad, "No worker serves the model now: clients wait or get an error."})
	case plan.Serving == 1 && plan.Workers[len(plan.Workers)-1].State == api.Ready:
		lines = append(lines, part{stText, "The only one that serves now is restarted when another does."})
	case plan.Serving > 1:
		lines = append(lines, part{stText, "One at a time: the other " + plural(int64(plan.Serving-1), "ready worker goes", "ready workers go") + " on serving."})
	}
	title := "Restart " + plural(int64(len(plan.Workers)), "worker", "workers") + " of " + clean(model) + " one by one?"
	if len(plan.Workers) == 1 {
		title = "Restart " + clean(plan.Workers[0].Name) + " of " + clean(model) + "?"
		lines = append(lines, part{stDim, "It is drained, so that its requests may finish, and restarted."})
	} else {
		lines = append(lines, part{stDim, "Each is drained, so that its requests may finish, restarted, and ready before the next. It stops at the first that does not come back."})
	}
	a := api.Action{Verb: api.ModelRoll, Target: model}
	if plan.Alone { // said above in red
		a.Args = map[string]string{"alone": "true"}
	}
	c.ask(&dialog{title: title, lines: lines, yes: "roll", do: func(c *Console) tea.Cmd { return c.act(a) }})
}

// askStray ends a process that nobody looks after.
func (c *Console) askStray() {
	if c.snap == nil || c.strays.sel >= len(c.snap.Strays) {
		return
	}
	s := c.snap.Strays[c.strays.sel]
	lines := []part{{stText, "process  " + clean(s.Name) + ", pid " + whole(s.PID)}, {stText, "started  " + c.when(s.Started)}, {stText, "memory   " + size(s.RSS)}}
	if s.GPU > 0 {
		lines = append(lines, part{stText, "GPU      " + size(s.GPU) + ", free once it is gone"})
	}
	if s.Worker != "" {
		lines = append(lines, part{stText, "of       " + clean(s.Worker) + ", whose server is gone"})
	}
	lines = append(lines, part{stDim, "The engine looks once more that it is this very process and still a stray; then it is killed."})
	a := api.Action{Verb: api.StrayEnd, Target: string(whole(s.PID)), Args: map[string]string{"started": s.Started.Format(time.RFC3339Nano)}}
	c.ask(&dialog{title: "End " + clean(s.Name) + ", pid " + whole(s.PID) + "?", lines: lines, yes: "end it", do: func(c *Console) tea.Cmd { return c.act(a) }})
}

// rollNotes are lines about rolling restarts that stopped, for below the table of workers.
func (c *Console) rollNotes() []part {
	var out []part
	if c.snap == nil || c.view != viewWorkers {
		return nil
	}
	for i := range c.snap.Rolls {
		if r := &c.snap.Rolls[i]; r.State == "failed" {
			out = append(out, part{stBad, c.g.bad + " rolling restart of " + clean(r.Model) + " stopped after " + whole(r.Done) + " of " + whole(len(r.Workers)) + ": " + clean(r.Error)})
		}
	}
	return out
}
