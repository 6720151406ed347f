package gateway

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	// defaultCompletion is how many tokens are held for an answer whose client set no limit.
	defaultCompletion = 1024
	// imageTokens is what is held for an image, sound or film in a request.
	imageTokens = 1024
)

// stake is what a call takes of its key's limits.
type stake struct {
	quota  *quota // that it is counted in; nil: in none
	prompt int64  // tokens, by the length of the text
	tokens int64  // held
	money  api.Nanos
}

// enter counts the call against its key's requests.
func (c *call) enter(now time.Time) error {
	q := c.who.quota
	if q == nil {
		return nil
	}
	if err := q.enter(now); err != nil {
		q.tell(c.out.w.Header(), now)
		return err
	}
	c.stake.quota = q
	return nil
}

// reserve checks what a call asks for against its key, once the body is read and the model known,
// and holds what the call may use.
func (c *call) reserve() error {
	q := c.stake.quota
	if q == nil {
		return nil
	}
	l := q.bounds()
	if !c.g.mayUse(&l, c.row.Model) {
		return c.who.noModel(c.req.model)
	}
	c.failover = l.Failover
	if c.d.name != "tokenize" && c.d.name != "detokenize" { // these run no model
		c.stake.prompt = promptTokens(c.req.raw(c.req.inputAt))
	}
	budget := l.Day != nil || l.Month != nil
	if l.Tokens == 0 && !budget {
		return c.held(0, 0)
	}
	completion := int64(0)
	if c.d.event != nil {
		need := c.need()
		if completion = min(need.MaxTokens, 1<<30); completion == 0 {
			completion = defaultCompletion
			if l.Tokens > 0 {
				completion = min(completion, max(1, l.Tokens/4)) // not the client's own word: it must not lock it out
			}
		}
		completion *= int64(need.Answers)
	}
	money := api.Nanos(0)
	if budget && c.stake.prompt+completion > 0 {
		known := false
		if c.g.Estimate != nil {
			money, known = c.g.Estimate(c.row.Model, c.stake.prompt, completion)
		}
		if !known {
			return &refusal{
				status: http.StatusServiceUnavailable, kind: "server_error", code: "cost_unknown", final: true,
				msg: fmt.Sprintf("this key has a budget, and what model %q costs is not known: set cost.gpu_hour, cost.host_hour or the hour of its workers in the config", c.row.Model),
			}
		}
	}
	return c.held(c.stake.prompt+completion, money)
}

// held holds tokens and money and tells the client what is left.
func (c *call) held(tokens int64, money api.Nanos) error {
	now := time.Now()
	err := c.stake.quota.hold(now, tokens, money)
	c.stake.quota.tell(c.out.w.Header(), now)
	if err != nil {
		return err
	}
	c.stake.tokens, c.stake.money = tokens, money
	return nil
}

// settle gives back what the call held and counts what it used. Where the worker did not say, the
// prompt is what it was held to be: a client that leaves early has been worked for. A request
// that failed by no fault of its own used no tokens.
func (c *call) settle() {
	q := c.stake.quota
	if q == nil {
		return
	}
	r := c.row
	u := used{started: r.Started}
	if len(r.Attempts) > 0 {
		switch {
		case r.UsageSource == api.UsageUpstream, r.UsageSource == api.UsageTokenized:
			u.tokens = r.Usage.Prompt() + r.Usage.Completion()
		case r.UsageSource == api.UsageCounted:
			u.tokens = c.stake.prompt + r.Usage.Completion()
		case r.Outcome == api.OutcomeOK, r.Outcome == api.OutcomeCancelled:
			u.tokens = c.stake.prompt
		}
		if !r.Simulated || c.g.Keys.simulated.Load() {
			u.unpriced = r.Actual == nil && r.Outcome != api.OutcomeRejected // which used nothing
			if r.Actual != nil {
				u.money = *r.Actual
			}
		}
	}
	q.settle(time.Now(), c.stake.tokens, c.stake.money, u)
}

// mayUse reports whether a model is among those of a key. The list may name aliases.
func (g *Gateway) mayUse(l *api.KeyLimits, model string) bool {
	return len(l.Models) == 0 || slices.Contains(l.Models, model) || slices.ContainsFunc(l.Models, func(name string) bool {
		m, ok := g.Upstreams.Resolve(name)
		return ok && m == model
	})
}

// noModel is one answer for a model that is not there and one that a key may not use: what there
// is is none of its business.
func (who caller) noModel(name string) *refusal {
	msg := "the model " + quote(cut(name, 200)) + " does not exist: GET /v1/models lists those that do"
	if who.quota != nil {
		msg = "the model " + quote(cut(name, 200)) + " does not exist, or your key may not use it: GET /v1/models lists those that it may"
	}
	return invalid(http.StatusNotFound, "model_not_found", "model", msg)
}

// promptTokens is about how many tokens a prompt has: one per four bytes of its JSON. Media in it
// count as one piece each, however long their base64 is.
func promptTokens(input []byte) int64 {
	n := int64(0)
	for {
		at := bytes.Index(input, []byte(";base64,"))
		if at < 0 {
			return n + int64(len(input)+3)/4
		}
		n += int64(at)/4 + imageTokens
		input = input[at+len(";base64,"):]
		end := bytes.IndexByte(input, '"')
		if end < 0 {
			return n
		}
		input = input[end:]
	}
}
