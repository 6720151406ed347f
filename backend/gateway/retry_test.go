package gateway

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// TestRetryTable is what is tried again, and at whose expense. Each row is sent three times: with room in the budget of
// retries, with room for one, which is gone by the time of the second try if it was charged, and with none.
//
// Rows with tests of their own: a stale kept connection (TestStaleKeptConnectionIsReplacedUnseen); Retry-After
// (TestStatusCodes); after the first content (TestUpstreamStreams, TestLostAnswerGoesOnElsewhere, TestWhatCannotBeContinuedIsLost);
// store and background (TestWhatIsStoredIsNotSentTwice); a provider in the end (package backend).
func TestRetryTable(t *testing.T) {
	raw := func(s string) func(testing.TB) string {
		return func(t testing.TB) string {
			t.Helper()
			return serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) { io.WriteString(c, s) })
		}
	}
	status := func(code int, body string) func(testing.TB) string {
		return func(t testing.TB) string {
			t.Helper()
			return serveHTTP(t, says(code, body))
		}
	}
	evs := func(e ...string) func(testing.TB) string {
		return func(t testing.TB) string {
			t.Helper()
			return events(t, e...)
		}
	}
	oops := `{"error":{"message":"Internal server error","code":500}}`
	const free, charged, never = "free", "charged", "never"
	for _, tt := range []struct {
		name   string
		worker func(testing.TB) string
		body   string
		again  string
	}{
		{"dial refused, nothing written", refuses, chatBody, free},
		{"TLS asked of a server that has none", func(t testing.TB) string { return strings.Replace(goodAnswer(t), "http:", "https:", 1) }, chatBody, free},
		{"closed without a byte", raw(""), chatBody, free},
		{"closed in the middle of an answer", raw("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{"), chatBody, free},
		{"429", status(429, `{"error":{"message":"slow down"}}`), chatBody, free},
		{"503", status(503, `{"error":{"message":"x"}}`), chatBody, free},
		{"503, the queue is full", status(503, `{"error":{"message":"The engine is currently busy and cannot accept new requests."}}`), chatBody, free},
		{"200, the queue is full", evs(evBusy, evDone), streamBody, free},
		{"500 of a draining worker", status(500, `{"error":{"message":"cannot schedule new futures after shutdown"}}`), chatBody, free},
		{"500 of a dead engine", status(500, `{"error":{"message":"EngineCore encountered an issue."}}`), chatBody, free},
		{"200 of a dead engine", evs(evRole, evError, evDone), streamBody, free},
		{"stream ended before the first content", evs(evRole), streamBody, free},
		{"500", status(500, oops), chatBody, charged},
		{"500 for a stream", status(500, oops), streamBody, charged},
		{"502", status(502, "<html>"), chatBody, charged},
		{"200 and an error event", evs(evRole, evOops, evDone), streamBody, charged},
		{"[DONE] before the first content", evs(evRole, evDone), streamBody, charged},
		{"aborted before the first content", evs(evRole, strings.Replace(evFinish, `"stop"`, `"abort"`, 1), evDone), streamBody, charged},
		{"400", status(400, `{"error":{"message":"x"}}`), chatBody, never},
		{"404", status(404, `{"error":{"message":"x"}}`), chatBody, never},
		{"408", status(408, `{"error":{"message":"x"}}`), chatBody, never},
		{"409", status(409, `{"error":{"message":"x"}}`), chatBody, never},
		{"422", status(422, `{"error":{"message":"x"}}`), streamBody, never},
		{"501", status(501, `{"error":{"message":"x"}}`), chatBody, never},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for room := range 3 {
				var r *rig
				left := make(chan bool, 1)
				good := serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
					b, _ := io.ReadAll(req.Body)
					more := r.budget.Take(1)
					if more {
						r.budget.Give(1)
					}
					left <- more
					if gjson.GetBytes(b, "stream").Bool() {
						w.Header().Set("Content-Type", "text/event-stream")
						io.WriteString(w, goodStream())
						return
					}
					w.Header().Set("Content-Type", "application/json")
					io.WriteString(w, wholeAnswer)
				})
				r = second(t, tt.worker(t), good)
				for r.budget.Take(1) {
				}
				r.budget.Give([3]int{0, 1, 3}[room])
				got := r.post(t, "/v1/chat/completions", tt.body)
				row := r.pool.row(t)
				moves := tt.again == free || tt.again == charged && room > 0
				if (len(row.Attempts) == 2) != moves || (got.status == 200) != moves {
					t.Fatalf("with room for %d retries: HTTP %d after %d attempts, want moved %v", [3]int{0, 1, 3}[room], got.status, len(row.Attempts), moves)
				}
				if moves {
					if more := <-left; more != (room == 2 || room == 1 && tt.again == free) {
						t.Errorf("with room for %d retries, more is left at the second try: %v; want this one %s", [3]int{0, 1, 3}[room], more, tt.again)
					}
				} else if tt.again != never && got.header.Get("X-Should-Retry") != "false" {
					t.Errorf("X-Should-Retry = %q, want false: all that we would try is tried", got.header.Get("X-Should-Retry"))
				}
			}
		})
	}
	t.Run("silence before the first content", func(t *testing.T) {
		for _, room := range []int{0, 1} {
			bubble(t, map[string]http.HandlerFunc{"a": stall(evRole), "b": sends(goodStream())}, func(g *Gateway) { g.TTFTTimeout = 7 * time.Second }, func(r *rig) {
				for r.budget.Take(1) {
				}
				r.budget.Give(room)
				got := r.post(t, "/v1/chat/completions", streamBody)
				if row := r.pool.row(t); len(row.Attempts) != room+1 || got.status != map[int]int{0: 504, 1: 200}[room] {
					t.Errorf("with room for %d retries: HTTP %d after %d attempts, want it charged", room, got.status, len(row.Attempts))
				}
			})
		}
	})
	t.Run("files and batches", func(t *testing.T) {
		r := newRig(t)
		r.pool.add("a", goodAnswer(t))
		for _, path := range []string{"/v1/files", "/v1/batches", "/v1/chat/completions/batch"} {
			if got := r.post(t, path, chatBody); got.status != 404 || r.pool.acquired["a"] != 0 {
				t.Errorf("%s: HTTP %d and %d requests to the worker, want 404 and none", path, got.status, r.pool.acquired["a"])
			}
		}
	})
	t.Run("two extra tries at most, and one move", func(t *testing.T) {
		var calls counter
		r := newRig(t)
		r.pool.add("w0", serveRaw(t, func(*net.TCPConn, *http.Request, string) { calls.Add(1) })) // dies: the move
		for i := range 6 {
			r.pool.set(route.Candidate{ID: fmt.Sprint("w", i+1), Ready: true, Waiting: float64(i + 1)}, serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
				calls.Add(1)
				says(500, oops)(w, req)
			}))
		}
		got := r.post(t, "/v1/chat/completions", chatBody)
		if row := r.pool.row(t); got.status != 502 || calls.Load() != 4 || len(row.Attempts) != 4 || got.header.Get("X-Should-Retry") != "false" {
			t.Errorf("HTTP %d after %d calls, want 502 after 4: one, one that is free, and two", got.status, calls.Load())
		}
	})
}

// TestNoTryThatCannotAnswerInTime has little of a request's time left when its worker fails.
func TestNoTryThatCannotAnswerInTime(t *testing.T) {
	oops := says(500, `{"error":{"message":"boom"}}`)
	for _, tt := range []struct {
		name  string
		fails time.Duration // of 20 s
		first time.Duration // that the model takes to its first token
		legs  int
	}{
		{"half of it", 10 * time.Second, 0, 2},
		{"half a second", 19500 * time.Millisecond, 0, 1},
		{"less than a first token takes", 10 * time.Second, 11 * time.Second, 1},
		{"more than a first token takes", 10 * time.Second, 9 * time.Second, 2},
	} {
		for _, death := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, a death %v", tt.name, death), func(t *testing.T) {
				fail := oops
				if death {
					fail = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
				}
				bubble(t, map[string]http.HandlerFunc{"a": after(tt.fails-100*time.Millisecond, fail), "b": answers}, func(g *Gateway) { g.AnswerTimeout = 20 * time.Second }, func(r *rig) {
					r.queue("m").pace.learn(time.Second, tt.first)
					got := r.post(t, "/v1/chat/completions", chatBody)
					row := r.pool.row(t)
					if len(row.Attempts) != tt.legs || (got.status == 200) != (tt.legs == 2) {
						t.Errorf("HTTP %d after %d attempts, want %d", got.status, len(row.Attempts), tt.legs)
					}
				})
			})
		}
	}
}

// refuses is where nobody listens.
func refuses(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return "http://" + ln.Addr().String()
}

func TestWhatIsStoredIsNotSentTwice(t *testing.T) {
	oops := func(t testing.TB) string {
		return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, `{"error":{"message":"Internal server error"}}`)
		})
	}
	died := func(t testing.TB) string { return serveRaw(t, func(*net.TCPConn, *http.Request, string) {}) }
	busy := func(t testing.TB) string {
		return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"error":{"message":"The engine is currently busy and cannot accept new requests."}}`)
		})
	}
	for _, tt := range []struct {
		name   string
		worker func(testing.TB) string
		body   string
		moves  bool
	}{
		{"store, after an error", oops, `{"model":"m","input":"x","store":true}`, false},
		{"store, after a death", died, `{"model":"m","input":"x","store":true}`, false},
		{"background, after a death", died, `{"model":"m","input":"x","background":true}`, false},
		{"store, refused", busy, `{"model":"m","input":"x","store":true}`, true},
		{"store, never sent", refuses, `{"model":"m","input":"x","store":true}`, true},
		{"store off, after a death", died, `{"model":"m","input":"x","store":false}`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := second(t, tt.worker(t), goodAnswer(t))
			got := r.post(t, "/v1/responses", tt.body)
			if tt.moves != (got.status == 200) || tt.moves != (r.pool.acquired["b"] == 1) {
				t.Errorf("got %d after %d requests to the second worker, want it moved: %v", got.status, r.pool.acquired["b"], tt.moves)
			}
			if row := r.pool.row(t); !tt.moves && row.Outcome != api.OutcomeError {
				t.Errorf("outcome = %s, want error", row.Outcome)
			}
		})
	}
}

// TestTraceOfARequestIsKept is X-Request-Id and traceparent: in, to the worker of each leg, and back.
func TestTraceOfARequestIsKept(t *testing.T) {
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	seen := make(chan http.Header, 3)
	watch := func(evs ...string) string {
		return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			seen <- r.Header.Clone()
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			w.Header().Set("X-Request-Id", "worker-s-own")
			io.WriteString(w, strings.Join(evs, ""))
		})
	}
	r := second(t, watch(evRole), watch(evRole, evText("x"), evFinish, evDone))
	got := r.post(t, "/v1/chat/completions", streamBody, "X-Request-Id", "abc-1", "Traceparent", trace, "Tracestate", "k=v")
	if got.header.Get("X-Request-Id") != "abc-1" || got.header.Get("Traceparent") != trace {
		t.Errorf("the client got X-Request-Id %q and traceparent %q, want its own", got.header.Get("X-Request-Id"), got.header.Get("Traceparent"))
	}
	for range 2 {
		if h := <-seen; h.Get("X-Request-Id") != "abc-1" || h.Get("Traceparent") != trace || h.Get("Tracestate") != "k=v" {
			t.Errorf("a worker got %v, want the client's id and trace", h)
		}
	}
	row := r.pool.row(t)
	if row.Client != "abc-1" || row.ID == "abc-1" {
		t.Errorf("the row %s has the client's id %q, want abc-1 beside its own", row.ID, row.Client)
	}
	for name, id := range map[string]string{"none": "", "one that is no id": "a b\tc", "too long": strings.Repeat("x", 200)} {
		header := []string{}
		if id != "" {
			header = []string{"X-Request-Id", id}
		}
		got := r.post(t, "/v1/chat/completions", streamBody, header...)
		next := r.pool.row(t)
		if want := strings.ReplaceAll(id, "\t", "?"); next.Client != want[:min(len(want), 128)] {
			t.Errorf("%s: the row has %q of the client's id %q, want it as printable ASCII, 128 at most", name, next.Client, id)
		}
		for len(seen) > 1 {
			<-seen
		}
		if h := <-seen; got.header.Get("X-Request-Id") != next.ID || h.Get("X-Request-Id") != next.ID || next.ID == row.ID {
			t.Errorf("%s: client %q, worker %q, row %q; want our own id for all", name, got.header.Get("X-Request-Id"), h.Get("X-Request-Id"), next.ID)
		}
	}
}
