package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// watchHealth asks /health every healthEvery, and at once when somebody doubts it.
func (w *worker) watchHealth(ctx context.Context, l *life) {
	t := w.target(l)
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		doubted := false
		select {
		case <-ctx.Done():
			return
		case <-l.kick:
			doubted = true
		case <-tick.C:
		}
		err := t.health(ctx)
		if ctx.Err() != nil || !w.post(func(ctx context.Context) { w.checked(ctx, l, err, doubted) }) {
			return
		}
		if n%sleepLook == 0 && err == nil && w.view.Load().CanSleep {
			asked := time.Now()
			sleeping, known, err := t.sleeping(ctx)
			if err == nil && known && !w.post(func(context.Context) { w.found(l, asked, sleeping) }) {
				return
			}
		}
	}
}

// How many failures of /health in a row unroute a worker. A time-out alone says little: a busy
// server is slow to answer, and must not be taken for dead.
const (
	failuresMost = 3
	slowMost     = 6
)

// checked takes one answer of /health.
func (w *worker) checked(ctx context.Context, l *life, err error, doubted bool) {
	if w.life != l || w.st.State != api.Ready && w.st.State != api.Draining {
		return
	}
	h := &l.health
	switch {
	case err == nil:
		h.failed, h.slow = 0, 0
		if !l.answers {
			l.answers = true
			w.unstall(l, "answers again")
		}
		return
	case tooSlow(err):
		if h.slow++; h.slow == 1 {
			h.beats = w.beat.Load()
		}
	default:
		h.failed++
	}
	if l.answers && (h.failed >= failuresMost || h.slow >= slowMost || doubted && h.failed > 0) {
		l.answers = false
		l.problem = plain(err)
		if l.plan.kind == kindAttach {
			w.away(ctx, l)
			if h.slow >= slowMost && w.beat.Load() == h.beats {
				w.opts.Hung(w.name) // connections to a dead process break; those to a stopped one wait for ever
			}
			return
		}
		w.stall(fmt.Sprintf("%s does not answer /health (%s): requests go elsewhere", w.name, l.problem))
	}
	// One that stays away is asked for a token too: the answer to that decides whether it is restarted.
	if !l.answers && time.Since(l.still.asked) >= stillRecheck {
		w.suspect(ctx, l, 0)
	}
}

// stall unroutes a worker that lives but does not serve.
func (w *worker) stall(why string) {
	if w.st.Stalled {
		return
	}
	w.st.Stalled = true
	w.notice("error", why)
	w.log.Error("worker stalled", "reason", why)
}

// unstall routes to it again, once nothing speaks against it.
func (w *worker) unstall(l *life, why string) {
	if !w.st.Stalled || !l.answers || l.still.stuck {
		return
	}
	w.st.Stalled = false
	w.notice("info", w.name+" "+why)
	w.log.Info("worker serves again", "reason", why)
}
