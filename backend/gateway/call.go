package gateway

import (
	"context"
	"errors"
	"net"
	"net/http"
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

	req    request
	body   *buf
	room   int64 // claimed of Gateway.bodies
	weight int64 // of room, what Gateway.pressure knows of
	kept   int64 // bytes of the tap's text that are counted in Gateway.texts
	tap    tap
	lease  Lease
	at     string // the upstream that the lease is for
	paid   bool   // that is a provider

	cands []route.Candidate
	chain route.Chain // beginnings of the prompt
	known bool        // chain is filled in
	tried []string
	last  *fault
	queue time.Duration // waited in line
	turns *queue        // that it waits in; nil: it did not come so far
	begun time.Time     // when it was sent to its upstream
	moved bool          // the free move was made
	extra int           // claims of the retry budget
	died  int           // workers that died with this request
	busy  bool          // a worker that was to serve it had too much to do

	failover string // when a provider may serve its key; "": as the model says
	barred   bool   // a provider has the model, and the key may not use it

	who   caller
	stake stake // of its key's limits

	until time.Time // the whole must be over by then
	line  cutter    // guarded by mu, as taken is
	taken bool      // Evict has ended the present leg

	pulse  *pulse  // keeps the client's connection alive; nil: nobody does
	sequel *sequel // the answer has lost a worker in its middle, and goes on
	passed bool    // the client has something of the present leg

	wantsCost bool // cost_info was asked for (streams), or not refused (whole answers)
	priced    bool
	done      bool // the lease is given back

	watched bool // hangUp is called when its context ends

	seats *[]route.Candidate // memory of cands, from the pool
}

var seats = sync.Pool{New: func() any { s := make([]route.Candidate, 0, 16); return &s }}

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
	c := &call{g: g, d: d, r: r, who: who}
	c.seats = seats.Get().(*[]route.Candidate)
	c.cands = *c.seats
	c.out = out{w: w, rc: http.NewResponseController(w), limit: g.writeTimeout()}
	c.out.until = &c.out.own
	if lane, ok := w.(*laneReply); ok {
		c.out.cork, c.out.until = lane, &lane.c.writeBy
		c.watched = true
		lane.c.call.Store(c)
	} else if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok && r.ProtoMajor == 1 {
		if k := corkedOf(conn); k != nil {
			c.out.cork = k
		}
		if r.ProtoMinor == 0 {
			c.out.conn = conn
		}
	}
	c.row = &api.Request{
		ID: newID(now), Client: clientID(r.Header), Started: now, Route: d.name, Key: who.key, Class: who.class,
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
	if err := c.enter(c.row.Started); err != nil {
		return err
	}
	if err := c.read(); err != nil {
		return err
	}
	if err := c.resolve(); err != nil {
		return err
	}
	if err := c.reserve(); err != nil {
		return err
	}
	ctx := c.r.Context()
	c.until = c.total()
	c.keepAlive()
	for {
		c.pulse.rest()
		l, err := c.place(ctx)
		c.pulse.wake()
		if err != nil {
			return c.unplaced(err)
		}
		f, err := c.leg(ctx, l)
		if f == nil {
			return err
		}
		c.last = f
		c.busy = c.busy || f.busy && !f.paid
		switch {
		case f.cut:
			// Who has got this far may be asked again, but for the one that was lost just now.
			c.tried = append(c.tried[:0], f.at)
			c.moved, c.died = false, 0
		case !c.again(f):
			c.tried = append(c.tried, f.at)
			return c.unplaced(f.refusal(c.row.Model, len(c.row.Attempts)))
		default:
			c.tried = append(c.tried, f.at)
		}
		c.g.Log.Info("request moves on", "request", c.row.ID, "worker", f.at, "reason", f.msg)
	}
}

// resolve finds the model and fills in the row.
func (c *call) resolve() error {
	model, ok := c.g.Upstreams.Resolve(c.req.model)
	if !ok {
		if c.req.model == "" {
			return invalid(http.StatusBadRequest, "missing_model", "model", "say which model in \"model\": GET /v1/models lists them")
		}
		return c.who.noModel(c.req.model)
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

// unplaced is err, which ends the call, as the client must be told it: once an answer has begun, what is said is
// that it is cut off.
func (c *call) unplaced(err error) error {
	var r *refusal
	if c.sequel == nil || !errors.As(err, &r) {
		return err
	}
	c.g.Log.Warn("answer lost", "request", c.row.ID, "worker", c.sequel.cause.at, "reason", c.sequel.cause.msg, "not_continued", r.msg)
	return c.lost(c.sequel.cause, r)
}

// leastTime is how much of a call's time must be left for another try to make sense. Where its model takes longer to the
// first token on the mean, that is.
const leastTime = time.Second

// again decides whether another upstream is tried after f.
func (c *call) again(f *fault) bool {
	if f.final || c.r.Context().Err() != nil {
		return false
	}
	if (f.sent || !f.free) && c.req.kept() {
		return false // only one that certainly did not take it lets it go elsewhere
	}
	if f.died && f.sent {
		// A request that kills workers must not be handed round until none is left.
		if c.died++; c.died >= 2 {
			return false
		}
	}
	if left := time.Until(c.until); left < max(leastTime, c.turns.pace.prefill()) {
		return false // it would end before it begins to answer
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
	c.lease, c.done, c.begun = l, false, time.Now()
	if l.Release == nil {
		c.lease.Release = func() time.Duration { return 0 }
	}
	c.passed = false
	if c.sequel != nil {
		c.tap.again()
	} else {
		resume := c.resumes()
		c.tap = tap{d: c.d, wanted: c.wanted(), keep: resume || c.who.capture || c.g.Rated != nil && c.req.n == 1, limit: maxText, resume: resume}
		if resume || c.who.capture {
			c.tap.limit = maxResume
		}
		c.tokens.Store(0)
	}
	c.mu.Lock()
	first := len(c.row.Attempts) == 0
	c.row.Worker = c.at
	c.row.Simulated = l.Simulated
	switch {
	case l.Simulated:
		c.row.Class = api.ClassSimulated
	case c.paid && c.row.Class == api.ClassServed:
		c.row.Class = api.ClassFailover
	case !c.paid && c.row.Class == api.ClassFailover: // the provider failed, and a worker is back
		c.row.Class = api.ClassServed
	}
	c.row.Attempts = append(c.row.Attempts, api.Attempt{Upstream: c.at, Provider: c.paid, Outcome: api.OutcomeOpen})
	c.mu.Unlock()
	if first || c.paid {
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
	f.at, f.paid, f.msg = c.at, c.paid, c.clean(f.msg)
	outcome := api.OutcomeError
	if f.cut {
		outcome = api.OutcomeLost
	}
	if wait := f.wait(); wait > 0 && l.Busy != nil {
		l.Busy(wait)
	}
	c.ended(outcome, f.msg, f.result)
	return f, nil
}

// wanted is how many choices must finish. A list of prompts gives more than n: there, one has to do.
func (c *call) wanted() int {
	if c.d.name == "chat" {
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
	if open {
		c.lease.Report(result)
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
	now := time.Now()
	wait := c.patience(now, c.until.Sub(now))
	if c.req.stream {
		wait = c.patience(now, c.g.ttftTimeout())
	}
	if c.sequel != nil {
		c.pulse.rest()
		f := c.prepare(ctx)
		c.pulse.wake()
		if f != nil {
			return f, nil
		}
		if c.sequel.over {
			return c.closing()
		}
	}
	c.pulse.rest()
	rep, err := c.send(ctx, &c.lease, wait)
	c.pulse.wake()
	if err != nil {
		f := c.broken(err)
		c.offWire()
		return f, nil
	}
	whole := false
	defer func() {
		// First off the wire: a connection that is kept is another request's from then on.
		taken := c.offWire()
		rep.close(whole && !taken && ctx.Err() == nil)
	}()
	if rep.get("Content-Encoding") != "" && !rep.is("Content-Encoding", "identity") {
		return complaint(0, "it sends a compressed answer, which was not asked for", ""), nil
	}
	if rep.status/100 == 2 && rep.is("Content-Type", "text/event-stream") {
		if c.d.event == nil {
			return complaint(0, "it streams an answer on a route that does not stream", ""), nil
		}
		return c.stream(rep, &whole)
	}
	if c.out.sent {
		return c.unstreamed(rep)
	}
	return c.answer(rep, &whole)
}

// waited adds to the time in line.
func (c *call) waited(d time.Duration) {
	c.queue += d
	c.note(func(r *api.Request) { r.Queue = api.Span(c.queue) })
}
