package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"regexp"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// overdue ends a start that takes longer than it may.
func (w *worker) overdue(ctx context.Context, l *life) {
	cause := fmt.Sprintf("not ready after %v, in phase %q", l.plan.cfg.StartTimeout, l.phases.phase())
	if l.problem != "" && l.problem != "connection refused" {
		cause += ": " + l.problem
	}
	w.end(ctx, verdict{class: classCrash, cause: clip(cause), remedy: "see its log; raise start_timeout: if it only needs longer", early: true})
}

// died takes the end of a server's process tree.
func (w *worker) died(ctx context.Context, l *life) {
	if w.life != l {
		return
	}
	if w.st.State == api.Stopping {
		w.stopped(ctx)
		return
	}
	exit := l.inst.Exit()
	v := explain(w.lines.After(l.lastSeq, keptLines), exit, l.ready || l.adopted && l.phases.up)
	at := exit.At
	if at.IsZero() {
		at = time.Now()
	}
	if !l.ready {
		v.phase = l.phases.phase()
	}
	w.crashed(l, v, at)
	w.failed(v)
}

// failed ends a life that nobody asked to end, and plans the next one.
func (w *worker) failed(v verdict) {
	w.release()
	w.enter(api.Failed)
	now := time.Now()
	w.st.Error, w.st.Remedy, w.st.Exit = v.cause, v.remedy, v.exit
	w.st.Fix = w.offer(v)
	if w.leaving {
		w.finished = true
		return
	}
	wait, giveUp := w.trouble.next(w.plan.cfg.Restart, v, now)
	if giveUp != "" {
		hint := fmt.Sprintf("%s; \"vllmdeck worker start %s\" tries again", giveUp, w.name)
		w.st.Remedy = strings.TrimPrefix(w.st.Remedy+"; "+hint, "; ")
		w.notice("error", fmt.Sprintf("%s failed: %s (%s)", w.name, v.cause, giveUp))
		w.log.Error("worker failed", "cause", v.cause, "exit", v.exit, "class", string(v.class), "gave_up", giveUp)
		return
	}
	w.notice("warning", fmt.Sprintf("%s failed: %s; starting again in %v", w.name, v.cause, wait.Round(100*time.Millisecond)))
	w.log.Warn("worker failed", "cause", v.cause, "exit", v.exit, "class", string(v.class), "next_start", wait)
	w.st.NextStart = now.Add(wait)
	w.deadline(wait, func(ctx context.Context) {
		w.st.Restarts++
		if v.adopt {
			w.adopt(ctx)
			return
		}
		why, remedy, exit, fix := w.st.Error, w.st.Remedy, w.st.Exit, w.st.Fix
		w.start(ctx)
		w.st.Error, w.st.Remedy, w.st.Exit, w.st.Fix = why, remedy, exit, fix // in sight until it is ready again
	})
}

// release lets go of the present life.
func (w *worker) release() {
	l := w.life
	if l == nil {
		return
	}
	l.unprobe()
	l.end()
	if l.inst != nil {
		_ = l.inst.Close() // the process is gone or not ours
	}
	if !l.ready {
		w.st.Phases = l.phases.list(time.Now())
	}
	w.over(l)
	w.life = nil
	w.opts.turns.give(l)
	w.st.PID, w.st.Stalled, w.st.Adopted = 0, false, false
	w.st.CanSleep, w.st.Level = false, 0
	w.forgetReadings()
}

// takenLine is what a start says that failed because something else is in its way: that may go.
var takenLine = regexp.MustCompile(`(?i)in use|taken|busy|occupied`)

// hopelessLine is what the system says of a command that cannot be run, today or tomorrow. The shim has it as text.
var hopelessLine = regexp.MustCompile(`exec format error|executable file not found|no such file or directory|permission denied|not executable|argument list too long`)

// preflightError is what Check found: nothing has been started.
type preflightError struct{ err error }

func (e *preflightError) Error() string { return e.err.Error() }
func (e *preflightError) Unwrap() error { return e.err }

// unlaunched ends a life whose process never came to be.
func (w *worker) unlaunched(ctx context.Context, err error) {
	if w.st.State == api.Stopping {
		w.stopped(ctx)
		return
	}
	v := verdict{class: classCrash, cause: clip(err.Error()), early: true}
	var pre *preflightError
	var gate *gateError
	switch {
	case errors.As(err, &gate):
		v.class, v.cause, v.remedy = classResource, clip(gate.cause), clip(gate.remedy)
		if gate.fits >= leastUtilization {
			v.cure = func(known) change { return change{Set: []string{utilization(gate.fits)}} }
		}
	case takenLine.MatchString(err.Error()):
		v.class = classResource
	case errors.As(err, &pre), errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission),
		hopelessLine.MatchString(err.Error()):
		v.class = classConfig
	}
	w.crashed(w.life, v, time.Now())
	w.failed(v)
}
