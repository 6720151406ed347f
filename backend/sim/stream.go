package sim

import (
	"bytes"
	"context"
	"errors"
)

// shape is what a route's stream looks like.
type shape struct {
	open  func() []byte                                     // once the first output is there
	delta func(dst []byte, i int, c *choice, to int) []byte // tokens c.sent to `to` of choice i
	close func() []byte                                     // at the natural end
	fail  func(*apiError) []byte                            // nil: the connection is cut
}

// stream sends a run as server-sent events, one chunk of chunked encoding each. Several tokens
// that came out since the last event go into one.
func (r *run) stream(sh shape, before []byte) error {
	ctx := r.r.Context()
	r.w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	r.begin(200)
	r.flush()
	if r.faults.get("busy-event") != nil {
		r.s.e.abort(r.job)
		return r.send(asAPIError(errBusy).event(), []byte("data: [DONE]\n\n"))
	}
	if len(before) > 0 {
		if r.send(before) != nil {
			return nil //nolint:nilerr // the client has left
		}
	}
	opened := false
	for {
		var events []byte
		for i, c := range r.choices {
			to := r.limit(int(c.q.produced.Load()))
			if to == c.sent {
				continue
			}
			if !opened {
				opened = true
				events = append(events, sh.open()...)
			}
			events = sh.delta(events, i, c, to)
			c.sent = to
		}
		if len(events) > 0 && r.send(events) != nil {
			r.s.e.abort(r.job)
			return nil //nolint:nilerr // the client has left
		}
		if stop := r.interruptStream(ctx, sh); stop {
			return nil
		}
		ok, err := r.next(ctx)
		switch {
		case ctx.Err() != nil && err != nil:
			r.abandon()
		case err != nil:
			if sh.fail == nil {
				r.cut(false)
				return nil
			}
			_ = r.send(sh.fail(asAPIError(err)))
			return nil
		case !ok:
			_ = r.send(sh.close())
			return nil
		}
	}
}

// breakAt is the fault that interrupts this stream and after how many tokens.
func (r *run) breakAt() (*Fault, int) {
	for _, f := range r.faults {
		switch f.Name {
		case "stall-before-first":
			return f, 0
		case "stall-after", "clean-eof", "reset", "error-event":
			return f, f.N
		}
	}
	return nil, -1
}

// limit holds tokens back that come after a fault.
func (r *run) limit(n int) int {
	if f, at := r.breakAt(); f != nil {
		return min(n, at)
	}
	return n
}

// interruptStream plays a fault once its place is reached; true: the stream is over.
func (r *run) interruptStream(ctx context.Context, sh shape) bool {
	f, at := r.breakAt()
	if f == nil || r.choices[0].sent < at {
		return false
	}
	switch f.Name {
	case "stall-before-first", "stall-after":
		<-ctx.Done()
		r.s.e.abort(r.job)
		r.abandon()
	case "reset":
		r.cut(true)
	case "error-event":
		if sh.fail == nil {
			r.cut(false)
			break
		}
		_ = r.send(sh.fail(statusFault(500)))
	}
	r.s.e.abort(r.job)
	return true
}

var errGone = errors.New("client is gone")

// send writes events, each flushed by itself.
func (r *run) send(parts ...[]byte) error {
	for _, events := range parts {
		for len(events) > 0 {
			n := len(events)
			if i := bytes.Index(events, []byte("\n\n")); i >= 0 {
				n = i + 2
			}
			if err := r.sendEvent(events[:n]); err != nil {
				return err
			}
			events = events[n:]
		}
	}
	return nil
}

func (r *run) sendEvent(ev []byte) error {
	pieces := 1
	if r.faults.get("split-writes") != nil {
		pieces = 3
	}
	for i := range pieces {
		r.write(ev[len(ev)*i/pieces : len(ev)*(i+1)/pieces])
		if err := r.flush(); err != nil {
			return errGone
		}
	}
	return nil
}

func (x *exchange) flush() error {
	if x.gz != nil {
		if err := x.gz.Flush(); err != nil {
			return err
		}
	}
	return x.rc.Flush()
}
