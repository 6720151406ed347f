package worker

import (
	"context"
	"fmt"
	"time"
)

// stillness watches for an engine that has requests of ours and does nothing with them. Its
// /health stays 200 and its gauges freeze; a paused one even says that nothing runs (seen with
// vLLM 0.32), so our own count decides whether there is something to do.
type stillness struct {
	steps  float64
	kv     *float64
	seen   time.Time
	idle   time.Duration // without progress, counting only time with requests of ours
	asking bool          // a canary is under way
	stuck  bool
	asked  time.Time
}

func (w *worker) progress(ctx context.Context, l *life, r Reading, now time.Time) {
	s := &l.still
	moved := s.seen.IsZero() || r.Steps != s.steps || !same(r.KV, s.kv)
	since := now.Sub(s.seen)
	s.steps, s.kv, s.seen = r.Steps, r.KV, now
	switch {
	case moved:
		s.idle = 0
		if s.stuck {
			s.stuck = false
			w.unstall(l, "makes progress again")
		}
		return
	case w.gate.count() > 0:
		s.idle += since
	}
	due := s.idle >= stillAfter || s.stuck && now.Sub(s.asked) >= stillRecheck
	if !due || s.asking {
		return
	}
	// Refused requests make no progress either: only a token that does not come proves a hang.
	s.asking, s.asked = true, now
	t, served := w.target(l), l.served
	w.wg.Go(func() {
		err := t.canary(ctx, served, stillLimit)
		w.post(func(context.Context) { w.canaried(l, err) })
	})
}

func (w *worker) canaried(l *life, err error) {
	if w.life != l {
		return
	}
	s := &l.still
	s.asking, s.idle = false, 0
	switch {
	case err == nil:
		s.stuck = false
		w.unstall(l, "generates again")
	case !s.stuck:
		s.stuck = true
		w.stall(fmt.Sprintf("%s makes no progress and gives no token (%s): requests go elsewhere; \"vllmdeck worker restart %s\" replaces it", w.name, plain(err), w.name))
	}
}
