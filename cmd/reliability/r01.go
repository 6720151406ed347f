package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// r01 kills one of two workers again and again, with 50 streams and 50 plain requests under way all the time. A worker's
// death must not be a client's problem: only a stream that cannot be continued (messages, responses) and that had content
// may end early, and it must say so. A request that meets two deaths is not handed on, because it may be their cause: no
// worker is killed before the requests that met the last death have ended.
func r01(ctx context.Context, t *trial) error {
	const clients, kills, tokens, prompts = 50, 20, 60, 12
	e, err := t.engine(ctx, simulated(2, "ttft: 10ms, itl: 10ms, max_num_seqs: 128"))
	if err != nil {
		return err
	}
	if err := e.ready(ctx, 20*time.Second); err != nil {
		return err
	}
	c := t.newClient(2 * clients)
	prompt := func(i int) string { return fmt.Sprintf("Tell me story %d about a bridge over a river.", i%prompts) }

	// What an undisturbed worker says. The simulated ones say the same, as vLLM does without temperature.
	var mu sync.Mutex
	var answers []answer
	reference := map[string]answer{}
	var all sync.WaitGroup
	for _, r := range routes {
		for i := range prompts {
			all.Go(func() {
				a := c.do(ctx, e.url, ask{route: r.name, prompt: prompt(i), tokens: tokens, stream: true})
				mu.Lock()
				defer mu.Unlock()
				answers = append(answers, a)
				reference[r.name+prompt(i)] = a
			})
		}
	}
	all.Wait()
	for _, a := range answers {
		if a.verdict != complete {
			return fmt.Errorf("an undisturbed answer is wrong: %s", &a)
		}
	}

	asking, stop := context.WithCancel(ctx)
	defer stop()
	begun := make([]time.Time, 2*clients) // of what each client waits for
	for i := range 2 * clients {
		all.Go(func() {
			r := routes[0]
			if k := i / 2 % 10; k >= 7 {
				r = routes[k-6] // of ten clients seven chat
			}
			for n := i; asking.Err() == nil; n++ {
				mu.Lock()
				begun[i] = time.Now()
				mu.Unlock()
				// Begun requests go on: ctx, not asking.
				a := c.do(ctx, e.url, ask{route: r.name, prompt: prompt(n), tokens: tokens, stream: i%2 == 0})
				mu.Lock()
				answers = append(answers, a)
				mu.Unlock()
				if a.verdict == dead && pause(ctx, 10*time.Millisecond) != nil {
					return
				}
			}
		})
	}
	killErr := r01kills(ctx, t, e, kills, func(since time.Time) bool {
		mu.Lock()
		defer mu.Unlock()
		return !slices.ContainsFunc(begun, since.After)
	})
	stop()
	all.Wait()
	if killErr != nil {
		return killErr
	}
	if err := e.settled(ctx, 20*time.Second); err != nil {
		return err
	}
	rows, err := e.rows(ctx)
	if err != nil {
		return err
	}

	t.note("kills", kills)
	var plainFailed, unseenFailed, silent, wrong, lost, continued, moved, unlegged int
	for _, a := range answers {
		row := rows[a.id]
		want := reference[a.route+a.prompt]
		switch {
		case a.verdict == complete && a.stream && (a.text != want.text || a.finish != want.finish || a.input != want.input || a.output != want.output || a.roles != want.roles || len(a.ids) > 1):
			wrong++
			t.failf("%s stream %s is not the reference: %d of %d bytes, finish %s, %d+%d tokens, want %d+%d", a.route, a.id, len(a.text), len(want.text), a.finish, a.input, a.output, want.input, want.output)
		case a.verdict == complete && !a.stream && a.text != want.text:
			wrong++
			t.failf("plain %s answer %s is not the reference: %d of %d bytes", a.route, a.id, len(a.text), len(want.text))
		case a.verdict == complete:
		case !a.stream:
			plainFailed++
			t.failf("%s", &a)
		case a.events == 0:
			unseenFailed++
			t.failf("%s", &a)
		case a.verdict == told:
			lost++
			if a.route == "chat" || a.route == "completions" {
				wrong++
				t.failf("not continued: %s", &a)
			}
		default:
			silent++
			t.failf("%s", &a)
		}
		cutLegs := 0
		for _, l := range row.legs {
			if l.outcome == api.OutcomeLost && row.outcome == api.OutcomeOK {
				cutLegs++
			}
		}
		switch {
		case cutLegs > 0:
			continued++
		case len(row.legs) > 0 && row.outcome == api.OutcomeOK:
			moved++
		}
		if want := outcomeOf(a.verdict); row.outcome != want || row.usageSource == api.UsageTokenized && len(row.legs) == 0 {
			unlegged++
			t.failf("row %s is %s with %d legs before the last, but the client has %s", a.id, row.outcome, len(row.legs), a.verdict)
		}
	}
	t.exactly("plain requests failed", plainFailed, 0)
	t.exactly("streams failed before content", unseenFailed, 0)
	t.exactly("answers cut without a word or truncated", silent, 0)
	t.exactly("answers unlike the reference", wrong, 0)
	t.note("streams ended by one error event", lost)
	t.atLeast("streams continued", continued, kills)
	t.atLeast("requests moved unseen", moved, kills)
	t.recorded(rows, answers)
	t.exactly("rows unlike what the client has", unlegged, 0)
	return nil
}

// r01kills kills workers in turn, while both are ready
// and no request is under way that was begun before the last kill.
func r01kills(ctx context.Context, t *trial, e *engine, kills int, fresh func(since time.Time) bool) error {
	last := time.Now()
	for i := range kills {
		name := fmt.Sprintf("w%d", i%2)
		if err := e.ready(ctx, 30*time.Second); err != nil {
			return err
		}
		if err := until(ctx, time.Minute, "the requests that met the last death have ended", func() bool { return fresh(last) }); err != nil {
			return err
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil { // so that both have work
			return err
		}
		w, err := e.worker(ctx, name)
		if err != nil {
			return err
		}
		t.logf("kill %d: %s with %d requests", i+1, name, w.InFlight)
		last = time.Now()
		if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %s: %w", name, err)
		}
		err = until(ctx, 30*time.Second, name+" is started again", func() bool {
			now, err := e.worker(ctx, name)
			return err == nil && now.Restarts > w.Restarts && now.PID != w.PID && now.State == api.Ready
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// outcomeOf is what the ledger should call an answer.
func outcomeOf(v verdict) string {
	switch v {
	case complete:
		return api.OutcomeOK
	case told, cut:
		return api.OutcomeLost
	case left:
		return api.OutcomeCancelled
	}
	return api.OutcomeError
}
