package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// r15 lets both workers die, so that a paid API must serve, and has that answer with 429 and 500: it must not be
// asked much more often than requests come, be left alone once it fails, and be taken up again. Then the money: under a
// spend cap with room for some of the requests, what the API was asked for never exceeds the cap, kill -9 or not.
func r15(ctx context.Context, t *trial) error {
	p := &paid{behaves: "well", dice: rand.New(rand.NewPCG(15, 15))} //nolint:gosec // the same storm each time
	url, err := t.listen(ctx, p.serve)
	if err != nil {
		return err
	}
	if err := r15storm(ctx, t, p, url); err != nil {
		return err
	}
	return r15cap(ctx, t, p, url)
}

// r15engine starts an engine with two workers and the paid API, and kills the workers.
func r15engine(ctx context.Context, t *trial, url, spendCap string) (*engine, error) {
	var workers []string
	var servers []*server
	for range 2 {
		s, err := t.server(ctx)
		if err != nil {
			return nil, err
		}
		servers, workers = append(servers, s), append(workers, s.url)
	}
	e, err := t.engine(ctx, attached(workers, fmt.Sprintf(`providers: [{name: openai, url: "%s/v1", models: {%s: gpt-4o-mini}, spend_cap: {day: %s}}]`, url, toy, spendCap)))
	if err != nil {
		return nil, err
	}
	if err := e.ready(ctx, 20*time.Second); err != nil {
		return nil, err
	}
	for _, s := range servers {
		if err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL); err != nil {
			return nil, err
		}
	}
	return e, r15gone(ctx, e)
}

// r15gone waits until the engine knows that its workers are gone: it waits for those that it knows nothing of.
func r15gone(ctx context.Context, e *engine) error {
	return until(ctx, 30*time.Second, "both workers are known to be gone", func() bool {
		s, err := e.snapshot(ctx)
		return err == nil && !slices.ContainsFunc(s.Workers, func(w api.Worker) bool { return w.State != api.Failed })
	})
}

// paid is a paid API that behaves "well", "500", "429", as a "storm" of both, or is "flaky".
type paid struct {
	mu      sync.Mutex
	behaves string
	dice    *rand.Rand
	calls   []time.Time
	failed  int
	billed  int64 // nano-dollars of the calls that were answered
	open    int64 // of those under way, at most
	most    int64 // the highest sum of both
	slow    time.Duration
}

// What a call of r15ask costs at most and in the end, at 150 nano-dollars a token of prompt and 600 of completion.
const (
	paidTokens = 100
	paidPrompt = 20
	paidCost   = paidPrompt*150 + paidTokens*600
)

func (p *paid) serve(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	p.mu.Lock()
	p.calls = append(p.calls, time.Now())
	how := p.behaves
	switch n := p.dice.IntN(10); {
	case how == "storm" && n < 5, how == "flaky" && n < 2:
		how = "429"
	case how == "storm", how == "flaky" && n == 2:
		how = "500"
	}
	slow := p.slow
	bad := how == "429" || how == "500"
	if bad {
		p.failed++
	} else {
		p.open += paidCost
		p.most = max(p.most, p.billed+p.open)
	}
	p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	switch how {
	case "429":
		w.WriteHeader(http.StatusTooManyRequests)
	case "500":
		w.WriteHeader(http.StatusInternalServerError)
	}
	if bad {
		_, _ = io.WriteString(w, `{"error":{"message":"not now","type":"server_error","param":null,"code":null}}`)
		return
	}
	_ = pause(r.Context(), slow)
	p.mu.Lock()
	p.open -= paidCost
	p.billed += paidCost // a real one bills for a client that has left, too
	p.mu.Unlock()
	fmt.Fprintf(w, `{"id":"c","object":"chat.completion","created":1,"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"paid"},"finish_reason":"stop"}],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}`,
		paidPrompt, paidTokens, paidPrompt+paidTokens)
}

// turn changes how the API behaves and gives how often it was asked before.
func (p *paid) turn(behaves string) (calls int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.behaves = behaves
	return len(p.calls)
}

func (p *paid) asked() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clip(p.calls)
}

// reply is what a client got of r15ask.
type reply struct {
	status int
	took   time.Duration
	retry  string
	again  string // X-Should-Retry
	err    error
}

func r15ask(ctx context.Context, c *client, url string) reply {
	body := fmt.Sprintf(`{"model":"toy","messages":[{"role":"user","content":"Hello"}],"max_tokens":%d}`, paidTokens)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+chatPath, strings.NewReader(body))
	if err != nil {
		return reply{err: err}
	}
	req.Header.Set("Content-Type", "application/json")
	began := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		return reply{err: err}
	}
	err = drain(resp)
	return reply{resp.StatusCode, time.Since(began), resp.Header.Get("Retry-After"), resp.Header.Get("X-Should-Retry"), err}
}

// r15many sends requests from so many clients for a while, each with a pause between its own.
func r15many(ctx context.Context, c *client, url string, clients int, span, between time.Duration) []reply {
	var mu sync.Mutex
	var out []reply
	var all sync.WaitGroup
	for until, i := time.Now().Add(span), 0; i < clients; i++ {
		all.Go(func() {
			for time.Now().Before(until) && ctx.Err() == nil {
				r := r15ask(ctx, c, url)
				mu.Lock()
				out = append(out, r)
				mu.Unlock()
				if pause(ctx, between) != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return out
}

func r15storm(ctx context.Context, t *trial, p *paid, url string) error {
	e, err := r15engine(ctx, t, url, "1000")
	if err != nil {
		return err
	}
	c := t.newClient(64)
	if r := r15ask(ctx, c, e.url); r.status != http.StatusOK || len(p.asked()) != 1 {
		t.failf("with both workers gone the paid API is asked %d times: %+v", len(p.asked()), r)
	}

	// One request after the other against nothing but 500: five calls, then only probes, one, two, four seconds apart.
	before := p.turn("500")
	began := time.Now()
	refused := r15many(ctx, c, e.url, 1, 6*time.Second, 10*time.Millisecond)
	calls := p.asked()[before:]
	opened := 0
	for opened < len(calls) && calls[opened].Sub(began) < 900*time.Millisecond {
		opened++
	}
	t.atMost("failures until the breaker opened", int64(opened), 5)
	t.atMost("calls in 6 s of 500s, probes included", int64(len(calls)), 8)

	// It is well again: the next probe finds out.
	p.turn("well")
	began = time.Now()
	err = until(ctx, 30*time.Second, "the breaker closes", func() bool { return r15ask(ctx, c, e.url).status == http.StatusOK })
	if err != nil {
		return err
	}
	t.within("closed again after", time.Since(began), 8*time.Second) // the longest wait of 6 s of failures, doubled
	for range 20 {
		if r := r15ask(ctx, c, e.url); r.status != http.StatusOK {
			t.failf("closed, but a request is answered with %+v", r)
		}
	}

	// Many clients in a storm of both, and with an API that refuses some.
	requests, failed := 0, 0
	before = len(p.asked())
	for _, how := range []string{"flaky", "storm", "429"} {
		p.turn(how)
		all := r15many(ctx, c, e.url, 40, 5*time.Second, 20*time.Millisecond)
		t.logf("%s: %d requests, %d calls", how, len(all), len(p.asked())-before)
		requests += len(all)
		refused = append(refused, all...)
	}
	calls = p.asked()[before:]
	t.note("requests in the storms", requests)
	t.note("calls in the storms", len(calls))
	t.atMost("calls per 100 requests", int64(len(calls)*100/max(1, requests)), 120)
	var took []time.Duration
	codes, silent := map[int]int{}, 0
	for _, r := range refused {
		codes[r.status]++
		switch {
		case r.status == http.StatusOK:
			continue
		case r.err != nil || r.status != 429 && r.status != 502 && r.status != 503:
			failed++
			t.failf("a refusal is %+v", r)
		case r.again != "false" || r.status != 502 && r.retry == "":
			silent++
			t.failf("a refusal does not say when to come again: %+v", r)
		}
		took = append(took, r.took)
	}
	t.note("answers by status", fmt.Sprint(codes))
	t.exactly("refusals of another kind", failed, 0)
	t.exactly("429 and 503 without Retry-After, or answers that ask to try again", silent, 0)
	t.within("refusals p99", percentile(took, 0.99), 50*time.Millisecond)

	// After all that it serves again.
	p.turn("well")
	return until(ctx, 70*time.Second, "the paid API serves again", func() bool { return r15ask(ctx, c, e.url).status == http.StatusOK })
}

// r15cap spends under a cap of 75 calls and a half, with 30 clients, and kills the engine in the middle.
func r15cap(ctx context.Context, t *trial, p *paid, url string) error {
	const room = 75*paidCost + paidCost/2
	e, err := r15engine(ctx, t, url, fmt.Sprintf("%.9f", float64(room)/1e9))
	if err != nil {
		return err
	}
	c := t.newClient(64)
	p.mu.Lock()
	p.behaves, p.slow = "well", 200*time.Millisecond
	p.billed, p.open, p.most = 0, 0, 0
	before := len(p.calls)
	p.mu.Unlock()

	var mu sync.Mutex
	var replies []reply
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			for range 8 {
				r := r15ask(ctx, c, e.url)
				mu.Lock()
				replies = append(replies, r)
				mu.Unlock()
				if r.err != nil && pause(ctx, 50*time.Millisecond) != nil {
					return
				}
			}
		})
	}
	err = until(ctx, 20*time.Second, "half of the money is spent", func() bool { return len(p.asked())-before >= 35 })
	if err != nil {
		return err
	}
	if err := e.signal(syscall.SIGKILL); err != nil {
		return err
	}
	if err := e.ended(ctx, 10*time.Second); err != nil {
		return err
	}
	all.Wait()
	killed := len(p.asked()) - before
	if err := e.start(ctx); err != nil {
		return err
	}
	if err := r15gone(ctx, e); err != nil {
		return err
	}
	rest := r15many(ctx, c, e.url, 30, 4*time.Second, 50*time.Millisecond)
	if err := e.settled(ctx, 20*time.Second); err != nil {
		return err
	}
	s, err := e.snapshot(ctx)
	if err != nil {
		return err
	}
	served, capped := 0, 0
	for _, r := range rest {
		switch {
		case r.status == http.StatusOK:
			served++
		case r.status == http.StatusServiceUnavailable && r.retry != "":
			capped++
		default:
			t.failf("under the cap a request is answered with %+v", r)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t.note("the cap in calls", fmt.Sprintf("%.1f", float64(room)/paidCost))
	t.note("calls before kill -9", killed)
	t.note("calls in all", len(p.calls)-before)
	t.atMost("nano-dollars asked for at most", p.most, room)
	t.atMost("nano-dollars billed", p.billed, room)
	t.atLeast("served after the kill", served, 1)
	t.atLeast("refused for the cap", capped, 1)
	if len(s.Providers) != 1 || s.Providers[0].State != api.ProviderCapped || s.Providers[0].SpentDay == nil || int64(*s.Providers[0].SpentDay) < p.billed {
		t.failf("the engine says of the paid API: %+v, want it capped with %d nano-dollars at least", s.Providers, p.billed)
	}
	return nil
}
