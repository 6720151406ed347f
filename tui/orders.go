package tui

import (
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func verbName(v api.Verb) Text {
	switch v {
	case api.WorkerStart:
		return "start"
	case api.WorkerStop:
		return "stop"
	case api.WorkerRestart:
		return "restart"
	case api.WorkerDrain:
		return "drain"
	case api.WorkerResume:
		return "resume"
	case api.PromptSend:
		return "prompt"
	case api.PromptCancel:
		return "cancel prompt"
	case api.EngineStop:
		return "stop engine"
	case api.EngineReload:
		return "reload"
	case api.WorkerFix:
		return "fix"
	case api.WorkerUnfix:
		return "unfix"
	case api.WorkerSleep:
		return "sleep"
	case api.WorkerWake:
		return "wake"
	case api.ModelRoll:
		return "roll"
	case api.ModelUnroll:
		return "cancel roll"
	case api.StrayEnd:
		return "end stray"
	case api.CacheFetch:
		return "fetch"
	case api.CacheCancel:
		return "cancel download"
	case api.CacheRemove:
		return "remove from the cache"
	}
	return clean(string(v))
}

func (c *Console) askStartStop() {
	if w := c.worker(); w != nil {
		if w.State == api.Stopped || w.State == api.Failed {
			c.askWorker(api.WorkerStart, w)
		} else if w.State == api.Starting && w.Blocked != "" {
			c.askBlocked(w)
		} else {
			c.askWorker(api.WorkerStop, w)
		}
	}
}

// askBlocked offers a worker whose start waits to go on all the same, or to give up.
func (c *Console) askBlocked(w *api.Worker) {
	order := func(a api.Action) func(*Console) tea.Cmd {
		return func(c *Console) tea.Cmd { return c.act(a) }
	}
	c.ask(&dialog{
		title: "Start " + clean(w.Name) + " without waiting?",
		lines: []part{{stText, "worker   " + clean(w.Name) + sim(w.Simulated)}, {stText, "model    " + clean(w.Model)}, {stWarn, "It waits: " + clean(w.Blocked)}, {stDim, "Started now it may find too little GPU memory, and take it from a worker that is starting beside it."}},
		picks: []pick{{"y", "start now", order(api.Action{Verb: api.WorkerStart, Target: w.Name, Args: map[string]string{"gate": "off"}})}, {"s", "stop it", order(api.Action{Verb: api.WorkerStop, Target: w.Name})}},
	})
}

func (c *Console) askRestart() {
	if w := c.worker(); w != nil {
		c.askWorker(api.WorkerRestart, w)
	}
}

func (c *Console) askDrain() {
	if w := c.worker(); w != nil {
		if w.State == api.Draining {
			c.askWorker(api.WorkerResume, w)
		} else {
			c.askWorker(api.WorkerDrain, w)
		}
	}
}

// askWorker says what an order does to a worker, and to whom, before it is given.
func (c *Console) askWorker(verb api.Verb, w *api.Worker) {
	others := 0
	for i := range c.snap.Workers {
		if o := &c.snap.Workers[i]; o.Model == w.Model && o.Name != w.Name && o.State == api.Ready {
			others++
		}
	}
	lines := []part{
		{stText, "worker   " + clean(w.Name) + ", " + c.stateWord(w) + sim(w.Simulated)},
		{stText, "model    " + clean(w.Model)},
		{stText, "requests " + whole(w.InFlight) + " in flight"},
	}
	if verb == api.WorkerStop || verb == api.WorkerRestart || verb == api.WorkerDrain { // first: a low terminal cuts the end
		if others == 0 {
			lines = append(lines, part{stBad, "No other ready worker has this model: clients will wait or get an error."})
		} else {
			lines = append(lines, part{stText, plural(int64(others), "other ready worker keeps", "other ready workers keep") + " serving this model."})
		}
	}
	flight := plural(int64(w.InFlight), "request", "requests")
	first := Text("") // what happens to requests
	switch {
	case w.InFlight > 0 && others > 0:
		first = "New requests go elsewhere at once; the " + flight + " in flight may finish. "
	case w.InFlight > 0:
		first = "The " + flight + " in flight may finish. "
	}
	why := Text("")
	switch verb {
	case api.WorkerStop:
		why = first + "Its whole process tree ends, after the grace time at the latest."
		if w.InFlight == 0 {
			why = "Its whole process tree ends."
		}
	case api.WorkerRestart:
		why = first + "Its process tree ends, then it starts again: weights are loaded anew."
		if s := lastStart(w); s > 0 {
			why += " The last start took " + seconds(s) + "."
		}
	case api.WorkerDrain:
		why = first + "The process stays; d routes to it again."
	case api.WorkerResume:
		why = "New requests are routed to it again."
	case api.WorkerStart:
		why = "Its process is started now."
		if s := lastStart(w); s > 0 {
			why += " The last start took " + seconds(s) + "."
		}
		if w.Error != "" {
			lines = append(lines, part{stWarn, "Last error: " + clean(w.Error)})
		}
	}
	lines = append(lines, part{stDim, why})
	a := api.Action{Verb: verb, Target: w.Name}
	name := verbName(verb)
	c.ask(&dialog{title: capital(name) + " " + clean(w.Name) + "?", lines: lines, yes: name, do: func(c *Console) tea.Cmd { return c.act(a) }})
}

// askStop names all that ends with the engine.
func (c *Console) askStop(keep bool) {
	if c.snap == nil {
		c.say(stWarn, "not connected")
		return
	}
	var names []string
	for i := range c.snap.Workers {
		if w := &c.snap.Workers[i]; w.State != api.Stopped && w.State != api.Failed && w.Kind != "attach" {
			names = append(names, string(clean(w.Name)))
		}
	}
	t := c.snap.Traffic
	lines := []part{{stText, "The engine at " + clean(c.snap.Engine.URL) + " stops serving; " + plural(int64(t.InFlight), "request is", "requests are") + " in flight, " + whole(t.Queued) + " queued."}}
	args := map[string]string{"workers": "stop"}
	if keep {
		args["workers"] = "keep"
		lines = append(lines, part{stText, "Its workers go on; the next engine takes them over."})
	} else if len(names) > 0 {
		lines = append(lines, part{stBad, "These workers stop with it: " + clean(strings.Join(names, ", ")) + "."})
	}
	c.ask(&dialog{
		title: "Stop the engine?", lines: lines, yes: "stop", typed: "stop",
		do: func(c *Console) tea.Cmd { return c.act(api.Action{Verb: api.EngineStop, Args: args}) },
	})
}

func sim(on bool) Text {
	if on {
		return "  SIMULATED"
	}
	return ""
}
