package provider

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
)

// Need is what is known of a request before it is sent.
type Need struct {
	ID        string // of the request; one call of a provider each
	Route     string // as api.Request.Route
	Class     string // as api.Request.Class
	Model     string // our name
	Bytes     int    // of its body
	MaxTokens int64  // that each answer may have; 0: it does not say
	Answers   int    // that it asks for; 0 counts as 1
}

// The estimate that is reserved for a request.
const (
	// bytesPerToken makes a prompt of the body's bytes. English text has four or more to a token,
	// and the body holds the JSON around it too, so that three lie on the safe side.
	bytesPerToken = 3
	// defaultOutput stands for the tokens of an answer whose request sets no limit.
	defaultOutput = 4096
)

// routes are those that an OpenAI-compatible API has and charges by the token.
var routes = []string{"chat", "completions", "responses", "embeddings"}

// Call is the way of one request to a provider: place, money, connection. Its methods may be called
// in any order and more than once.
type Call struct {
	p       *Provider
	to      *endpoint
	release sync.Once

	// Set by Reserve, before the request is sent.
	need   Need
	model  Model
	began  time.Time
	prompt int64      // tokens of the prompt, estimated
	held   *api.Nanos // reserved; nil: the price is not known

	sent   atomic.Bool  // some of it went out
	status atomic.Int32 // of the answer; 0: none came
}

// Begin counts a request in. It must be followed by Release.
func (p *Provider) Begin() *Call {
	p.inFlight.Add(1)
	return &Call{p: p, to: p.to.Load()}
}

// Release counts the request out.
func (c *Call) Release() { c.release.Do(func() { c.p.inFlight.Add(-1) }) }

// URL is the base address, Model the provider's name of a model of ours.
func (c *Call) URL() string               { return c.to.spec.URL }
func (c *Call) Model(model string) string { return c.to.spec.Models[model].Name }

// Limit is what the provider calls the greatest length of a chat's answer; "": as the client writes it.
func (c *Call) Limit() string { return c.to.spec.Limit }

// Client sends the request. It knows the key, and gives it to the provider's origin alone.
func (c *Call) Client() *http.Client {
	return &http.Client{Transport: c, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Reserve sets the money of a request aside. Its error says in words for an operator why it may not
// be sent. What was reserved is held until Provider.Settle.
func (c *Call) Reserve(n Need) error {
	model, ok := c.to.spec.Models[n.Model]
	switch {
	case !ok:
		return fmt.Errorf("it does not have the model %q", n.Model)
	case n.Class == api.ClassLoad || n.Class == api.ClassSimulated:
		return errors.New("load tests and simulated requests are never sent to a paid API")
	case !slices.Contains(routes, n.Route):
		return fmt.Errorf("a paid API is not asked for %s", n.Route)
	}
	now := time.Now()
	prompt := int64(n.Bytes+bytesPerToken-1) / bytesPerToken
	held, err := estimate(c.p.table, model.Ref, n, prompt, now)
	if err != nil && c.to.capped() {
		return err
	}
	p := c.p
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls[n.ID] != nil {
		return errors.New("it was asked already")
	}
	if c.to.capped() && !p.book.loaded {
		return errors.New("what it has cost so far is not known: the ledger could not be read yet")
	}
	if held != nil {
		if err := p.book.hold(now, *held, c.to.caps()); err != nil {
			return err
		}
	}
	c.need, c.model, c.began, c.prompt, c.held = n, model, now, prompt, held
	p.calls[n.ID] = c
	return nil
}

// estimate is what a request costs if its answer is as long as it may be.
func estimate(table *cost.Table, ref string, n Need, prompt int64, now time.Time) (*api.Nanos, error) {
	price, ok := table.At(ref, now)
	if !ok {
		return nil, fmt.Errorf("no price is known for %s, so that its spend_cap cannot be kept: prices: must name one", ref)
	}
	u := api.Usage{Input: prompt}
	if n.Route != "embeddings" {
		per, answers := n.MaxTokens, int64(max(n.Answers, 1))
		if per <= 0 {
			per = defaultOutput
		}
		const most = 1 << 40 // tokens that nobody generates, and whose price still fits
		if per > most/answers {
			return nil, fmt.Errorf("%d answers of %d tokens cannot be reckoned with", answers, per)
		}
		u.Output = per * answers
	}
	amount, ok := price.Cost(u)
	if !ok {
		return nil, fmt.Errorf("the price of %s is not known for prompt and completion: prices: must name another", ref)
	}
	return &amount, nil
}

// Troubled reports whether the provider turned the request away for reasons that are not the
// request's: too many of them, no money, our key. The next one would fare no better.
func (c *Call) Troubled() bool { return troubled(int(c.status.Load())) }

func troubled(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusUnauthorized, http.StatusPaymentRequired, http.StatusForbidden:
		return true
	}
	return status/100 == 5
}

// cost is what the request came to. nil: not known. Usage is that of the whole request, which is
// this call's if it was the last.
func (c *Call) cost(r *api.Request, last bool) *api.Nanos {
	status := c.status.Load()
	if !c.sent.Load() || status >= 300 {
		return new(api.Nanos(0)) // nobody charges for a request that was turned away
	}
	price, ok := c.p.table.At(c.model.Ref, c.began)
	if !ok || !last {
		return nil
	}
	u := r.Usage
	switch r.UsageSource {
	case api.UsageUpstream:
	case api.UsageCounted, api.UsageTokenized:
		// It was cut off before the provider said what it used. The prompt was paid for too.
		u.Input = max(u.Input, c.prompt)
	default:
		return nil
	}
	n, ok := price.Cost(u)
	if !ok {
		return nil
	}
	return &n
}

// Note fills in what is known while a request is under way: that its open row is of a paid call, and
// what this costs at most.
func (p *Provider) Note(r *api.Request) {
	if c, i := p.call(r); c != nil && i == len(r.Attempts)-1 {
		r.Basis, r.Actual = api.BasisProviderPrice, c.held
	}
}

// Price fills in what r's attempt at p cost; if it was the last one, that is the cost of r.
func (p *Provider) Price(r *api.Request) {
	c, i := p.call(r)
	if c == nil {
		return
	}
	a, last := &r.Attempts[i], i == len(r.Attempts)-1
	a.Actual, a.Held = c.cost(r, last), nil
	if a.Actual == nil {
		a.Held = c.held
	}
	if last {
		r.Basis, r.Actual = api.BasisProviderPrice, a.Actual
	}
}

// call finds r's call at p and its attempt; nil if there is none.
func (p *Provider) call(r *api.Request) (*Call, int) {
	i := slices.IndexFunc(r.Attempts, func(a api.Attempt) bool { return a.Provider && a.Upstream == p.name })
	if i < 0 {
		return nil, 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[r.ID], i
}

// Settle books what r came to, priced, and gives back what was reserved for it. It may be called
// for every request that ends, of this provider or not.
func (p *Provider) Settle(r *api.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.calls[r.ID]
	if c == nil {
		return
	}
	delete(p.calls, r.ID)
	actual := new(api.Nanos(0)) // reserved and never sent
	for _, a := range r.Attempts {
		if a.Provider && a.Upstream == p.name {
			actual = a.Actual
		}
	}
	p.book.settle(day(c.began), c.held, actual)
}
