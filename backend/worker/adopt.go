package worker

import (
	"context"
	"strconv"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// foresee takes the turn of a server that an earlier engine may have started and that may still load,
// until it is known.
func (w *worker) foresee() {
	if w.plan.kind != kindVLLM || w.plan.cpu {
		return
	}
	cards, _ := w.cards()
	if w.life == nil {
		w.foreseen = &life{}
		w.opts.turns.claim(w.foreseen, w.name, w.plan.on(cards))
		return
	}
	w.opts.turns.claim(w.life, w.name, w.plan.on(cards))
	if w.foreseen != nil {
		w.opts.turns.give(w.foreseen)
	}
}

// adopt takes hold of the server that an earlier engine started, if it lives; else the worker
// is started, where the config wants that.
func (w *worker) adopt(ctx context.Context) {
	if w.plan.kind == kindAttach {
		if starts(w.plan) {
			w.start(ctx)
		}
		return
	}
	l, watch := w.begin(ctx, api.PhaseServer)
	l.adopted = true
	w.foresee()
	w.foreseen = nil // from here on it is this life's
	launcher := w.opts.Launchers[l.plan.kind]
	w.wg.Go(func() {
		actx, cancel := context.WithTimeout(watch, adoptLimit)
		inst, err := launcher.Adopt(actx, l.plan.at(l.plan.cfg.Port))
		cancel()
		var dead *crash
		if inst == nil && err == nil {
			dead = w.autopsy(l.plan)
		}
		ok := w.post(func(ctx context.Context) {
			if dead != nil {
				w.foundDead(dead)
			}
			w.adopting(ctx, l, inst, err)
		})
		if !ok && inst != nil {
			_ = inst.Close() // the engine is ending; the next one adopts the server
		}
	})
}

func (w *worker) adopting(ctx context.Context, l *life, inst launch.Instance, err error) {
	switch {
	case err != nil:
		// Something of ours may live there: neither to start a second one beside it nor to call
		// it stopped would be right.
		w.failed(verdict{
			class: classCrash, cause: clip("take over the running server: " + err.Error()), early: true, adopt: true,
			final: w.st.State == api.Stopping,
		})
	case inst != nil:
		l.spec = inst.Spec()
		if s := l.spec.Labels[labelModel]; s != "" {
			l.served = s
		}
		w.st.Adopted = true
		if r, err := readNap(l.spec.Folder, inst.Started()); err == nil {
			w.st.Awake = r.Awake
		}
		w.st.MaxSeqs, _ = strconv.Atoi(flagValue(l.spec.Argv, "max-num-seqs"))
		w.launched(ctx, l, inst)
	case w.st.State == api.Stopping:
		w.stopped(ctx)
	default:
		w.release()
		w.enter(api.Stopped)
		w.st.Phases = nil
		if starts(w.plan) {
			w.start(ctx)
		}
	}
}
