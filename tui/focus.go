package tui

import (
	"slices"

	tea "charm.land/bubbletea/v2"
)

// panesOf are the panes of a view that can have the focus, in reading order.
func panesOf(v viewID) []paneID {
	switch v {
	case viewWorkers:
		return []paneID{paneWorkers, paneStrays, paneWorker, paneLogs}
	case viewRequests:
		return []paneID{paneRequests, paneRequest}
	case viewCosts:
		return []paneID{paneCosts, paneClasses, paneRates, paneKeys}
	case viewModels:
		return []paneID{paneModels, paneCache}
	case viewPrompt:
		return []paneID{panePrompt, paneAnswer, paneHistory}
	case viewEvents:
		return []paneID{paneEvents}
	}
	return []paneID{paneThroughput, paneLatency, paneStages, paneMoney, paneHealth, paneNotices, paneWorkers, paneRequests, paneLogs}
}

// focused is the pane that keys go to.
func (c *Console) focused() paneID {
	if c.zoom != paneNone {
		return c.zoom
	}
	if f := c.focus[c.view]; f != paneNone && c.has(f) {
		return f
	}
	if c.view == viewOverview {
		return paneWorkers
	}
	for _, id := range panesOf(c.view) {
		if c.has(id) {
			return id
		}
	}
	return panesOf(c.view)[0]
}

// has says that there is something for a pane to show: one without is not drawn at all.
func (c *Console) has(id paneID) bool {
	switch id {
	case paneStrays:
		return c.snap != nil && len(c.snap.Strays) > 0
	case paneKeys:
		return c.keysShown()
	case paneCosts, paneClasses, paneRates:
		return !c.keysShown()
	case paneCache:
		return c.snap != nil && c.snap.Cache != nil
	}
	return true
}

// keysShown says that the costs are those of client keys.
func (c *Console) keysShown() bool { return c.costKeys && c.snap != nil && len(c.snap.Keys) > 0 }

// visible are the panes that the layout shows, in reading order; where it shows one at a time, all.
func (c *Console) visible() []paneID {
	if c.w < 80 || c.h < 24 {
		all := panesOf(c.view)
		if c.view == viewOverview { // what only the widest layout has is a tab away elsewhere
			all = []paneID{paneThroughput, paneLatency, paneMoney, paneHealth, paneNotices, paneWorkers, paneRequests}
		}
		return slices.DeleteFunc(slices.Clone(all), func(id paneID) bool { return !c.has(id) })
	}
	var out []paneID
	for _, r := range layout(c.view, c.w, c.h, c.need(), c.focused(), paneNone) {
		if r.H > 1 && r.Pane > paneFooter {
			out = append(out, r.Pane)
		}
	}
	return out
}

func (c *Console) cycle(by int) {
	all := c.visible()
	at := -1
	for i, id := range all {
		if id == c.focused() {
			at = i
		}
	}
	if len(all) == 0 {
		return
	}
	next := all[((at+by)%len(all)+len(all))%len(all)]
	c.focus[c.view] = next
	if c.zoom != paneNone {
		c.zoom = next
	}
}

// paneNumber is the place of a pane among those shown, for the title.
func (c *Console) paneNumber(id paneID) int {
	n := 0
	for _, r := range c.rects {
		if r.Pane > paneFooter {
			n++
		}
		if r.Pane == id {
			return n
		}
	}
	return 0
}

func (c *Console) canOpen() bool {
	return spec(c.focused()).opens != 0
}

// open goes from a pane to the view that has more of it.
func (c *Console) open() {
	from := c.focused()
	s := spec(from)
	switch {
	case from == paneWorkers && c.view == viewWorkers:
		c.focus[c.view] = paneWorker
	case from == paneModels:
		c.openModel()
	case from == paneRequests && c.view == viewRequests:
		c.focus[c.view] = paneRequest
	case from == paneLogs:
		c.goTo(viewWorkers)
		c.openLogs()
	case from == paneNotices || from == paneEvents:
		rows := c.noticeRows()
		if from == paneEvents && c.notices.sel < len(rows) && rows[c.notices.sel].Worker != "" {
			c.goTo(viewWorkers)
			c.setFilter(paneWorkers, "")
			c.selectWorker(rows[c.notices.sel].Worker)
			return
		}
		c.goTo(viewEvents)
	case s.opens == s.zooms: // a chart opens as its zoom
		c.toggleZoom()
	default:
		c.goTo(s.opens)
	}
}

func (c *Console) selectWorker(name string) {
	for i, w := range c.workerRows() {
		if w.Name == name {
			c.workers.move(i - c.workers.sel)
			return
		}
	}
}

// move moves in the focused pane.
func (c *Console) move(by int) {
	by = max(min(by, 1<<29), -1<<29)
	switch id := c.focused(); {
	case id == paneWorkers:
		c.workers.move(by)
		c.turned()
	case id == paneRequests:
		c.requests.move(by)
		c.scroll[paneRequest] = 0
	case id == paneEvents || id == paneNotices:
		c.notices.move(by)
	case id == paneHistory:
		c.prompts.move(by)
	case c.onLog():
		c.logs.move(by)
	case id == paneWorker && c.detailTab() == tabCrashes:
		c.crashes.move(by)
	case id == paneWorker && c.detailTab() == tabAdvice:
		c.advices.move(by)
	case id == paneStrays:
		c.strays.move(by)
	case id == paneKeys:
		c.keyRows.move(by)
	case id == paneModels:
		c.models.move(by)
	case id == paneCache:
		c.cached.move(by)
	case id == paneAnswer:
		c.prompt.scroll(by)
	default:
		c.scroll[id] = max(c.scroll[id]+by, 0)
	}
}

func (c *Console) page() int {
	for _, r := range c.rects {
		if r.Pane == c.focused() {
			return max((r.H-2)/2, 1)
		}
	}
	return 10
}

// turnTab turns to another tab of the worker, or of the costs.
func (c *Console) turnTab(by int) {
	if c.view == viewCosts {
		c.costKeys = !c.keysShown()
		return
	}
	all := c.tabsOf(c.worker())
	at := slices.Index(all, c.detailTab())
	c.tab = all[((at+by)%len(all)+len(all))%len(all)]
	c.focus[viewWorkers] = paneWorker
	c.turned()
}

// turned says that the detail shows something else: from its top.
func (c *Console) turned() {
	c.scroll[paneWorker], c.crash = 0, ""
}

func (c *Console) openLogs() {
	c.goTo(viewWorkers)
	c.tab = tabLogs
	c.focus[viewWorkers] = paneWorker
}

// click focuses what is under the pointer, and selects the row or the tab.
func (c *Console) click(x, y int) {
	if c.dialog != nil || c.input != nil || c.help {
		return
	}
	for _, r := range c.rects {
		if x < r.X || x >= r.X+r.W || y < r.Y || y >= r.Y+r.H {
			continue
		}
		if r.Pane == paneTabs {
			c.clickTab(x)
			return
		}
		if r.Pane <= paneFooter || r.Pane == paneList {
			return
		}
		if c.zoom == paneNone {
			c.focus[c.view] = r.Pane
		}
		row := y - r.Y - 2 // frame and table head
		switch r.Pane {
		case paneWorkers:
			c.workers.move(c.workers.top + row - c.workers.sel)
		case paneRequests:
			c.requests.move(c.requests.top + row - c.requests.sel)
		case paneStrays:
			c.strays.move(c.strays.top + row - c.strays.sel)
		case paneKeys:
			c.keyRows.move(c.keyRows.top + row - c.keyRows.sel)
		}
		return
	}
}

func (c *Console) clickTab(x int) {
	at := 0
	for _, v := range views {
		n := v.name.width() + 4
		if v.id == viewEvents && c.activeNotices() > 0 {
			n += 2 + whole(c.activeNotices()).width()
		}
		if x >= at && x < at+n {
			c.goTo(v.id)
			return
		}
		at += n
	}
}

func (c *Console) wheel(msg tea.MouseWheelMsg) {
	by := 3
	if msg.Button == tea.MouseWheelUp {
		by = -3
	}
	if c.help {
		c.helpTop = max(c.helpTop+by, 0)
		return
	}
	c.move(by)
}
