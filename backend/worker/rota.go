package worker

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/config"
)

// rota says who of the workers that share a GPU and can sleep may have its memory. It only keeps the account: who
// wants in asks, who has a seat is nudged and gives it up in its own loop, when its requests are through.
type rota struct {
	mu    sync.Mutex
	seats map[string]need // by worker: who is awake, or starting
	line  []claim
	bell  map[string]chan struct{} // by worker: rung when it should look again
}

// need is what a worker takes of each thing that it shares, as a share of the whole.
type need map[string]float64

// claim is a worker that waits for a seat.
type claim struct {
	worker string
	need   need
	urgent bool // requests wait for it
	since  time.Time
}

func newRota() *rota { return &rota{seats: map[string]need{}, bell: map[string]chan struct{}{}} }

// needOf is what a worker takes while it is awake, of the GPUs that it runs on; none for one that does not sleep, and so takes
// no turns. share is of each GPU's memory; 0: not known, so all of it.
func needOf(w config.Worker, gpus []string, share float64) need {
	if w.Sleep == nil {
		return nil
	}
	n := need{}
	if share == 0 {
		share = 1
	}
	for _, g := range gpus {
		n["GPU "+g] = share
	}
	if w.Sleep.Share != "" {
		n[w.Sleep.Share] = 1
	}
	return n
}

// join makes a worker known.
func (t *rota) join(worker string, bell chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.bell[worker] = bell
}

// part forgets a worker. bell tells it from a later one of its name.
func (t *rota) part(worker string, bell chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bell[worker] != bell {
		return
	}
	delete(t.bell, worker)
	t.leaveLocked(worker)
}

// ask takes a seat for a worker. If there is none it is lined up, and those that have what it needs are told; who names
// them and what they have.
func (t *rota) ask(worker string, n need, urgent bool) (ok bool, who string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, has := t.seats[worker]; has || len(n) == 0 {
		return true, ""
	}
	i := slices.IndexFunc(t.line, func(c claim) bool { return c.worker == worker })
	if i < 0 {
		t.line = append(t.line, claim{worker: worker, since: time.Now()})
		i = len(t.line) - 1
	}
	t.line[i].need, t.line[i].urgent = n, urgent
	mine := t.line[i]
	var first []string // who is to have it before
	for _, c := range t.line {
		if c.worker != worker && c.before(mine) && c.need.meets(n) {
			first = append(first, c.worker)
		}
	}
	if len(first) == 0 && t.fitsLocked(n) {
		t.seats[worker] = n
		t.line = slices.Delete(t.line, i, i+1)
		return true, ""
	}
	for _, other := range slices.Sorted(maps.Keys(t.seats)) {
		if t.seats[other].meets(n) {
			who = other + " has " + t.seats[other].common(n)
			t.ringLocked(other)
		}
	}
	if who == "" {
		who = strings.Join(first, ", ") + " is next"
	}
	return false, who
}

// hold gives a worker a seat that it has by the facts: its server is awake.
func (t *rota) hold(worker string, n need) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.line = slices.DeleteFunc(t.line, func(c claim) bool { return c.worker == worker })
	if len(n) > 0 {
		t.seats[worker] = n
	}
}

// leave gives up a worker's seat, or its place in line.
func (t *rota) leave(worker string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.leaveLocked(worker)
}

func (t *rota) leaveLocked(worker string) {
	_, had := t.seats[worker]
	n := len(t.line)
	delete(t.seats, worker)
	t.line = slices.DeleteFunc(t.line, func(c claim) bool { return c.worker == worker })
	if had || len(t.line) < n {
		for _, c := range t.line {
			t.ringLocked(c.worker)
		}
	}
}

// withdraw gives up a worker's place in line alone.
func (t *rota) withdraw(worker string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.ContainsFunc(t.line, func(c claim) bool { return c.worker == worker }) {
		t.leaveLocked(worker)
	}
}

// wanted says whether another waits for what a worker has, and whether requests wait for that one.
func (t *rota) wanted(worker string) (wanted, urgent bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	mine := t.seats[worker]
	for _, c := range t.line {
		if c.need.meets(mine) {
			wanted, urgent = true, urgent || c.urgent
		}
	}
	return wanted, urgent
}

func (t *rota) fitsLocked(n need) bool {
	for what, share := range n {
		for _, other := range t.seats {
			share += other[what]
		}
		if share > 1+1e-9 {
			return false
		}
	}
	return true
}

func (t *rota) ringLocked(worker string) {
	if bell := t.bell[worker]; bell != nil {
		poke(bell)
	}
}

// before says whether c is served before o: those for which requests wait, then the older one.
func (c claim) before(o claim) bool {
	if c.urgent != o.urgent {
		return c.urgent
	}
	return c.since.Before(o.since) || c.since.Equal(o.since) && c.worker < o.worker
}

func (n need) meets(o need) bool { return n.common(o) != "" }

// common names what both need.
func (n need) common(o need) string {
	for _, what := range slices.Sorted(maps.Keys(n)) {
		if _, both := o[what]; both {
			return what
		}
	}
	return ""
}
