package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// worker is one supervised server, across its restarts.
type worker struct {
	name  string
	opts  *Options
	log   *slog.Logger
	lines *Log
	gate  *gate
	wake  *waker
	ports func() []int // those of all workers
	view  atomic.Pointer[view]
	beat  atomic.Int64 // signs of life that those who use it have seen
	seen  repeats

	mail  chan func(context.Context) // run by the loop, one at a time
	doubt chan struct{}              // somebody doubts that it serves
	bell  chan struct{}              // rung when it should look whether to sleep, wake or start
	gone  chan struct{}              // closed when the loop has ended
	wg    sync.WaitGroup             // goroutines of the loop

	// Below is the loop's alone.
	plan      plan // as configured now; a life keeps the plan it began with
	st        api.Worker
	life      *life // nil while there is no process and none is being started
	again     bool  // start when stopped
	drained   bool  // an operator wants it unrouted, also after a crash
	leaving   bool  // the loop ends when stopped
	foreseen  *life // stands for the one that is being adopted, see foresee
	ungated   bool  // the next start does not wait for its GPUs
	finished  bool
	queued    bool            // its start waits for its turn
	nap       *nap            // on its way to sleep or out of it
	summoned  bool            // an operator wants it awake
	took      int64           // gate.taken as last seen
	used      time.Time       // when requests were last seen with it
	sleepless time.Time       // it is not put to sleep before
	disk      <-chan struct{} // closed when what was to be written is written
	advisor   advisor
	trouble   troubles
	timer     *time.Timer // the one deadline of the present state
	onTimer   func(context.Context)
}

// view is what readers see of a worker. It is immutable.
type view struct {
	api.Worker
	target Target
	ports  []int // that it has or will have
	advice []api.Advice
	load   load
}

// life is one incarnation of a worker's server, from its launch to its end.
type life struct {
	plan    plan
	spec    launch.Spec
	inst    launch.Instance // nil until launched
	began   time.Time
	end     context.CancelFunc // ends everything that watches it
	unprobe context.CancelFunc // ends the probes alone
	phases  *tracker
	lastSeq uint64 // of the log, before its first line
	mark    mark   // how far its log file was written before
	adopted bool
	ready   bool // it has been
	answers bool // it answers now; false from the third failure of /health on
	step    stopStep
	doom    *verdict      // why it is being ended, if nobody ordered that
	crash   *crash        // its entry in the crash book, once it has failed
	kick    chan struct{} // asks for a probe now
	open    chan struct{} // closed: its start does not wait for its GPUs
	problem string        // of the last probe while it starts
	upAt    time.Time     // when its log said that it serves, while nobody answered

	served  string
	scraper Scraper
	health  struct { // failures of /health in a row
		failed, slow int
		beats        int64 // signs of life by the first that came too late
	}
	still   stillness
	cpu     map[int]float64 // CPU seconds by pid
	cpuAt   time.Time
	trendAt time.Time
}

func newWorker(p plan, o *Options, wake *waker, ports func() []int) *worker {
	w := &worker{
		name: p.cfg.Name, opts: o, log: o.Log.With("worker", p.cfg.Name), lines: &Log{}, wake: wake, ports: ports,
		gate: newGate(wake.wake), plan: p,
		mail: make(chan func(context.Context)), doubt: make(chan struct{}, 1), bell: make(chan struct{}, 1), gone: make(chan struct{}),
	}
	o.rota.join(w.name, w.bell)
	w.st.State, w.st.Since = api.Stopped, time.Now()
	if p.kind != kindAttach || starts(p) {
		// The loop adopts or starts it at once; a request that comes before that waits for it.
		w.st.State = api.Starting
	}
	w.describe()
	w.publish()
	return w
}

// loop runs the worker until ctx ends or it is removed. The end of ctx lets go of the server
// without ending it.
func (w *worker) loop(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	w.timer = time.NewTimer(time.Hour)
	w.timer.Stop()
	redraw := time.NewTicker(redrawEvery)
	defer func() {
		redraw.Stop()
		w.timer.Stop()
		w.gate.shut()
		w.opts.rota.part(w.name, w.bell)
		close(w.gone)
		cancel()
		w.wg.Wait()
		if w.life != nil && w.life.inst != nil {
			_ = w.life.inst.Close() // letting go: the server stays, whatever this says
		}
		w.wake.wake()
	}()
	w.dropStale()
	w.adopt(ctx)
	w.publish()
	for !w.finished {
		select {
		case <-ctx.Done():
			return
		case f := <-w.mail:
			f(ctx)
		case <-w.timer.C:
			if f := w.onTimer; f != nil {
				w.onTimer = nil
				f(ctx)
			}
		case <-w.gate.idle:
			w.emptied(ctx)
		case <-w.doubt:
			if w.life != nil {
				poke(w.life.kick)
			}
			continue
		case <-w.bell:
			if !w.rest(ctx, time.Now()) {
				continue
			}
		case now := <-redraw.C:
			if changed := w.rest(ctx, now); !w.redraw(now) && !changed {
				continue
			}
		}
		w.publish()
	}
}

// post hands f to the loop and returns once the loop has taken it; false if the loop has ended.
func (w *worker) post(f func(context.Context)) bool {
	select {
	case w.mail <- f:
		return true
	case <-w.gone:
		return false
	}
}

// order runs f in the loop and gives its answer. What f changed is published by then.
func (w *worker) order(f func(context.Context) error) error {
	done := make(chan error, 1)
	if !w.post(func(ctx context.Context) {
		err := f(ctx)
		w.publish()
		done <- err
	}) {
		return errGone
	}
	return <-done
}

// errGone says that a worker's loop has ended.
var errGone = fmt.Errorf("%w: the worker is no longer looked after", api.ErrRefused)

// deadline sets what happens after d unless the state changes before. There is one at a time.
func (w *worker) deadline(d time.Duration, f func(context.Context)) {
	w.timer.Reset(d)
	w.onTimer = f
}

func (w *worker) noDeadline() {
	w.timer.Stop()
	w.onTimer = nil
}

// enter changes the state. Every state but Starting and Stopping is without phase.
func (w *worker) enter(s api.State) {
	w.noDeadline()
	w.st.State, w.st.Since = s, time.Now()
	w.st.Phase, w.st.Progress = "", nil
	w.st.NextStart = time.Time{}
	w.st.Blocked, w.queued = "", false
	switch s {
	case api.Stopping, api.Stopped, api.Failed:
		w.nap, w.summoned = nil, false
	}
	switch s {
	case api.Stopped, api.Failed, api.Asleep: // its memory is free
		w.opts.rota.leave(w.name)
	}
}

// publish shows the present state to readers and sets the gate accordingly.
func (w *worker) publish() {
	s := w.st
	s.Phases = append([]api.PhaseTime(nil), s.Phases...)
	s.Trend = append(api.Series(nil), s.Trend...)
	v := &view{Worker: s, ports: []int{w.plan.cfg.Port}, advice: w.advisor.advice, load: w.advisor.load}
	v.target = Target{URL: s.URL, Model: w.plan.served, Key: w.plan.key, Simulated: s.Simulated, Started: s.Started}
	if s.Awake.After(s.Started) {
		v.target.Started = s.Awake
	}
	if l := w.life; l != nil {
		v.target.Key = l.plan.key
		v.ports = append(v.ports, l.spec.Port)
		if l.served != "" {
			v.target.Model = l.served
		}
	}
	old := w.view.Swap(v)
	open := s.State == api.Ready && !s.Stalled
	if open != w.gate.isOpen() {
		if open {
			w.gate.open()
		} else {
			w.gate.shut()
		}
		w.wake.wake()
	} else if old == nil || old.State != s.State {
		w.wake.wake()
	}
}

// redraw brings the numbers up to date that change by the clock alone; false if there are none.
func (w *worker) redraw(now time.Time) bool {
	l := w.life
	switch {
	case l == nil:
		return false
	case w.st.State == api.Starting:
		w.showPhases(now)
		return true
	case w.st.State == api.Ready && now.Sub(l.trendAt) >= trendEvery:
		l.trendAt = now
		w.point(now)
		return true
	}
	return false
}

// describe copies what the config says into the status.
func (w *worker) describe() {
	p := &w.plan
	w.st.Name, w.st.Model, w.st.Kind = w.name, p.cfg.Model, p.kind
	w.st.Simulated = p.kind == kindSim
	w.st.GPUs = nil
	if p.cfg.VLLM != nil {
		w.st.GPUs = p.cfg.VLLM.GPUs
	}
	w.st.Fixed = nil
	if !p.ordered.empty() {
		w.st.Fixed = p.ordered.lines(w.opts.Redact)
	}
	if w.life == nil {
		w.st.URL, w.st.MaxSeqs = p.spec.URL, p.maxSeqs
	}
}

// notice tells an operator.
func (w *worker) notice(level, text string) {
	w.opts.Notice(api.Notice{Time: time.Now(), Level: level, Text: text, Worker: w.name})
}

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: %s", api.ErrRefused, fmt.Sprintf(format, args...))
}

// isGone says that an order found the loop ended.
func isGone(err error) bool { return errors.Is(err, errGone) }
