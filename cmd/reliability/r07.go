package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// r07 lets clients hang up: as soon as the request is written, before the first token, in the middle of a stream, while a
// plain answer is generated. No worker may go on generating for nobody, and nothing may be left of it in the engine.
func r07(ctx context.Context, t *trial) error {
	const clients, atOnce, tokens = 1000, 100, 600
	seed := uint64(time.Now().UnixNano())
	dice := rand.New(rand.NewPCG(seed, 7)) //nolint:gosec // when a client hangs up is no secret
	t.note("seed", seed)
	lines := &switchboard{calls: map[string]*upstreamCall{}}
	var servers, urls []string
	for range 2 {
		s, err := t.server(ctx, "--ttft", "200ms", "--itl", "40ms", "--max-num-seqs", "256")
		if err != nil {
			return err
		}
		p, err := t.proxy(ctx, s.url, &breaker{}, lines.watch)
		if err != nil {
			return err
		}
		servers, urls = append(servers, s.url), append(urls, p)
	}
	e, err := t.engine(ctx, attached(urls))
	if err != nil {
		return err
	}
	if err := e.ready(ctx, 20*time.Second); err != nil {
		return err
	}
	goroutines, err := e.metric(ctx, "go_goroutines")
	if err != nil {
		return err
	}
	files, err := descriptors(e.pid())
	if err != nil {
		return err
	}

	plans := make([]hangUp, clients)
	for i := range plans {
		p := hangUp{mark: fmt.Sprintf("#%04d#", i), moment: moments[i%len(moments)], route: routes[i/len(moments)%len(routes)].name}
		switch p.moment {
		case "request written":
			p.after = time.Duration(dice.Int64N(int64(3 * time.Millisecond)))
		case "before the first token":
			p.after = time.Duration(20+dice.IntN(130)) * time.Millisecond
		case "mid-stream":
			p.events = 1 + dice.IntN(25)
		case "plain":
			p.after = time.Duration(20+dice.IntN(1500)) * time.Millisecond
		}
		plans[i] = p
	}
	c := t.newClient(atOnce)
	var all sync.WaitGroup
	turn := make(chan struct{}, atOnce)
	for i := range plans {
		turn <- struct{}{}
		all.Go(func() {
			defer func() { <-turn }()
			plans[i].carryOut(ctx, c, e.url, tokens)
		})
	}
	all.Wait()
	last := time.Now()
	t.logf("%d clients have hung up", clients)

	// Until no worker has a request any more, as the workers themselves say it.
	err = until(ctx, 20*time.Second, "no worker has a request", func() bool {
		busy := float64(lines.alive())
		for _, url := range servers {
			for _, name := range []string{"vllm:num_requests_running", "vllm:num_requests_waiting"} {
				n, err := metric(ctx, url, name)
				if err != nil {
					return false
				}
				busy += n
			}
		}
		return busy == 0
	})
	empty := time.Since(last)
	if err != nil {
		return err
	}
	if err := e.settled(ctx, 20*time.Second); err != nil {
		return err
	}
	c.http.CloseIdleConnections()
	// Connections to workers are kept for a few seconds.
	leftG, leftF := 0, 0
	_ = until(ctx, 15*time.Second, "the engine is as before", func() bool {
		g, err := e.metric(ctx, "go_goroutines")
		if err != nil {
			return false
		}
		f, err := descriptors(e.pid())
		leftG, leftF = int(g-goroutines), f-files
		return err == nil && leftG <= 5 && leftF <= 5
	})
	rows, err := e.rows(ctx)
	if err != nil {
		return err
	}

	var delays []time.Duration
	wrong, fewer, reached, served := 0, 0, 0, 0
	moment := map[string]int{}
	for _, p := range plans {
		call := lines.calls[p.mark]
		if call == nil { // the client was gone before the request went out
			if p.answer.verdict != left {
				wrong++
				t.failf("%s: no worker got the request, but the client has: %s", p.moment, &p.answer)
			}
			continue
		}
		reached++
		r := rows[call.id]
		if p.answer.verdict == complete {
			served++
			continue
		}
		moment[p.moment]++
		switch {
		case call.gone.IsZero():
			t.failf("%s, %s: its request was never cancelled at the worker", p.moment, p.route)
		default:
			delays = append(delays, max(0, call.gone.Sub(p.at)))
		}
		if p.answer.verdict != left || r.outcome != api.OutcomeCancelled {
			wrong++
			t.failf("%s: row is %q, the client has: %s", p.moment, r.outcome, &p.answer)
		}
		if p.answer.events > 0 && (r.output < int64(p.answer.events) || r.usageSource != api.UsageCounted) {
			fewer++
			t.failf("%s: the row has %d tokens (%s), the client got %d events", p.moment, r.output, r.usageSource, p.answer.events)
		}
	}
	outcomes := map[string]int{}
	for _, r := range rows {
		outcomes[r.outcome]++
	}
	slices.Sort(delays)
	t.note("hung up while with a worker", len(delays))
	for _, m := range moments {
		t.note("of these "+m, moment[m])
	}
	t.note("answers that were whole first", served)
	t.within("upstream cancel, p50", quantile(delays, 0.5), 50*time.Millisecond)
	t.within("upstream cancel, p99", quantile(delays, 0.99), 50*time.Millisecond)
	t.within("upstream cancel, longest", quantile(delays, 1), time.Second)
	t.within("until no worker had a request, after the last", empty, time.Second)
	t.atMost("goroutines above base", int64(leftG), 5)
	t.atMost("descriptors above base", int64(leftF), 5)
	t.exactly("rows", len(rows), clients)
	t.exactly("rows client_cancelled", outcomes[api.OutcomeCancelled], clients-served)
	t.exactly("rows unlike what the client has", wrong, 0)
	t.exactly("rows with fewer tokens than the client has", fewer, 0)
	t.atLeast("hung up with a worker at work", reached-served, clients*3/4)
	return nil
}

// moments are when clients hang up.
var moments = []string{"request written", "before the first token", "mid-stream", "mid-stream", "plain"}

// hangUp is one client that does not wait for its answer.
type hangUp struct {
	mark, moment, route string
	after               time.Duration // once the request is written
	events              int           // of content; 0: after counts
	at                  time.Time     // of hanging up
	answer              answer
}

func (h *hangUp) carryOut(ctx context.Context, c *client, url string, tokens int) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var once sync.Once
	hang := func() {
		once.Do(func() {
			h.at = time.Now()
			cancel()
		})
	}
	q := ask{route: h.route, prompt: "Tell me a long story " + h.mark + " about a bridge.", tokens: tokens, stream: h.moment != "plain"}
	if h.events > 0 {
		q.seen = func(n int) {
			if n == h.events {
				hang()
			}
		}
	}
	var timer *time.Timer
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) {
		if h.events == 0 {
			timer = time.AfterFunc(h.after, hang)
		}
	}})
	h.answer = c.do(traced, url, q)
	if timer != nil {
		timer.Stop()
	}
}

// switchboard sees the requests that come to workers.
type switchboard struct {
	mu    sync.Mutex
	calls map[string]*upstreamCall // by mark
}

// upstreamCall is one request at a worker.
type upstreamCall struct {
	id   string    // as the gateway calls it
	gone time.Time // when the gateway hung up; zero: it did not
	open bool
}

var markIn = regexp.MustCompile(`#\d{4}#`)

// watch is for proxy.
func (s *switchboard) watch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		mark := string(markIn.Find(body))
		if mark == "" {
			next.ServeHTTP(w, r)
			return
		}
		call := &upstreamCall{id: r.Header.Get("X-Request-Id"), open: true}
		s.mu.Lock()
		s.calls[mark] = call
		s.mu.Unlock()
		stop := context.AfterFunc(r.Context(), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			call.gone = time.Now()
		})
		defer func() {
			stop()
			s.mu.Lock()
			defer s.mu.Unlock()
			call.open = false
		}()
		next.ServeHTTP(w, r)
	})
}

// alive is how many requests workers have.
func (s *switchboard) alive() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.calls {
		if c.open {
			n++
		}
	}
	return n
}

// quantile of sorted times; 0 of none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
