package gateway

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// A stream whose worker is lost after content goes on at another worker of the same model: the request
// is sent there with the answer so far as a last assistant message that is to be continued
// (continue_final_message; for completions, the answer is added to the prompt). With vLLM 0.32 and greedy decoding the
// rest is the same, token by token, as long as the answer so far ends where an event ends. The client
// sees one answer: one id, one role, one usage, one end.

// maxLegs is how often one answer is continued.
const maxLegs = 2

// maxResume is how much text an answer may have and still be continued.
const maxResume = 1 << 20

// sequel is what an answer needs that has lost a worker in its middle.
type sequel struct {
	terms *terms
	legs  int    // how often it was continued
	over  bool   // it has finished: only the closing events are missing
	cause *fault // what the worker before was lost by
	face  face   // what its events look like to the client

	prompt int64 // tokens of the original prompt as /tokenize counts them; 0: not asked yet
	text   int64 // tokens of the answer so far, counted in its place behind the prompt
	sent   int64 // the same within what is certain: what the client is told, and what is taken off max_tokens
	began  bool  // this leg has given content
}

// resumes reports whether the answer collects what a continuation would need.
func (c *call) resumes() bool {
	return c.g.Continue && c.req.stream && c.req.n == 1 && c.d.usageOption && !c.paid
}

// continues decides whether the answer goes on elsewhere after f, which took the worker in its middle. The error
// says what stands against it.
func (c *call) continues(f *fault) error {
	t := &c.tap
	if !c.g.Continue {
		return errors.New("gateway.continue is off")
	}
	s := c.sequel
	over := t.finished >= t.wanted
	switch {
	case f.final:
		return errors.New("nobody could do better")
	case !t.resume:
		return errors.New("only plain text of one choice from a worker of ours can be continued")
	case t.other:
		return errors.New("it is not plain text")
	case t.more:
		return errors.New("it is too long to be kept")
	case t.thinking:
		return errors.New("its reasoning was not finished")
	case len(t.text) == 0:
		return errors.New("it has no text to go on from")
	case s != nil && s.legs >= maxLegs:
		return fmt.Errorf("it was continued %d times", s.legs)
	}
	if s == nil {
		terms, err := c.req.readTerms(c.d)
		if err != nil {
			return err
		}
		face, err := readFace(t.head)
		if err != nil {
			return err
		}
		s = &sequel{terms: terms, face: face}
	}
	if !f.free {
		// A worker that died is nobody's fault; whatever else broke may break again.
		if !c.g.budget.Take(int(c.g.inFlight.Load())) {
			return errors.New("too many requests are being tried again")
		}
		c.extra++
	}
	s.legs++
	s.over, s.cause, s.began = over, f, false
	c.sequel = s
	return nil
}

// prepare counts the answer so far at the worker that is to go on with it.
func (c *call) prepare(ctx context.Context) *fault {
	s, t := c.sequel, &c.tap
	count := func(text []byte) (int64, string, error) {
		return c.countAt(ctx, s.terms.question(c.d, c.req.body, c.modelName(), text, t.thought))
	}
	var err error
	if s.prompt == 0 {
		if s.prompt, _, err = count(nil); err != nil {
			return unable(err)
		}
	}
	all, ids, err := count(t.text)
	if err != nil {
		return unable(err)
	}
	if bare := trimEnd(t.text); !s.over && len(bare) < len(t.text) {
		// Some templates trim messages. Behind one, the worker would give the blanks once more.
		_, same, err := count(bare)
		if err != nil {
			return unable(err)
		}
		if same == ids {
			return &fault{msg: "the model's chat template cuts off the blanks that the answer so far ends in", status: http.StatusBadGateway, final: true, result: route.Neutral}
		}
	}
	s.text = max(all-s.prompt, 0)
	// Each event was a token at least. And while no finish_reason came, max_tokens was not reached.
	s.sent = max(s.text, t.events)
	if s.over && t.quiet {
		s.sent++ // vLLM counts the token that ended the answer, too
	}
	if s.terms.max > 0 && !s.over {
		s.sent = min(s.sent, s.terms.max-1)
	}
	if s.sent < s.terms.min && !s.over {
		return &fault{msg: "min_tokens was not reached when its worker was lost", status: http.StatusBadGateway, final: true, result: route.Neutral}
	}
	return nil
}

// modelName is the name that the worker of the present leg knows the model by.
func (c *call) modelName() string {
	if c.lease.Model != "" {
		return c.lease.Model
	}
	return c.req.model
}

// unable makes of an error of /tokenize that this worker cannot continue the answer.
func unable(err error) *fault {
	if said, ok := errors.AsType[*fault](err); ok {
		return said
	}
	f := broken(err)
	f.msg = "asked for the length of the answer so far, " + f.msg
	return f
}

// closing ends an answer that had finished when its worker was lost: every choice has its finish_reason, so nothing is
// missing but the closing events.
func (c *call) closing() (*fault, error) {
	now, s := time.Now(), c.sequel
	c.tap.ended = true
	c.tap.usage, c.tap.hasUsage = disjoint(s.prompt, 0, s.sent, 0), true
	var b []byte
	if !c.req.inject {
		b = s.face.usage(c.tap.usage)
		if c.wantsCost {
			b = c.withCost(b)
		}
	}
	return nil, c.complete(append(b, "data: [DONE]\n\n"...), now)
}

// lost is what a client is told whose answer has begun and cannot be ended.
func (c *call) lost(f *fault, why error) *refusal {
	r := &refusal{kind: "upstream_lost", code: "upstream_failed", msg: fmt.Sprintf("the answer is cut off: %s: %s", f.who(), f.msg)}
	if f.status == http.StatusGatewayTimeout {
		r.code = "upstream_timeout"
	}
	if why != nil {
		r.msg += "; it was not continued: " + why.Error()
	}
	return r
}

// unstreamed is what becomes of a leg whose worker says something else than a stream, where the client has the head
// of one: for another worker to try, but for what is wrong with the request.
func (c *call) unstreamed(rep *reply) (*fault, error) {
	b, err := io.ReadAll(io.LimitReader(rep.body, 64<<10))
	if err != nil {
		return c.broken(err), nil
	}
	if c.sequel == nil && clientsFault(rep.status) {
		c.ended(api.OutcomeRejected, errorText(rep.status, b), route.Neutral)
		e := gjson.GetBytes(b, "error")
		return nil, &refusal{
			status: rep.status, kind: cmp.Or(e.Get("type").Str, "invalid_request_error"), code: e.Get("code").Str, param: e.Get("param").Str,
			msg: cmp.Or(e.Get("message").Str, errorText(rep.status, b)),
		}
	}
	return unfit(rep, b), nil
}

// unfit is the fault of a worker that does not stream but says b.
func unfit(rep *reply, b []byte) *fault {
	f := complaint(rep.status, errorText(rep.status, b), rep.get("Retry-After"))
	if rep.status/100 == 2 {
		f.msg = "it does not stream the answer"
	}
	return f
}

// goesOn takes one event of a leg that continues an answer: what the client has seen already is taken out, and the
// rest gets the looks of the first leg. Its results are those of event.
func (c *call) goesOn(b []byte, at, n int, m meaning, finished bool) ([]byte, int, meaning) {
	s := c.sequel
	data, _ := fields(b[at : at+n])
	drop := false
	switch {
	case m == end:
		return b, n, m
	case m == content && c.tap.thinking:
		// The answer had come to its text. A worker that thinks anew does not continue it.
		c.tap.fault, c.tap.code = "it began the answer anew instead of continuing it", 0
		return b, n, failure
	case m == content:
		if !s.began {
			data = bytes.Replace(data, []byte(`"role":"assistant",`), nil, 1) // of servers that send both in one event
		}
		s.began = true
	case m == usage:
		c.tap.usage = s.whole(c.tap.usage)
		drop = c.req.inject
	case !finished:
		drop = !s.began // the role, and comments of a server that has nothing to say
	}
	var ev []byte
	if !drop && len(data) > 0 {
		ev = s.face.put(data, m == usage, c.tap.usage)
		if m == usage && c.wantsCost {
			ev = c.withCost(ev)
		}
	} else if !drop {
		return b, n, m
	}
	return replace(b, at, n, ev), len(ev), m
}

// whole is the usage of the whole answer, of which u is that of the last leg, whose prompt held what was sent before.
func (s *sequel) whole(u api.Usage) api.Usage {
	prompt := max(u.Prompt()-s.text, 0)
	return disjoint(prompt, u.CacheRead, s.sent+u.Completion(), u.Reasoning)
}
