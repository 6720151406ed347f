package worker

import (
	"context"
	"fmt"
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// with gives the plan with another change in place of what was ordered so far.
func (p *plan) with(c change, o *Options) (plan, error) { return planWith(p.base, p.logs, o, c) }

// offer makes a verdict's remedy an order that can be given; nil if no flag mends it, or if it would change nothing.
func (w *worker) offer(v verdict) *api.Fix {
	if v.cure == nil || w.plan.kind != kindVLLM {
		return nil
	}
	return w.fixOf(v.cure(known{args: w.plan.argv, env: w.plan.spec.Env, model: w.plan.cfg.VLLM.Path, phase: v.phase}), v.cause)
}

// fixOf makes a change an order; nil if it is none.
func (w *worker) fixOf(c change, why string) *api.Fix {
	if w.plan.kind != kindVLLM || c.empty() || c.check() != nil {
		return nil
	}
	p, err := w.plan.with(w.plan.ordered.and(c), w.opts)
	if err != nil || p.hash == w.plan.hash {
		return nil
	}
	return &api.Fix{Set: c.Set, Unset: c.Unset, Env: c.Env, Command: w.opts.Redact(p.at(w.plan.cfg.Port).Argv), Why: why}
}

// orderFix changes the command line and starts the server with it.
func (w *worker) orderFix(ctx context.Context, c change) error {
	if w.plan.kind != kindVLLM {
		return refused("%s is %s: only the command line of a vLLM that vllmdeck starts can be changed", w.name, w.plan.kind)
	}
	if w.leaving {
		return refused("%s is being removed from the config", w.name)
	}
	if c.empty() {
		if w.st.Fix == nil {
			return refused("%s has no remedy that is a flag: name one, as --set --max-model-len=4096", w.name)
		}
		c = change{Set: w.st.Fix.Set, Unset: w.st.Fix.Unset, Env: w.st.Fix.Env}
	}
	if err := c.check(); err != nil {
		return err
	}
	p, err := w.plan.with(w.plan.ordered.and(c), w.opts)
	if err != nil {
		return refused("%v", err)
	}
	if p.hash == w.plan.hash {
		return refused("this changes nothing of %s", w.name)
	}
	if err := p.ordered.keep(p.spec.Folder, p.base); err != nil {
		return err
	}
	f := &api.Fix{Set: w.opts.Redact(c.Set), Unset: c.Unset, Env: w.opts.Redact(c.Env)}
	said := change{f.Set, f.Unset, f.Env}.lines(w.opts.Redact)
	w.log.Info("command line changed by order", "set", f.Set, "unset", f.Unset, "env", f.Env)
	w.notice("info", fmt.Sprintf("%s changed by order: %s; %s", w.name, strings.Join(said, ", "), InConfig(w.name, f)))
	return w.replan(ctx, p)
}

// orderUnfix takes the config's command line again.
func (w *worker) orderUnfix(ctx context.Context) error {
	if w.plan.ordered.empty() {
		return refused("nothing of %s was changed by order", w.name)
	}
	p, err := w.plan.with(change{}, w.opts)
	if err != nil {
		return refused("%v", err)
	}
	if err := (change{}).keep(p.spec.Folder, p.base); err != nil {
		return err
	}
	w.log.Info("command line is the config's again")
	w.notice("info", w.name+" runs as its config says again")
	return w.replan(ctx, p)
}

// replan starts the server with another plan, whatever it does now.
func (w *worker) replan(ctx context.Context, p plan) error {
	w.plan = p
	w.describe()
	w.trouble.forget()
	return w.orderRestart(ctx)
}

// dropStale forgets what was ordered of another config than the present one.
func (w *worker) dropStale() {
	if !w.plan.stale {
		return
	}
	w.plan.stale = false
	if err := (change{}).keep(w.plan.spec.Folder, w.plan.base); err != nil {
		w.log.Warn("old fix not removed", "error", err)
	}
	w.notice("info", fmt.Sprintf("the command line of %s in the config is another one now, or a variable is gone: what was ordered before (worker fix) no longer counts", w.name))
}

// Fix changes the command line of a worker and (re)starts it: set holds "--flag=value" or "--flag", unset flags
// that go, env "NAME=value". All empty: the worker's own api.Worker.Fix. It is kept until Unfix, or until the config
// says something else of the worker's command line.
func (p *Pool) Fix(name string, set, unset, env []string) error {
	p.apply.Lock() // a reload reads what this writes
	defer p.apply.Unlock()
	return p.order(name, func(w *worker, ctx context.Context) error { return w.orderFix(ctx, change{set, unset, env}) })
}

// Unfix undoes every Fix of a worker and restarts it.
func (p *Pool) Unfix(name string) error {
	p.apply.Lock()
	defer p.apply.Unlock()
	return p.order(name, (*worker).orderUnfix)
}
