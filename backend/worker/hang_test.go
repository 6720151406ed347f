package worker

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/sim"
	"github.com/vllmdeck/vllmdeck/config"
	"github.com/vllmdeck/vllmdeck/metrics"
)

// hungList collects what Options.Hung is told.
type hungList struct {
	mu    sync.Mutex
	names []string
}

func (l *hungList) add(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.names = append(l.names, name)
}

func (l *hungList) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.names)
}

// runHung is run with a host whose Hung is told to a list.
func runHung(t *testing.T, c *config.Config, f func(t *testing.T, h *host, p *Pool, told *hungList)) {
	t.Helper()
	told := &hungList{}
	run(t, c, func(h *host) { h.hung = told.add }, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		f(t, h, p, told)
	})
}

func TestHungWorkerIsTakenOutAndRestarted(t *testing.T) {
	runHung(t, conf(vllmWorker("w0")), func(t *testing.T, h *host, p *Pool, told *hungList) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		q := h.last()
		q.set(func(p *proc) { p.hang = true })
		release, ok := p.Acquire("w0")
		if !ok {
			t.Fatal("the worker is not to be had")
		}
		began := time.Now()
		until(t, 2*time.Minute, "stalled", func() bool { s, _ := p.Status("w0"); return s.Stalled })
		if took := time.Since(began); took < stillAfter+stillLimit || took > stillAfter+stillLimit+5*time.Second {
			t.Errorf("taken out after %v, want %v", took, stillAfter+stillLimit)
		}
		if got := told.all(); !slices.Equal(got, []string{"w0"}) {
			t.Errorf("Hung was told %q, want w0 once", got)
		}
		release() // as the gateway does with requests that move
		if h.launches() != 1 {
			t.Fatal("restarted at once: it may yet wake up")
		}
		var seen api.Worker
		until(t, 3*time.Minute, "failed", func() bool {
			seen, _ = p.Status("w0")
			return seen.State == api.Failed
		})
		if took := time.Since(began); took < stillAfter+stillLimit+time.Minute || took > 4*time.Minute {
			t.Errorf("ended after %v, want a minute or two after it was taken out", took)
		}
		if !strings.HasPrefix(seen.Error, "hung: /health answers but no token in 1m") && !strings.HasPrefix(seen.Error, "hung: /health answers but no token in 2m") || seen.Remedy == "" {
			t.Errorf("error = %q, remedy %q; want the time without a token", seen.Error, seen.Remedy)
		}
		until(t, time.Minute, "ready again", is(p, "w0", api.Ready))
		s := mustStatus(t, p, "w0")
		if h.launches() != 2 || s.Restarts != 1 || s.Stalled {
			t.Errorf("%d launches, %d restarts, stalled %v; want 2, 1, false", h.launches(), s.Restarts, s.Stalled)
		}
		if q.terms.Load() != 1 {
			t.Errorf("SIGTERM was sent %d times, want once", q.terms.Load())
		}
	})
}

func TestHungWorkerThatNobodyAnswersForAnyMoreIsRestarted(t *testing.T) {
	runHung(t, conf(vllmWorker("w0")), func(t *testing.T, h *host, p *Pool, _ *hungList) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		h.last().set(func(p *proc) { p.up = false }) // alive, but its port is closed
		var seen api.Worker
		until(t, 3*time.Minute, "failed", func() bool {
			seen, _ = p.Status("w0")
			return seen.State == api.Failed
		})
		if !strings.Contains(seen.Error, "/health does not answer (connection refused)") {
			t.Errorf("error = %q, want what /health says", seen.Error)
		}
		until(t, time.Minute, "ready again", is(p, "w0", api.Ready))
	})
}

func TestWhatHungWorkerIsNotRestarted(t *testing.T) {
	never := vllmWorker("w0")
	never.Restart.Policy = config.Never
	for name, c := range map[string]config.Worker{"restart: never": never, "attached": attachWorker("w0", "http://10.0.0.1:8000")} {
		t.Run(name, func(t *testing.T) {
			told := &hungList{}
			run(t, conf(c), func(h *host) {
				h.hung = told.add
				h.attached["http://10.0.0.1:8000"] = &proc{h: h, done: make(chan struct{}), status: 200, up: true, models: []string{"m"}}
			}, func(t *testing.T, h *host, p *Pool) {
				t.Helper()
				until(t, 10*time.Second, "ready", is(p, "w0", api.Ready))
				q := h.attached["http://10.0.0.1:8000"]
				if c.Attach == "" {
					q = h.last()
				}
				q.set(func(p *proc) { p.hang = true })
				if _, ok := p.Acquire("w0"); !ok {
					t.Fatal("the worker is not to be had")
				}
				time.Sleep(20 * time.Minute)
				if s := mustStatus(t, p, "w0"); s.State != api.Ready || !s.Stalled || s.Restarts != 0 {
					t.Errorf("%s, stalled %v, %d restarts; want a stalled one that is left alone", s.State, s.Stalled, s.Restarts)
				}
				if q.kills.Load()+q.terms.Load() != 0 {
					t.Error("it was sent a signal")
				}
				if got := told.all(); len(got) != 1 {
					t.Errorf("Hung was told %q, want once", got)
				}
			})
		})
	}
	t.Run("one that wakes up", func(t *testing.T) {
		runHung(t, conf(vllmWorker("w0")), func(t *testing.T, h *host, p *Pool, _ *hungList) {
			t.Helper()
			until(t, time.Second, "ready", is(p, "w0", api.Ready))
			for range 5 { // each time before the last canary
				h.last().set(func(p *proc) { p.hang = true })
				release, _ := p.Acquire("w0")
				until(t, 2*time.Minute, "stalled", func() bool { s, _ := p.Status("w0"); return s.Stalled })
				release()
				time.Sleep(40 * time.Second)
				h.last().set(func(p *proc) { p.hang = false })
				until(t, 40*time.Second, "serving", func() bool { s, _ := p.Status("w0"); return !s.Stalled })
			}
			if h.launches() != 1 {
				t.Errorf("launches = %d, want 1", h.launches())
			}
		})
	})
	t.Run("one whose metrics stand still while answers come", func(t *testing.T) {
		runHung(t, conf(vllmWorker("w0")), func(t *testing.T, h *host, p *Pool, told *hungList) {
			t.Helper()
			until(t, time.Second, "ready", is(p, "w0", api.Ready))
			q := h.last()
			q.set(func(p *proc) { p.hang = true }) // as a queue that the canary does not get through
			if _, ok := p.Acquire("w0"); !ok {
				t.Fatal("the worker is not to be had")
			}
			for range 120 {
				p.Beat("w0").Add(1)
				time.Sleep(15 * time.Second)
			}
			if s := mustStatus(t, p, "w0"); s.Stalled || h.launches() != 1 || len(told.all()) != 0 {
				t.Errorf("stalled %v after %d launches, Hung told %q; want a worker left alone", s.Stalled, h.launches(), told.all())
			}
		})
	})
}

// simScraper reads a simulated server's metrics as the engine reads vLLM's.
type simScraper struct {
	from  metrics.Scraper
	track metrics.Tracker
}

func (s *simScraper) Scrape(ctx context.Context) (Reading, error) {
	sample, err := s.from.Scrape(ctx)
	if err != nil {
		return Reading{}, err
	}
	s.track.Add(time.Now(), sample)
	r := Reading{Running: sample.Running, Waiting: sample.Waiting, KV: sample.KV, Steps: s.track.Steps()}
	if sample.Generation != nil {
		r.Steps += *sample.Generation
	}
	return r, nil
}

// onSim puts a simulated server in the place of the fake one that was attached at url.
func onSim(t *testing.T, o sim.Options, f func(t *testing.T, srv *sim.Server, c *http.Client, p *Pool, told *hungList)) {
	t.Helper()
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		o.Model = "m"
		srv, ln := sim.New(o), sim.Listen()
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- srv.Serve(ctx, ln) }()
		h, told := newHost(t), &hungList{}
		client := ln.Client()
		opts := h.options(state)
		opts.HTTP, opts.Hung = client, told.add
		opts.Scraper = func(url, key string) Scraper {
			return &simScraper{from: metrics.Scraper{URL: url, Key: key, Client: client}}
		}
		p := NewPool(opts)
		must(t, p.Apply(conf(vllmWorker("w0"))))
		poolCtx, end := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(poolCtx) }()
		until(t, time.Minute, "ready", is(p, "w0", api.Ready))
		f(t, srv, client, p, told)
		end()
		must(t, <-ended)
		stop()
		must(t, <-served)
		client.CloseIdleConnections()
		synctest.Wait()
	})
}

// TestSaturatedWorkerIsNeverRestarted keeps a server at ten times its load for half an hour: requests wait for
// minutes without a byte, and still the worker is left alone.
func TestSaturatedWorkerIsNeverRestarted(t *testing.T) {
	onSim(t, sim.Options{MaxSeqs: 4, TTFT: 2 * time.Second, ITL: 250 * time.Millisecond, Seed: 3}, func(t *testing.T, _ *sim.Server, c *http.Client, p *Pool, told *hungList) {
		t.Helper()
		ctx, stop := context.WithTimeout(t.Context(), 30*time.Minute)
		defer stop()
		var wg sync.WaitGroup
		var mu sync.Mutex
		answers, longest := 0, time.Duration(0)
		for i := range 40 {
			wg.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					release, ok := p.Acquire("w0")
					if !ok {
						t.Errorf("%v: the worker was taken out", time.Now().Format(time.TimeOnly))
						return
					}
					began := time.Now()
					body := fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":"Story %d of %d, please"}],"max_tokens":80,"temperature":0}`, n, i)
					req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://sim/v1/chat/completions", strings.NewReader(body))
					if err != nil {
						t.Error(err)
						return
					}
					req.Header.Set("Content-Type", "application/json")
					res, err := c.Do(req)
					if err == nil {
						_, err = io.Copy(io.Discard, res.Body)
						res.Body.Close()
					}
					release()
					if err == nil {
						mu.Lock()
						answers++
						longest = max(longest, time.Since(began))
						mu.Unlock()
					}
				}
			})
		}
		for ctx.Err() == nil {
			time.Sleep(5 * time.Second)
			if s, _ := p.Status("w0"); s.State != api.Ready || s.Stalled {
				t.Fatalf("the worker is %s, stalled %v after %v", s.State, s.Stalled, time.Since(s.Since))
			}
		}
		wg.Wait()
		if s := mustStatus(t, p, "w0"); s.Restarts != 0 || len(told.all()) != 0 {
			t.Errorf("%d restarts, Hung told %q; want none", s.Restarts, told.all())
		}
		if answers < 100 || longest < 2*time.Minute {
			t.Errorf("%d answers, the longest after %v: that was no saturation", answers, longest)
		}
		t.Attr("saturated:_minutes_watched", "30")
		t.Attr("saturated:_answers", strconv.Itoa(answers))
		t.Attr("saturated:_longest_answer", longest.Round(time.Second).String())
		t.Attr("saturated:_restarts", "0")
	})
}

// TestFrozenEngineIsRestarted is the hang as vLLM shows it: /health 200, gauges and steps frozen.
func TestFrozenEngineIsRestarted(t *testing.T) {
	onSim(t, sim.Options{MaxSeqs: 4, Seed: 3}, func(t *testing.T, srv *sim.Server, c *http.Client, p *Pool, told *hungList) {
		t.Helper()
		release, _ := p.Acquire("w0")
		srv.Freeze(true)
		ctx, leave := context.WithCancel(t.Context())
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://sim/v1/completions", strings.NewReader(`{"model":"m","prompt":"x"}`))
			req.Header.Set("Content-Type", "application/json")
			if res, err := c.Do(req); err == nil {
				res.Body.Close()
			}
		}()
		began := time.Now()
		until(t, 2*time.Minute, "taken out", func() bool { return len(told.all()) == 1 })
		t.Attr("frozen:_taken_out_after", time.Since(began).Round(time.Second).String())
		leave()
		<-gone
		release()
		until(t, 3*time.Minute, "restarted", func() bool { s, _ := p.Status("w0"); return s.Restarts == 1 })
		t.Attr("frozen:_restarted_after", time.Since(began).Round(time.Second).String())
		srv.Freeze(false)
		until(t, 3*time.Minute, "ready again", is(p, "w0", api.Ready))
	})
}
