package sim

import (
	"context"
	"hash/fnv"
	"net"
	"net/http"
	"strings"
	"time"
)

// choice is one answer of a run, as far as it has been sent.
type choice struct {
	*plan
	q    *seq
	sent int // tokens
}

// run is a request in the engine.
type run struct {
	*exchange
	req     *request
	job     *job
	choices []*choice
	id      string // without prefix
	created int64
}

// generate admits a request, waits as long as HTTP and tokenizer take, and hands it to the
// engine. A run that it returns must be waited for or left.
func (x *exchange) generate(req *request) (*run, error) {
	ctx := x.r.Context()
	if f := x.faults.get("status"); f != nil {
		return nil, statusFault(f.N)
	}
	if f := x.s.o.fault("crash-on"); f != nil && req.mentions(f.Arg) {
		x.s.crash()
	}
	e := x.s.e
	r := &run{
		exchange: x, req: req, created: time.Now().Unix(), id: randomHex(),
		job: &job{n: req.n, wake: make(chan struct{}, 1)},
	}
	if id := x.r.Header.Get("X-Request-Id"); id != "" {
		r.id = id
	}
	total := len(req.prompts) * req.n
	if err := e.admit(total); err != nil {
		return nil, err
	}
	salt := fnv.New64a()
	salt.Write([]byte(req.salt))
	for _, p := range req.prompts {
		for i := range req.n {
			var pl *plan
			if req.completion {
				pl = planCompletion(x.s.o, p.text, req.params, i, x.faults)
			} else {
				pl = planChat(x.s.o, p.messages, p.open, req.params, i, x.faults)
			}
			if e.garbled() {
				pl.garble()
			}
			q := &seq{prompt: p.ids, ids: pl.ids, reason: pl.reason, maxTok: req.maxTokens, job: r.job, salt: salt.Sum64()}
			r.choices = append(r.choices, &choice{plan: pl, q: q})
			r.job.seqs = append(r.job.seqs, q)
		}
	}
	t := time.NewTimer(e.frontTime())
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		e.leave(total)
		return nil, ctx.Err()
	}
	e.submit(r.job, x.begun)
	return r, nil
}

func statusFault(code int) *apiError {
	switch code {
	case 503:
		return asAPIError(errBusy)
	case 429:
		return &apiError{429, "Too Many Requests", "Too many requests. Please slow down.", nil}
	}
	return &apiError{500, "InternalServerError", "Internal server error", nil}
}

func (r *request) mentions(word string) bool {
	for _, p := range r.prompts {
		if strings.Contains(p.text, word) {
			return true
		}
		for _, m := range p.messages {
			if strings.Contains(m.text, word) {
				return true
			}
		}
	}
	return false
}

// next waits for progress. ok is false when there is nothing more to wait for: err is then why,
// nil for the natural end.
func (r *run) next(ctx context.Context) (ok bool, err error) {
	if err := r.state(); err != nil {
		return false, err
	}
	done := true
	for _, c := range r.choices {
		done = done && c.sent == len(c.ids)
	}
	if done {
		return false, nil
	}
	select {
	case <-r.job.wake:
		return true, nil
	case <-ctx.Done():
		r.s.e.abort(r.job)
		return false, ctx.Err()
	}
}

// state is the engine's death, if it hit this run before the run was through.
func (r *run) state() error {
	for _, c := range r.choices {
		if c.q.state.Load() == seqDead && int(c.q.produced.Load()) == c.sent {
			return errEngineDead
		}
	}
	return nil
}

// whole waits for all tokens of a request that is not streamed.
func (r *run) whole() error {
	ctx := r.r.Context()
	for {
		for _, c := range r.choices {
			c.sent = int(c.q.produced.Load())
		}
		if err := r.interrupt(); err != nil {
			return err
		}
		ok, err := r.next(ctx)
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
	}
}

// interrupt plays the faults that hit in the middle of a plain request.
func (r *run) interrupt() error {
	c := r.choices[0]
	for _, f := range r.faults {
		at := f.N
		switch f.Name {
		case "stall-before-first":
			at = 0
		case "stall-after", "clean-eof", "reset", "error-event":
		default:
			continue
		}
		if c.sent < at {
			continue
		}
		switch f.Name {
		case "stall-before-first", "stall-after":
			<-r.r.Context().Done()
			r.s.e.abort(r.job)
			return r.r.Context().Err()
		case "clean-eof", "reset":
			r.s.e.abort(r.job)
			r.cut(f.Name == "reset")
			return errCut
		case "error-event":
			r.s.e.abort(r.job)
			return statusFault(500)
		}
	}
	return nil
}

// errCut says that the connection is gone and there is nobody to answer.
var errCut = &apiError{}

// cut ends the connection: with a TCP reset, or as an ending process does.
func (x *exchange) cut(reset bool) {
	conn, _, err := x.rc.Hijack()
	if err != nil {
		panic(http.ErrAbortHandler) // net/http then closes the connection itself
	}
	if tcp, ok := conn.(*net.TCPConn); ok && reset {
		_ = tcp.SetLinger(0)
	}
	conn.Close()
}

// usage sums a run's tokens as they stand.
type usage struct{ prompt, completion, cached, created int }

func (r *run) usage() usage {
	var u usage
	seen := 0
	for i, c := range r.choices {
		if i%r.req.n == 0 {
			u.prompt += len(c.q.prompt)
			seen++
		}
		u.completion += c.sent
	}
	// vLLM reports the cache of the first prompt's first choice.
	u.cached, u.created = int(r.choices[0].q.cached.Load()), int(r.choices[0].q.created.Load())
	return u
}
