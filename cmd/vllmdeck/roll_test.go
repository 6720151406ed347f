package main

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// Twenty clients stream all the time while every worker of their model is restarted: each answer
// is whole, from the worker that began it.
func TestARollUnderLoadLosesNoStream(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(state string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "listen: 127.0.0.1:0\nstate: %s\nmodels: [{name: toy, aliases: [default]}]\nworkers:\n", state)
		for i := range 3 {
			fmt.Fprintf(&b, "  - {name: w%d, model: toy, sim: {seed: %d, start: 20ms, ttft: 5ms, itl: 10ms, max_num_seqs: 64}}\n", i, i+1)
		}
		return b.String()
	})
	r.serve()
	before := map[string]int{}
	for _, w := range []string{"w0", "w1", "w2"} {
		r.awaitReady(w)
		before[w] = r.worker(w).PID
	}
	url := r.snapshot().Engine.URL
	stop := make(chan struct{})
	var clients sync.WaitGroup
	var mu sync.Mutex
	ends := map[string]int{}
	for range 20 {
		clients.Go(func() {
			for {
				s := r.stream(url, 40)
				<-s.ended
				end := "whole"
				if s.err != nil || !s.done || s.failure {
					end = fmt.Sprintf("HTTP %d, %d tokens, error event %v, %v", s.status, s.seen(), s.failure, s.err)
				}
				mu.Lock()
				ends[end]++
				mu.Unlock()
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	until(t, 30*time.Second, "streams flow", func() bool { mu.Lock(); defer mu.Unlock(); return ends["whole"] > 20 })
	out := r.run("worker", "roll", "toy", "--yes")
	close(stop)
	clients.Wait()
	if !strings.Contains(out, "3 of 3") {
		t.Errorf("the command said:\n%s", out)
	}
	if len(ends) != 1 || ends["whole"] < 40 {
		t.Errorf("ends of streams: %v, want all whole", ends)
	}
	s := r.snapshot()
	for _, w := range s.Workers {
		if w.PID == before[w.Name] || w.Crashes != 0 {
			t.Errorf("%s: pid %d, %d before; %d crashes", w.Name, w.PID, before[w.Name], w.Crashes)
		}
	}
	if s.Traffic.Failed != 0 || s.Traffic.Rejected != 0 {
		t.Errorf("traffic: %+v", s.Traffic)
	}
	for _, q := range s.Requests {
		if len(q.Attempts) > 1 {
			t.Errorf("request %s was moved: %+v", q.ID, q.Attempts)
		}
	}
	t.Logf("%d streams, all whole", ends["whole"])
}
