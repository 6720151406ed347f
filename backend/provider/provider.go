package provider

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
)

// Spec is one provider of the config. Key never leaves the package but to the origin of URL.
type Spec struct {
	Name   string
	URL    string           // base with its path, e.g. https://api.openai.com/v1
	Key    string           // bearer token; "" for none
	Models map[string]Model // by our name
	Limit  string           // what it calls the greatest length of a chat's answer; "": as the client writes it
	Day    *api.Nanos       // spend cap of a local day; nil: none
	Month  *api.Nanos       // spend cap of a local month; nil: none
}

// Model is a model as the provider knows it.
type Model struct {
	Name string // theirs
	Ref  string // of the price table, e.g. openai/gpt-4o-mini
}

// Provider is one paid API. It may be used from many goroutines.
type Provider struct {
	name  string
	table *cost.Table
	to    atomic.Pointer[endpoint]

	inFlight atomic.Int64

	mu     sync.Mutex // guards the following
	book   book
	calls  map[string]*Call // those that hold money, by request
	paused time.Time        // until then it asked to be left alone
	said   string           // the last refusal, in its words; "" after an answer
}

// New makes a provider. What it has cost so far is not known until Load.
func New(s Spec, table *cost.Table) (*Provider, error) {
	p := &Provider{name: s.Name, table: table, calls: map[string]*Call{}}
	return p, p.Update(s)
}

// Update takes a changed Spec of the same name. Requests that are under way end as they began, and
// what was spent stays.
func (p *Provider) Update(s Spec) error {
	e, err := newEndpoint(s)
	if err != nil {
		return err
	}
	old := p.to.Swap(e)
	if old != nil {
		old.transport.CloseIdleConnections()
		if old.spec.Key != s.Key || old.spec.URL != s.URL {
			// What it asked for or complained about was said to another address or key.
			p.mu.Lock()
			p.paused, p.said = time.Time{}, ""
			p.mu.Unlock()
		}
	}
	return nil
}

// Close closes the connections that are idle.
func (p *Provider) Close() { p.to.Load().transport.CloseIdleConnections() }

// Name is the provider's name in the config.
func (p *Provider) Name() string { return p.name }

// Serves reports whether it has a model of ours.
func (p *Provider) Serves(model string) bool {
	_, ok := p.to.Load().spec.Models[model]
	return ok
}

// Load tells what the provider has cost by day before now, as the ledger knows it. It counts once.
func (p *Provider) Load(spent []Spent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.book.loaded {
		p.book.load(spent)
	}
}

// Loaded reports whether Load was called.
func (p *Provider) Loaded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.book.loaded
}

// Status is what is shown of it now. The caller knows about its breaker: a state of ok may be open.
func (p *Provider) Status(now time.Time) api.Provider {
	e := p.to.Load()
	s := api.Provider{
		Name: p.name, Host: e.base.Host, Models: slices.Sorted(maps.Keys(e.spec.Models)), State: api.ProviderOK,
		InFlight: int(p.inFlight.Load()), CapDay: e.spec.Day, CapMonth: e.spec.Month,
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.SpentDay, s.SpentMonth = p.book.spentDay(now), p.book.spentMonth(now)
	s.Error = p.said
	priced := slices.ContainsFunc(s.Models, func(m string) bool { return p.priced(e, m, now) })
	switch {
	case e.capped() && !p.book.loaded:
		s.State, s.Error = api.ProviderUnaccountable, "what it has cost so far is not known: the ledger could not be read yet"
	case e.capped() && !priced:
		s.State, s.Error = api.ProviderUnaccountable, p.unpriced(e, s.Models[0])
	case p.book.reached(now, e.caps(), p.book.need(now)) != "":
		s.State, s.Error = api.ProviderCapped, p.book.reached(now, e.caps(), p.book.need(now))
	case now.Before(p.paused):
		s.State = api.ProviderOpen
	}
	return s
}

// Fit gives the state in which it meets a request for a model now: one of the Provider… constants of
// api, of which only ok lets the request be sent. It is cheap: it is asked at each request.
func (p *Provider) Fit(model string, now time.Time) string {
	e := p.to.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.book.reached(now, e.caps(), 0) != "":
		return api.ProviderCapped
	case e.capped() && (!p.book.loaded || !p.priced(e, model, now)):
		return api.ProviderUnaccountable
	case now.Before(p.paused):
		return api.ProviderOpen
	}
	return api.ProviderOK
}

// priced reports whether prompt or completion of a model have a price.
func (p *Provider) priced(e *endpoint, model string, now time.Time) bool {
	price, ok := p.table.At(e.spec.Models[model].Ref, now)
	return ok && (price.Input != nil || price.Output != nil)
}

func (p *Provider) unpriced(e *endpoint, model string) string {
	return fmt.Sprintf("no price is known for %s, so that its spend_cap cannot be kept: prices: must name one", e.spec.Models[model].Ref)
}

// endpoint is where requests go, and with what; immutable.
type endpoint struct {
	spec      Spec
	base      *url.URL
	transport *transport
}

func newEndpoint(s Spec) (*endpoint, error) {
	base, err := url.Parse(strings.TrimRight(s.URL, "/"))
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		return nil, fmt.Errorf("provider %s: url: must be an http or https address", s.Name)
	}
	if len(s.Models) == 0 {
		return nil, fmt.Errorf("provider %s: models: must name one", s.Name)
	}
	s.Models = maps.Clone(s.Models)
	return &endpoint{spec: s, base: base, transport: newTransport()}, nil
}

func (e *endpoint) capped() bool { return e.caps() != caps{} }
func (e *endpoint) caps() caps   { return caps{e.spec.Day, e.spec.Month} }
