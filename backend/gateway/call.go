package gateway

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// call is one client request on its way through the gateway. One goroutine owns it; row is
// guarded by mu because the live view copies it.
type call struct {
	g   *Gateway
	d   *dialect
	r   *http.Request
	out out
	id  string // request id as client and worker see it: the client's own, or row.ID

	mu     sync.Mutex
	row    *api.Request
	tokens atomic.Int64 // content events so far, for the live view
	prev   *call        // in Gateway.live
	next   *call

	req   request
	body  *buf
	room  int64 // claimed of Gateway.bodies
	tap   tap
	lease Lease
	at    string // the upstream that the lease is for
	paid  bool   // that is a provider

	cands []route.Candidate
	tried []string
	last  *fault
	queue time.Duration // waited in line
	moved bool          // the free move was made
	extra int           // claims of the retry budget
	died  int           // workers that died with this request

	wantsCost bool // cost_info was asked for (streams), or not refused (whole answers)
	priced    bool
	done      bool // the lease is given back

	space [8]route.Candidate
}

// errStopping ends the calls that are left when the engine has waited long enough.
var errStopping = errors.New("the engine is stopping")

func stopping() *refusal {
	return &refusal{status: http.StatusServiceUnavailable, kind: "server_error", code: "stopping", msg: errStopping.Error(), retry: retrySoon(), final: true}
}

// errGone ends a call whose client went away.
var errGone = errors.New("the client went away")

// cause says why the call's context has ended.
func (c *call) cause() error {
	if err := context.Cause(c.r.Context()); !errors.Is(err, context.Canceled) {
		return err
	}
	return errGone
}

// note changes the row.
func (c *call) note(change func(r *api.Request)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c.row)
}

// errStuck ends a call whose client does not read.
var errStuck = errors.New("the client does not read its answer")

// serve carries one inference request.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, d *dialect, who caller) {
	now := time.Now()
	c := &call{g: g, d: d, r: r}
	c.cands = c.space[:0]
	c.out = out{w: w, rc: http.NewResponseController(w), limit: g.writeTimeout()}
	c.row = &api.Request{
		ID: newID(now), Started: now, Route: d.name, Key: who.key, Class: who.class,
		Outcome: api.OutcomeOpen, UsageSource: api.UsageUnknown,
	}
	if c.id = requestID(r.Header); c.id == "" {
		c.id = c.row.ID
	}
	g.enter(c)
	defer g.ended() // last: Drain must not return before the call is recorded
	defer c.end()
	if err := c.run(); err != nil {
		c.fail(err)
	}
}

// run reads the request and sends it to upstreams until one has answered it. Its error is what
// the client is told.
func (c *call) run() error {
	if c.g.draining.Load() {
		return stopping()
	}
	if err := c.read(); err != nil {
		return err
	}
	if err := c.resolve(); err != nil {
		return err
	}
	ctx := c.r.Context()
	for {
		l, err := c.place(ctx)
		if err != nil {
			return err
		}
		f, err := c.leg(ctx, l)
		if f == nil {
			return err
		}
		c.last = f
		c.tried = append(c.tried, f.at)
		if !c.again(f) {
			return f.refusal(c.row.Model, len(c.row.Attempts))
		}
		c.g.Log.Info("request moves on", "request", c.row.ID, "worker", f.at, "reason", f.msg)
	}
}

// read takes in the body and what we need of it.
func (c *call) read() error {
	limit := c.g.maxBody()
	size := c.r.ContentLength
	if size > limit {
		return tooLarge(limit)
	}
	c.body = getBuf()
	claim := max(size, 0)
	if !c.claim(claim) {
		return c.noRoom()
	}
	now := time.Now()
	// The deadline is taken off again below: while the answer is made, a read that fails is
	// how net/http notices that the client has gone.
	_ = c.out.rc.SetReadDeadline(now.Add(bodyTime(limit)))
	b := c.body.b
	if int64(cap(b)) < size+1 {
		b = make([]byte, 0, size+1)
	}
	for {
		if len(b) == cap(b) {
			if !c.claim(int64(cap(b))) {
				return c.noRoom()
			}
			b = append(b, 0)[:len(b)]
		}
		n, err := c.r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if int64(len(b)) > limit {
			return tooLarge(limit)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			if c.r.Context().Err() != nil {
				return c.cause()
			}
			return invalid(http.StatusBadRequest, "bad_body", "", "the body did not arrive: "+err.Error())
		}
	}
	_ = c.out.rc.SetReadDeadline(time.Time{})
	c.body.b = b
	if err := c.req.parse(b, c.d); err != nil {
		return asRefusal(err)
	}
	if err := checkMedia(&c.req, c.g.MediaDomains); err != nil {
		return asRefusal(err)
	}
	if c.req.stream && c.d.event == nil {
		return invalid(http.StatusBadRequest, "invalid_value", "stream", "this route does not stream")
	}
	return nil
}

// bodyTime is how long a body may take to arrive: a minute, and 10 s more per 10 MB.
func bodyTime(limit int64) time.Duration {
	return time.Minute + time.Duration(limit/1e6)*time.Second
}

// claim reserves memory for a body among all that are held for replay.
func (c *call) claim(n int64) bool {
	c.room += n
	return c.g.bodies.Add(n) <= c.g.maxBodies() || c.room <= maxPooled
}

func (c *call) noRoom() error {
	return &refusal{
		status: http.StatusTooManyRequests, kind: "rate_limit_error", code: "bodies_full", retry: retrySoon(),
		msg: "too many large requests are held at once: try again",
	}
}

func tooLarge(limit int64) error {
	return invalid(http.StatusRequestEntityTooLarge, "body_too_large", "", "the body is larger than the "+sizeText(limit)+" that gateway.max_body allows")
}

func asRefusal(err error) *refusal {
	var bad *badRequest
	if errors.As(err, &bad) {
		return invalid(http.StatusBadRequest, "invalid_value", bad.param, bad.msg)
	}
	return invalid(http.StatusBadRequest, "bad_body", "", err.Error())
}

// resolve finds the model and fills in the row.
func (c *call) resolve() error {
	model, ok := c.g.Upstreams.Resolve(c.req.model)
	if !ok {
		if c.req.model == "" {
			return invalid(http.StatusBadRequest, "missing_model", "model", "there are several models: say which one in \"model\", see GET /v1/models")
		}
		return invalid(http.StatusNotFound, "model_not_found", "model", "the model "+quote(cut(c.req.model, 200))+" does not exist: GET /v1/models lists those that do")
	}
	c.note(func(r *api.Request) { r.Model, r.Stream = model, c.req.stream })
	cost := c.r.Header["X-Vllmdeck-Cost"]
	switch {
	case !c.d.costInfo:
	case c.req.stream:
		c.wantsCost = len(cost) > 0 && cost[0] == "1"
	default:
		c.wantsCost = c.g.CostInfo && (len(cost) == 0 || cost[0] != "0")
	}
	return nil
}

// again decides whether another upstream is tried after f.
func (c *call) again(f *fault) bool {
	if c.r.Context().Err() != nil {
		return false
	}
	if f.died && f.sent {
		// A request that kills workers must not be handed round until none is left.
		if c.died++; c.died >= 2 {
			return false
		}
	}
	if f.free && !c.moved {
		c.moved = true
		return true
	}
	if c.extra < 2 && c.g.budget.Take(int(c.g.inFlight.Load())) {
		c.extra++
		return true
	}
	return false
}

// leg sends the call to one upstream. With a fault nothing of it has reached the client, and another
// upstream may be tried; without one the call is over, and the error says how it failed.
func (c *call) leg(ctx context.Context, l Lease) (*fault, error) {
	c.lease, c.done = l, false
	if l.Release == nil {
		c.lease.Release = func() time.Duration { return 0 }
	}
	c.tap = tap{d: c.d, wanted: c.wanted(), keep: c.g.Rated != nil && c.req.n == 1}
	c.tokens.Store(0)
	c.mu.Lock()
	first := len(c.row.Attempts) == 0
	c.row.Worker = c.at
	c.row.Simulated = l.Simulated
	switch {
	case l.Simulated:
		c.row.Class = api.ClassSimulated
	case c.paid && c.row.Class == api.ClassServed:
		c.row.Class = api.ClassFailover
	}
	c.row.Attempts = append(c.row.Attempts, api.Attempt{Upstream: c.at, Outcome: api.OutcomeOpen})
	c.mu.Unlock()
	if first {
		c.g.Accounts.Open(c.row)
	}
	f, err := c.exchange(ctx)
	switch {
	case f == nil && err == nil:
		return nil, nil
	case ctx.Err() != nil && !errors.Is(err, errStuck): // net/http ends the context of a failed write too
		err = c.cause()
		fallthrough
	case f == nil:
		outcome := api.OutcomeCancelled
		if errors.Is(err, errStopping) {
			outcome = api.OutcomeError
		}
		c.ended(outcome, err.Error(), route.Neutral)
		return nil, err
	}
	f.at = c.at
	c.ended(api.OutcomeError, f.msg, f.result)
	return f, nil
}

// wanted is how many choices must finish. A list of prompts gives more than n: there, one has to do.
func (c *call) wanted() int {
	if c.d.input == "messages" {
		return c.req.n
	}
	return 1
}

// ended closes the current attempt: gives the place back, notes the worker's time, tells the breaker.
func (c *call) ended(outcome, msg string, result route.Result) {
	c.release()
	c.mu.Lock()
	a := &c.row.Attempts[len(c.row.Attempts)-1]
	open := a.Outcome == api.OutcomeOpen
	if open {
		a.Outcome, a.Error = outcome, msg
	}
	c.mu.Unlock()
	if !open {
		return
	}
	if c.lease.Report != nil {
		c.lease.Report(result)
	} else {
		c.g.Upstreams.Report(c.at, result)
	}
}

// release gives the place on the upstream back. It may be called again.
func (c *call) release() {
	if c.done || c.lease.Release == nil {
		return
	}
	c.done = true
	share := c.lease.Release()
	c.note(func(r *api.Request) { r.Attempts[len(r.Attempts)-1].Share = api.Span(share) })
}

// exchange sends the request and handles the answer.
func (c *call) exchange(ctx context.Context) (*fault, error) {
	wait := c.g.answerTimeout()
	if c.req.stream {
		wait = c.g.ttftTimeout()
	}
	rep, err := c.send(ctx, &c.lease, wait)
	if err != nil {
		return broken(err), nil
	}
	whole := false
	defer func() { rep.close(whole) }()
	if rep.get("Content-Encoding") != "" && !rep.is("Content-Encoding", "identity") {
		f := complaint(0, "it sends a compressed answer, which was not asked for", "")
		return f, nil
	}
	if rep.status/100 == 2 && rep.is("Content-Type", "text/event-stream") {
		if c.d.event == nil {
			return complaint(0, "it streams an answer on a route that does not stream", ""), nil
		}
		return c.stream(rep, &whole)
	}
	return c.answer(rep, &whole)
}

// meter takes over what the tap knows of usage.
func (c *call) meter() {
	t := &c.tap
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.row
	switch {
	case t.hasUsage:
		r.Usage, r.UsageSource = t.usage, api.UsageUpstream
	case t.events > 0:
		// One event is one step of the engine, which may be several tokens: marked as counted.
		r.Usage, r.UsageSource = t.usage, api.UsageCounted
		r.Usage.Output = t.events
	}
	r.Finish = cut(t.finish, 64)
	if !t.first.IsZero() {
		r.TTFT = api.Span(t.first.Sub(r.Started))
		r.ITL, r.MaxGap = api.Span(t.gap()), api.Span(t.maxGap)
	}
}

// price fills in what the call costs, once its usage and worker time are known.
func (c *call) price() {
	c.priced = true // also if it panics: finish must come through
	c.release()
	c.meter()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.g.Accounts.Price(c.row)
}

// fail ends the call with an error; the client is told unless an answer has begun.
func (c *call) fail(err error) {
	outcome, status := api.OutcomeError, 0
	var r *refusal
	switch {
	case errors.As(err, &r):
		status = r.status
		if status < 500 && len(c.row.Attempts) == 0 {
			outcome = api.OutcomeRejected
		}
	case errors.Is(err, errStopping):
		r = stopping()
		status = r.status
	default:
		outcome = api.OutcomeCancelled
	}
	if c.out.open {
		status = http.StatusOK
		if r != nil {
			outcome = api.OutcomeLost
			_ = c.out.write(r.event(c.id, c.d.anthropic), time.Now()) // end aborts the answer in any case
		}
	}
	c.note(func(r *api.Request) { r.Outcome, r.Status, r.Error = outcome, status, err.Error() })
	if r != nil && !c.out.sent {
		c.out.deadline(time.Now())
		c.out.sent = true
		if r.status == http.StatusRequestEntityTooLarge {
			c.out.w.Header().Set("Connection", "close") // the rest of the body is not worth reading
		}
		_ = r.write(c.out.w, c.id, c.d.anthropic) // the client may be gone: the row says what happened
	}
}

// end runs once, however the call ended. It is the only way out of serve.
func (c *call) end() {
	p := recover()
	if p != nil && p != http.ErrAbortHandler {
		c.panicked(p)
		err := &refusal{status: http.StatusInternalServerError, kind: "server_error", code: "internal_error", msg: "internal error of the gateway: its log has more under this request id"}
		c.fail(err)
	}
	c.finish()
	if c.out.open || p == http.ErrAbortHandler {
		panic(http.ErrAbortHandler)
	}
}

func (c *call) panicked(p any) {
	c.g.Log.Error("request handler panicked", "request", c.row.ID, "panic", p, "stack", string(debug.Stack()))
}

// guard runs one step of finish. A panic in it must not lose the steps that follow.
func (c *call) guard(step func()) {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(p)
		}
	}()
	step()
}

// finish settles the call: place given back, usage, cost, the record, the counters.
func (c *call) finish() {
	g, r := c.g, c.row
	if n := len(r.Attempts); n > 0 {
		c.guard(func() {
			if r.Attempts[n-1].Outcome == api.OutcomeOpen {
				c.ended(r.Outcome, r.Error, route.Neutral)
			}
		})
		if !c.priced || r.Outcome != api.OutcomeOK {
			c.guard(c.price)
		}
	}
	g.leave(c)
	// From here on nobody else sees the row.
	r.Duration = api.Span(time.Since(r.Started))
	g.count(c)
	g.budget.Give(c.extra)
	g.bodies.Add(-c.room)
	if g.Tokens != nil {
		c.guard(func() {
			if late := r.Usage.Completion() - c.tokens.Load(); r.UsageSource == api.UsageUpstream && late > 0 {
				g.Tokens(int(min(late, math.MaxInt32)))
			}
		})
	}
	c.guard(func() { g.Accounts.Settle(r) })
	if g.Rated != nil && r.Outcome == api.OutcomeOK && len(c.tap.text) > 0 {
		c.guard(func() { g.Rated(r, c.req.lastUser(4<<10), c.tap.answer()) })
	}
	if c.body != nil {
		c.body.put()
		c.body = nil
	}
}

// waited adds to the time in line.
func (c *call) waited(d time.Duration) {
	c.queue += d
	c.note(func(r *api.Request) { r.Queue = api.Span(c.queue) })
}
