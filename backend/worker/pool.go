package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/config"
)

// Pool is the set of workers. Statuses, counts and the gate are read without locks.
type Pool struct {
	opts    Options
	ownHTTP bool // the client is one of our own
	wake    waker

	apply sync.Mutex // one Apply at a time

	mu     sync.Mutex
	set    atomic.Pointer[roster]
	state  poolState
	spawn  chan *worker
	ending chan struct{}
}

type poolState int

const (
	poolNew poolState = iota
	poolRunning
	poolEnded
)

// roster is an immutable list of workers, in the order of the config; removed ones that are
// still stopping come last.
type roster struct {
	order  []*worker
	byName map[string]*worker
}

func newRoster(order []*worker) *roster {
	r := &roster{order: order, byName: make(map[string]*worker, len(order))}
	for _, w := range order {
		r.byName[w.name] = w
	}
	return r
}

// NewPool builds an empty pool. Apply fills it, Run runs it.
func NewPool(o Options) *Pool {
	ownHTTP := o.HTTP == nil
	o.fill()
	p := &Pool{opts: o, ownHTTP: ownHTTP, spawn: make(chan *worker), ending: make(chan struct{})}
	p.set.Store(newRoster(nil))
	return p
}

// Run owns the workers' loops. At the end of ctx it lets go of the servers without ending
// them: the next engine adopts them. StopAll, before that, ends them.
func (p *Pool) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	begin := func(w *worker) {
		wg.Go(func() {
			w.loop(ctx)
			p.drop(w)
		})
	}
	p.mu.Lock()
	if p.state != poolNew {
		p.mu.Unlock()
		return errors.New("run workers: a pool runs once")
	}
	p.state = poolRunning
	for _, w := range p.set.Load().order {
		begin(w)
	}
	p.mu.Unlock()
	for {
		select {
		case w := <-p.spawn:
			begin(w)
			continue
		case <-ctx.Done():
		}
		break
	}
	p.mu.Lock()
	p.state = poolEnded
	p.mu.Unlock()
	close(p.ending)
	wg.Wait()
	if p.ownHTTP {
		p.opts.HTTP.CloseIdleConnections()
	}
	return nil
}

func (p *Pool) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state == poolRunning
}

// drop takes a removed worker off the list once its loop has ended.
func (p *Pool) drop(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !w.finished {
		return // the engine ends; what is shown stays
	}
	if r := p.set.Load(); r.byName[w.name] == w {
		p.set.Store(newRoster(slices.DeleteFunc(slices.Clone(r.order), func(x *worker) bool { return x == w })))
	}
	p.wake.wake()
}

// Apply makes the pool what c says: new workers are added, missing ones drained and stopped,
// changed ones replaced; those whose effective command is the same keep running. If one worker
// of c cannot be, nothing is changed.
func (p *Pool) Apply(c *config.Config) error {
	p.apply.Lock()
	defer p.apply.Unlock()
	plans := make([]plan, 0, len(c.Workers))
	for _, w := range c.Workers {
		pl, err := newPlan(w, c.Logs, &p.opts)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(plans, func(x plan) bool { return x.cfg.Name == w.Name }) {
			return fmt.Errorf("worker %s: the name is given twice", w.Name)
		}
		plans = append(plans, pl)
	}

	p.mu.Lock()
	running := p.state == poolRunning
	ended := p.state == poolEnded
	p.mu.Unlock()
	if ended {
		return errGone
	}
	old := p.set.Load()
	if !running {
		// Nothing has been started: the list is simply another one.
		var order []*worker
		for _, pl := range plans {
			order = append(order, newWorker(pl, &p.opts, &p.wake))
		}
		p.mu.Lock()
		raced := p.state != poolNew
		if !raced {
			p.set.Store(newRoster(order))
		}
		p.mu.Unlock()
		if !raced {
			p.wake.wake()
			return nil
		}
		old = p.set.Load()
	}

	var order, fresh []*worker
	for _, pl := range plans {
		w := old.byName[pl.cfg.Name]
		if w != nil {
			err := w.order(func(ctx context.Context) error { return w.replace(ctx, pl) })
			if err == nil {
				order = append(order, w)
				continue
			}
			if !isGone(err) {
				return err
			}
		}
		w = newWorker(pl, &p.opts, &p.wake)
		order, fresh = append(order, w), append(fresh, w)
	}
	var leaving []*worker
	for _, w := range old.order {
		if slices.Contains(order, w) || slices.ContainsFunc(order, func(x *worker) bool { return x.name == w.name }) {
			continue
		}
		leaving = append(leaving, w)
	}
	p.mu.Lock()
	p.set.Store(newRoster(append(order, leaving...)))
	p.mu.Unlock()
	for _, w := range leaving {
		if err := w.order(w.remove); isGone(err) {
			p.drop(w)
		}
	}
	ended = false
	for _, w := range fresh {
		select {
		case p.spawn <- w:
		case <-p.ending:
			close(w.gone) // it will have no loop
			ended = true
		}
	}
	if ended {
		return errGone
	}
	p.wake.wake()
	return nil
}

// StopAll ends every server: drained within ctx and stop_timeout, then killed. It returns once
// all are gone, or with the names of those that stay.
func (p *Pool) StopAll(ctx context.Context) error {
	if !p.running() {
		return refused("the engine is not running")
	}
	for _, w := range p.set.Load().order {
		_ = w.order(w.orderStop) // refused: it is stopped already
	}
	left := p.await(ctx)
	if len(left) == 0 {
		return nil
	}
	for _, w := range left {
		_ = w.order(func(ctx context.Context) error { // gone: nothing is left to hurry
			_ = w.orderStop(ctx) // refused: it is stopped already
			return w.hurry(ctx)
		})
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), killLimit)
	defer cancel()
	if left = p.await(last); len(left) > 0 {
		var names []string
		for _, w := range left {
			names = append(names, w.name)
		}
		return fmt.Errorf("stop workers: %s still run: %w", strings.Join(names, ", "), ctx.Err())
	}
	return nil
}

// await waits until no worker has a server and gives those that still have one.
func (p *Pool) await(ctx context.Context) []*worker {
	for {
		changed := p.wake.changed()
		var left []*worker
		for _, w := range p.set.Load().order {
			if s := w.view.Load().State; s != api.Stopped && !isDone(w.gone) {
				left = append(left, w)
			}
		}
		if len(left) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return left
		}
	}
}

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

func (w *worker) status() api.Worker {
	s := w.view.Load().Worker
	s.InFlight = w.gate.count()
	return s
}

// Target is how to send requests to a worker.
type Target struct {
	URL       string // base, e.g. http://127.0.0.1:18000
	Model     string // name that the server knows the model by
	Key       string // its bearer token, "" for none
	Simulated bool
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

// Stop unroutes a worker, waits for its requests and ends it. It returns once that has begun.
func (p *Pool) Stop(name string) error { return p.order(name, (*worker).orderStop) }

// Restart stops a worker and starts it again.
func (p *Pool) Restart(name string) error { return p.order(name, (*worker).orderRestart) }

// Drain unroutes a ready worker; its process stays.
func (p *Pool) Drain(name string) error { return p.order(name, (*worker).orderDrain) }

// Resume routes to a drained worker again.
func (p *Pool) Resume(name string) error { return p.order(name, (*worker).orderResume) }

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

// LastStart gives how long the phases of a worker's last successful start took, for an
// estimate; nil if it is not known. It reads a file.
func (p *Pool) LastStart(name string) []api.PhaseTime {
	w := p.set.Load().byName[name]
	if w == nil {
		return nil
	}
	if h := readHistory(w.view.Load().folder); h != nil {
		return h.Phases
	}
	return nil
}
