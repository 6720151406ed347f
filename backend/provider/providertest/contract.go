package providertest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
	"github.com/vllmdeck/vllmdeck/backend/provider"
)

// Key is the provider's key in all tests: what must never be seen anywhere.
const Key = "sk-canary-0123456789abcdef"

// Table has one model: a dollar per million tokens of prompt, a tenth of it from the cache, ten
// dollars per million of completion. A token of prompt is a micro-dollar.
func Table() *cost.Table {
	n := func(v api.Nanos) *api.Nanos { return &v }
	return cost.NewTable("2026-11-01", []cost.Price{{
		Ref: "openai/theirs", Date: "2026-01-01", Source: cost.SourceLiteLLM,
		Prices: api.Prices{Input: n(api.Dollar), CacheRead: n(api.Dollar / 10), Output: n(10 * api.Dollar)},
	}})
}

// Spec is a provider of model m at url, with a cap of so much a day (0: none).
func Spec(url string, capDay api.Nanos) provider.Spec {
	s := provider.Spec{Name: "openai", URL: url, Key: Key, Models: map[string]provider.Model{"m": {Name: "theirs", Ref: "openai/theirs"}}}
	if capDay > 0 {
		s.Day = &capDay
	}
	return s
}

// New makes a provider for the contract.
type New func(t *testing.T, s provider.Spec, table *cost.Table) *provider.Provider

// Run proves the contract. Each part has a provider and an API of its own.
func Run(t *testing.T, open New) {
	for _, part := range []struct {
		name string
		test func(t *testing.T, r *rig)
	}{
		{"the key goes out, what the client added does not", headers},
		{"no other address gets the key", origin},
		{"a redirect is not followed", redirect},
		{"the key is in nothing that comes back", leak},
		{"what it quotes of a request is not kept", quoted},
		{"usage is billed to the nano-dollar", usage},
		{"what was refused costs nothing", refused},
		{"what was cut off costs what was seen of it and the prompt", cutOff},
		{"what is not known is held at most", unknown},
		{"a client that leaves ends the call", leaves},
		{"a provider that asks to be left alone is", pause},
		{"the cap holds however many are under way", capHolds},
		{"a call at a time per request", twice},
		{"load tests, simulated requests and foreign routes are not paid for", foreign},
		{"a capped provider without a price takes nothing", unpriced},
		{"an uncapped one without a price does, and its cost is unknown", unpricedUncapped},
		{"a capped provider takes nothing before its past is known", unloaded},
		{"a new config keeps the money", update},
	} {
		t.Run(part.name, func(t *testing.T) {
			a := Open(t)
			part.test(t, &rig{API: a, open: func(s provider.Spec) *provider.Provider {
				p := open(t, s, Table())
				t.Cleanup(p.Close)
				return p
			}})
		})
	}
}

type rig struct {
	*API
	open func(s provider.Spec) *provider.Provider
}

// loaded gives a provider that has cost nothing before.
func (r *rig) loaded(capDay api.Nanos) *provider.Provider {
	p := r.open(Spec(r.URL, capDay))
	p.Load(nil)
	return p
}

// need is a request of 300 bytes for up to 50 tokens: 100 and 500 micro-dollars.
func need(id string) provider.Need {
	return provider.Need{ID: id, Route: "chat", Class: api.ClassServed, Model: "m", Bytes: 300, MaxTokens: 50, Answers: 1}
}

const held = 600_000 // of need, nano-dollars

const prompt = "nobody may keep this"

// post sends a request by way of c and reads the answer.
func post(ctx context.Context, c *provider.Call, header ...string) (status int, head http.Header, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL()+"/chat/completions", strings.NewReader(`{"model":"theirs","prompt":"`+prompt+`"}`))
	if err != nil {
		return 0, nil, "", err
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := c.Client().Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, res.Header, string(b), err
}

// row is what a gateway makes of a call.
func row(id, source string, u api.Usage) *api.Request {
	return &api.Request{ID: id, Model: "m", Usage: u, UsageSource: source, Attempts: []api.Attempt{{Upstream: "w0"}, {Upstream: "openai", Provider: true}}}
}

// run makes one call and settles it as row; it gives the row, priced.
func run(t *testing.T, p *provider.Provider, id, source string, u api.Usage) *api.Request {
	t.Helper()
	c := p.Begin()
	defer c.Release()
	if err := c.Reserve(need(id)); err != nil {
		t.Fatalf("Reserve: %v", err)
	}
	_, _, _, _ = post(context.Background(), c)
	r := row(id, source, u)
	p.Price(r)
	p.Settle(r)
	return r
}

func show(n *api.Nanos) string {
	if n == nil {
		return "unknown"
	}
	return n.String()
}

// spent checks what the provider says it cost today.
func spent(t *testing.T, p *provider.Provider, want string) {
	t.Helper()
	if got := show(p.Status(time.Now()).SpentDay); got != want {
		t.Errorf("spent today: got %s, want %s", got, want)
	}
}

func headers(t *testing.T, r *rig) {
	c := r.loaded(0).Begin()
	defer c.Release()
	status, _, body, err := post(context.Background(), c, "X-Secret-Of-Ours", "x", "Api-Key", "theirs", "Openai-Organization", "other", "X-Request-Id", "req-1")
	if err != nil || status != 200 || !strings.Contains(body, "paid words") {
		t.Fatalf("got %d %q %v, want an answer", status, body, err)
	}
	seen := r.Last()
	if got := seen.Header.Get("Authorization"); got != "Bearer "+Key {
		t.Errorf("Authorization = %q, want the provider's key", got)
	}
	if seen.Path != "/v1/chat/completions" || seen.Header.Get("X-Request-Id") != "req-1" {
		t.Errorf("got %s with request id %q, want /v1/chat/completions with req-1", seen.Path, seen.Header.Get("X-Request-Id"))
	}
	for _, name := range []string{"X-Secret-Of-Ours", "Api-Key", "Openai-Organization"} {
		if seen.Header.Get(name) != "" {
			t.Errorf("the client's header %s reached the provider", name)
		}
	}
}

func origin(t *testing.T, r *rig) {
	other := Open(t)
	c := r.loaded(0).Begin()
	defer c.Release()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, other.URL, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if res, err := c.Client().Do(req); err == nil {
		res.Body.Close()
		t.Error("a request to another address was sent, want an error")
	}
	if n := other.Calls.Load(); n != 0 {
		t.Errorf("the other address got %d requests, want none", n)
	}
}

func redirect(t *testing.T, r *rig) {
	other := Open(t)
	r.Behave(func(w http.ResponseWriter, req *http.Request) {
		http.Redirect(w, req, other.URL, http.StatusTemporaryRedirect)
	})
	c := r.loaded(0).Begin()
	defer c.Release()
	status, _, _, err := post(context.Background(), c)
	if err != nil || status != http.StatusTemporaryRedirect || other.Calls.Load() != 0 {
		t.Errorf("got %d, %v and %d requests elsewhere, want the redirect itself", status, err, other.Calls.Load())
	}
}

func leak(t *testing.T, r *rig) {
	p := r.loaded(0)
	for _, status := range []int{200, 400, 401, 429, 500} {
		r.Behave(Leak(status))
		c := p.Begin()
		_, head, body, err := post(context.Background(), c)
		c.Release()
		if err != nil {
			t.Fatal(err)
		}
		if all := fmt.Sprint(head, body, p.Status(time.Now())); strings.Contains(all, Key) || strings.Contains(all, Key[len(Key)/2:]) {
			t.Errorf("HTTP %d: the key is in what came back:\n%s", status, all)
		}
		if want := `"wrong key ` + strings.Repeat("*", len(Key)) + `, again: `; !strings.Contains(body, want) {
			t.Errorf("HTTP %d: body = %q, want in it %q", status, body, want)
		}
	}
}

func quoted(t *testing.T, r *rig) {
	p := r.loaded(0)
	for _, status := range []int{401, 404, 429, 500} {
		r.Behave(func(w http.ResponseWriter, req *http.Request) {
			body, _ := io.ReadAll(req.Body)
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"error":{"message":%q}}`, "no luck with "+string(body))
		})
		c := p.Begin()
		_, _, body, err := post(context.Background(), c)
		c.Release()
		if err != nil {
			t.Fatal(err)
		}
		if said := p.Status(time.Now()).Error; strings.Contains(said, prompt) || !strings.Contains(said, "no luck with") || !strings.Contains(body, prompt) {
			t.Errorf("HTTP %d: the status says %q, want it without the prompt, which %q has", status, said, body)
		}
	}
}

func usage(t *testing.T, r *rig) {
	p := r.loaded(api.Dollar)
	// 1,000 x 1 + 500 x 0.1 + (100 + 11) x 10 micro-dollars
	got := run(t, p, "a", api.UsageUpstream, api.Usage{Input: 1000, CacheRead: 500, Output: 100, Reasoning: 11})
	if show(got.Actual) != "0.00216" || got.Basis != api.BasisProviderPrice {
		t.Errorf("cost = %s by %s, want 0.00216 by provider_price", show(got.Actual), got.Basis)
	}
	if a := got.Attempts; show(a[1].Actual) != "0.00216" || a[1].Held != nil || a[0].Actual != nil {
		t.Errorf("attempts = %+v, want the cost on the provider's alone", a)
	}
	spent(t, p, "0.00216")
}

func refused(t *testing.T, r *rig) {
	p := r.loaded(api.Dollar)
	for i, status := range []int{400, 401, 402, 404, 429, 500, 503} {
		r.Behave(Refuse(status, ""))
		got := run(t, p, strconv.Itoa(i), api.UsageUnknown, api.Usage{})
		if show(got.Actual) != "0" || got.Attempts[1].Held != nil {
			t.Errorf("HTTP %d cost %s, want 0", status, show(got.Actual))
		}
	}
	q := r.open(provider.Spec{Name: "openai", URL: "http://127.0.0.1:1/v1", Models: Spec("", 0).Models}) // nobody listens there
	q.Load(nil)
	if got := run(t, q, "x", api.UsageUnknown, api.Usage{}); show(got.Actual) != "0" {
		t.Errorf("what was never sent cost %s, want 0", show(got.Actual))
	}
	spent(t, p, "0")
	for status, want := range map[int]bool{200: false, 400: false, 404: false, 401: true, 403: true, 429: true, 500: true} {
		r.Behave(Refuse(status, ""))
		c := p.Begin()
		_, _, _, _ = post(context.Background(), c)
		c.Release()
		if c.Troubled() != want {
			t.Errorf("HTTP %d: Troubled = %v, want %v", status, c.Troubled(), want)
		}
	}
}

func cutOff(t *testing.T, r *rig) {
	r.Behave(Cut(7))
	p := r.loaded(api.Dollar)
	got := run(t, p, "a", api.UsageCounted, api.Usage{Output: 7})
	if show(got.Actual) != "0.00017" { // 100 tokens of prompt, 7 of completion
		t.Errorf("cost = %s, want 0.00017", show(got.Actual))
	}
	spent(t, p, "0.00017")
}

func unknown(t *testing.T, r *rig) {
	r.Behave(Cut(0))
	p := r.loaded(api.Dollar)
	got := run(t, p, "a", api.UsageUnknown, api.Usage{})
	if got.Actual != nil || show(got.Attempts[1].Held) != "0.0006" {
		t.Errorf("cost = %s, at most %s, want unknown, at most 0.0006", show(got.Actual), show(got.Attempts[1].Held))
	}
	spent(t, p, "0.0006") // the cap counts on the worst
	open := row("b", api.UsageUnknown, api.Usage{})
	c := p.Begin()
	defer c.Release()
	if err := c.Reserve(need("b")); err != nil {
		t.Fatal(err)
	}
	p.Note(open)
	if open.Basis != api.BasisProviderPrice || show(open.Actual) != "0.0006" {
		t.Errorf("the open row has %s by %q, want what is reserved", show(open.Actual), open.Basis)
	}
	p.Settle(&api.Request{ID: "b"}) // it ended before it was sent
	spent(t, p, "0.0006")
}

func leaves(t *testing.T, r *rig) {
	r.Behave(Hang(3))
	p := r.loaded(0)
	c := p.Begin()
	ctx, leave := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, _, _, err := post(ctx, c)
		done <- err
	}()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for r.Calls.Load() == 0 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("no call after 10 s")
		}
	}
	if n := p.Status(time.Now()).InFlight; n != 1 {
		t.Errorf("%d in flight, want 1", n)
	}
	leave()
	if err := <-done; err == nil {
		t.Error("the call went on, want an error")
	}
	select {
	case <-r.Gone():
	case <-deadline:
		t.Error("the provider was not told that the client is gone")
	}
	c.Release()
	c.Release()
	if n := p.Status(time.Now()).InFlight; n != 0 {
		t.Errorf("%d in flight, want 0", n)
	}
}

func pause(t *testing.T, r *rig) {
	for after, want := range map[string]time.Duration{"20": 20 * time.Second, "0.5": 500 * time.Millisecond, "86400": 5 * time.Minute, "": 0, "soon": 0, "-5": 0} {
		r.Behave(Refuse(429, after))
		p := r.loaded(0)
		run(t, p, "a", api.UsageUnknown, api.Usage{})
		now := time.Now()
		if want > 0 && p.Fit("m", now.Add(want-time.Second/4)) != api.ProviderOpen && want > time.Second {
			t.Errorf("Retry-After %q: it is asked again before %v are over", after, want)
		}
		if got := p.Fit("m", now.Add(want)); got != api.ProviderOK {
			t.Errorf("Retry-After %q: it is %s after %v, want ok", after, got, want)
		}
		if s := p.Status(now); s.Error != "HTTP 429: no: 429" {
			t.Errorf("error = %q, want its own words", s.Error)
		}
		r.Behave(Answer(api.Usage{Input: 1}))
		run(t, p, "b", api.UsageUpstream, api.Usage{Input: 1})
		if s := p.Status(now); s.Error != "" {
			t.Errorf("error = %q after an answer, want none", s.Error)
		}
	}
}

func capHolds(t *testing.T, r *rig) {
	const limit = 20*held + held/2
	p := r.loaded(limit)
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	start := make(chan struct{})
	for i := range 64 {
		wg.Go(func() {
			<-start
			for j := range 5 {
				c := p.Begin()
				id := fmt.Sprint(i, "/", j)
				if c.Reserve(need(id)) == nil {
					mu.Lock()
					passed++
					mu.Unlock()
					q := row(id, api.UsageUpstream, api.Usage{Input: 100, Output: 50}) // as long as may be
					_, _, _, _ = post(context.Background(), c)
					p.Price(q)
					p.Settle(q)
				}
				c.Release()
				if s := p.Status(time.Now()); *s.SpentDay > limit {
					t.Errorf("%s is spent, want at most %s", s.SpentDay, api.Nanos(limit))
				}
			}
		})
	}
	close(start)
	wg.Wait()
	s := p.Status(time.Now())
	if passed != 20 || *s.SpentDay != 20*held || s.State != api.ProviderCapped || s.InFlight != 0 {
		t.Errorf("%d passed for %s in state %s with %d in flight, want 20 for 0.012, capped, 0", passed, s.SpentDay, s.State, s.InFlight)
	}
	// What is left is enough for a smaller one.
	if got := p.Fit("m", time.Now()); got != api.ProviderOK {
		t.Errorf("it is %s for a request that may be smaller, want ok", got)
	}
	small := need("small")
	small.MaxTokens = 1
	c := p.Begin()
	defer c.Release()
	if err := c.Reserve(small); err != nil {
		t.Errorf("a request that fits: %v", err)
	}
	if got := p.Status(time.Now()).State; got != api.ProviderOK {
		t.Errorf("state = %s after one fitted, want ok", got)
	}
	tomorrow := time.Now().AddDate(0, 0, 1)
	if s := p.Status(tomorrow); *s.SpentDay != 0 || s.State != api.ProviderOK {
		t.Errorf("tomorrow: %s spent, %s, want 0, ok", s.SpentDay, s.State)
	}
}

func twice(t *testing.T, r *rig) {
	p := r.loaded(api.Dollar)
	c := p.Begin()
	defer c.Release()
	if err := c.Reserve(need("a")); err != nil {
		t.Fatal(err)
	}
	if err := p.Begin().Reserve(need("a")); err == nil {
		t.Error("the same request is paid for twice, want an error")
	}
}

func foreign(t *testing.T, r *rig) {
	p := r.loaded(api.Dollar)
	for what, change := range map[string]func(n *provider.Need){
		"load test": func(n *provider.Need) { n.Class = api.ClassLoad },
		"simulated": func(n *provider.Need) { n.Class = api.ClassSimulated },
		"route":     func(n *provider.Need) { n.Route = "tokenize" },
		"model":     func(n *provider.Need) { n.Model = "other" },
		"answers":   func(n *provider.Need) { n.Answers, n.MaxTokens = 1<<30, 1<<60 },
		"price":     func(n *provider.Need) { n.MaxTokens = 1 << 62 },
	} {
		n := need(what)
		change(&n)
		c := p.Begin()
		if err := c.Reserve(n); err == nil {
			t.Errorf("%s: accepted, want an error", what)
		}
		c.Release()
	}
	embed := need("e")
	embed.Route = "embeddings"
	c := p.Begin()
	defer c.Release()
	if err := c.Reserve(embed); err != nil {
		t.Errorf("embeddings: %v", err)
	}
	unsaid := need("u")
	unsaid.MaxTokens, unsaid.Answers = 0, 3
	d := p.Begin()
	defer d.Release()
	open := row("u", api.UsageUnknown, api.Usage{})
	if err := d.Reserve(unsaid); err != nil {
		t.Fatal(err)
	}
	if p.Note(open); show(open.Actual) != "0.12298" { // 100 of prompt, 3 x 4,096 of completion
		t.Errorf("reserved %s for three answers of unsaid length, want 0.12298", show(open.Actual))
	}
}

func unpriced(t *testing.T, r *rig) {
	s := Spec(r.URL, api.Dollar)
	s.Models["m"] = provider.Model{Name: "theirs", Ref: "openai/nobody-knows"}
	p := r.open(s)
	p.Load(nil)
	c := p.Begin()
	defer c.Release()
	if err := c.Reserve(need("a")); err == nil {
		t.Error("accepted, want an error")
	}
	got := p.Status(time.Now())
	if p.Fit("m", time.Now()) != api.ProviderUnaccountable || got.State != api.ProviderUnaccountable || !strings.Contains(got.Error, "prices:") {
		t.Errorf("state = %s (%s), want unaccountable and what mends it", got.State, got.Error)
	}
}

func unpricedUncapped(t *testing.T, r *rig) {
	s := Spec(r.URL, 0)
	s.Models["m"] = provider.Model{Name: "theirs", Ref: "openai/nobody-knows"}
	p := r.open(s)
	p.Load(nil)
	got := run(t, p, "a", api.UsageUpstream, api.Usage{Input: 1})
	if got.Actual != nil || got.Attempts[1].Held != nil {
		t.Errorf("cost = %s, want unknown", show(got.Actual))
	}
	spent(t, p, "unknown")
}

func unloaded(t *testing.T, r *rig) {
	p := r.open(Spec(r.URL, api.Dollar))
	c := p.Begin()
	defer c.Release()
	if err := c.Reserve(need("a")); err == nil || p.Fit("m", time.Now()) != api.ProviderUnaccountable {
		t.Errorf("Reserve = %v in state %s, want an error, unaccountable", err, p.Fit("m", time.Now()))
	}
	today := time.Now().Format(time.DateOnly)
	p.Load([]provider.Spent{{Day: today, Amount: api.Dollar - held}})
	p.Load([]provider.Spent{{Day: today, Amount: api.Dollar}}) // counts once
	if err := c.Reserve(need("b")); err != nil {
		t.Errorf("the last that fits: %v", err)
	}
	if err := p.Begin().Reserve(need("c")); err == nil {
		t.Error("one more is accepted, want an error")
	}
}

func update(t *testing.T, r *rig) {
	p := r.loaded(2 * held)
	run(t, p, "a", api.UsageUpstream, api.Usage{Input: 100, Output: 50})
	c := p.Begin() // under way
	defer c.Release()
	if err := c.Reserve(need("b")); err != nil {
		t.Fatal(err)
	}
	other := Open(t)
	s := Spec(other.URL, 2*held)
	s.Key = "another-key"
	if err := p.Update(s); err != nil {
		t.Fatal(err)
	}
	if err := p.Begin().Reserve(need("c")); err == nil {
		t.Error("the money of before is forgotten: want no room")
	}
	if _, _, _, err := post(context.Background(), c); err != nil || r.Last().Header.Get("Authorization") != "Bearer "+Key {
		t.Errorf("the call under way went on with %q, %v, want its own key", r.Last().Header.Get("Authorization"), err)
	}
	d := p.Begin()
	defer d.Release()
	if _, _, _, err := post(context.Background(), d); err != nil || other.Last().Header.Get("Authorization") != "Bearer another-key" {
		t.Errorf("a new call went out with %q, %v, want the new key", other.Last().Header.Get("Authorization"), err)
	}
	spent(t, p, "0.0006")
}
