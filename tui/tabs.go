package tui

import (
	"slices"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// The tabs of a worker's detail.
const (
	tabCharts = iota
	tabLogs
	tabArgs
	tabGPU
	tabTimeline
	tabCrashes
	tabAdvice
)

// tabsOf are the tabs that have something to show, in order.
func (c *Console) tabsOf(w *api.Worker) []int {
	tabs := []int{tabCharts}
	if w == nil || c.snap == nil {
		return tabs
	}
	add := func(tab int, has bool) {
		if has {
			tabs = append(tabs, tab)
		}
	}
	add(tabLogs, w.Kind != "attach")
	add(tabArgs, len(w.Command) > 0 || w.Kind == "attach")
	add(tabGPU, c.cardsOf(w).n > 0 || w.CPU != nil || w.RSS > 0)
	add(tabTimeline, len(w.Phases) > 0 || len(w.LastStart) > 0 || len(c.lifeOf(w)) > 0)
	add(tabCrashes, len(c.snap.Crashes) > 0)
	add(tabAdvice, len(c.adviceRows()) > 0)
	return tabs
}

// detailTab is the tab that is shown: the chosen one if the worker has it.
func (c *Console) detailTab() int {
	if slices.Contains(c.tabsOf(c.worker()), c.tab) {
		return c.tab
	}
	return tabCharts
}

func (c *Console) tabName(tab int, w *api.Worker) Text {
	switch tab {
	case tabLogs:
		return "Log"
	case tabArgs:
		return "Args"
	case tabGPU:
		if c.cardsOf(w).n == 0 {
			return "Host"
		}
		return "GPU"
	case tabTimeline:
		return "Timeline"
	case tabCrashes:
		if w.Crashes > 0 {
			return "Crashes " + whole(w.Crashes)
		}
		return "Crashes"
	case tabAdvice:
		return "Advice " + whole(len(c.adviceRows())) + "!"
	}
	return "Overview"
}

// tabStrip writes tabs, the current one marked; where they do not fit, the names of others are cut.
func tabStrip(l *line, names []Text, at int) {
	full := len("[ ] turn") + 2
	for _, t := range names {
		full += t.width() + 3
	}
	for i, t := range names {
		switch {
		case i == at:
			l.put(stTab, " "+t+" ")
		case full > l.width:
			l.put(stDim, " "+t.cut(4)+" ")
		default:
			l.put(stDim, " "+t+" ")
		}
		if full <= l.width {
			l.gap(1)
		}
	}
	l.right(stFaint, "[ ] turn", 0)
}

// subtabs is the line above the costs that says which are shown.
func (c *Console) subtabs(width int) string {
	l := newLine(c.th, width)
	at := 0
	if c.keysShown() {
		at = 1
	}
	l.width--
	tabStrip(l, []Text{"Savings", "Keys " + whole(len(c.snap.Keys))}, at)
	l.width++
	return l.string()
}
