package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// begin makes a new life, in state Starting.
func (w *worker) begin(ctx context.Context, phase string) (*life, context.Context) {
	now := time.Now()
	l := &life{plan: w.plan, began: now, phases: newTracker(phase, now), lastSeq: w.lines.Last(), kick: make(chan struct{}, 1), open: make(chan struct{}), served: w.plan.served}
	watch, end := context.WithCancel(ctx)
	l.end, l.unprobe = end, func() {}
	w.life = nil
	w.describe()
	w.forgetReadings()
	w.life, w.again = l, false
	w.enter(api.Starting)
	w.st.Error, w.st.Remedy, w.st.Exit, w.st.Fix = "", "", "", nil
	w.st.Stalled, w.st.Adopted = false, false
	w.st.PID, w.st.Started, w.st.Command, w.st.Version, w.st.MaxLen = 0, time.Time{}, nil, "", 0
	w.st.Trend, w.st.LastStart = nil, nil
	w.st.CanSleep, w.st.Level, w.st.Awake = false, 0, time.Time{}
	w.nap, w.sleepless = nil, time.Time{}
	if h := readHistory(w.plan.spec.Folder); h != nil {
		w.st.LastStart = h.Phases
	}
	w.showPhases(now)
	return l, watch
}

// start launches the server, in its turn.
func (w *worker) start(ctx context.Context) {
	if w.ungated {
		w.seat()
	} else if !w.turn(w.opts.Waiting(w.plan.cfg.Model)) {
		why := w.st.Blocked
		if w.st.State != api.Starting {
			w.enter(api.Starting)
		}
		w.st.Blocked, w.queued = why, true
		return
	}
	w.queued = false
	phase := api.PhaseImports
	if w.plan.kind == kindAttach {
		phase = api.PhaseServer
	}
	l, watch := w.begin(ctx, phase)
	if w.ungated {
		w.ungated = false
		close(l.open)
	}
	w.wg.Go(func() {
		spec, m, inst, err := w.launch(watch, l)
		ok := w.post(func(ctx context.Context) {
			if err != nil {
				w.unlaunched(ctx, err)
				return
			}
			l.spec, l.mark = spec, m[inst.LogPath()]
			w.launched(ctx, l, inst)
		})
		if !ok && err == nil {
			_ = inst.Close() // the engine is ending; the next one adopts the server
		}
	})
}

func (w *worker) launch(ctx context.Context, l *life) (launch.Spec, map[string]mark, launch.Instance, error) {
	p := l.plan
	if err := w.admit(ctx, l); err != nil {
		return launch.Spec{}, nil, nil, err
	}
	if !w.post(func(context.Context) { w.admitted(l) }) {
		return launch.Spec{}, nil, nil, errGone
	}
	port := p.cfg.Port
	if port == 0 && p.kind != kindAttach {
		if w.opts.Port == nil {
			return launch.Spec{}, nil, nil, &preflightError{errNoPort}
		}
		var err error
		if port, err = w.opts.Port(w.ports()...); err != nil {
			return launch.Spec{}, nil, nil, err
		}
	}
	spec := p.at(port)
	if err := w.opts.Check(spec); err != nil {
		return spec, nil, nil, &preflightError{err}
	}
	m := marks(spec.Folder)
	inst, err := w.opts.Launchers[p.kind].Launch(ctx, spec)
	return spec, m, inst, err
}

// launched takes hold of a started server: its log is followed and it is asked whether it is ready.
func (w *worker) launched(ctx context.Context, l *life, inst launch.Instance) {
	l.inst = inst
	// Stopping a launch ends its context; the server that came of it all the same is watched.
	l.end()
	watch, end := context.WithCancel(ctx)
	l.end = end
	w.st.PID, w.st.Started = inst.PID(), inst.Started()
	w.st.URL = l.spec.URL
	w.st.Command = w.opts.Redact(slices.Clone(l.spec.Argv))
	if l.plan.kind != kindAttach {
		w.log.Info("worker launched", "pid", inst.PID(), "url", l.spec.URL, "adopted", l.adopted)
	}
	w.wg.Go(func() { w.follow(watch, l) })
	if inst.PID() != 0 {
		w.wg.Go(func() { w.watchTree(watch, l) })
	}
	if w.st.State == api.Stopping {
		w.terminate(ctx)
		return
	}
	w.noteRunning(l)
	if l.plan.kind != kindAttach {
		left := l.plan.cfg.StartTimeout - time.Since(l.began)
		w.deadline(max(left, 0), func(ctx context.Context) { w.overdue(ctx, l) })
	}
	w.probe(watch, l, 200*time.Millisecond)
}

// probe begins to ask l's server whether it is ready, in place of what probed it before.
func (w *worker) probe(watch context.Context, l *life, pace time.Duration) {
	l.unprobe()
	probes, unprobe := context.WithCancel(watch)
	l.unprobe = unprobe
	w.wg.Go(func() { w.awaitReady(probes, l, pace) })
}

// target is how to reach l's server.
func (w *worker) target(l *life) target {
	return target{url: l.spec.URL, key: l.plan.key, client: w.opts.HTTP}
}

// awaitReady asks the server until it is ready. Readiness is an accepted connection, /health
// 200, our model's name in /v1/models, and one token from a server that we started.
//
// It asks every pace, and after ten seconds every second at most.
func (w *worker) awaitReady(ctx context.Context, l *life, pace time.Duration) {
	t, began := w.target(l), time.Now()
	var strange time.Time // since when somebody else has its port
	for {
		a, err := w.ask(ctx, t, l)
		if ctx.Err() != nil {
			return
		}
		if s, ok := errors.AsType[*strangerError](err); !ok {
			strange = time.Time{}
		} else if strange.IsZero() {
			strange = time.Now()
		} else if time.Since(strange) >= strangerLimit {
			twin := w.twin(ctx, t, l)
			w.post(func(ctx context.Context) { w.displaced(ctx, l, s, twin) })
			return
		}
		if !w.post(func(ctx context.Context) { w.answered(ctx, l, a, err) }) || err == nil {
			return
		}
		if time.Since(began) > 10*time.Second {
			pace = max(pace, time.Second)
		}
		select {
		case <-ctx.Done():
			return
		case <-l.kick:
		case <-time.After(pace):
		}
	}
}

func (w *worker) ask(ctx context.Context, t target, l *life) (answer, error) {
	if err := w.stranger(l); err != nil { // it would get our key, and then the prompts
		return answer{}, &strangerError{err}
	}
	if err := t.health(ctx); err != nil {
		return answer{}, err
	}
	a, err := t.who(ctx)
	if err != nil {
		return a, err
	}
	switch {
	case len(a.models) == 0:
		return a, errors.New("it serves no model")
	case slices.Contains(a.models, l.served):
	case l.plan.kind == kindAttach:
		// Whatever it serves is meant; requests are sent under its own name.
	default:
		return a, fmt.Errorf("%s serves %q, not %q: another server answers there", l.spec.URL, a.models[0], l.served)
	}
	if l.plan.canSleep(l.spec.Argv) {
		if a.sleeping, a.canSleep, err = t.sleeping(ctx); err != nil {
			return a, err
		}
	}
	if l.plan.kind == kindAttach || l.adopted || a.sleeping {
		return a, nil
	}
	return a, t.canary(ctx, l.served, canaryLimit)
}

// answered takes the outcome of one question to a server that is not ready.
func (w *worker) answered(ctx context.Context, l *life, a answer, err error) {
	if w.life != l || w.st.State != api.Starting && w.st.State != api.Failed {
		return
	}
	if err == nil {
		w.ready(ctx, l, a)
		return
	}
	l.problem = plain(err)
	if errors.Is(err, syscall.ECONNREFUSED) && w.st.State == api.Starting && l.phases.up && l.plan.kind != kindAttach {
		w.unseen(ctx, l)
		return
	}
	if l.plan.kind == kindAttach && w.st.State == api.Starting && time.Since(l.began) >= attachLimit {
		w.away(ctx, l)
	}
}

// away says that an attached server does not answer. It is not ours to restart: it is asked
// again for ever.
func (w *worker) away(ctx context.Context, l *life) {
	was := w.st.State
	w.enter(api.Failed)
	w.st.Error = clip(l.spec.URL + " does not serve: " + l.problem)
	w.st.Remedy = "start it, or correct attach: of this worker; it is asked again every few seconds"
	w.forgetReadings()
	w.log.Warn("attached server away", "was", string(was), "error", w.st.Error)
	w.notice("error", w.name+": "+w.st.Error)
	w.probe(ctx, l, attachRetry)
}

// ready opens the worker for requests.
func (w *worker) ready(ctx context.Context, l *life, a answer) {
	now := time.Now()
	l.ready, l.answers = true, true
	if !slices.Contains(a.models, l.served) {
		l.served = a.models[0]
	}
	l.phases.move(api.PhaseServer, now)
	l.phases.end(now)
	w.st.Phases = l.phases.list(now)
	w.st.LastStart = w.st.Phases
	w.enter(api.Ready)
	w.st.CanSleep = a.canSleep
	switch {
	case a.sleeping:
		w.foundAsleep(l)
	case w.drained:
		w.enter(api.Draining)
	}
	if !a.sleeping {
		w.seat() // also one that was taken over, whoever has its GPU besides
	}
	w.st.Error, w.st.Remedy, w.st.Exit, w.st.Fix = "", "", "", nil
	if a.version != "" {
		w.st.Version = a.version
	}
	if a.maxLen != 0 {
		w.st.MaxLen = a.maxLen
	}
	took := now.Sub(l.began)
	switch {
	case l.adopted:
		if h := readHistory(l.spec.Folder); h != nil {
			w.st.Phases = h.Phases
		}
		if l.spec.Labels[labelCommand] != w.plan.hash {
			w.log.Warn("worker runs with an older command")
			w.notice("warning", fmt.Sprintf("%s runs with an older command: \"vllmdeck worker restart %s\" applies the config", w.name, w.name))
		}
	case l.plan.kind != kindAttach:
		h := history{Phases: w.st.Phases, Version: w.st.Version, At: now}
		w.wg.Go(func() {
			if err := h.write(l.spec.Folder); err != nil {
				w.log.Warn("start times not kept", "error", err)
			}
		})
	}
	w.noteRunning(l)
	is := string(api.Ready)
	if a.sleeping {
		is = string(api.Asleep)
	}
	w.log.Info("worker ready", "state", is, "model", l.plan.cfg.Model, "took", took.Round(time.Millisecond), "version", w.st.Version)
	switch {
	case l.adopted:
		w.notice("info", w.name+" taken over from an earlier engine, "+is)
	case l.plan.kind == kindAttach:
		w.notice("info", w.name+" answers, "+is)
	default:
		w.notice("info", fmt.Sprintf("%s %s after %v", w.name, is, took.Round(100*time.Millisecond)))
	}
	w.trouble.starts = 0
	w.opts.turns.give(l)
	w.deadline(resetAfter, func(context.Context) { w.trouble.forget() })

	l.unprobe() // awaitReady has ended by itself; this frees its context
	probes, unprobe := context.WithCancel(ctx)
	l.unprobe = unprobe
	w.wg.Go(func() { w.watchHealth(probes, l) })
	if w.opts.Scraper != nil {
		l.scraper = w.opts.Scraper(l.spec.URL, l.plan.key)
		w.wg.Go(func() { w.watchMetrics(probes, l) })
	}
}

// showPhases shows how far the start is.
func (w *worker) showPhases(now time.Time) {
	if w.st.Blocked != "" { // nothing runs yet: a wait for a GPU is no import of Python
		w.st.Phase, w.st.Progress, w.st.Phases = "", nil, nil
		return
	}
	t := w.life.phases
	w.st.Phase, w.st.Progress = t.phase(), t.progress
	w.st.Phases = t.list(now)
}
