package worker

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// A server that is not where it should be: somebody else has its port, or it serves where we cannot reach it. Neither
// becomes better by waiting for start_timeout.
const (
	strangerLimit = 10 * time.Second // a process that is new in the tree shows within 4 s
	unseenLimit   = 30 * time.Second
)

// strangerError says who listens in a server's place.
type strangerError struct{ err error }

func (e *strangerError) Error() string { return e.err.Error() }
func (e *strangerError) Unwrap() error { return e.err }

// stranger says who answers in place of l's server.
func (w *worker) stranger(l *life) error {
	if w.opts.Listens == nil || l.plan.kind == kindAttach {
		return nil
	}
	var pids []int
	for _, p := range l.inst.Tree() {
		pids = append(pids, p.PID)
	}
	return w.opts.Listens(l.spec.Port, pids)
}

// twin says whether who listens in l's place serves l's model: then it is the server itself, which the command has
// started outside of its own process tree. It is not told our key.
func (w *worker) twin(ctx context.Context, t target, l *life) bool {
	t.key = ""
	a, err := t.who(ctx)
	return err == nil && slices.Contains(a.models, l.served)
}

// displaced ends a start that cannot come to anything, since somebody else has the port.
func (w *worker) displaced(ctx context.Context, l *life, s *strangerError, twin bool) {
	if w.life != l || w.st.State != api.Starting {
		return
	}
	v := verdict{class: classResource, cause: clip(s.Error()), early: true}
	if twin {
		v = elsewhere(l, fmt.Sprintf("port %d serves %s, but not from a process of this worker: its command starts the server elsewhere (docker run, a container)", l.spec.Port, l.served))
	}
	w.end(ctx, v)
}

// unseen ends a start that is over by its own words while nobody answers: the server listens in another network than
// ours, as one in a container does.
func (w *worker) unseen(ctx context.Context, l *life) {
	switch {
	case l.upAt.IsZero():
		l.upAt = time.Now()
	case time.Since(l.upAt) >= unseenLimit:
		w.end(ctx, elsewhere(l, fmt.Sprintf("its log says that it serves, but nothing listens on 127.0.0.1:%d: its command starts the server elsewhere (docker run, a container)", l.spec.Port)))
	}
}

func elsewhere(l *life, cause string) verdict {
	return verdict{
		class: classConfig, cause: clip(cause), early: true,
		remedy: fmt.Sprintf("let bin: run vLLM itself; a server in a container is started by you, and named by attach: \"http://127.0.0.1:%d\" in place of vllm:", l.spec.Port),
	}
}
