package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// until waits for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s still not: %s", what)
		}
	}
}

// gate is a worker that holds each answer back until it is let through.
func gate(t testing.TB) (url string, pass chan struct{}, order func() []string) {
	t.Helper()
	pass = make(chan struct{})
	var mu sync.Mutex
	var seen []string
	url = serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		seen = append(seen, gjson.GetBytes(b, "user").Str)
		mu.Unlock()
		select {
		case <-pass:
		case <-r.Context().Done():
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, wholeAnswer)
	})
	return url, pass, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), seen...)
	}
}

func TestFullWorkersAreWaitedForInOrder(t *testing.T) {
	url, pass, order := gate(t)
	r := newRig(t)
	r.pool.set(route.Candidate{ID: "a", Ready: true, MaxSeqs: 1}, url)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			if got := r.post(t, "/v1/chat/completions", fmt.Sprintf(`{"model":"m","user":"%d"}`, i)); got.status != 200 {
				t.Errorf("request %d: %d %s", i, got.status, got.body)
			}
		})
		until(t, "request is in", func() bool { tr := r.Traffic(); return tr.InFlight == i+1 && tr.Queued == i && len(order()) == 1 })
	}
	for range 6 {
		pass <- struct{}{}
	}
	wg.Wait()
	if got := strings.Join(order(), ""); got != "012345" {
		t.Errorf("served in the order %s, want 012345: first come, first served", got)
	}
	waited := 0
	for range 6 {
		if r.pool.idleRow(t).Queue > 0 {
			waited++
		}
	}
	if waited != 5 {
		t.Errorf("%d rows say that they waited, want 5", waited)
	}
}

func TestFullQueueIsRefusedAtOnce(t *testing.T) {
	url, pass, _ := gate(t)
	r := newRig(t, func(g *Gateway) { g.Queue = 2 })
	r.pool.set(route.Candidate{ID: "a", Ready: true, MaxSeqs: 1}, url)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() { r.post(t, "/v1/chat/completions", chatBody) })
		until(t, "request is in", func() bool { tr := r.Traffic(); return tr.InFlight == i+1 && tr.Queued == i })
	}
	got := r.post(t, "/v1/chat/completions", chatBody)
	if got.status != 429 || got.header.Get("Retry-After") == "" || got.header.Get("X-Should-Retry") != "false" || gjson.Get(got.body, "error.code").Str != "queue_full" {
		t.Errorf("got %d %s with %v, want 429 queue_full with Retry-After and x-should-retry: false", got.status, got.body, got.header)
	}
	if row := r.pool.idleRow(t); row.Outcome != api.OutcomeRejected || len(row.Attempts) != 0 {
		t.Errorf("row = %s with %d attempts, want rejected without", row.Outcome, len(row.Attempts))
	}
	for range 3 {
		pass <- struct{}{}
	}
	wg.Wait()
	for range 3 {
		r.pool.idleRow(t)
	}
}

func TestWaitEnds(t *testing.T) {
	for name, c := range map[string]route.Candidate{
		"all full":     {ID: "a", Ready: true, MaxSeqs: 1, InFlight: 1},
		"all starting": {ID: "a", Coming: true, State: "starting"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(g *Gateway) { g.QueueWait = 50 * time.Millisecond })
			r.pool.set(c, "http://127.0.0.1:1")
			got := r.post(t, "/v1/chat/completions", chatBody)
			if got.status != 503 || got.header.Get("Retry-After") == "" || got.header.Get("X-Should-Retry") != "false" || !strings.Contains(got.body, "within 50ms") {
				t.Errorf("got %d %s with %v, want 503 that names the wait", got.status, got.body, got.header)
			}
			if row := r.pool.idleRow(t); row.Outcome != api.OutcomeError || row.Queue < api.Span(50*time.Millisecond) {
				t.Errorf("row = %s after %v in line, want error after 50ms", row.Outcome, time.Duration(row.Queue))
			}
		})
	}
}

func TestNobodyWillServe(t *testing.T) {
	r := newRig(t)
	start := time.Now()
	got := r.post(t, "/v1/chat/completions", chatBody)
	if got.status != 503 || !strings.Contains(gjson.Get(got.body, "error.message").Str, `model "m" has no worker`) {
		t.Errorf("got %d %s, want 503 that says there is no worker", got.status, got.body)
	}
	r.pool.set(route.Candidate{ID: "w0", State: "failed"}, "")
	r.pool.set(route.Candidate{ID: "w1", State: "stopped"}, "")
	got = r.post(t, "/v1/chat/completions", chatBody)
	if msg := gjson.Get(got.body, "error.message").Str; got.status != 503 || !strings.Contains(msg, `model "m"`) || !strings.Contains(msg, "w0: failed, w1: stopped") {
		t.Errorf("got %d %q, want 503 with the model and the states", got.status, msg)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("that took %v, want at once", d)
	}
	r.pool.row(t)
	r.pool.row(t)
}

func TestStartingWorkerIsWaitedFor(t *testing.T) {
	r := newRig(t)
	r.pool.set(route.Candidate{ID: "a", Coming: true, State: "starting"}, "")
	done := make(chan answer, 1)
	go func() { done <- r.post(t, "/v1/chat/completions", chatBody) }()
	until(t, "request waits", func() bool { return r.Traffic().Queued == 1 })
	r.pool.add("a", goodAnswer(t))
	if got := <-done; got.status != 200 {
		t.Errorf("got %d %s, want 200 once the worker is ready", got.status, got.body)
	}
	r.pool.row(t)
}

func TestOnlyWorkerDiesAndComesBackUnseen(t *testing.T) {
	r := newRig(t)
	var died counter
	r.pool.add("a", serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
		died.Add(1)
		r.pool.set(route.Candidate{ID: "a", Coming: true, State: "starting"}, "")
		panic(http.ErrAbortHandler)
	}))
	done := make(chan answer, 1)
	go func() { done <- r.post(t, "/v1/chat/completions", chatBody) }()
	until(t, "request waits for the restart", func() bool { return died.Load() == 1 && r.Traffic().Queued == 1 })
	r.pool.add("a", goodAnswer(t))
	if got := <-done; got.status != 200 {
		t.Errorf("got %d %s, want 200 from the restarted worker", got.status, got.body)
	}
	if row := r.pool.row(t); len(row.Attempts) != 2 || row.Attempts[1].Upstream != "a" {
		t.Errorf("attempts = %+v, want two on a", row.Attempts)
	}
}

func TestProviderServesWhenNoWorkerCan(t *testing.T) {
	r := newRig(t)
	r.pool.set(route.Candidate{ID: "a", State: "failed"}, "")
	var path string
	provider := serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
		path = req.URL.Path
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, wholeAnswer)
	})
	r.pool.set(route.Candidate{ID: "openai", Ready: true, Provider: true}, provider+"/v1")
	if got := r.post(t, "/v1/chat/completions", chatBody); got.status != 200 || path != "/v1/chat/completions" {
		t.Errorf("got %d by way of %q, want 200 by way of /v1/chat/completions", got.status, path)
	}
	if row := r.pool.row(t); row.Class != api.ClassFailover || row.Worker != "openai" {
		t.Errorf("row of class %s on %s, want failover on openai", row.Class, row.Worker)
	}
}

func TestClientThatWaitsMayLeave(t *testing.T) {
	r := newRig(t)
	r.pool.set(route.Candidate{ID: "a", Coming: true, State: "starting"}, "")
	leave := r.begin(t, chatBody)
	until(t, "request waits", func() bool { return r.Traffic().Queued == 1 })
	leave()
	if row := r.pool.row(t); row.Outcome != api.OutcomeCancelled || len(row.Attempts) != 0 || row.Queue <= 0 {
		t.Errorf("row = %s with %d attempts after %v in line, want client_cancelled without", row.Outcome, len(row.Attempts), row.Queue)
	}
	until(t, "nobody waits", func() bool { tr := r.Traffic(); return tr.Queued == 0 && tr.InFlight == 0 && tr.Cancelled == 1 })
}

func moreConnectionsThanAnyPool(t *testing.T) {
	const n = 100
	var now, most counter
	all := make(chan struct{})
	r := newRig(t)
	r.pool.add("a", serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
		if c := now.Add(1); c == n {
			close(all)
		}
		most.Store(max(most.Load(), now.Load()))
		<-all
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, wholeAnswer)
	}))
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			if got := r.post(t, "/v1/chat/completions", chatBody); got.status != 200 {
				t.Errorf("got %d %s", got.status, got.body)
			}
		})
	}
	wg.Wait()
	if most.Load() != n {
		t.Errorf("%d requests were with the worker at once, want %d", most.Load(), n)
	}
	for range n {
		r.pool.idleRow(t)
	}
}
