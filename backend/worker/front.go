package worker

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// Statuses gives what is known of every worker now, in the order of the config. HourCost is
// not filled in.
func (p *Pool) Statuses() []api.Worker {
	order := p.set.Load().order
	out := make([]api.Worker, 0, len(order))
	for _, w := range order {
		out = append(out, w.status())
	}
	return out
}

// Status gives what is known of one worker.
func (p *Pool) Status(name string) (api.Worker, bool) {
	w := p.set.Load().byName[name]
	if w == nil {
		return api.Worker{}, false
	}
	return w.status(), true
}

// Peek gives the same without a copy, for the path of each request: the status must not be
// changed, and its InFlight is not kept, which is why it comes beside it. Nil if there is no such
// worker.
func (p *Pool) Peek(name string) (w *api.Worker, inFlight int) {
	at := p.set.Load().byName[name]
	if at == nil {
		return nil, 0
	}
	return &at.view.Load().Worker, at.gate.count()
}

func (w *worker) status() api.Worker {
	s := w.view.Load().Worker
	s.InFlight = w.gate.count()
	s.Crashes = w.opts.book.count(w.name)
	return s
}

// Target is how to send requests to a worker.
type Target struct {
	URL       string // base, e.g. http://127.0.0.1:18000
	Model     string // name that the server knows the model by
	Key       string // its bearer token, "" for none
	Simulated bool
	Started   time.Time // of its process, or when that last woke, as in api.Worker
}

// Target gives where requests for a worker go.
func (p *Pool) Target(name string) (Target, bool) {
	w := p.set.Load().byName[name]
	if w == nil {
		return Target{}, false
	}
	return w.view.Load().target, true
}

// Start starts a stopped or failed worker.
func (p *Pool) Start(name string) error { return p.order(name, (*worker).orderStart) }

// StartNow starts a worker without waiting for its GPUs, also one that waits for them now.
func (p *Pool) StartNow(name string) error { return p.order(name, (*worker).orderStartNow) }

// Stop unroutes a worker, waits for its requests and ends it. It returns once that has begun.
func (p *Pool) Stop(name string) error { return p.order(name, (*worker).orderStop) }

// Restart stops a worker and starts it again.
func (p *Pool) Restart(name string) error { return p.order(name, (*worker).orderRestart) }

// Drain unroutes a ready worker; its process stays.
func (p *Pool) Drain(name string) error { return p.order(name, (*worker).orderDrain) }

// Resume routes to a drained worker again.
func (p *Pool) Resume(name string) error { return p.order(name, (*worker).orderResume) }

// Sleep puts a ready worker to sleep at a level, 1 or 2; 0: that of the config. It returns once that has begun: its
// requests end first.
func (p *Pool) Sleep(name string, level int) error {
	return p.order(name, func(w *worker, ctx context.Context) error { return w.orderSleep(level)(ctx) })
}

// WakeUp wakes a worker that sleeps, in its turn.
func (p *Pool) WakeUp(name string) error { return p.order(name, (*worker).orderWake) }

// Wanted says that requests wait for a worker of a model: those that sleep, or wait for their turn to start, look
// whether they should (Options.Waiting).
func (p *Pool) Wanted(model string) {
	for _, w := range p.set.Load().order {
		if v := w.view.Load(); v.Model == model && (v.State == api.Asleep || v.State == api.Starting && v.Blocked != "") {
			poke(w.bell)
		}
	}
}

// order gives api.ErrUnknown if there is no such worker and api.ErrRefused if the order makes
// no sense in its state.
func (p *Pool) order(name string, f func(*worker, context.Context) error) error {
	w := p.set.Load().byName[name]
	if w == nil {
		return fmt.Errorf("%w worker %q", api.ErrUnknown, name)
	}
	if !p.running() {
		return refused("the engine is not running")
	}
	return w.order(func(ctx context.Context) error { return f(w, ctx) })
}

// Acquire counts a request in on a worker; false if that is not ready. The release may be
// called more than once.
func (p *Pool) Acquire(name string) (release func(), ok bool) {
	w := p.set.Load().byName[name]
	if w == nil {
		return nil, false
	}
	return w.gate.acquire()
}

// InFlight is how many acquired requests a worker has.
func (p *Pool) InFlight(name string) int {
	w := p.set.Load().byName[name]
	if w == nil {
		return 0
	}
	return w.gate.count()
}

// Changed gives a channel that is closed when a worker becomes ready or is no longer, and when
// a slot frees. Get it before looking at what may change.
func (p *Pool) Changed() <-chan struct{} { return p.wake.changed() }

// Wake makes those who wait on Changed look again: something has changed that the pool does not know of.
func (p *Pool) Wake() { p.wake.wake() }

// Beat gives the count of a worker's signs of life, which whoever gets something of an answer from it raises. A worker that shows
// one is not hung, whatever its metrics say. nil if there is no such worker.
func (p *Pool) Beat(name string) *atomic.Int64 {
	if w := p.set.Load().byName[name]; w != nil {
		return &w.beat
	}
	return nil
}

// Failed says that a request found a worker failing: it is probed at once, and unrouted if the
// probe fails.
func (p *Pool) Failed(name string) {
	if w := p.set.Load().byName[name]; w != nil {
		select {
		case w.doubt <- struct{}{}:
		default:
		}
	}
}

// Logs gives a worker's log, across its restarts; nil if there is no such worker.
func (p *Pool) Logs(name string) *Log {
	w := p.set.Load().byName[name]
	if w == nil {
		return nil
	}
	return w.lines
}
