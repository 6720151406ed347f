package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// r09 sends what no client should: 10,000 mangled requests over raw sockets while 2,000 connections dribble their
// headers and honest clients are served; after that bodies of 20 MB, fifty at a time, valid and not.
func r09(ctx context.Context, t *trial) error {
	const requests, slow, honest, bodies = 10_000, 2_000, 10, 50
	server, err := t.server(ctx, "--ttft", "5ms", "--itl", "5ms", "--max-num-seqs", "64")
	if err != nil {
		return err
	}
	rec, err := t.recorder(ctx, server.url)
	if err != nil {
		return err
	}
	e, err := t.engine(ctx, attached([]string{rec.url}))
	if err != nil {
		return err
	}
	if err := e.ready(ctx, 20*time.Second); err != nil {
		return err
	}
	addr := strings.TrimPrefix(e.url, "http://")
	s := &siege{t: t, addr: addr, client: t.newClient(64), answered: map[int]int{}, said: map[string]int{}}

	var all, honests sync.WaitGroup
	asking, stop := context.WithCancel(ctx)
	defer stop()
	for i := range honest {
		honests.Go(func() { s.beHonest(asking, ctx, e.url, i) })
	}
	for i := range slow {
		all.Go(func() { s.dribble(ctx, i) })
		if i%100 == 99 { // the listener's backlog is no part of the trial
			if err := pause(ctx, 10*time.Millisecond); err != nil {
				return err
			}
		}
	}
	t.logf("%d slow connections are open", s.held.Load())
	kinds := mangledKinds()
	var next atomic.Int64
	for range 48 {
		all.Go(func() {
			for n := next.Add(1) - 1; n < requests && ctx.Err() == nil; n = next.Add(1) - 1 {
				dice := rand.New(rand.NewPCG(9, uint64(n))) //nolint:gosec // the same requests each time
				s.send(ctx, kinds[int(n)%len(kinds)], dice)
			}
		})
	}
	all.Wait()
	t.logf("%d mangled requests of %d kinds sent", requests, len(kinds))
	s.flood(ctx, e.url, bodies)
	stop()
	honests.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}

	// It serves as before.
	if a := s.client.do(ctx, e.url, ask{route: "chat", prompt: "Hello", tokens: 5, stream: true}); a.verdict != complete {
		t.failf("afterwards an honest stream is %s: %v", a.verdict, a.err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.note("requests", requests)
	t.note("kinds", len(kinds))
	t.note("answers by status", fmt.Sprint(s.answered))
	t.exactly("answers other than 4xx and 501", s.strange, 0)
	t.exactly("answers not in the error shape", s.unshaped, 0)
	t.exactly("answers that did not come", s.missing, 0)
	t.note("505 to another version of HTTP", s.versions)
	t.within("answer p99", percentile(s.took, 0.99), time.Second)
	t.exactly("slow connections", len(s.closed), slow)
	t.exactly("slow connections that were answered or not closed", s.slowWrong, 0)
	t.near("slow headers closed after, first", percentile(s.closed, 0), 10*time.Second)
	t.near("slow headers closed after, last", percentile(s.closed, 1), 10*time.Second)
	t.note("20 MB bodies by status", fmt.Sprint(s.floods))
	t.exactly("20 MB bodies answered wrongly", s.floodWrong, 0)
	t.exactly("honest answers that were not complete", s.honestBad, 0)
	t.atLeast("honest answers", s.honestGood, 100)
	_, peak, err := memory(e.pid())
	if err != nil {
		return err
	}
	t.atMost("highest RSS of the engine in MB", peak>>20, 400)
	return s.after(t, e, rec)
}

// after looks at what the worker was asked for and for panics in the logs.
func (s *siege) after(t *trial, e *engine, rec *recorder) error {
	unlisted, leaked, probes := 0, 0, 0
	calls := rec.got()
	for _, c := range calls {
		switch path, _, _ := strings.Cut(c.target, "?"); {
		case c.method == http.MethodPost && slices.Contains(inference, path):
		case c.own() && c.header.Get(spy) == "":
			probes++
		default:
			unlisted++
			t.failf("the worker was asked for %s %s", c.method, c.target)
		}
		if c.header.Get("Authorization")+c.header.Get("Transfer-Encoding")+c.header.Get("Sec-Fetch-Site") != "" {
			leaked++
			t.failf("the worker got the headers %v", c.header)
		}
	}
	t.note("calls that the worker got", len(calls)-probes)
	t.exactly("calls of other routes that the worker got", unlisted, 0)
	t.exactly("calls with headers that are none of its business", leaked, 0)
	panics := 0
	for _, name := range []string{filepath.Join("state", "logs", "engine.log"), "serve.out"} {
		log, err := os.ReadFile(filepath.Join(e.dir, name))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, "panic") {
				panics++
				t.failf("%s: %s", name, line)
			}
		}
	}
	t.exactly("panics", panics, 0)
	return nil
}
