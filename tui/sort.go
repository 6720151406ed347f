package tui

import (
	"cmp"
	"slices"
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// order is by which column a table is sorted; the zero value leaves the engine's order.
type order struct {
	col  int // 1 is the first of the pane's columns
	flip bool
}

// sortable is a column that a table can be sorted by. A key is a number or a text; what is not known
// comes last, whichever way round. down says that the greatest comes first unless it is flipped.
type sortable[T any] struct {
	head Text
	num  func(*T) float64
	text func(*T) string
	down bool
}

var workerOrders = []sortable[api.Worker]{
	{head: "WORKER", text: func(w *api.Worker) string { return w.Name }},
	{head: "MODEL", text: func(w *api.Worker) string { return w.Model }},
	{head: "STATE", text: func(w *api.Worker) string { return string(w.State) }},
	{head: "KV", num: func(w *api.Worker) float64 { return val(w.KV) }, down: true},
	{head: "RUN/Q", num: func(w *api.Worker) float64 { return val(w.Running) + val(w.Waiting) }, down: true},
	{head: "TOK/S", num: func(w *api.Worker) float64 { return val(w.OutRate) }, down: true},
	{head: "TTFT95", num: func(w *api.Worker) float64 { return val(w.TTFT95) }, down: true},
	{head: "HIT", num: func(w *api.Worker) float64 { return val(w.Prefix) }, down: true},
	{head: "CPU", num: func(w *api.Worker) float64 { return val(w.CPU) }, down: true},
	{head: "RSS", num: func(w *api.Worker) float64 { return float64(w.RSS) }, down: true},
	{head: "UP", num: func(w *api.Worker) float64 { return -float64(w.Since.Unix()) }, down: true},
}

var requestOrders = []sortable[api.Request]{
	{head: "TIME", num: func(r *api.Request) float64 { return float64(r.Started.UnixMilli()) }, down: true},
	{head: "STATUS", text: func(r *api.Request) string { return r.Outcome }},
	{head: "MODEL", text: func(r *api.Request) string { return r.Model }},
	{head: "WORKER", text: func(r *api.Request) string { return r.Worker }},
	{head: "KEY", text: func(r *api.Request) string { return r.Key }},
	{head: "PROMPT", num: func(r *api.Request) float64 { return float64(r.Usage.Prompt()) }, down: true},
	{head: "OUT", num: func(r *api.Request) float64 { return float64(r.Usage.Completion()) }, down: true},
	{head: "TTFT", num: func(r *api.Request) float64 { return orNaN(float64(r.TTFT)) }, down: true},
	{head: "TOOK", num: func(r *api.Request) float64 { return orNaN(float64(r.Duration)) }, down: true},
	{head: "ACTUAL", num: func(r *api.Request) float64 { return usd(r.Actual) }, down: true},
	{head: "WOULD", num: func(r *api.Request) float64 { return usd(r.Would) }, down: true},
	{head: "HEALTH", num: func(r *api.Request) float64 { return val(r.Health) }},
}

func orNaN(v float64) float64 {
	if v == 0 {
		return val(nil)
	}
	return v
}

func usd(n *api.Nanos) float64 {
	if n == nil {
		return val(nil)
	}
	return n.USD()
}

// sorted gives rows in an order, the rows given left as they are.
func sorted[T any](rows []T, o order, by []sortable[T]) []T {
	if o.col < 1 || o.col > len(by) {
		return rows
	}
	k := by[o.col-1]
	down := k.down != o.flip
	out := slices.Clone(rows)
	slices.SortStableFunc(out, func(a, b T) int {
		var n int
		if k.text != nil {
			n = strings.Compare(k.text(&a), k.text(&b))
		} else {
			x, y := k.num(&a), k.num(&b)
			if known(x) != known(y) {
				if known(x) {
					return -1
				}
				return 1
			}
			n = cmp.Compare(x, y)
		}
		if down {
			return -n
		}
		return n
	})
	return out
}

// orders are the columns that a pane can be sorted by.
func orders(id paneID) []Text {
	switch id {
	case paneWorkers:
		return heads(workerOrders)
	case paneRequests:
		return heads(requestOrders)
	}
	return nil
}

func heads[T any](by []sortable[T]) []Text {
	out := make([]Text, len(by))
	for i := range by {
		out[i] = by[i].head
	}
	return out
}

// sortBy moves to another column; before the first and after the last is the engine's own order.
func (c *Console) sortBy(by int) {
	id := c.focused()
	n := len(orders(id)) + 1
	c.orders[id] = order{col: (c.orders[id].col + by + n) % n}
	c.resort(id)
}

func (c *Console) flipOrder() {
	id := c.focused()
	if o := c.orders[id]; o.col > 0 {
		c.orders[id] = order{o.col, !o.flip}
		c.resort(id)
	}
}

func (c *Console) resort(id paneID) {
	c.sync()
	t := c.orderText(id)
	if t == "" {
		t = "in the engine's order"
	}
	c.say(stDim, t)
}

// orderText says how a table is sorted, "" where it is not.
func (c *Console) orderText(id paneID) Text {
	o, all := c.orders[id], orders(id)
	if o.col < 1 || o.col > len(all) {
		return ""
	}
	down := o.flip
	switch id {
	case paneWorkers:
		down = workerOrders[o.col-1].down != o.flip
	case paneRequests:
		down = requestOrders[o.col-1].down != o.flip
	}
	mark := c.g.up
	if down {
		mark = c.g.down
	}
	return "by " + all[o.col-1] + " " + mark
}
