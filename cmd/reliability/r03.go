package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// r03 kills the engine by kill -9, again and again, under 500 requests a second and some long streams. What the
// ledger had on disk is still there, and so is every request that ended more than 100 ms before; a stream that was cut off is
// interrupted. The workers do not notice, and the next engine takes them up.
func r03(ctx context.Context, t *trial) error {
	const rounds, perSecond, streams, workers = 25, 500, 10, 2
	seed := uint64(time.Now().UnixNano())
	t.note("seed", seed)
	dice := rand.New(rand.NewPCG(seed, 3)) //nolint:gosec // the moment of a kill is no secret
	e, err := t.engine(ctx, simulated(workers, "ttft: 1ms, itl: 2ms, max_num_seqs: 256"))
	if err != nil {
		return err
	}
	if err := e.ready(ctx, 20*time.Second); err != nil {
		return err
	}
	c := t.newClient(256)
	before, err := e.snapshot(ctx)
	if err != nil {
		return err
	}
	r := &rounds03{t: t, e: e, c: c}
	for i := range rounds {
		span := 500*time.Millisecond + time.Duration(dice.Int64N(int64(700*time.Millisecond)))
		if err := r.round(ctx, span, perSecond, streams); err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
		after, err := e.snapshot(ctx)
		if err != nil {
			return err
		}
		for j, w := range after.Workers {
			if w.PID != before.Workers[j].PID || !w.Adopted || w.Restarts > 0 {
				r.changed++
				t.failf("round %d: worker %s has pid %d (adopted: %v, %d restarts), want %d adopted", i+1, w.Name, w.PID, w.Adopted, w.Restarts, before.Workers[j].PID)
			}
		}
	}
	t.note("kills", rounds)
	t.note("requests", r.requests)
	t.note("requests per second while they ran", int(float64(r.requests)/r.ran.Seconds()))
	t.exactly("committed rows lost", r.lost, 0)
	t.exactly("requests without a row that ended over 100 ms before", r.missing, 0)
	t.exactly("cut streams that are not interrupted in the ledger", r.uninterrupted, 0)
	t.note("cut streams", r.cut)
	t.atMost("most requests of one kill without a row", int64(r.worst), 60)
	t.exactly("answers that were neither whole nor cut", r.odd, 0)
	t.exactly("failed checks of the database", r.broken, 0)
	t.exactly("workers that changed", r.changed, 0)
	t.within("workers taken up after, longest", percentile(r.adopted, 1), 3*time.Second)

	if _, err := e.run(ctx, "stop", "--yes"); err != nil {
		return err
	}
	left := 0
	err = until(ctx, 15*time.Second, "nothing is left", func() bool {
		left = len(marked("XDG_RUNTIME_DIR=" + filepath.Join(e.dir, "run")))
		return left == 0
	})
	t.exactly("processes left at the end", left, 0)
	if err != nil {
		t.failf("%v", err)
	}
	return nil
}

// rounds03 is the state of r03.
type rounds03 struct {
	t *trial
	e *engine
	c *client

	requests, lost, missing, worst, cut, uninterrupted, odd, broken, changed int
	ran                                                                      time.Duration
	adopted                                                                  []time.Duration
}

// round lets requests run for a while, kills the engine, starts the next one and compares.
func (r *rounds03) round(ctx context.Context, span time.Duration, perSecond, streams int) error {
	e := r.e
	var mu sync.Mutex
	var answers []answer
	var all sync.WaitGroup
	killed := make(chan struct{})
	keep := func(a answer) {
		mu.Lock()
		defer mu.Unlock()
		answers = append(answers, a)
	}
	url := e.url
	for i := range streams {
		all.Go(func() {
			keep(r.c.do(ctx, url, ask{route: "chat", prompt: fmt.Sprintf("A long story %d.", i), tokens: 5000, stream: true}))
		})
	}
	began := time.Now()
	all.Go(func() {
		var each sync.WaitGroup
		defer each.Wait()
		for i := 0; ; i++ {
			wait := time.Duration(i)*time.Second/time.Duration(perSecond) - time.Since(began)
			select {
			case <-killed:
				return
			case <-time.After(wait):
			}
			each.Go(func() {
				keep(r.c.do(ctx, url, ask{route: routes[i%len(routes)].name, prompt: "Hello", tokens: 1}))
			})
		}
	})
	if err := pause(ctx, span); err != nil {
		return err
	}
	committed, err := r.closed(ctx, began)
	if err != nil {
		return err
	}
	at := time.Now()
	if err := e.signal(syscall.SIGKILL); err != nil {
		return err
	}
	close(killed)
	r.ran += at.Sub(began)
	if err := e.ended(ctx, 10*time.Second); err != nil {
		return err
	}
	all.Wait()
	began2 := time.Now()
	if err := e.start(ctx); err != nil {
		return err
	}
	if err := e.ready(ctx, 30*time.Second); err != nil {
		return err
	}
	r.adopted = append(r.adopted, time.Since(began2))
	return r.compare(ctx, began, at, committed, answers)
}

// open opens the ledger beside the engine.
func (r *rounds03) open() (*sql.DB, error) {
	return sql.Open("sqlite", "file:"+filepath.Join(r.e.state(), "ledger.db")+"?mode=ro&_pragma=busy_timeout(5000)")
}

// closed gives the rows that have ended, by id.
func (r *rounds03) closed(ctx context.Context, since time.Time) (map[string]string, error) {
	db, err := r.open()
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows := map[string]string{}
	return rows, each(ctx, db, fmt.Sprintf("SELECT id, outcome FROM request WHERE outcome <> 'open' AND started >= %d", since.Add(-time.Second).UnixNano()), func(scan func(...any) error) error {
		var id, outcome string
		err := scan(&id, &outcome)
		rows[id] = outcome
		return err
	})
}

// compare looks for what should be in the ledger after a kill.
func (r *rounds03) compare(ctx context.Context, began, at time.Time, committed map[string]string, answers []answer) error {
	rows, err := r.closed(ctx, began)
	if err != nil {
		return err
	}
	for id, outcome := range committed {
		if rows[id] != outcome {
			r.lost++
			r.t.failf("row %s was committed as %s and is %q now", id, outcome, rows[id])
		}
	}
	gone := 0
	for i := range answers {
		a := &answers[i]
		r.requests++
		switch {
		case a.verdict == complete:
			if rows[a.id] != api.OutcomeOK {
				gone++
			}
			if rows[a.id] != api.OutcomeOK && a.ended.Before(at.Add(-100*time.Millisecond)) {
				r.missing++
				r.t.failf("%s ended %s before the kill, and its row is %q", a, at.Sub(a.ended), rows[a.id])
			}
		case a.stream && a.verdict == cut:
			r.cut++
			if a.sent.Before(at.Add(-100*time.Millisecond)) && rows[a.id] != api.OutcomeInterrupted {
				r.uninterrupted++
				r.t.failf("%s was sent %s before the kill, and its row is %q", a, at.Sub(a.sent), rows[a.id])
			}
		case a.verdict == cut || a.verdict == dead:
		default:
			r.odd++
			r.t.failf("under kill -9: %s", a)
		}
	}
	r.worst = max(r.worst, gone)
	db, err := r.open()
	if err != nil {
		return err
	}
	defer db.Close()
	var check string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&check); err != nil {
		return err
	}
	var ended, counted int
	if err := db.QueryRowContext(ctx, "SELECT (SELECT COUNT(*) FROM request WHERE outcome <> 'open'), (SELECT COALESCE(SUM(requests), 0) FROM rollup)").Scan(&ended, &counted); err != nil {
		return err
	}
	if !strings.EqualFold(check, "ok") || ended != counted {
		r.broken++
		r.t.failf("the database: %s, %d rows have ended and %d are counted", check, ended, counted)
	}
	return nil
}
