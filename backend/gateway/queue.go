package gateway

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// queue is the requests that wait for a worker of one model. Only one of them, the head, looks for
// a place: hundreds that all look at each change would starve the worker's own host.
//
// Who is next is decided between keys, not between requests: each key's requests are a flow of
// their own, in the order that they came, and the flows take turns by start-time fair queueing
// (Goyal, Vin, Cheng 1996) with the weight of their priority class. So a key with 500 requests in
// line delays another one by its share of the places, not by 500 requests. Without keys there is
// one flow: first come, first served.
type queue struct {
	mu     sync.Mutex
	head   *waiter
	again  []*waiter // have been with a worker before: they are next
	flows  map[string]*flow
	n      int       // all of them
	missed time.Time // when a request last found neither a worker nor a place
	clock  float64   // virtual time: the turn of the flow that was served last

	pace pace
}

// flow is the requests of one key. It is kept after its last one left until the clock has passed
// its turn, or a key that sends one after the other would be first each time.
type flow struct {
	weight float64
	turn   float64 // of its first request, in virtual time
	line   []*waiter
}

// weights of the priority classes: shares of the places that become free.
var weights = map[string]float64{api.PriorityHigh: 16, "": 4, api.PriorityNormal: 4, api.PriorityLow: 1}

// waiter is one request in a queue.
type waiter struct {
	call  *call
	since time.Time
	flow  *flow         // nil: one of again
	first chan struct{} // closed when the request is the head
	out   chan struct{} // closed when its place in line went to another key
}

// empty reports whether nobody waits.
func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n == 0
}

// join lines a request up: of a key with a priority class, or before all who wait if it has been
// with a worker before. Where limit requests wait already, the key that has most of them in line,
// measured by its weight, loses its newest one to a key that has fewer; nil if there is none such.
func (q *queue) join(c *call, key, class string, again bool, limit int) *waiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := &waiter{call: c, since: time.Now(), first: make(chan struct{}), out: make(chan struct{})}
	if again {
		q.again = append(q.again, w)
	} else {
		f := q.flowLocked(key, class)
		if q.n >= limit && (limit <= 0 || !q.displaceLocked(f)) {
			q.tidyLocked()
			return nil
		}
		if len(f.line) == 0 {
			f.turn = max(f.turn, q.clock)
		}
		w.flow = f
		f.line = append(f.line, w)
	}
	q.n++
	q.advanceLocked()
	return w
}

func (q *queue) flowLocked(key, class string) *flow {
	f := q.flows[key]
	if f == nil {
		f = &flow{turn: q.clock}
		if q.flows == nil {
			q.flows = map[string]*flow{}
		}
		q.flows[key] = f
	}
	f.weight = weights[class]
	return f
}

// displaceLocked takes the newest request of the flow with most in line out, if it has more than f
// will have.
func (q *queue) displaceLocked(f *flow) bool {
	var most *flow
	for _, o := range q.flows {
		if most == nil || o.share() > most.share() {
			most = o
		}
	}
	if most == nil || most == f || most.share() <= float64(len(f.line)+1)/f.weight {
		return false
	}
	last := most.line[len(most.line)-1]
	most.line = most.line[:len(most.line)-1]
	q.n--
	close(last.out)
	return true
}

func (f *flow) share() float64 { return float64(len(f.line)) / f.weight }

// leave takes a request out; if it was the head, the next one becomes it.
func (q *queue) leave(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	is := func(o *waiter) bool { return o == w }
	switch {
	case q.head == w:
		q.head = nil
	case w.flow == nil:
		q.again = slices.DeleteFunc(q.again, is)
	default:
		before := len(w.flow.line)
		if w.flow.line = slices.DeleteFunc(w.flow.line, is); len(w.flow.line) == before {
			return // it was displaced
		}
	}
	q.n--
	q.advanceLocked()
}

// advanceLocked makes the next request the head, if there is none.
func (q *queue) advanceLocked() {
	if q.head != nil {
		return
	}
	if len(q.again) > 0 {
		q.head, q.again = q.again[0], q.again[1:]
	} else if f := q.nextLocked(); f != nil {
		q.head, f.line = f.line[0], f.line[1:]
		q.clock = f.turn
		f.turn += 1 / f.weight
	}
	if q.head != nil {
		close(q.head.first)
	}
	q.tidyLocked()
}

// nextLocked gives the flow whose turn it is; of several the one with the greatest weight, then the
// one that has waited longest.
func (q *queue) nextLocked() *flow {
	var next *flow
	for _, f := range q.flows {
		if len(f.line) == 0 {
			continue
		}
		if next == nil || f.before(next) {
			next = f
		}
	}
	return next
}

func (f *flow) before(o *flow) bool {
	if f.turn != o.turn {
		return f.turn < o.turn
	}
	if f.weight != o.weight {
		return f.weight > o.weight
	}
	return f.line[0].since.Before(o.line[0].since)
}

// tidyLocked forgets flows that have nothing in line and no turn to wait for.
func (q *queue) tidyLocked() {
	if q.n == 0 {
		q.flows, q.clock, q.again = nil, 0, nil
		return
	}
	for key, f := range q.flows {
		if len(f.line) == 0 && f.turn <= q.clock {
			delete(q.flows, key)
		}
	}
}

// order gives all who wait as they are to be served.
func (q *queue) order() []*waiter {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]*waiter, 0, q.n)
	if q.head != nil {
		out = append(out, q.head)
	}
	out = append(out, q.again...)
	type turn struct {
		w *waiter
		f *flow
		t float64
	}
	var turns []turn
	for _, f := range q.flows {
		for i, w := range f.line {
			turns = append(turns, turn{w, f, f.turn + float64(i)/f.weight})
		}
	}
	slices.SortFunc(turns, func(a, b turn) int {
		switch {
		case a.t != b.t:
			return cmp.Compare(a.t, b.t)
		case a.f.weight != b.f.weight:
			return cmp.Compare(b.f.weight, a.f.weight)
		}
		return a.w.since.Compare(b.w.since)
	})
	for i := range turns {
		out = append(out, turns[i].w)
	}
	return out
}

// ahead counts those who would be served before a new request of a key.
func (q *queue) ahead(key, class string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.again)
	if q.head != nil {
		n++
	}
	weight, turn := weights[class], q.clock
	if f := q.flows[key]; f != nil {
		turn = max(f.turn, q.clock)
		if len(f.line) > 0 {
			turn = f.turn + float64(len(f.line))/f.weight
		}
	}
	for k, f := range q.flows {
		if k == key {
			n += len(f.line)
			continue
		}
		for i := range f.line {
			if t := f.turn + float64(i)/f.weight; t > turn || t == turn && f.weight < weight {
				break
			}
			n++
		}
	}
	return n
}
