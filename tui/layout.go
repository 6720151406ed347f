package tui

// paneID names a pane.
type paneID uint8

const (
	paneNone paneID = iota
	paneHeader
	paneTabs
	paneSubtabs // of a view that has them
	paneFooter
	paneThroughput
	paneLatency
	paneStages // end to end and between tokens, where there is room for a third chart
	paneMoney
	paneHealth
	paneNotices
	paneWorkers
	paneRequests
	paneLogs
	paneWorker  // one worker, with its tabs
	paneRequest // one request
	paneCosts
	paneClasses
	paneRates
	panePrompt
	paneAnswer
	paneHistory
	paneEvents
	paneStrays
	paneKeys
	paneModels
	paneCache
	paneList // the plain list of very small terminals
	paneHelp
)

// Rect is where a pane is drawn, in cells from the upper left corner.
type Rect struct {
	Pane       paneID
	X, Y, W, H int
	Boxed      bool // framed on four sides; else a rule above
}

// viewID names a view by its key.
type viewID uint8

const (
	viewOverview viewID = 1
	viewWorkers  viewID = 2
	viewRequests viewID = 3
	viewCosts    viewID = 4
	viewPrompt   viewID = 8
	viewEvents   viewID = 9
	viewModels   viewID = 10
)

// key is what the view is opened with.
func (v viewID) key() Text { return whole(int(v) % 10) }

// need is what the data asks of a layout: how many rows a table would fill, and which panes have
// nothing to show and shrink to one line.
type need struct {
	workers, requests int
	trouble           int // lines that say below the table of workers what ails one
	noHealth          bool
	noCharts          bool // there has been no traffic
	logTab            bool // the worker's detail is a log
	strays            int  // processes that nobody looks after
	rolls             int  // lines below the table of workers about rolling restarts
	costTabs          bool // there is more than one kind of costs
	keys              bool // that of client keys is shown
	models            int  // lines of the table of models
	cache             bool // this host has a model cache
}

// column is a stack of panes: each takes its rows, what is left goes to the last that may grow.
func column(out []Rect, x, y, w, h int, boxed bool, panes []paneID, rows []int) []Rect {
	for i, id := range panes {
		n := rows[i]
		if i == len(panes)-1 {
			n = h
		}
		n = min(n, h)
		if n <= 0 {
			continue
		}
		out = append(out, Rect{Pane: id, X: x, Y: y, W: w, H: n, Boxed: boxed && n >= 3})
		y, h = y+n, h-n
	}
	return out
}

// layout tiles a terminal: every cell belongs to exactly one rectangle. It is a pure function of
// its arguments; focus is the pane that is shown where only one fits, zoom the one that is zoomed.
func layout(v viewID, w, h int, n need, focus, zoom paneID) []Rect {
	switch {
	case w <= 0 || h <= 0:
		return nil
	case w < 40 || h < 10:
		return oneLineLayout(w, h)
	case w < 60 || h < 15:
		return listLayout(w, h)
	}
	out := []Rect{{Pane: paneHeader, W: w, H: 1}, {Pane: paneTabs, Y: 1, W: w, H: 1}}
	boxed := w >= 100 && h >= 30
	y, bh := 2, h-3
	switch {
	case zoom != paneNone:
		out = append(out, Rect{Pane: zoom, Y: y, W: w, H: bh, Boxed: boxed})
	case w < 80 || h < 24:
		out = append(out, Rect{Pane: focus, Y: y, W: w, H: bh})
	default:
		out = body(out, v, w, y, bh, boxed, n)
	}
	return append(out, Rect{Pane: paneFooter, Y: h - 1, W: w, H: 1})
}

func oneLineLayout(w, h int) []Rect {
	return []Rect{{Pane: paneList, W: w, H: h}}
}

func listLayout(w, h int) []Rect {
	return []Rect{{Pane: paneHeader, W: w, H: 1}, {Pane: paneList, Y: 1, W: w, H: h - 2}, {Pane: paneFooter, Y: h - 1, W: w, H: 1}}
}

func body(out []Rect, v viewID, w, y, h int, boxed bool, n need) []Rect {
	frame := 1
	if boxed {
		frame = 2
	}
	switch v {
	case viewWorkers:
		table := min(n.workers+1+frame+n.rolls, max(h*2/5, 5))
		if n.strays > 0 { // below the table, above the detail
			low := min(n.strays, 4) + 1 + frame
			return column(out, 0, y, w, h, boxed, []paneID{paneWorkers, paneStrays, paneWorker}, []int{table, min(low, max(h/4, 3)), h})
		}
		if detail := min(22, h-table-8); detail >= 18 && !n.logTab { // room for the log beside the rest
			return column(out, 0, y, w, h, boxed, []paneID{paneWorkers, paneWorker, paneLogs}, []int{table, detail, h})
		}
		return column(out, 0, y, w, h, boxed, []paneID{paneWorkers, paneWorker}, []int{table, h})
	case viewRequests:
		if w >= 170 {
			left := w * 3 / 5
			out = append(out, Rect{Pane: paneRequests, Y: y, W: left, H: h, Boxed: boxed})
			return append(out, Rect{Pane: paneRequest, X: left, Y: y, W: w - left, H: h, Boxed: boxed})
		}
		detail := min(max(h/2, 10), 18)
		return column(out, 0, y, w, h, boxed, []paneID{paneRequests, paneRequest}, []int{h - detail, detail})
	case viewCosts:
		if n.costTabs {
			out = append(out, Rect{Pane: paneSubtabs, Y: y, W: w, H: 1})
			y, h = y+1, h-1
		}
		if n.keys {
			return append(out, Rect{Pane: paneKeys, Y: y, W: w, H: h, Boxed: boxed})
		}
		if w < 110 {
			low := min(max(h*2/5, 8), 12)
			out = append(out, Rect{Pane: paneCosts, Y: y, W: w, H: h - low, Boxed: boxed})
			return append(out, Rect{Pane: paneClasses, Y: y + h - low, W: w / 2, H: low, Boxed: boxed}, Rect{Pane: paneRates, X: w / 2, Y: y + h - low, W: w - w/2, H: low, Boxed: boxed})
		}
		left := w * 3 / 5
		out = append(out, Rect{Pane: paneCosts, Y: y, W: left, H: h, Boxed: boxed})
		return column(out, left, y, w-left, h, boxed, []paneID{paneClasses, paneRates}, []int{h / 2, h})
	case viewPrompt:
		side := 0
		if w >= 110 {
			side = min(w*3/10, 50)
		}
		out = column(out, 0, y, w-side, h, boxed, []paneID{panePrompt, paneAnswer}, []int{min(max(h/4, 4)+frame, 12), h})
		if side > 0 {
			out = append(out, Rect{Pane: paneHistory, X: w - side, Y: y, W: side, H: h, Boxed: boxed})
		}
		return out
	case viewModels:
		if !n.cache {
			return append(out, Rect{Pane: paneModels, Y: y, W: w, H: h, Boxed: boxed})
		}
		return column(out, 0, y, w, h, boxed, []paneID{paneModels, paneCache}, []int{min(n.models+frame, h/2), h})
	case viewEvents:
		return append(out, Rect{Pane: paneEvents, Y: y, W: w, H: h, Boxed: boxed})
	}
	switch {
	case n.noCharts:
		return quietOverview(out, w, y, h, boxed, frame, n)
	case w >= 170 && h >= 48:
		return wideOverview(out, w, y, h, n)
	case w >= 100 && h >= 33:
		return middleOverview(out, w, y, h, n)
	}
	return smallOverview(out, w, y, h, boxed, frame, n)
}

// quietOverview is what there is to see before the first request: how the workers start, what is
// missing, where to send requests, and the log of the selected worker.
func quietOverview(out []Rect, w, y, h int, boxed bool, frame int, n need) []Rect {
	out = append(out, Rect{Pane: paneThroughput, Y: y, W: w, H: 1})
	y, h = y+1, h-1
	table := min(max(n.workers, 1)+1+frame, max(h/3, 4)) + n.trouble
	last := paneLogs
	if n.workers == 0 {
		last = paneNotices
	}
	if w < 100 {
		return column(out, 0, y, w, h, boxed, []paneID{paneWorkers, paneMoney, paneRequests, last}, []int{table, 3 + frame, 2 + frame, h})
	}
	out = column(out, 0, y, w, table, boxed, []paneID{paneWorkers}, []int{table})
	y, h = y+table, h-table
	side := w * 2 / 5
	low := min(8+frame, h/2)
	out = append(out, Rect{Pane: paneMoney, Y: y, W: side, H: low, Boxed: boxed})
	if last == paneNotices {
		out = column(out, side, y, w-side, low, boxed, []paneID{paneRequests}, []int{low})
	} else {
		out = column(out, side, y, w-side, low, boxed, []paneID{paneRequests, paneNotices}, []int{2 + frame, low})
	}
	return append(out, Rect{Pane: last, Y: y + low, W: w, H: h - low, Boxed: boxed})
}

// smallOverview is two columns of charts over money and workers: 80x24 and what is low.
func smallOverview(out []Rect, w, y, h int, boxed bool, frame int, n need) []Rect {
	table := min(max(n.workers, 1)+1+frame, 5+frame+max(h-21, 0)/2) + n.trouble
	money := 3 + frame
	top := h - table - money
	if top > 16 { // more height than charts need: the table of requests comes in
		reqs := min(max(n.requests, 1)+1+frame, top-12)
		if reqs >= 2+frame {
			top -= reqs
		}
	}
	reqs := h - top - money - table
	left := w / 2
	health := min(5, top-6)
	if n.noHealth {
		health = 1
	}
	out = column(out, 0, y, left, top, boxed, []paneID{paneThroughput, paneHealth}, []int{top - health, health})
	out = append(out, Rect{Pane: paneLatency, X: left, Y: y, W: w - left, H: top, Boxed: boxed && top >= 3})
	out = append(out, Rect{Pane: paneMoney, Y: y + top, W: w, H: money, Boxed: boxed})
	return column(out, 0, y+top+money, w, table+reqs, boxed, []paneID{paneWorkers, paneRequests}, []int{table, reqs})
}

// middleOverview has two charts, three panes below them and two tables: 120x40.
func middleOverview(out []Rect, w, y, h int, n need) []Rect {
	table := min(max(n.workers, 1)+3, max(h/4, 7)) + n.trouble
	mid := min(9+(h-37)/8, 12)
	charts := min(14+(h-37)/3, h-table-mid-5)
	reqs := h - table - mid - charts
	if want := max(n.requests, 1) + 3; reqs > want+2 { // few requests: the charts get the room
		charts += reqs - want
		reqs = want
	}
	left := w / 2
	out = append(out, Rect{Pane: paneThroughput, Y: y, W: left, H: charts, Boxed: true}, Rect{Pane: paneLatency, X: left, Y: y, W: w - left, H: charts, Boxed: true})
	out = threeAcross(out, 0, y+charts, w, mid, n)
	return column(out, 0, y+charts+mid, w, table+reqs, true, []paneID{paneWorkers, paneRequests}, []int{table, reqs})
}

// threeAcross puts money, health and notices side by side; health without data is one line.
func threeAcross(out []Rect, x, y, w, h int, n need) []Rect {
	money := w * 37 / 100
	health := (w - money) / 2
	out = append(out, Rect{Pane: paneMoney, X: x, Y: y, W: money, H: h, Boxed: true})
	if n.noHealth {
		return column(out, x+money, y, w-money, h, true, []paneID{paneHealth, paneNotices}, []int{1, h - 1})
	}
	return append(out, Rect{Pane: paneHealth, X: x + money, Y: y, W: health, H: h, Boxed: true},
		Rect{Pane: paneNotices, X: x + money + health, Y: y, W: w - money - health, H: h, Boxed: true})
}

// wideOverview adds a third chart and the selected worker's log: 200x60.
func wideOverview(out []Rect, w, y, h int, n need) []Rect {
	charts := h * 28 / 100
	logs := max(h/6, 8)
	table := min(max(n.workers, 1)+3, max(h/3, 8)) + n.trouble
	side := 68 + (w-200)/4
	mid := h - charts - logs
	a := w * 34 / 100
	b := (w - a) / 2
	out = append(out, Rect{Pane: paneThroughput, Y: y, W: a, H: charts, Boxed: true}, Rect{Pane: paneLatency, X: a, Y: y, W: b, H: charts, Boxed: true},
		Rect{Pane: paneStages, X: a + b, Y: y, W: w - a - b, H: charts, Boxed: true})
	y += charts
	out = column(out, 0, y, w-side, mid, true, []paneID{paneWorkers, paneRequests}, []int{table, mid - table})
	health := 12
	if n.noHealth {
		health = 1
	}
	money := min(11, mid-health-5)
	out = column(out, w-side, y, side, mid, true, []paneID{paneMoney, paneHealth, paneNotices}, []int{money, health, mid})
	return append(out, Rect{Pane: paneLogs, Y: y + mid, W: w, H: logs, Boxed: true})
}
