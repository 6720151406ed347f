package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"
)

// r17 finds out what a worker can do at best, then sends ten times as much, in open loop with Poisson arrivals, for two minutes, and
// then a normal load. The gateway must keep the worker as busy as at its best with answers that begin in time, tell
// the rest at once that there is no room, and be itself again soon. In virtual time the gateway's own test does so for five
// minutes; nothing there or here changes after the first half minute.
func r17(ctx context.Context, t *trial) error {
	const slots, target, tokens = 8, 2 * time.Second, 24
	const overload, normal = 2 * time.Minute, 40 * time.Second
	if err := t.virtual(ctx, "./backend/gateway", "TestOverloadKeepsItsGoodput"); err != nil {
		return err
	}
	e, err := t.engine(ctx, simulated(1, fmt.Sprintf("ttft: 60ms, itl: 12ms, max_num_seqs: %d", slots), fmt.Sprintf("gateway: {ttft_target: %s}", target)))
	if err != nil {
		return err
	}
	if err := e.ready(ctx, 20*time.Second); err != nil {
		return err
	}
	s := &swarm{c: t.newClient(256), url: e.url, tokens: tokens, dice: rand.New(rand.NewPCG(17, 17))} //nolint:gosec // the same arrivals each time
	good := func(a *answer) bool { return a.verdict == complete && a.ttft() > 0 && a.ttft() <= target }

	// The best: every place taken, and nobody in line.
	began := time.Now()
	all := s.closed(ctx, slots, 12*time.Second)
	best := rate(all, good, began, time.Since(began))
	t.note("best rate of good answers per second", round2(best))
	if best < 5 {
		return fmt.Errorf("the worker gives only %.1f good answers a second by itself", best)
	}

	began = time.Now()
	all = s.open(ctx, 10*best, overload)
	ended := time.Now()
	var ttfts, refusals []time.Duration
	served, failed := 0, 0
	for i := range all {
		switch a := &all[i]; {
		case a.verdict == complete:
			served++
			ttfts = append(ttfts, a.ttft())
		case a.verdict == refused && a.status == http.StatusTooManyRequests:
			refusals = append(refusals, a.ended.Sub(a.sent))
		default:
			failed++
			t.failf("under overload: %s", a)
		}
	}
	// Those that end behind the overload are not of its time.
	under := rate(all, good, began, overload)
	t.note("sent per second", round2(float64(len(all))/overload.Seconds()))
	t.note("served", served)
	t.note("refused", len(refusals))
	t.exactly("answers other than whole ones and 429", failed, 0)
	t.note("good answers per second under overload", round2(under))
	t.atLeast("goodput in % of the best", int(100*under/best), 80)
	t.within("TTFT p95 of those admitted", percentile(ttfts, 0.95), target)
	t.within("429 p99", percentile(refusals, 0.99), 20*time.Millisecond)

	after := s.open(ctx, best/2, normal)
	recovered := time.Duration(0)
	for i := range after {
		if a := &after[i]; !good(a) {
			recovered = max(recovered, a.sent.Sub(ended))
		}
	}
	t.note("requests after the overload", len(after))
	t.within("recovered after", recovered, 30*time.Second)
	return ctx.Err()
}

func round2(v float64) float64 { return float64(int(100*v+0.5)) / 100 }

// rate is how many answers per second that are good ended within a time.
func rate(all []answer, good func(*answer) bool, from time.Time, span time.Duration) float64 {
	n := 0
	for i := range all {
		if good(&all[i]) && !all[i].ended.Before(from) && all[i].ended.Sub(from) <= span {
			n++
		}
	}
	return float64(n) / span.Seconds()
}

// swarm is many clients of one kind.
type swarm struct {
	c      *client
	url    string
	tokens int
	dice   *rand.Rand
	n      int
}

func (s *swarm) ask(ctx context.Context, n int) answer {
	return s.c.do(ctx, s.url, ask{route: "chat", prompt: fmt.Sprintf("Question %d: what is a bridge?", n), tokens: s.tokens, stream: true})
}

// closed has so many clients ask one question after the other.
func (s *swarm) closed(ctx context.Context, clients int, span time.Duration) (all []answer) {
	var mu sync.Mutex
	var wait sync.WaitGroup
	began := time.Now()
	for range clients {
		wait.Go(func() {
			for time.Since(began) < span && ctx.Err() == nil {
				mu.Lock()
				s.n++
				n := s.n
				mu.Unlock()
				a := s.ask(ctx, n)
				mu.Lock()
				all = append(all, a)
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	return all
}

// open sends at a rate per second, whatever becomes of it.
func (s *swarm) open(ctx context.Context, rate float64, span time.Duration) (all []answer) {
	var mu sync.Mutex
	var wait sync.WaitGroup
	began := time.Now()
	for due := time.Duration(0); ; {
		due += time.Duration(s.dice.ExpFloat64() / rate * float64(time.Second))
		if due > span || pause(ctx, due-time.Since(began)) != nil {
			break
		}
		s.n++
		n := s.n
		wait.Go(func() {
			a := s.ask(ctx, n)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, a)
		})
	}
	wait.Wait()
	return all
}
