package worker

import (
	"context"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// What an operator may order. Each runs in the loop.

func (w *worker) orderStart(ctx context.Context) error {
	switch w.st.State {
	case api.Stopped, api.Failed:
		w.release()
		w.drained = false
		w.trouble.forget()
		w.start(ctx)
	case api.Stopping:
		if w.leaving {
			return refused("%s is being removed from the config", w.name)
		}
		w.again = true
	case api.Draining:
		return refused("%s is drained: resume it instead", w.name)
	default:
		return refused("%s is %s already", w.name, w.st.State)
	}
	return nil
}

// orderStartNow is orderStart for who knows better than the readings of the cards.
func (w *worker) orderStartNow(ctx context.Context) error {
	if l := w.life; w.st.State == api.Starting && w.st.Blocked != "" && l != nil {
		if !isDone(l.open) {
			close(l.open)
		}
		return nil
	}
	w.ungated = true
	if w.queued {
		w.start(ctx)
		return nil
	}
	err := w.orderStart(ctx)
	if err != nil {
		w.ungated = false
	}
	return err
}

func (w *worker) orderStop(ctx context.Context) error {
	switch w.st.State {
	case api.Stopped:
		return refused("%s is stopped already", w.name)
	case api.Stopping:
		w.again = false
		w.life.doom = nil
		w.st.Error, w.st.Remedy, w.st.Fix = "", "", nil
	case api.Failed:
		w.stopped(ctx)
	default:
		w.stop(ctx)
	}
	return nil
}

func (w *worker) orderRestart(ctx context.Context) error {
	switch w.st.State {
	case api.Stopped, api.Failed:
		return w.orderStart(ctx)
	case api.Stopping:
		if w.leaving {
			return refused("%s is being removed from the config", w.name)
		}
		w.again = true
	default:
		w.again = true
		w.stop(ctx)
	}
	return nil
}

func (w *worker) orderDrain(context.Context) error {
	if w.st.State != api.Ready {
		return refused("%s is %s: only a ready worker can be drained", w.name, w.st.State)
	}
	w.drained = true
	w.enter(api.Draining)
	w.log.Info("worker drained")
	w.notice("info", w.name+" drained by order: new requests go elsewhere")
	return nil
}

func (w *worker) orderResume(ctx context.Context) error {
	if w.st.State != api.Draining {
		return refused("%s is %s: only a drained worker can be resumed", w.name, w.st.State)
	}
	if w.nap != nil {
		return w.orderWake(ctx)
	}
	w.drained = false
	w.enter(api.Ready)
	w.deadline(resetAfter, func(context.Context) { w.trouble.forget() })
	w.log.Info("worker resumed")
	w.notice("info", w.name+" resumed by order: it is routed to again")
	return nil
}

// remove ends the worker and then its loop.
func (w *worker) remove(ctx context.Context) error {
	w.leaving, w.again = true, false
	switch w.st.State {
	case api.Stopping:
	case api.Stopped, api.Failed:
		w.stopped(ctx)
	default:
		w.stop(ctx)
	}
	return nil
}

// replace takes a changed config. A running server of another command is stopped and started
// anew; one that failed is tried again; one that was stopped on purpose stays so.
func (w *worker) replace(ctx context.Context, p plan) error {
	changed := p.hash != w.plan.hash
	returned := w.leaving
	w.plan, w.leaving = p, false
	w.dropStale()
	if !changed && !returned {
		w.describe()
		return nil
	}
	w.log.Info("worker changed", "command", p.hash)
	switch w.st.State {
	case api.Stopped:
		w.describe()
	case api.Failed:
		return w.orderStart(ctx)
	case api.Stopping:
		w.again = w.again || returned && starts(p)
	default:
		w.again = true
		w.stop(ctx)
	}
	return nil
}

// hurry kills what a stopping worker waits for.
func (w *worker) hurry(ctx context.Context) error {
	if w.st.State == api.Stopping && w.life != nil && w.life.inst != nil {
		w.kill(ctx, w.life)
	}
	return nil
}

// starts says whether the config wants the worker to start with the engine.
func starts(p plan) bool { return p.cfg.Start == nil || *p.cfg.Start }
