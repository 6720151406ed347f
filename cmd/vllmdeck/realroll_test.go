package main

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// rollUnderLoad restarts both workers of r in turn while twenty clients stream all the time: none of them may notice.
func rollUnderLoad(t *testing.T, r *rig, model string) {
	t.Helper()
	before := map[string]int{}
	for _, w := range r.snapshot().Workers {
		before[w.Name] = w.PID
	}
	url := r.snapshot().Engine.URL
	asking, stop := context.WithCancel(t.Context())
	defer stop()
	var whole, broken atomic.Int64
	var clients sync.WaitGroup
	for range 20 {
		clients.Go(func() {
			for asking.Err() == nil {
				if end := r.stream(url, 40).wait(t, 5*time.Minute); end == "whole" {
					whole.Add(1)
				} else {
					broken.Add(1)
					t.Errorf("a client has %s", end)
				}
			}
		})
	}
	until(t, time.Minute, "streams flow", func() bool { return whole.Load() > 0 })
	began := time.Now()
	r.run("worker", "roll", model, "--yes")
	took := time.Since(began)
	stop()
	clients.Wait()
	t.Logf("both workers restarted in %s under %d whole streams, %d broken", took.Round(time.Second), whole.Load(), broken.Load())
	if n := whole.Load(); n < 40 {
		t.Errorf("%d whole streams: twenty clients ask for more than that in two starts", n)
	}
	for _, w := range r.snapshot().Workers {
		if w.PID == before[w.Name] || w.State != api.Ready {
			t.Errorf("%s is %s with pid %d; want it ready with another than %d", w.Name, w.State, w.PID, before[w.Name])
		}
	}
	for _, c := range r.snapshot().Crashes {
		if c.Time.After(began) {
			t.Errorf("the crash book has %+v: a rolling restart is no crash", c)
		}
	}
}
