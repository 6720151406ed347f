package gateway

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// after is a worker that lets d pass, and a moment, before it does as h.
func after(d time.Duration, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-time.After(d + 100*time.Millisecond):
			h(w, r)
		case <-r.Context().Done():
		}
	}
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

func comments(n int) string { return strings.Repeat(string(comment), n) }

func alive(g *Gateway) {
	g.KeepAlive, g.TTFTTimeout, g.QueueWait = 10*time.Second, 48*time.Second, 25*time.Second
}

// TestKeepAliveCommitsToNothingButItsHead waits long before the first content, and has it come in every way: a
// worker that fails is still replaced unseen.
func TestKeepAliveCommitsToNothingButItsHead(t *testing.T) {
	ok := sends(evRole, evText("x"), evFinish, evDone)
	answer := evRole + evText("x") + evFinish + evDone
	paused := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for _, part := range []string{evRole, evText("x"), evFinish + evDone} {
			io.WriteString(w, part)
			w.(http.Flusher).Flush()
			time.Sleep(25*time.Second + 100*time.Millisecond)
		}
	}
	for _, tt := range []struct {
		name string
		a, b http.HandlerFunc
		want string
		legs int
	}{
		{"a worker that takes its time", after(45*time.Second, ok), ok, comments(4) + answer, 1},
		{"one that is fast", ok, ok, answer, 1},
		{"one that says 500 late", after(25*time.Second, says(500, `{"error":{"message":"x"}}`)), after(15*time.Second, ok), comments(4) + answer, 2},
		{"one that says 503 late", after(25*time.Second, says(503, `{"error":{"message":"x"}}`)), ok, comments(2) + answer, 2},
		{"one that breaks off late", after(25*time.Second, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), ok, comments(2) + answer, 2},
		{"one that sends an error event late", after(25*time.Second, sends(evRole, evOops)), ok, comments(2) + answer, 2},
		{"one that does not stream", after(25*time.Second, says(200, wholeAnswer)), ok, comments(2) + answer, 2},
		{"one that stalls after its role", stall(evRole), ok, comments(4) + answer, 2}, // to the limit
		{"one that pauses in the middle", paused, ok, comments(2) + evRole + evText("x") + comments(2) + evFinish + evDone, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, map[string]http.HandlerFunc{"a": tt.a, "b": tt.b}, alive, func(r *rig) {
				got := r.post(t, "/v1/chat/completions", streamBody)
				if got.status != 200 || got.err != nil || got.body != tt.want {
					t.Errorf("the client got %d (%v)\n%q, want\n%q", got.status, got.err, got.body, tt.want)
				}
				if h := got.header; !strings.HasPrefix(h.Get("Content-Type"), "text/event-stream") || h.Get("X-Request-Id") == "" || h.Get("X-Accel-Buffering") != "no" || h.Get("Cache-Control") != "no-cache" {
					t.Errorf("with headers %v", h)
				}
				if row := r.pool.row(t); row.Outcome != api.OutcomeOK || len(row.Attempts) != tt.legs || row.Status != 200 || row.TTFT == 0 && tt.name != "one that is fast" {
					t.Errorf("row = %s %d after %d attempts, first token after %v; want ok 200 after %d", row.Outcome, row.Status, len(row.Attempts), time.Duration(row.TTFT), tt.legs)
				}
			})
		})
	}
}

// TestAfterKeepAliveFailuresAreEvents is every failure that would have had a status of its own.
func TestAfterKeepAliveFailuresAreEvents(t *testing.T) {
	for _, tt := range []struct {
		name          string
		a             http.HandlerFunc
		cand          route.Candidate
		comments      int
		code, message string
		outcome       string
	}{
		{"nobody is ready in time", nil, route.Candidate{ID: "a", Coming: true, State: "starting"}, 2, "no_worker", "no worker became ready", api.OutcomeError},
		{"the worker stalls", stall(), route.Candidate{ID: "a", Ready: true}, 4, "upstream_timeout", "silent", api.OutcomeError},
		{"the worker fails", after(15*time.Second, says(500, `{"error":{"message":"boom"}}`)), route.Candidate{ID: "a", Ready: true}, 1, "upstream_failed", "boom", api.OutcomeError},
		{"the worker refuses the request", after(15*time.Second, says(400, `{"error":{"message":"too long for me","type":"BadRequestError","param":"max_tokens","code":400}}`)), route.Candidate{ID: "a", Ready: true}, 1, "", "too long for me", api.OutcomeRejected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			handlers := map[string]http.HandlerFunc{}
			if tt.a != nil {
				handlers["a"] = tt.a
			}
			bubble(t, handlers, alive, func(r *rig) {
				r.pool.set(tt.cand, "http://a")
				got := r.post(t, "/v1/chat/completions", streamBody)
				event, ok := strings.CutPrefix(got.body, comments(tt.comments)+"data: ")
				if got.status != 200 || got.err == nil || !ok || strings.Count(got.body, "data: ") != 1 {
					t.Fatalf("the client got %d (%v) %q, want 200, %d comments, one error event and a broken connection", got.status, got.err, got.body, tt.comments)
				}
				e := gjson.Get(event, "error")
				if e.Get("code").Str != tt.code || !strings.Contains(e.Get("message").Str, tt.message) || e.Get("request_id").Str != got.header.Get("X-Request-Id") || e.Get("request_id").Str == "" {
					t.Errorf("error event = %s, want code %q and %q in its message", e, tt.code, tt.message)
				}
				row := r.pool.row(t)
				if row.Outcome != tt.outcome || row.Status != 200 || !strings.Contains(row.Error, tt.message) {
					t.Errorf("row = %s %d %q, want %s 200 with %q: no content was lost", row.Outcome, row.Status, row.Error, tt.outcome, tt.message)
				}
				if tt.outcome == api.OutcomeRejected && (len(row.Attempts) != 1 || r.pool.results["a"][0] != route.Neutral || e.Get("type").Str != "BadRequestError" || e.Get("param").Str != "max_tokens") {
					t.Errorf("%d attempts, breaker told %v, event %s; want the worker's own words after one, and a breaker that stays", len(row.Attempts), r.pool.results["a"], e)
				}
			})
		})
	}
}

func TestKeepAliveIsForStreamsThatAskForIt(t *testing.T) {
	slow := after(45*time.Second, says(200, wholeAnswer))
	for name, tt := range map[string]struct {
		change func(*Gateway)
		worker http.HandlerFunc
		body   string
		want   string
	}{
		"not streamed":  {alive, slow, chatBody, wholeAnswer},
		"not asked for": {nil, after(45*time.Second, sends(evRole, evText("x"), evFinish, evDone)), streamBody, evRole + evText("x") + evFinish + evDone},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, map[string]http.HandlerFunc{"a": tt.worker}, tt.change, func(r *rig) {
				if got := r.post(t, "/v1/chat/completions", tt.body); got.status != 200 || got.body != tt.want {
					t.Errorf("got %d %q, want %q", got.status, got.body, tt.want)
				}
				r.pool.row(t)
			})
		})
	}
	t.Run("a client that leaves between two comments", func(t *testing.T) {
		bubble(t, map[string]http.HandlerFunc{"a": stall()}, alive, func(r *rig) {
			ctx, leave := context.WithTimeout(context.Background(), 25*time.Second)
			defer leave()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/v1/chat/completions", strings.NewReader(streamBody))
			if err != nil {
				t.Fatal(err)
			}
			res, err := r.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			if string(b) != comments(2) || err == nil {
				t.Errorf("the client got %q (%v), want two comments", b, err)
			}
			if row := r.pool.row(t); row.Outcome != api.OutcomeCancelled {
				t.Errorf("row = %s, want client_cancelled", row.Outcome)
			}
		})
	})
}
