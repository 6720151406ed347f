package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/config"
)

// stillness watches for an engine that has requests of ours and does nothing with them. Its
// /health stays 200 and its gauges freeze; a paused one even says that nothing runs (seen with
// vLLM 0.32), so our own count decides whether there is something to do.
//
// Progress is an engine step, a change of the KV cache (a long prefill counts no step), or something of an answer
// that came through the gateway. A saturated server makes progress all the time, however long its queue is; so none
// is asked for a token, let alone restarted, for being slow.
type stillness struct {
	steps  float64
	kv     *float64
	beats  int64
	seen   time.Time
	moved  time.Time     // when there was progress last
	idle   time.Duration // without progress, counting only time with requests of ours
	asking bool          // a canary is under way
	stuck  bool
	asked  time.Time
	since  time.Time // of the silence that the canaries are about
	fails  int       // canaries in a row that gave no token
}

func (w *worker) progress(ctx context.Context, l *life, r Reading, now time.Time) {
	s := &l.still
	beats := w.beat.Load()
	moved := s.seen.IsZero() || r.Steps != s.steps || !same(r.KV, s.kv) || beats != s.beats
	since := now.Sub(s.seen)
	s.steps, s.kv, s.beats, s.seen = r.Steps, r.KV, beats, now
	switch {
	case moved:
		s.idle, s.moved = 0, now
		if s.stuck {
			s.stuck, s.fails = false, 0
			w.unstall(l, "makes progress again")
		}
		return
	case w.gate.count() > 0:
		s.idle += since
	}
	if s.idle >= stillAfter || s.stuck && now.Sub(s.asked) >= stillRecheck {
		w.suspect(ctx, l, s.idle)
	}
}

// suspect asks a server for one token that has shown no sign of life for so long.
func (w *worker) suspect(ctx context.Context, l *life, idle time.Duration) {
	s := &l.still
	if s.asking {
		return
	}
	// Refused requests make no progress either: only a token that does not come proves a hang.
	now := time.Now()
	if s.fails == 0 {
		s.since = now.Add(-idle)
	}
	s.asking, s.asked = true, now
	t, served := w.target(l), l.served
	w.wg.Go(func() {
		err := t.canary(ctx, served, stillLimit)
		w.post(func(ctx context.Context) { w.canaried(ctx, l, err) })
	})
}

func (w *worker) canaried(ctx context.Context, l *life, err error) {
	if w.life != l {
		return
	}
	s := &l.still
	s.asking, s.idle = false, 0
	if w.nap != nil || w.st.State == api.Asleep {
		return // asked before it was to sleep: it says nothing now
	}
	if err == nil || s.moved.After(s.asked) || w.beat.Load() != s.beats {
		// It gives tokens, if not to us: a canary waits in a long queue like everybody.
		s.stuck, s.fails = false, 0
		w.unstall(l, "generates again")
		return
	}
	s.fails++
	if !s.stuck {
		s.stuck = true
		w.stall(fmt.Sprintf("%s makes no progress and gives no token (%s): its requests go elsewhere; %s", w.name, plain(err), w.prospect(l)))
		if tooSlow(err) { // else those who are with it hear the same
			w.opts.Hung(w.name)
		}
	}
	if s.fails > hungCanaries && w.mends(l) {
		w.hung(ctx, l)
	}
}

// mends says whether a hung worker is ours to restart.
func (w *worker) mends(l *life) bool {
	return w.st.State == api.Ready && l.plan.kind != kindAttach && w.plan.cfg.Restart.Policy != config.Never
}

// prospect says what becomes of a worker that goes on giving no token.
func (w *worker) prospect(l *life) string {
	switch {
	case w.mends(l):
		return "it is restarted if it stays so"
	case l.plan.kind == kindAttach:
		return "it is not ours to restart"
	}
	return fmt.Sprintf("\"vllmdeck worker restart %s\" replaces it", w.name)
}

// hung ends a server that lives and does nothing: a failure like any other, restarted with backoff.
func (w *worker) hung(ctx context.Context, l *life) {
	silent := time.Since(l.still.since).Round(time.Second)
	v := verdict{class: classCrash, cause: fmt.Sprintf("hung: /health answers but no token in %v", silent), remedy: "its log has the last lines before that; on a GPU host see also nvidia-smi and dmesg"}
	if !l.answers {
		v.cause = clip(fmt.Sprintf("hung: no token in %v, and /health does not answer (%s)", silent, l.problem))
	}
	w.log.Error("worker hung", "silent", silent, "health_answers", l.answers)
	w.end(ctx, v)
	if l.step == stepDrain {
		w.terminate(ctx) // it will not finish what it has
	}
}
