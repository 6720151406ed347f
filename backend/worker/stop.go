package worker

import (
	"context"
	"fmt"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// How a process is ended.
const (
	// vLLM swallows SIGTERM while its engine loads (seen with 0.32): it is given this long.
	graceLoading = 3 * time.Second
	// A server without requests of ours says "request processing complete" at once and then
	// takes 6 to 10 s to tear its workers down, which gains nothing.
	graceIdle = 3 * time.Second
	// Requests that outlived stop_timeout get this long after SIGTERM.
	graceBusy = 5 * time.Second
	killLimit = 15 * time.Second
	killAgain = 10 * time.Second
)

// What a stopping worker waits for: api.Worker.Phase while it is in state Stopping.
const (
	waitLaunch   = "launch"
	waitRequests = "requests"
	waitExit     = "exit"
	waitKill     = "kill"
)

type stopStep int

const (
	stepNone stopStep = iota
	stepDrain
	stepTerm
	stepKill
)

// stop unroutes, waits for the requests, and ends the server. It is started again afterwards if
// w.again is set.
func (w *worker) stop(ctx context.Context) {
	l := w.life
	if l == nil {
		w.stopped(ctx)
		return
	}
	loading := !l.ready
	if l.doom == nil {
		w.asked(l)
	}
	w.enter(api.Stopping)
	w.st.Stalled = false
	w.gate.shut()
	w.wake.wake()
	switch {
	case l.inst == nil:
		w.st.Phase = waitLaunch
		if !l.adopted {
			l.end() // what is being taken over lives already: it must be known to be ended
		}
	case l.plan.kind == kindAttach, loading, w.gate.count() == 0:
		w.terminate(ctx)
	default:
		l.step = stepDrain
		w.st.Phase = waitRequests
		w.deadline(w.plan.cfg.StopTimeout, w.terminate)
	}
}

// end stops a server because of v, and then counts v as a failure.
func (w *worker) end(ctx context.Context, v verdict) {
	w.life.doom = &v
	v.exit = "ended by vllmdeck"
	w.crashed(w.life, v, time.Now())
	w.st.Error, w.st.Remedy, w.st.Fix = v.cause, v.remedy, nil
	w.stop(ctx)
}

// emptied comes when the last request has left a closed gate.
func (w *worker) emptied(ctx context.Context) {
	l := w.life
	if n := w.nap; n != nil && !n.posted && !n.waking && w.st.State == api.Draining && w.gate.count() == 0 {
		w.putToSleep(ctx)
		return
	}
	if l == nil || w.st.State != api.Stopping || w.gate.count() != 0 {
		return
	}
	switch l.step {
	case stepDrain:
		w.terminate(ctx)
	case stepTerm:
		w.deadline(graceIdle, func(ctx context.Context) { w.kill(ctx, l) })
	}
}

// terminate sends SIGTERM to the server's first process alone: vLLM's inner processes do not
// drain if they get one of their own. An attached server is only let go.
func (w *worker) terminate(ctx context.Context) {
	l := w.life
	l.unprobe()
	if l.plan.kind == kindAttach {
		w.stopped(ctx)
		return
	}
	l.step = stepTerm
	w.st.Phase = waitExit
	if err := l.inst.Terminate(); err != nil {
		w.log.Warn("SIGTERM not sent", "error", err)
		w.kill(ctx, l)
		return
	}
	grace := graceIdle
	switch {
	case !l.ready:
		grace = graceLoading
	case w.gate.count() > 0:
		grace = graceBusy
	}
	w.deadline(grace, func(ctx context.Context) { w.kill(ctx, l) })
}

// kill ends the process tree and is over only when that is verified gone.
func (w *worker) kill(_ context.Context, l *life) {
	if w.life != l || l.step == stepKill {
		return
	}
	l.step = stepKill
	w.st.Phase = waitKill
	w.noDeadline()
	w.wg.Go(func() {
		// An order to end processes is carried out even while the engine itself ends.
		ctx, cancel := context.WithTimeout(context.Background(), killLimit)
		defer cancel()
		err := l.inst.Kill(ctx)
		w.post(func(context.Context) { w.killed(l, err) })
	})
}

func (w *worker) killed(l *life, err error) {
	if w.life != l {
		return
	}
	if err == nil {
		// Done closes now, and the follower reads the log to its end; not waited for for ever.
		w.deadline(time.Second, func(ctx context.Context) {
			if w.life == l {
				w.stopped(ctx)
			}
		})
		return
	}
	w.st.Error = clip(err.Error())
	w.notice("error", fmt.Sprintf("%s cannot be ended: %v", w.name, err))
	w.log.Error("worker not ended", "error", err)
	w.deadline(killAgain, func(ctx context.Context) {
		l.step = stepTerm
		w.kill(ctx, l)
	})
}

// stopped is reached when a stopping server is gone.
func (w *worker) stopped(ctx context.Context) {
	var doom *verdict
	if w.life != nil {
		doom = w.life.doom
	}
	if doom != nil && !w.again && !w.leaving {
		w.failed(*doom)
		return
	}
	w.release()
	w.drained = false
	w.enter(api.Stopped)
	w.st.Error, w.st.Remedy, w.st.Fix = "", "", nil
	w.log.Info("worker stopped")
	switch {
	case w.leaving:
		w.finished = true
		w.notice("info", w.name+" stopped: it is no longer in the config")
	case w.again:
		w.notice("info", w.name+" stopped by order, starting again")
		w.trouble.forget()
		w.describe()
		w.start(ctx)
	default:
		w.notice("info", w.name+" stopped by order")
	}
}
