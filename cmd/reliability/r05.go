package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// r05 lets workers hang. Where a limit ends the wait, it does so when it should; where nothing but /health answers, the worker
// is found out. That a saturated worker is left alone is shown in virtual time: half an hour of it.
func r05(ctx context.Context, t *trial) error {
	var all sync.WaitGroup
	errs := make([]error, 4)
	for i, part := range []func(context.Context, *trial) error{r05ttft, r05idle, r05frozen, r05virtual} {
		all.Go(func() { errs[i] = part(ctx, t) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// r05limit is ttft_timeout and idle_timeout of these trials.
const r05limit = 2 * time.Second

// r05pair starts an engine with a worker a0 that has a fault and an honest a1.
func r05pair(ctx context.Context, t *trial, fault string) (*engine, error) {
	bad, err := t.server(ctx, "--ttft", "5ms", "--itl", "5ms", "--fault", fault)
	if err != nil {
		return nil, err
	}
	good, err := t.server(ctx, "--ttft", "5ms", "--itl", "5ms")
	if err != nil {
		return nil, err
	}
	e, err := t.engine(ctx, attached([]string{bad.url, good.url}, fmt.Sprintf("gateway: {ttft_timeout: %s, idle_timeout: %[1]s}", r05limit)))
	if err != nil {
		return nil, err
	}
	return e, e.ready(ctx, 20*time.Second)
}

// r05ttft: half of the requests to a0 never get a token. They fail over, unseen but for the time.
func r05ttft(ctx context.Context, t *trial) error {
	e, err := r05pair(ctx, t, "stall-before-first:0.5")
	if err != nil {
		return err
	}
	const hits = 12
	c := t.newClient(4)
	var mu sync.Mutex
	var answers []answer
	var waits []time.Duration
	var all sync.WaitGroup
	for i := range 3 { // as many may be tried again at once
		all.Go(func() {
			for n := 0; n < 200 && ctx.Err() == nil; n++ {
				a := c.do(ctx, e.url, ask{route: routes[(n+i)%len(routes)].name, prompt: fmt.Sprintf("Tell me story %d of %d.", n, i), tokens: 20, stream: true})
				mu.Lock()
				answers = append(answers, a)
				if a.ttft() > r05limit/2 {
					waits = append(waits, a.ttft())
				}
				enough := len(waits) >= hits
				mu.Unlock()
				if enough {
					return
				}
			}
		})
	}
	all.Wait()
	if err := e.settled(ctx, 20*time.Second); err != nil {
		return err
	}
	rows, err := e.rows(ctx)
	if err != nil {
		return err
	}
	failed, moved := 0, 0
	for _, a := range answers {
		if a.verdict != complete {
			failed++
			t.failf("%s", &a)
		}
		if len(rows[a.id].legs) > 0 {
			moved++
		}
	}
	slices.Sort(waits)
	t.atLeast("no first token: answers that met it", len(waits), hits)
	t.exactly("no first token: rows with a lost try", moved, len(waits))
	t.exactly("no first token: answers failed", failed, 0)
	t.near("no first token: failover, shortest", quantile(waits, 0), r05limit)
	t.near("no first token: failover, longest", quantile(waits, 1), r05limit)
	return nil
}

// r05idle: streams at a0 go silent after ten tokens. Text goes on at a1, the rest is told.
func r05idle(ctx context.Context, t *trial) error {
	e, err := r05pair(ctx, t, "stall-after:10:0.5")
	if err != nil {
		return err
	}
	const hits = 12
	c := t.newClient(4)
	var mu sync.Mutex
	var answers []answer
	var resumed, ended []time.Duration
	var all sync.WaitGroup
	for i := range 3 {
		all.Go(func() {
			for n := 0; n < 400 && ctx.Err() == nil; n++ {
				a := c.do(ctx, e.url, ask{route: routes[(n+i)%len(routes)].name, prompt: fmt.Sprintf("Tell me story %d of %d.", n, i), tokens: 30, stream: true})
				mu.Lock()
				answers = append(answers, a)
				switch {
				case a.verdict == told:
					ended = append(ended, a.ended.Sub(a.last))
				case a.gap > r05limit/2:
					resumed = append(resumed, a.gap)
				}
				enough := len(resumed) >= hits && len(ended) >= hits
				mu.Unlock()
				if enough {
					return
				}
			}
		})
	}
	all.Wait()
	if err := e.settled(ctx, 20*time.Second); err != nil {
		return err
	}
	rows, err := e.rows(ctx)
	if err != nil {
		return err
	}
	bad, wrong := 0, 0
	for _, a := range answers {
		mayEnd := a.route == "messages" || a.route == "responses"
		if a.verdict != complete && (a.verdict != told || !mayEnd) {
			bad++
			t.failf("%s", &a)
		}
		if r := rows[a.id]; r.outcome != outcomeOf(a.verdict) || a.verdict == complete && a.gap > r05limit/2 && len(r.legs) == 0 {
			wrong++
			t.failf("row %s is %s with %d tries before the last: %s", a.id, r.outcome, len(r.legs), &a)
		}
	}
	slices.Sort(resumed)
	slices.Sort(ended)
	t.atLeast("silent mid-stream: answers continued", len(resumed), hits)
	t.near("silent mid-stream: continued after, shortest", quantile(resumed, 0), r05limit)
	t.near("silent mid-stream: continued after, longest", quantile(resumed, 1), r05limit)
	t.atLeast("silent mid-stream: answers told", len(ended), hits)
	t.near("silent mid-stream: told after, shortest", quantile(ended, 0), r05limit)
	t.near("silent mid-stream: told after, longest", quantile(ended, 1), r05limit)
	t.exactly("silent mid-stream: answers neither whole nor told", bad, 0)
	t.exactly("silent mid-stream: rows unlike what the client has", wrong, 0)
	return nil
}

// stillWindow is how long a worker may have requests and show no sign of life before it is asked for a token.
const stillWindow = 45 * time.Second

// r05frozen stops the engine process of a worker: /health goes on answering. The limits are too long to help.
func r05frozen(ctx context.Context, t *trial) error {
	e, err := t.engine(ctx, simulated(2, "ttft: 5ms, itl: 50ms, max_num_seqs: 64", "gateway: {ttft_timeout: 10m, idle_timeout: 10m}"))
	if err != nil {
		return err
	}
	if err := e.ready(ctx, 20*time.Second); err != nil {
		return err
	}
	const streams = 20
	c := t.newClient(streams)
	answers := make([]answer, streams)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			answers[i] = c.do(ctx, e.url, ask{route: "chat", prompt: fmt.Sprintf("Tell me story %d.", i/2), tokens: 150, stream: true})
		})
	}
	w, err := e.worker(ctx, "w0")
	if err == nil {
		err = until(ctx, 10*time.Second, "w0 has work", func() bool {
			w, err = e.worker(ctx, "w0")
			return err == nil && w.InFlight >= streams/4
		})
	}
	if err == nil {
		err = pause(ctx, 500*time.Millisecond) // so that its streams have content
	}
	if err != nil {
		return err
	}
	engines := children(w.PID)
	if len(engines) != 1 {
		return fmt.Errorf("worker w0 with pid %d has processes %v, want its engine", w.PID, engines)
	}
	frozen := time.Now()
	if err := syscall.Kill(engines[0], syscall.SIGSTOP); err != nil {
		return err
	}
	err = until(ctx, 3*stillWindow, "w0 is shown as stalled", func() bool {
		w, err := e.worker(ctx, "w0")
		return err == nil && (w.Stalled || w.State == api.Failed)
	})
	if err != nil {
		return err
	}
	t.within("only /health answers: shown as stalled", time.Since(frozen), 2*stillWindow)
	all.Wait()
	t.note("only /health answers: its streams went on after", time.Since(frozen))
	texts := map[string]string{}
	frozenOnes, wrong := 0, 0
	for _, a := range answers {
		switch {
		case a.verdict != complete:
			wrong++
			t.failf("%s", &a)
		case texts[a.prompt] == "":
			texts[a.prompt] = a.text
		case texts[a.prompt] != a.text:
			wrong++
			t.failf("two answers to one prompt: %q and %q", texts[a.prompt], a.text)
		}
		if a.gap > 10*time.Second {
			frozenOnes++
		}
	}
	t.atLeast("only /health answers: streams that met it", frozenOnes, streams/4)
	t.exactly("only /health answers: streams not whole", wrong, 0)
	return until(ctx, 4*time.Minute, "w0 is restarted", func() bool {
		now, err := e.worker(ctx, "w0")
		if err != nil || now.Restarts == 0 || now.State != api.Ready {
			return false
		}
		t.note("only /health answers: restarted after", time.Since(frozen))
		return true
	})
}

func r05virtual(ctx context.Context, t *trial) error {
	const pkg = "./backend/worker"
	return errors.Join(t.virtual(ctx, pkg, "TestSaturatedWorkerIsNeverRestarted"), t.virtual(ctx, pkg, "TestFrozenEngineIsRestarted"))
}
