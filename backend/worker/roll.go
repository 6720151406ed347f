package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// The states of an api.Roll.
const (
	rollRunning   = "running"
	rollDone      = "done"
	rollFailed    = "failed"
	rollCancelled = "cancelled"
)

// rollTries is how many starts a worker has to come back in a rolling restart.
const rollTries = 3

// errUnroll says that a rolling restart was ended by order.
var errUnroll = errors.New("ended by order")

// rolls are the rolling restarts of a pool, the last of each model.
type rolls struct {
	mu      sync.Mutex
	byModel map[string]*roll
}

type roll struct {
	api.Roll
	alone  bool // the model's only ready worker may be restarted too
	cancel bool // no further worker
}

// Rolls gives the last rolling restart of each model, by the model's name.
func (p *Pool) Rolls() []api.Roll {
	p.rolls.mu.Lock()
	defer p.rolls.mu.Unlock()
	var out []api.Roll
	for _, model := range slices.Sorted(maps.Keys(p.rolls.byModel)) {
		r := p.rolls.byModel[model].Roll
		r.Workers = slices.Clone(r.Workers)
		out = append(out, r)
	}
	return out
}

// Roll begins a rolling restart of a model's workers: one after the other is unrouted, lets its requests end, is
// restarted and must be ready before the next one's turn. Those that are not ready come first: nobody misses them.
// It ends, with the rest untouched, when one does not come back, or when the next one is the last that serves.
//
// Workers that are stopped, drained, asleep or wait for their GPU are left as they are, attached ones are not ours. A model with a single
// worker is restarted only if alone says that its requests may wait.
func (p *Pool) Roll(model string, alone bool) error {
	if !p.running() {
		return refused("the engine is not running")
	}
	names, err := p.rollOrder(model, alone)
	if err != nil {
		return err
	}
	r := &roll{Roll: api.Roll{Model: model, Started: time.Now(), Workers: names, State: rollRunning}, alone: alone}
	p.rolls.mu.Lock()
	if old := p.rolls.byModel[model]; old != nil && old.State == rollRunning {
		p.rolls.mu.Unlock()
		return refused("a rolling restart of %s runs already: %d of %d done", model, old.Done, len(old.Workers))
	}
	p.rolls.byModel[model] = r
	p.rolls.mu.Unlock()
	select {
	case p.errands <- func(ctx context.Context) { p.roll(ctx, r) }:
		return nil
	case <-p.ending:
		p.rollEnds(r, rollFailed, "the engine ends")
		return errGone
	}
}

// Unroll ends a rolling restart after the worker whose turn it is.
func (p *Pool) Unroll(model string) error {
	p.rolls.mu.Lock()
	defer p.rolls.mu.Unlock()
	r := p.rolls.byModel[model]
	if r == nil || r.State != rollRunning {
		return refused("no rolling restart of %s runs", model)
	}
	r.cancel = true
	p.wake.wake()
	return nil
}

// rollOrder lists who is to be restarted, those first that do not serve.
func (p *Pool) rollOrder(model string, alone bool) ([]string, error) {
	var idle, serving []string
	others, attached, left := 0, 0, 0
	for _, w := range p.set.Load().order {
		v := w.view.Load()
		switch {
		case v.Model != model:
		case v.Kind == kindAttach:
			attached++
			if serves(v) {
				others++
			}
		case v.State == api.Ready:
			serving = append(serving, w.name)
		case v.State == api.Starting && v.Blocked == "", v.State == api.Failed:
			idle = append(idle, w.name)
		default: // somebody wants it so, or it starts with the present config once it may
			left++
		}
	}
	switch {
	case len(idle)+len(serving) == 0 && attached > 0 && left == 0:
		return nil, refused("the workers of %s are attached: they are not ours to restart", model)
	case len(idle)+len(serving) == 0:
		return nil, refused("no worker of %s runs", model)
	case len(serving) == 1 && len(idle) == 0 && others == 0 && !alone:
		return nil, refused("%s is the only worker that serves %s: nobody would while it restarts; order it with alone=true to let requests wait or fail", serving[0], model)
	}
	return append(idle, serving...), nil
}

// serves says whether requests go to a worker.
func serves(v *view) bool { return v.State == api.Ready && !v.Stalled }

// roll restarts one worker after the other.
func (p *Pool) roll(ctx context.Context, r *roll) {
	p.noteRolls()
	p.tell("info", fmt.Sprintf("rolling restart of %s: %s", r.Model, strings.Join(r.Workers, ", ")))
	for i, name := range r.Workers {
		p.rolls.mu.Lock()
		r.Done = i
		p.rolls.mu.Unlock()
		p.noteRolls()
		err := errUnroll
		if !p.cancelled(r) {
			err = p.rollOne(ctx, r, name)
		}
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return // what is noted is for the next engine to tell
		case errors.Is(err, errUnroll):
			p.rollEnds(r, rollCancelled, "")
			p.tell("info", fmt.Sprintf("rolling restart of %s ended by order after %d of %d workers", r.Model, i, len(r.Workers)))
			return
		default:
			p.rollEnds(r, rollFailed, clip(err.Error()))
			p.tell("error", fmt.Sprintf("rolling restart of %s stopped after %d of %d workers: %v", r.Model, i, len(r.Workers), err))
			return
		}
	}
	p.rolls.mu.Lock()
	r.Done = len(r.Workers)
	p.rolls.mu.Unlock()
	p.rollEnds(r, rollDone, "")
	p.tell("info", fmt.Sprintf("rolling restart of %s done: %s in %v", r.Model, count(len(r.Workers), "worker"), time.Since(r.Started).Round(time.Second)))
}

func (p *Pool) cancelled(r *roll) bool {
	p.rolls.mu.Lock()
	defer p.rolls.mu.Unlock()
	return r.cancel
}

func (p *Pool) rollEnds(r *roll, state, why string) {
	p.rolls.mu.Lock()
	r.State, r.Error = state, why
	p.rolls.mu.Unlock()
	p.noteRolls()
	p.wake.wake()
}

// rollOne restarts one worker and waits until it is back.
func (p *Pool) rollOne(ctx context.Context, r *roll, name string) error {
	w := p.set.Load().byName[name]
	if w == nil {
		return fmt.Errorf("%s is no longer in the config", name)
	}
	v := w.view.Load()
	switch v.State {
	case api.Asleep:
		return nil
	case api.Stopped, api.Stopping, api.Draining:
		return fmt.Errorf("%s is %s meanwhile", name, v.State)
	case api.Starting:
		// It starts as the config says now: that is what it would be restarted for.
		return p.awaitBack(ctx, r, w, v.Restarts)
	}
	if !r.alone && serves(v) && !p.othersServe(w) {
		return fmt.Errorf("%s is the last worker that serves %s now", name, r.Model)
	}
	if err := w.order(w.orderRestart); err != nil {
		return fmt.Errorf("restart %s: %w", name, err)
	}
	return p.awaitBack(ctx, r, w, v.Restarts)
}

// othersServe says whether the requests of w's model can go to somebody else.
func (p *Pool) othersServe(w *worker) bool {
	model := w.view.Load().Model
	return slices.ContainsFunc(p.set.Load().order, func(x *worker) bool {
		v := x.view.Load()
		return x != w && v.Model == model && serves(v)
	})
}

// awaitBack waits until a worker that starts is ready; restarts is its count of unasked starts before. One whose turn on
// its GPU does not come may be given up.
func (p *Pool) awaitBack(ctx context.Context, r *roll, w *worker, restarts int) error {
	for {
		changed := p.wake.changed()
		v := w.view.Load()
		switch {
		case isDone(w.gone):
			return fmt.Errorf("%s is no longer in the config", w.name)
		case serves(v), v.State == api.Asleep:
			return nil
		case v.State == api.Starting && v.Blocked != "" && p.cancelled(r):
			return errUnroll
		case v.State == api.Stopped, v.State == api.Draining:
			return fmt.Errorf("%s was %s by order", w.name, v.State)
		case v.State == api.Failed && (v.NextStart.IsZero() || v.Restarts-restarts >= rollTries-1):
			return fmt.Errorf("%s does not come back: %s", w.name, v.Error)
		}
		select {
		case <-changed:
		case <-w.gone:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (p *Pool) tell(level, text string) {
	p.opts.Log.Info("rolling restart", "text", text)
	p.opts.Notice(api.Notice{Time: time.Now(), Level: level, Text: text})
}

func rollsPath(state string) string { return filepath.Join(state, "rolls.json") }

// noteRolls writes down which rolling restarts run, so that the next engine can tell that they have ended.
func (p *Pool) noteRolls() {
	p.rolls.mu.Lock()
	defer p.rolls.mu.Unlock()
	var running []api.Roll
	for _, r := range p.rolls.byModel {
		if r.State == rollRunning {
			running = append(running, r.Roll)
		}
	}
	path := rollsPath(p.opts.State)
	var err error
	if len(running) == 0 {
		if err = os.Remove(path); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	} else {
		var b []byte
		if b, err = json.Marshal(running); err == nil {
			err = launch.Replace(path, b)
		}
	}
	if err != nil {
		p.opts.Log.Warn("rolling restart not noted", "error", err)
	}
}

// tellOldRolls says which rolling restarts ended with the engine before.
func (p *Pool) tellOldRolls() {
	b, err := os.ReadFile(rollsPath(p.opts.State))
	if err != nil {
		return
	}
	var old []api.Roll
	if json.Unmarshal(b, &old) == nil {
		for _, r := range old {
			p.tell("warning", fmt.Sprintf("the rolling restart of %s ended with the engine after %d of %d workers: \"vllmdeck worker roll %s\" begins anew", r.Model, r.Done, len(r.Workers), r.Model))
		}
	}
	p.noteRolls()
}
