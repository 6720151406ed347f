package tui

import (
	tea "charm.land/bubbletea/v2"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// workerCommands are the commands about a worker beside those of every worker.
func workerCommands(w *api.Worker) []command {
	name := string(clean(w.Name))
	run := func(f func(*Console)) func(*Console) tea.Cmd {
		return func(c *Console) tea.Cmd { f(c); return c.follow() }
	}
	var out []command
	ask := func(on bool, verb string, help Text, f func(*Console)) {
		if on {
			out = append(out, command{name: verb + " " + name, help: help, write: true, do: run(f)})
		}
	}
	ask(w.Fix != nil, "fix", "its remedy; asks first", func(c *Console) { c.askFix(w, w.Fix) })
	ask(len(w.Fixed) > 0, "unfix", "the config's arguments again; asks first", func(c *Console) { c.askUnfix(w) })
	ask(w.CanSleep && w.State == api.Ready, "sleep", "asks first", func(c *Console) { c.askSleep(w) })
	ask(w.State == api.Asleep, "wake", "asks first", func(c *Console) { c.askSleep(w) })
	for _, t := range []struct {
		verb string
		tab  int
		has  bool
	}{{"args", tabArgs, true}, {"gpu", tabGPU, true}, {"timeline", tabTimeline, true}, {"crashes", tabCrashes, w.Crashes > 0}} {
		if t.has {
			out = append(out, command{name: t.verb + " " + name, help: "of the worker", do: run(func(c *Console) {
				c.goTo(viewWorkers)
				c.setFilter(paneWorkers, "")
				c.selectWorker(w.Name)
				c.tab, c.focus[viewWorkers] = t.tab, paneWorker
				c.turned()
			})})
		}
	}
	return out
}

// modelCommands are the commands about models and their cache, and about client keys.
func (c *Console) modelCommands() []command {
	if c.snap == nil {
		return nil
	}
	run := func(f func(*Console)) func(*Console) tea.Cmd {
		return func(c *Console) tea.Cmd { f(c); return c.follow() }
	}
	out := []command{{name: "fetch", help: "download a model into the cache", write: true, do: run((*Console).openFetch)}}
	for i := range c.snap.Models {
		m := &c.snap.Models[i]
		if m.Workers == 0 {
			continue
		}
		verb := "roll "
		if c.rollOf(m.Name) != nil {
			verb = "cancel roll "
		}
		out = append(out, command{name: verb + string(clean(m.Name)), help: "its workers one by one; asks first", write: true, do: run(func(c *Console) { c.askRoll(m.Name) })})
	}
	if len(c.snap.Keys) > 0 {
		out = append(out, command{name: "keys", help: "client keys and their use", do: run(func(c *Console) { c.goTo(viewCosts); c.costKeys = true })})
	}
	return out
}
