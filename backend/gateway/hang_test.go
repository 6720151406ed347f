package gateway

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
	"github.com/vllmdeck/vllmdeck/backend/sim"
)

// silent is a worker that takes requests and says nothing, not even a head.
func silent(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	<-r.Context().Done()
}

// TestHungWorkerIsEmptied is a worker found hung: what is with it moves at once, long before its own limits.
func TestHungWorkerIsEmptied(t *testing.T) {
	whole := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, wholeAnswer)
	}
	stream := sends(evRole, evText("good"), evText(" one"), evFinish, evDone)
	for _, tt := range []struct {
		name    string
		hung    http.HandlerFunc
		next    http.HandlerFunc
		body    string
		want    string
		foreign bool
	}{
		{"a parked stream: a head and nothing else", stall(), stream, streamBody, goodStream(), false},
		{"a stream without content", stall(evRole, ": keep-alive\n\n"), stream, streamBody, goodStream(), false},
		{"a stream without a head", silent, stream, streamBody, goodStream(), false},
		{"an answer that is not streamed", silent, whole, chatBody, wholeAnswer, false},
		{"by way of net/http", silent, whole, chatBody, wholeAnswer, true},
		{"a stream by way of net/http", stall(evRole), stream, streamBody, goodStream(), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := second(t, serveHTTP(t, tt.hung), serveHTTP(t, tt.next))
			r.CostInfo = false
			if tt.foreign {
				r.pool.client = netHTTP()
				defer r.pool.client.CloseIdleConnections()
			}
			go func() {
				for r.Evict("a") == 0 {
					time.Sleep(time.Millisecond)
				}
			}()
			got := r.post(t, "/v1/chat/completions", tt.body)
			if got.err != nil || got.status != 200 || got.body != tt.want {
				t.Fatalf("client got %d %q (%v), want the other worker's answer", got.status, got.body, got.err)
			}
			row := r.pool.row(t)
			if len(row.Attempts) != 2 || !strings.Contains(row.Attempts[0].Error, "it hangs") || row.Outcome != api.OutcomeOK {
				t.Errorf("row = %s with attempts %+v, want ok after a worker that hangs", row.Outcome, row.Attempts)
			}
			if n := r.Evict("a") + r.Evict("b"); n != 0 {
				t.Errorf("%d requests are still with the workers, want none", n)
			}
		})
	}
	t.Run("a stream in its middle goes on elsewhere", func(t *testing.T) {
		url := simulated(t, sim.Options{})
		want := uncut(t, url, story(""))
		k := &knife{after: 5, how: "silent"}
		r := second(t, k.before(t, url), url, continuing)
		k.rig = r
		go func() {
			for k.cuts.Load() == 0 || r.Evict("a") == 0 {
				time.Sleep(time.Millisecond)
			}
		}()
		wantWhole(t, readStreamed(t, r.post(t, "/v1/chat/completions", story(""))), want)
		r.pool.row(t)
	})
	t.Run("those with other workers stay", func(t *testing.T) {
		r := newRig(t)
		r.pool.add("a", serveHTTP(t, stall(evRole)))
		done := make(chan answer)
		go func() { done <- r.post(t, "/v1/chat/completions", streamBody) }()
		for r.Traffic().InFlight == 0 {
			time.Sleep(time.Millisecond)
		}
		if n := r.Evict("b"); n != 0 {
			t.Errorf("%d requests were taken from b, which has none", n)
		}
		for r.Evict("a") == 0 {
			time.Sleep(time.Millisecond)
		}
		if got := <-done; got.status != 504 || gjson.Get(got.body, "error.code").Str != "upstream_timeout" {
			t.Errorf("with nobody else the client got %d %s, want 504", got.status, got.body)
		}
	})
}

// TestTheWholeHasALimit ends answers that trickle or are tried for ever.
func TestTheWholeHasALimit(t *testing.T) {
	trickle := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		io.WriteString(w, evRole)
		for r.Context().Err() == nil {
			io.WriteString(w, evText("x"))
			w.(http.Flusher).Flush()
			time.Sleep(50 * time.Second)
		}
	}
	t.Run("a stream that trickles", func(t *testing.T) {
		bubble(t, map[string]http.HandlerFunc{"a": trickle, "b": trickle}, func(g *Gateway) { g.StreamTimeout, g.Continue = 20*time.Minute, true }, func(r *rig) {
			start := time.Now()
			got := r.post(t, "/v1/chat/completions", streamBody)
			if took := time.Since(start); !near(took, 20*time.Minute) {
				t.Errorf("took %v, want 20m", took)
			}
			if got.err == nil || !strings.Contains(got.body, "gateway.stream_timeout") || !strings.Contains(got.body, `"code":"upstream_timeout"`) {
				t.Errorf("got %q (%v), want an error event that names the limit, and a broken connection", got.body[max(0, len(got.body)-300):], got.err)
			}
			if row := r.pool.row(t); row.Outcome != api.OutcomeLost || len(row.Attempts) != 1 {
				t.Errorf("row = %s with %d attempts, want lost with 1: nobody could do better", row.Outcome, len(row.Attempts))
			}
		})
	})
	for name, tt := range map[string]struct {
		path, body string
		limit      time.Duration
	}{
		"an answer that is not streamed": {"/v1/chat/completions", chatBody, 10 * time.Minute},
		"a route that runs no model":     {"/tokenize", `{"model":"m","prompt":"x"}`, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, map[string]http.HandlerFunc{"a": silent, "b": silent, "c": silent}, nil, func(r *rig) {
				start := time.Now()
				got := r.post(t, tt.path, tt.body)
				if took := time.Since(start); !near(took, tt.limit) || got.status != 504 {
					t.Errorf("got %d after %v, want 504 after %v in all", got.status, took, tt.limit)
				}
				r.pool.row(t)
			})
		})
	}
}

// retryAfterIsHonoured leaves a worker alone for as long as it asks, at most a minute.
func retryAfterIsHonoured(t *testing.T) {
	for after, want := range map[string]time.Duration{"7": 7 * time.Second, "900": time.Minute, "": 0, "-3": 0, "Wed, 21 Oct 2026 07:28:00 GMT": 0, "x": 0} {
		for _, status := range []int{429, 503, 500} {
			t.Run(fmt.Sprintf("%d with %q", status, after), func(t *testing.T) {
				busy := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body)
					w.Header().Set("Content-Type", "application/json")
					if after != "" {
						w.Header().Set("Retry-After", after)
					}
					w.WriteHeader(status)
					io.WriteString(w, `{"error":{"message":"slow down"}}`)
				})
				r := second(t, busy, goodAnswer(t))
				if got := r.post(t, "/v1/chat/completions", chatBody); got.status != 200 {
					t.Fatalf("got %d %s, want the other worker's answer", got.status, got.body)
				}
				r.pool.row(t)
				want := want
				if status == 500 { // that is no word about how much it has to do
					want = 0
				}
				if got := r.pool.busy["a"]; got != want {
					t.Errorf("the worker is left alone for %v, want %v", got, want)
				}
			})
		}
	}
	t.Run("nobody is sent to one that asked to be left alone", func(t *testing.T) {
		r := second(t, goodAnswer(t), goodAnswer(t))
		r.pool.set(route.Candidate{ID: "a", Ready: true, Busy: true}, "http://192.0.2.1")
		if got := r.post(t, "/v1/chat/completions", chatBody); got.status != 200 || r.pool.acquired["a"] != 0 {
			t.Errorf("got %d after %d requests to a, want 200 after none", got.status, r.pool.acquired["a"])
		}
		r.pool.row(t)
	})
}

// TestSignsOfLifeAreCounted is what the watch over hung workers goes by beside their metrics.
func TestSignsOfLifeAreCounted(t *testing.T) {
	r := newRig(t)
	r.pool.beat = new(atomic.Int64)
	r.pool.add("a", good(t))
	r.post(t, "/v1/chat/completions", streamBody)
	r.pool.row(t)
	if got := r.pool.beat.Load(); got != 2 {
		t.Errorf("a stream of 2 content events gave %d signs of life, want 2", got)
	}
	r.pool.add("a", goodAnswer(t))
	r.post(t, "/v1/chat/completions", chatBody)
	r.pool.row(t)
	if got := r.pool.beat.Load(); got != 3 {
		t.Errorf("a whole answer gave %d signs of life, want 1", got-2)
	}
}
