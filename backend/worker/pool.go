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

	errands chan func(context.Context) // what outlives an order, run within Run
	rolls   rolls
	balance balance
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
	o.book = openBook(o.State, o.Log)
	p := &Pool{opts: o, ownHTTP: ownHTTP, spawn: make(chan *worker), ending: make(chan struct{}), errands: make(chan func(context.Context))}
	p.rolls.byModel = map[string]*roll{}
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
	order := p.set.Load().order
	for _, w := range order {
		w.foresee() // before any of them starts
	}
	for _, w := range order {
		begin(w)
	}
	p.mu.Unlock()
	p.tellOldRolls()
	for {
		select {
		case w := <-p.spawn:
			begin(w)
			continue
		case f := <-p.errands:
			wg.Go(func() { f(ctx) })
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

// ports lists what is promised to a worker, so that no other gets it.
func (p *Pool) ports() []int {
	var out []int
	for _, w := range p.set.Load().order {
		for _, port := range w.view.Load().ports {
			if port != 0 {
				out = append(out, port)
			}
		}
	}
	return out
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
			order = append(order, newWorker(pl, &p.opts, &p.wake, p.ports))
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
		w = newWorker(pl, &p.opts, &p.wake, p.ports)
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
