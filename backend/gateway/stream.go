package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// stream passes a stream of events on. Only whole events are sent: what is left of one when a
// worker dies would spoil the error event that follows. Until the first content nothing is sent at
// all, so a worker that fails before it is replaced unseen.
//
// b holds, in this order, events that were read and may be sent, and the beginning of the next one.
func (c *call) stream(rep *reply, whole *bool) (*fault, error) {
	in := getBuf()
	defer in.put()
	b, ready := in.b, 0
	defer func() { in.b = b }()
	var split splitter
	commit := false
	for {
		if len(b) == cap(b) {
			if len(b) >= maxEvent {
				return c.broke(complaint(0, fmt.Sprintf("it sends an event larger than %d bytes", maxEvent), ""))
			}
			b = slices.Grow(b, cap(b))
		}
		c.pulse.rest()
		n, err := rep.body.Read(b[len(b):cap(b)])
		c.pulse.wake()
		now := time.Now()
		split.saw(b[len(b) : len(b)+n])
		b = b[:len(b)+n]
		seen := c.tap.seen
		for {
			n := split.next(b[ready:])
			if n == 0 {
				if err != io.EOF || !complete(b[ready:]) {
					break
				}
				n = len(b) - ready
			}
			if err == io.EOF && ready+n == len(b) {
				b = closeEvent(b)
				n = len(b) - ready
			}
			var m meaning
			b, n, m = c.event(b, ready, n, now)
			if m == failure {
				if c.passed {
					if werr := c.pass(b[:ready], now); werr != nil {
						return nil, werr
					}
				}
				return c.broke(complaint(c.tap.code, c.tap.fault, ""))
			}
			commit = commit || m == content
			ready += n
			if m == end {
				break
			}
		}
		if c.tap.whole() {
			return c.whole(rep, b[:ready], whole, now)
		}
		if c.tap.ended || err != nil {
			if commit && c.passed {
				if werr := c.pass(withoutEnd(b[:ready], c.tap.ended), now); werr != nil {
					return nil, werr
				}
			}
			return c.broke(c.ending(err))
		}
		if commit && ready > 0 {
			if !c.passed {
				c.begin(rep, now)
			}
			c.passed = true
			c.hold() // before a client may keep us waiting
			if err := c.pass(b[:ready], now); err != nil {
				return nil, err
			}
			b = b[:copy(b, b[ready:])]
			ready = 0
			if c.tap.seen > seen || len(b) > 0 && b[0] != ':' { // a comment is no progress
				rep.limit(now, c.patience(now, c.g.idleTimeout()))
			}
		}
	}
}

// complete reports whether the rest of a stream is an event that only lacks its empty line.
func complete(rest []byte) bool {
	data, _ := fields(rest)
	return string(data) == "[DONE]" || len(data) > 0 && gjson.ValidBytes(data)
}

// closeEvent adds the empty line that the last event of a stream may lack, so that another can follow.
func closeEvent(b []byte) []byte {
	switch {
	case bytes.HasSuffix(b, lflf), bytes.HasSuffix(b, []byte("\r\r")), bytes.HasSuffix(b, []byte("\r\n\r\n")):
		return b
	case bytes.HasSuffix(b, []byte("\n")):
		return append(b, '\n')
	}
	return append(b, lflf...)
}

// event reads the event of n bytes at b[at:]. It may take the event out or add to it: the new
// buffer and length are returned.
func (c *call) event(b []byte, at, n int, now time.Time) ([]byte, int, meaning) {
	finished := c.tap.finished
	m := c.tap.event(b[at:at+n], now)
	switch {
	case m == failure:
	case c.sequel != nil:
		return c.goesOn(b, at, n, m, c.tap.finished > finished)
	case m != usage:
	case c.req.inject: // we asked for it, not the client
		return slices.Delete(b, at, at+n), 0, m
	case c.wantsCost:
		ev := c.withCost(bytes.Clone(b[at : at+n]))
		return replace(b, at, n, ev), len(ev), m
	}
	return b, n, m
}

// withCost puts cost_info into the event that holds the usage.
func (c *call) withCost(ev []byte) []byte {
	c.price()
	if i := bytes.LastIndexByte(ev, '}'); i >= 0 {
		if out, ok := addMember(ev[:i+1:i+1], costMember(c.row)); ok {
			return append(out, ev[i+1:]...)
		}
	}
	return ev
}

// begin writes the head of a stream, unless the client has one.
func (c *call) begin(rep *reply, now time.Time) {
	if !c.out.sent {
		c.header(rep)
		c.open(rep.status, now)
	}
	c.note(func(r *api.Request) {
		if !c.tap.first.IsZero() {
			r.TTFT = api.Span(c.tap.first.Sub(r.Started))
		}
	})
}

// open commits the answer to a stream.
func (c *call) open(status int, now time.Time) {
	h := c.out.w.Header()
	h["Cache-Control"] = noCache
	h["X-Accel-Buffering"] = noBuffer // a proxy before us must not hold events back
	if c.wantsCost {
		h["Trailer"] = costTrail
	}
	c.out.begin(status, now)
	c.note(func(r *api.Request) { r.Status = status })
}

// pass sends events to the client and counts what they hold.
func (c *call) pass(p []byte, now time.Time) error {
	if len(p) > 0 {
		if err := c.out.write(p, now); err != nil {
			return gone(err)
		}
		c.pulse.saw(now)
	}
	if d := c.tap.events - c.tokens.Load(); d > 0 {
		c.tokens.Add(d)
		c.beat(d)
		if c.g.Tokens != nil {
			c.g.Tokens(int(d))
		}
	}
	return nil
}

// gone says in our words why a client could not be written to.
func gone(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errStuck
	}
	return fmt.Errorf("%w: %w", errGone, err)
}

// whole ends a stream that the worker has completed.
func (c *call) whole(rep *reply, p []byte, whole *bool, now time.Time) (*fault, error) {
	if !c.out.sent {
		c.begin(rep, now) // an answer without any content, such as one whose first token ends it
	}
	if bytes.HasSuffix(p, []byte("\r\n\r")) { // a CR alone may end a line, but here its LF is still under way
		p = append(p, '\n')
	}
	if err := c.complete(p, now); err != nil {
		return nil, err
	}
	// The client has all. What is left is the end of the transfer, so that the connection can be
	// kept; a worker that takes its time over it loses the connection.
	if !rep.over() {
		c.out.release()
	}
	rep.limit(now, drainTime)
	var rest [64]byte
	n, err := rep.body.Read(rest[:])
	*whole = n == 0 && err == io.EOF
	return nil, nil
}

// complete sends the last events of a stream and ends it well. Nothing else does; it trusts the tap alone.
func (c *call) complete(p []byte, now time.Time) error {
	if !c.tap.whole() {
		return nil // the answer stays open: end aborts it
	}
	c.passed, c.out.last = true, true
	if err := c.pass(p, now); err != nil {
		return err
	}
	c.ended(api.OutcomeOK, "", route.Succeeded)
	if c.wantsCost {
		if !c.priced {
			c.price()
		}
		c.out.w.Header()[trailCost] = []string{string(costValue(c.row))}
	}
	c.note(func(r *api.Request) { r.Outcome = api.OutcomeOK })
	c.out.close()
	return nil
}

// drainTime is how long the end of a transfer may take after the closing event.
const drainTime = 50 * time.Millisecond

// broke handles a leg that failed: a fault while the client has nothing of it, or if the answer goes on elsewhere;
// else the client gets one error event, and the answer stays open, so that end aborts it.
func (c *call) broke(f *fault) (*fault, error) {
	if !c.passed {
		return f, nil
	}
	if c.r.Context().Err() != nil {
		return nil, c.cause()
	}
	f.at, f.paid, f.msg = c.at, c.paid, c.clean(f.msg)
	why := c.continues(f)
	if why == nil {
		f.cut = true
		return f, nil
	}
	if !c.g.Continue || f.final {
		why = nil
	}
	_ = c.out.write(c.lost(f, why).event(c.id, c.d.anthropic), time.Now()) // the answer is lost in any case
	c.ended(api.OutcomeLost, f.msg, f.result)
	c.note(func(r *api.Request) { r.Outcome, r.Error = api.OutcomeLost, f.msg })
	c.g.Log.Warn("answer lost", "request", c.row.ID, "worker", c.at, "reason", f.msg, "not_continued", why)
	return nil, nil
}

// ending is the fault of a stream that ended before it was whole.
func (c *call) ending(err error) *fault {
	switch {
	case c.tap.ended:
		return complaint(0, "it closed the answer without a finish_reason", "")
	case errors.Is(err, io.EOF):
		f := broken(io.EOF)
		f.msg = "it ended the answer in the middle"
		return f
	}
	return c.broken(err)
}

// withoutEnd takes the closing event off: what was not finished must not look closed.
func withoutEnd(p []byte, ended bool) []byte {
	if !ended {
		return p
	}
	if i := bytes.LastIndex(p, []byte("data: [DONE]")); i >= 0 {
		return p[:i]
	}
	return nil
}

// header starts the client's header from the worker's.
func (c *call) header(rep *reply) http.Header {
	h := c.out.w.Header()
	for _, f := range rep.fields {
		switch f.value {
		case "application/json":
			h[f.name] = jsonType
		case "text/event-stream; charset=utf-8":
			h[f.name] = sseType
		case "Origin":
			h[f.name] = varies
		default:
			h[f.name] = append(h[f.name], f.value)
		}
	}
	c.ownHeader(h)
	return h
}

// ownHeader sets what the client gets from us, whoever answers.
func (c *call) ownHeader(h http.Header) {
	h["X-Request-Id"] = []string{c.id}
	if v := c.r.Header["Traceparent"]; len(v) == 1 {
		h["Traceparent"] = v
	}
}
