package tui

import (
	tea "charm.land/bubbletea/v2"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// operating are the bindings of who runs workers, models and the cache: part of the table in bindings.
func operating() []binding {
	onWorker := in(paneWorkers, paneWorker)
	do := func(f func(*Console)) func(*Console) tea.Cmd {
		return func(c *Console) tea.Cmd { f(c); return c.follow() }
	}
	worker := func(f func(*Console, *api.Worker)) func(*Console) tea.Cmd {
		return do(func(c *Console) {
			if w := c.worker(); w != nil {
				f(c, w)
			}
		})
	}
	is := func(ok func(*Console, *api.Worker) bool) func(*Console) bool {
		return func(c *Console) bool {
			w := c.worker()
			return w != nil && onWorker(c) && ok(c, w)
		}
	}
	onTab := func(tab int) func(*Console) bool {
		return func(c *Console) bool {
			return c.focused() == paneWorker && c.detailTab() == tab
		}
	}
	crashes := onTab(tabCrashes)
	list := func(c *Console) bool { return crashes(c) && c.crash == "" && len(c.crashRows()) > 0 }
	inModels := func(c *Console) bool { return c.view == viewModels && c.snap != nil }
	running := func(c *Console) bool {
		d := c.cacheRow().download
		return c.focused() == paneCache && d != nil && d.State == "running"
	}
	return []binding{
		{keys: []string{"enter"}, show: "enter", help: "the last lines of the crash", group: "Worker", hintKey: "enter", hint: "last lines", when: list, do: do((*Console).openCrash)},
		{keys: []string{"c"}, show: "c", help: "the charts, with their cursor at that time", group: "Here", hintKey: "c", hint: "charts then", when: func(c *Console) bool { return crashes(c) && c.theCrash() != nil || c.focused() == paneEvents }, do: do((*Console).chartsThen)},
		{keys: []string{"a"}, show: "a", help: "crashes of this worker, or of all", group: "Worker", hintKey: "a", hint: "all or one", when: crashes, do: do(func(c *Console) { c.everyCrash, c.crash = !c.everyCrash, ""; c.sync() })},
		{keys: []string{"enter"}, show: "enter F", help: "carry out the remedy: shows the new command line and asks", group: "Worker", hintKey: "enter", hint: "remedy", write: true, when: func(c *Console) bool {
			return c.focused() == paneWorker && !crashes(c) && c.canFix()
		}, do: do((*Console).remedy)},
		{keys: []string{"F"}, hintKey: "F", hint: "remedy", write: true, when: func(c *Console) bool { return c.focused() == paneWorkers && c.canFix() }, do: do((*Console).remedy)},
		{keys: []string{"F"}, write: true, when: func(c *Console) bool { return onWorker(c) && c.canFix() }, do: do((*Console).remedy)},
		{keys: []string{"u"}, show: "u", help: "restart with the config's arguments again", group: "Worker", hintKey: "u", hint: "unfix", write: true, when: is(func(_ *Console, w *api.Worker) bool { return len(w.Fixed) > 0 }), do: worker((*Console).askUnfix)},
		{keys: []string{"Z"}, show: "Z", help: "put the worker to sleep, or wake it", group: "Worker", hintKey: "Z", hint: "sleep/wake", write: true, when: is(func(_ *Console, w *api.Worker) bool {
			return w.State == api.Asleep || w.CanSleep && w.State == api.Ready
		}), do: worker((*Console).askSleep)},
		{keys: []string{"R"}, show: "R", help: "restart the workers of its model one by one, or end that", group: "Worker", hintKey: "R", hint: "roll", write: true, when: is(func(*Console, *api.Worker) bool { return true }), do: worker(func(c *Console, w *api.Worker) { c.askRoll(w.Model) })},
		{keys: []string{"x"}, show: "x", help: "end the stray process", group: "Stray", hintKey: "x", hint: "end it", write: true, when: in(paneStrays), do: do((*Console).askStray)},

		{keys: []string{"f"}, show: "f", help: "download a model into the cache", group: "Models", hintKey: "f", hint: "fetch", write: true, when: inModels, do: do((*Console).openFetch)},
		{keys: []string{"x"}, show: "x", help: "cancel the download", group: "Models", hintKey: "x", hint: "cancel", write: true, when: running, do: do((*Console).askCancel)},
		{keys: []string{"ctrl+k", "delete"}, show: "ctrl+k del", help: "remove the model from the cache", group: "Models", hintKey: "ctrl+k", hint: "remove", write: true, when: func(c *Console) bool { return inModels(c) && c.focused() == paneCache && c.cacheRow().model != nil }, do: do((*Console).askRemove)},
		{keys: []string{"R"}, show: "R", help: "restart the workers of the model one by one, or end that", group: "Models", hintKey: "R", hint: "roll", write: true, when: func(c *Console) bool { return c.focused() == paneModels && c.models.sel < len(c.snap.Models) }, do: do(func(c *Console) { c.askRoll(c.snap.Models[c.models.sel].Name) })},
	}
}
