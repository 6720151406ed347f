package gateway

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/route"
)

// TestWhoeverWaitsSaysSo: the first request for a model that sleeps wakes it and is held until it can be served; also where none
// may wait the model is told of, for the client may come again; a request that finds a place tells nobody.
func TestWhoeverWaitsSaysSo(t *testing.T) {
	url := serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, wholeAnswer)
	})
	asleep := route.Candidate{ID: "a", Coming: true, State: "asleep"}
	awake := route.Candidate{ID: "a", Ready: true, State: "ready"}
	for _, queue := range []int{10, -1} {
		var r *rig
		var told atomic.Int32
		r = newRig(t, func(g *Gateway) {
			g.Queue = queue
			g.Wanted = func(model string) {
				if model != "m" {
					t.Errorf("told of %q", model)
				}
				if !g.Waiting("m") {
					t.Error("Wanted before it says that one waits")
				}
				if told.Add(1) == 1 {
					go r.pool.set(awake, url)
				}
			}
		})
		r.pool.set(asleep, url)
		want := 200
		if queue < 0 {
			want = 429
		}
		if got := r.post(t, "/v1/chat/completions", chatBody); got.status != want {
			t.Errorf("queue %d: %d %s, want %d", queue, got.status, got.body, want)
		}
		r.pool.idleRow(t)
		until(t, "it is awake", func() bool { return r.pool.Candidates("m", nil)[0].Ready })
		n := told.Load()
		if got := r.post(t, "/v1/chat/completions", chatBody); got.status != 200 || n == 0 || told.Load() != n {
			t.Errorf("queue %d: awake: %d %s, told %d times before and %d after, want it told once at least, and no more", queue, got.status, got.body, n, told.Load())
		}
		r.pool.idleRow(t)
		if queue > 0 && r.Waiting("m") {
			t.Error("nobody waits any more, and it says so")
		}
		if r.Waiting("other") {
			t.Error("nobody ever asked for other")
		}
	}
	q := &queue{missed: time.Now().Add(-2 * missedFor)}
	g := &Gateway{queues: map[string]*queue{"m": q}}
	if g.Waiting("m") {
		t.Error("a request that was refused long ago still counts as waiting")
	}
}
