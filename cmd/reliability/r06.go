package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// r06 breaks answers in every way, on every route, before and after content, with a worker to turn to and without. What the
// client has, what the ledger says and what the prompt tester says must be the truth, and the same.
func r06(ctx context.Context, t *trial) error {
	const times, tokens = 3, 30
	seed := uint64(time.Now().UnixNano())
	dice := rand.New(rand.NewPCG(seed, 6)) //nolint:gosec // which event an answer is cut at is no secret
	t.note("seed", seed)
	m := &matrix{t: t, client: t.newClient(8), tokens: tokens}
	for workers := 1; workers <= 2; workers++ {
		if err := m.setUp(ctx, workers); err != nil {
			return err
		}
		for _, r := range routes {
			for range times {
				for _, how := range ways {
					m.cell(ctx, r, true, how, 0)
					m.cell(ctx, r, true, how, 1+dice.IntN(m.events(r)-1))
				}
				for _, how := range plainWays {
					m.cell(ctx, r, false, how, 0)
				}
			}
		}
		t.logf("%d workers: %d answers broken", workers, m.cells)
		for _, how := range ways {
			for _, after := range []int{0, 5} {
				if err := m.tester(ctx, how, after); err != nil {
					return err
				}
			}
		}
		if err := m.compare(ctx); err != nil {
			return err
		}
	}
	t.note("answers broken", m.cells)
	t.exactly("clean ends of incomplete answers", m.clean, 0)
	t.exactly("answers classified wrongly by the gateway", m.wrong, 0)
	t.exactly("rows classified wrongly", m.rows, 0)
	t.note("answers of the prompt tester broken", m.tests)
	t.exactly("answers classified wrongly by the prompt tester", m.tested, 0)
	return nil
}

// matrix is the state of r06.
type matrix struct {
	t       *trial
	client  *client
	tokens  int
	workers int
	e       *engine
	b       *breaker
	whole   map[string]answer // by route: the undisturbed stream
	want    map[string]string // by request: the outcome of its row
	legs    map[string]int    // by request: tries before the last

	cells, clean, wrong, rows, tests, tested int
}

const r06prompt = "Tell me a story about a bridge over a river."

// setUp starts an engine with workers behind proxies.
func (m *matrix) setUp(ctx context.Context, workers int) error {
	m.workers, m.b = workers, &breaker{}
	m.want, m.legs, m.whole = map[string]string{}, map[string]int{}, map[string]answer{}
	var urls []string
	for range workers {
		s, err := m.t.server(ctx, "--ttft", "2ms", "--itl", "1ms", "--seed", "1")
		if err != nil {
			return err
		}
		p, err := m.t.proxy(ctx, s.url, m.b, nil)
		if err != nil {
			return err
		}
		urls = append(urls, p)
	}
	var err error
	if m.e, err = m.t.engine(ctx, attached(urls, "gateway: {queue_wait: 100ms}")); err != nil {
		return err
	}
	if err := m.e.ready(ctx, 20*time.Second); err != nil {
		return err
	}
	for _, r := range routes {
		a := m.ask(ctx, r, true)
		if a.verdict != complete || a.events < 5 {
			return fmt.Errorf("an undisturbed answer is wrong: %s", &a)
		}
		m.whole[r.name] = a
		m.want[a.id], m.legs[a.id] = api.OutcomeOK, 0
	}
	return nil
}

// events is how many events with content the undisturbed stream of a route has, or a few less.
func (m *matrix) events(r route) int { return m.whole[r.name].events - 2 }

func (m *matrix) ask(ctx context.Context, r route, stream bool) answer {
	return m.client.do(ctx, m.e.url, ask{route: r.name, prompt: r06prompt, tokens: m.tokens, stream: stream})
}

// cell breaks one answer, and compares what the client has with what it should have.
func (m *matrix) cell(ctx context.Context, r route, stream bool, how string, after int) {
	// An undisturbed answer first: failures in a row would keep requests away from the worker.
	if a := m.ask(ctx, r, stream); true {
		m.judge(r, &a, complete, "undisturbed", 0, 0)
	}
	before := m.b.broke()
	m.b.set(1, how, after)
	a := m.ask(ctx, r, stream)
	m.b.set(0, "", 0)
	if m.b.broke() != before+1 {
		m.wrong++
		m.t.failf("%d workers, %s, %s after %d: not broken: %s", m.workers, r.name, how, after, &a)
	}
	m.cells++
	want := complete // by the other worker
	switch continues := r.name == "chat" || r.name == "completions"; {
	// With everything but its closing mark, the client has content.
	case stream && (after > 0 || how == "no [DONE]") && (m.workers == 1 || !continues):
		want = told
	case m.workers == 1:
		want = refused
	}
	m.judge(r, &a, want, how, after, m.workers-1)
}

func (m *matrix) judge(r route, a *answer, want verdict, how string, after, legs int) {
	where := fmt.Sprintf("%d workers, %s, %s after %d", m.workers, r.name, how, after)
	switch {
	case a.verdict == truncated || a.verdict == denied:
		m.clean++
		m.t.failf("%s: %s", where, a)
	case a.verdict != want:
		m.wrong++
		m.t.failf("%s: want %s: %s", where, want, a)
	case want == complete && (a.text != m.whole[r.name].text || a.finish != m.whole[r.name].finish || a.output != m.whole[r.name].output):
		m.wrong++
		m.t.failf("%s: not the undisturbed answer: %s: %q", where, a, a.text)
	}
	m.want[a.id] = outcomeOf(want)
	if want != complete {
		legs = 0
	}
	m.legs[a.id] = legs
}

// compare looks at the ledger.
func (m *matrix) compare(ctx context.Context) error {
	if err := m.e.settled(ctx, 20*time.Second); err != nil {
		return err
	}
	rows, err := m.e.rows(ctx)
	if err != nil {
		return err
	}
	mine := 0
	for id, r := range rows {
		want, ok := m.want[id]
		switch {
		case !ok && r.key == "console":
			continue // the prompt tester's
		case !ok:
			m.rows++
			m.t.failf("row %s belongs to no request: %+v", id, r)
			continue
		}
		mine++
		lost := 0
		for _, l := range r.legs {
			if l.outcome != api.OutcomeOK {
				lost++
			}
		}
		if r.outcome != want || lost < m.legs[id] {
			m.rows++
			m.t.failf("row %s is %s with %d lost tries, want %s with %d: %+v", id, r.outcome, lost, want, m.legs[id], r)
		}
	}
	if mine != len(m.want) {
		m.rows++
		m.t.failf("%d rows for %d requests", mine, len(m.want))
	}
	return nil
}

// tester breaks an answer of "vllmdeck prompt".
func (m *matrix) tester(ctx context.Context, how string, after int) error {
	m.tests++
	if a := m.ask(ctx, routes[0], true); true {
		m.judge(routes[0], &a, complete, "undisturbed", 0, 0)
	}
	m.b.set(1, how, after)
	out, err := m.e.run(ctx, "prompt", "--json", "--max-tokens", "30", r06prompt)
	m.b.set(0, "", 0)
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && (!ok || exit.ExitCode() != 1) {
		return err
	}
	var p struct{ State, Error, Answer string }
	if jerr := json.Unmarshal([]byte(out), &p); jerr != nil {
		return fmt.Errorf("vllmdeck prompt --json says %q: %w", out, jerr)
	}
	whole := m.workers == 2
	if (err == nil) != whole || (p.State == "done") != whole || (p.Error == "") != whole {
		m.tested++
		m.t.failf("%d workers, prompt tester, %s after %d: state %s, error %q, exit %v; want whole: %v", m.workers, how, after, p.State, p.Error, err, whole)
	}
	return nil
}
