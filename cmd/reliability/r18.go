package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// r18 restarts the workers of a model one after the other, twice, and then drains and resumes each, under load with streams
// of some seconds: no answer may fail, and none may lose its worker. Then it lets streams meet a drain limit that is
// shorter than they are: they are cut, or go on elsewhere, but not before.
func r18(ctx context.Context, t *trial) error {
	if err := r18roll(ctx, t); err != nil {
		return err
	}
	return r18limit(ctx, t)
}

func r18roll(ctx context.Context, t *trial) error {
	const workers, rolls = 3, 2
	e, err := t.engine(ctx, rolling(workers, "30s", "ttft: 5ms, itl: 5ms, max_num_seqs: 64"))
	if err != nil {
		return err
	}
	if err := e.ready(ctx, 20*time.Second); err != nil {
		return err
	}
	c := t.newClient(64)
	short, long := t.load(ctx, c, e.url, 16, 20), t.load(ctx, c, e.url, 8, 500)
	if err := pause(ctx, time.Second); err != nil {
		return err
	}
	pids := func() (map[string]int, error) {
		s, err := e.snapshot(ctx)
		if err != nil {
			return nil, err
		}
		out := map[string]int{}
		for _, w := range s.Workers {
			out[w.Name] = w.PID
		}
		return out, nil
	}
	kept := 0
	var took []time.Duration
	for range rolls {
		before, err := pids()
		if err != nil {
			return err
		}
		began := time.Now()
		if out, err := e.run(ctx, "worker", "roll", toy, "--yes"); err != nil {
			t.failf("roll: %v: %s", err, out)
		}
		took = append(took, time.Since(began))
		t.logf("rolled in %s", took[len(took)-1].Round(time.Millisecond))
		s, err := e.snapshot(ctx)
		if err != nil {
			return err
		}
		if len(s.Rolls) != 1 || s.Rolls[0].State != "done" || s.Rolls[0].Done != workers {
			t.failf("the rolling restart is %+v, want it done with %d workers", s.Rolls, workers)
		}
		for _, w := range s.Workers {
			if w.PID == before[w.Name] || w.State != api.Ready || w.Restarts > 0 {
				kept++
				t.failf("after the roll %s is %s with pid %d, which was %d, and %d unasked restarts", w.Name, w.State, w.PID, before[w.Name], w.Restarts)
			}
		}
	}
	before, err := pids()
	if err != nil {
		return err
	}
	for i := range workers {
		if err := r18drain(ctx, e, fmt.Sprintf("w%d", i)); err != nil {
			return err
		}
	}
	after, err := pids()
	if err != nil {
		return err
	}
	for name, pid := range before {
		if after[name] != pid {
			kept++
			t.failf("draining %s has changed its process", name)
		}
	}
	answers := append(short.end(), long.end()...)
	if err := e.settled(ctx, 20*time.Second); err != nil {
		return err
	}
	rows, err := e.rows(ctx)
	if err != nil {
		return err
	}
	lost := 0
	for _, r := range rows {
		for _, l := range r.legs {
			if l.outcome == api.OutcomeLost {
				lost++
				t.failf("row %s lost its worker %s: %s", r.id, l.upstream, l.error)
			}
		}
	}
	t.note("rolling restarts", rolls)
	t.note("longest rolling restart", percentile(took, 1))
	t.note("answers under rolling restarts and drains", len(answers))
	t.exactly("answers that failed", t.failures("rolling restart", answers), 0)
	t.exactly("answers that lost their worker", lost, 0)
	t.exactly("workers not as they should be", kept, 0)
	t.recorded(rows, answers)
	return nil
}

// rolling is simulated with a limit for draining.
func rolling(n int, limit, sim string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "models: [{name: %s}]\ncost: {gpu_hour: 1.00}\nworkers:\n", toy)
	for i := range n {
		fmt.Fprintf(&b, "  - {name: w%d, model: %s, gpus: 1, stop_timeout: %s, sim: {seed: 1, start: 20ms, %s}}\n", i, toy, limit, sim)
	}
	return b.String()
}

// r18drain drains a worker, waits until it is empty, and has it serve again.
func r18drain(ctx context.Context, e *engine, name string) error {
	if err := e.control.Do(ctx, api.Action{Verb: api.WorkerDrain, Target: name}); err != nil {
		return err
	}
	err := until(ctx, 30*time.Second, name+" is drained", func() bool {
		w, err := e.worker(ctx, name)
		return err == nil && w.State == api.Draining && w.InFlight == 0
	})
	if err != nil {
		return err
	}
	if err := e.control.Do(ctx, api.Action{Verb: api.WorkerResume, Target: name}); err != nil {
		return err
	}
	return until(ctx, 30*time.Second, name+" serves again", func() bool {
		w, err := e.worker(ctx, name)
		return err == nil && w.State == api.Ready && w.InFlight > 0
	})
}

// r18limit restarts a worker with streams that are longer than it may drain.
func r18limit(ctx context.Context, t *trial) error {
	const limit, each, tokens = 3 * time.Second, 6, 200
	e, err := t.engine(ctx, rolling(2, limit.String(), "ttft: 5ms, itl: 60ms, max_num_seqs: 64"))
	if err != nil {
		return err
	}
	if err := e.ready(ctx, 20*time.Second); err != nil {
		return err
	}
	c := t.newClient(64)
	var mu sync.Mutex
	var answers []answer
	flowing := 0
	var all sync.WaitGroup
	for _, r := range routes {
		for i := range each {
			all.Go(func() {
				a := c.do(ctx, e.url, ask{route: r.name, prompt: fmt.Sprintf("%s %d: tell me a long story.", r.name, i), tokens: tokens, stream: true, seen: func(n int) {
					if n == 5 {
						mu.Lock()
						flowing++
						mu.Unlock()
					}
				}})
				mu.Lock()
				defer mu.Unlock()
				answers = append(answers, a)
			})
		}
	}
	err = until(ctx, 30*time.Second, "all streams flow", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return flowing == each*len(routes)
	})
	if err != nil {
		return err
	}
	// The worker with more of the streams that cannot go on elsewhere.
	s, err := e.snapshot(ctx)
	if err != nil {
		return err
	}
	stuck := map[string]int{"w0": 0, "w1": 0}
	for _, q := range s.Requests {
		if q.Outcome == api.OutcomeOpen && (q.Route == "messages" || q.Route == "responses") {
			stuck[q.Worker]++
		}
	}
	target := "w0"
	if stuck["w1"] > stuck["w0"] {
		target = "w1"
	}
	ordered := time.Now()
	if err := e.control.Do(ctx, api.Action{Verb: api.WorkerRestart, Target: target}); err != nil {
		return err
	}
	all.Wait()
	if err := e.settled(ctx, 20*time.Second); err != nil {
		return err
	}
	rows, err := e.rows(ctx)
	if err != nil {
		return err
	}
	var ends []time.Duration
	continued, other, bad := 0, 0, 0
	for i := range answers {
		a := &answers[i]
		row := rows[a.id]
		switch {
		case a.verdict == told && (a.route == "messages" || a.route == "responses"):
			ends = append(ends, a.ended.Sub(ordered))
		case a.verdict == complete && len(row.legs) > 0:
			continued++
		case a.verdict == complete:
			other++
		default:
			bad++
			t.failf("beyond the drain limit: %s", a)
		}
	}
	t.note("streams that met the drain limit", len(ends)+continued)
	t.atLeast("streams continued elsewhere", continued, 1)
	t.atLeast("streams cut with a word", len(ends), 1)
	t.note("streams of the other worker", other)
	t.exactly("streams cut in another way", bad, 0)
	t.put("first stream cut after", percentile(ends, 0), ">= "+limit.String())
	if first := percentile(ends, 0); first < limit {
		t.failf("a stream was cut %s after the order, before its drain limit of %s", first, limit)
	}
	return nil
}
