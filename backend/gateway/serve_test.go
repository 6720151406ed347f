package gateway

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// second prepares a rig whose worker a is tried first and b is good.
func second(t *testing.T, a, b string, change ...func(*Gateway)) *rig {
	t.Helper()
	r := newRig(t, change...)
	r.pool.add("a", a)
	r.pool.set(route.Candidate{ID: "b", Ready: true, State: "ready", Waiting: 5}, b)
	return r
}

// TestFailureBeforeContentIsUnseen is the rows of the retry table that end before the first content:
// another worker takes over, and the client sees nothing but its answer.
func TestFailureBeforeContentIsUnseen(t *testing.T) {
	refused := func() string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		return "http://" + ln.Addr().String()
	}()
	raw := func(s string) func(testing.TB) string {
		return func(t testing.TB) string {
			t.Helper()
			return serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) { io.WriteString(c, s) })
		}
	}
	status := func(code int, body string, header ...string) func(testing.TB) string {
		return func(t testing.TB) string {
			t.Helper()
			return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", "application/json")
				for i := 0; i+1 < len(header); i += 2 {
					w.Header().Set(header[i], header[i+1])
				}
				w.WriteHeader(code)
				io.WriteString(w, body)
			})
		}
	}
	evs := func(e ...string) func(testing.TB) string {
		return func(t testing.TB) string {
			t.Helper()
			return events(t, e...)
		}
	}
	for _, tt := range []struct {
		name   string
		worker func(testing.TB) string
		result route.Result
	}{
		{"connection refused", func(testing.TB) string { return refused }, route.Failed},
		{"closed without a byte", raw(""), route.Failed},
		{"half a status line", raw("HTTP/1.1 20"), route.Failed},
		{"not HTTP", raw("SSH-2.0-OpenSSH_9.6\r\n\r\n"), route.Failed},
		{"reset", func(t testing.TB) string {
			t.Helper()
			return serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) { c.SetLinger(0) })
		}, route.Failed},
		{"500", status(500, `{"error":{"message":"Internal server error","type":"InternalServerError","param":null,"code":500}}`), route.Failed},
		{"500 of a dead engine", status(500, `{"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root cause.","type":"InternalServerError","param":null,"code":500}}`), route.Failed},
		{"500 of a draining worker", status(500, `{"error":{"message":"cannot schedule new futures after shutdown","type":"InternalServerError","param":null,"code":500}}`), route.Neutral},
		{"502 in HTML", status(502, "<html>"), route.Failed},
		{"503 without Retry-After", status(503, `{"error":"The model is currently scaling. Please try again later."}`), route.Neutral},
		{"503 with Retry-After", status(503, `{"error":{"message":"The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."}}`, "Retry-After", "9"), route.Neutral},
		{"429 without Retry-After", status(429, `{"error":{"message":"slow down"}}`), route.Neutral},
		{"429 with Retry-After", status(429, `{"error":{"message":"slow down"}}`, "Retry-After", "9"), route.Neutral},
		{"401 for our key", status(401, `{"error":"Unauthorized"}`), route.Neutral},
		{"a redirect", status(307, "", "Location", "http://192.0.2.1/"), route.Failed},
		{"200 of another kind of server", status(200, "<html>", "Content-Type", "text/html"), route.Failed},
		{"a compressed answer", status(200, "\x1f\x8b", "Content-Encoding", "gzip"), route.Failed},
		{"stream: an event that never ends", raw(streamHead + chunk("data: "+strings.Repeat("x", maxEvent+1))), route.Failed},
		{"stream: only the head, then closed", raw(streamHead), route.Failed},
		{"stream: role, then cut", raw(streamHead + chunk(evRole)), route.Failed},
		{"stream: role, half an event, then cut", raw(streamHead + chunk(evRole+evText("x")[:40])), route.Failed},
		{"stream: role and comments, then a clean end", evs(evRole, ": ping\n\n"), route.Failed},
		{"stream: an error event", evs(evOops, evDone), route.Failed},
		{"stream: the engine died", evs(evRole, evError, evDone), route.Failed},
		{"stream: busy after 200", evs(evBusy, evDone), route.Neutral},
		{"stream: [DONE] without a finish_reason", evs(evRole, evDone), route.Failed},
		{"stream: aborted by the worker", evs(evRole, strings.Replace(evFinish, `"stop"`, `"abort"`, 1), evDone), route.Failed},
		{"stream: content and the error in one piece", evs(evRole + evText("x") + evError + evDone), route.Failed},
	} {
		for i := range 4 {
			stream, foreign := i%2 == 0, i/2 == 0 // by way of net/http, as providers are
			if !stream && strings.HasPrefix(tt.name, "stream:") {
				continue
			}
			t.Run(fmt.Sprintf("%s/stream=%v/net-http=%v", tt.name, stream, foreign), func(t *testing.T) {
				b, body, want := goodAnswer(t), chatBody, wholeAnswer
				if stream {
					b, body, want = good(t), streamBody, goodStream()
				}
				r := second(t, tt.worker(t), b, func(g *Gateway) { g.CostInfo = false })
				if foreign {
					r.pool.client = netHTTP()
					r.pool.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
					defer r.pool.client.CloseIdleConnections()
				}
				got := r.post(t, "/v1/chat/completions", body)
				if got.err != nil || got.status != 200 || got.body != want {
					t.Fatalf("client got %d %q (%v), want the second worker's answer", got.status, got.body, got.err)
				}
				row := r.pool.row(t)
				if row.Outcome != api.OutcomeOK || row.Worker != "b" || len(row.Attempts) != 2 || row.Attempts[0].Outcome != api.OutcomeError || row.Attempts[1].Outcome != api.OutcomeOK {
					t.Errorf("row = %s on %s with attempts %+v, want ok on b after an error on a", row.Outcome, row.Worker, row.Attempts)
				}
				if res := r.pool.results["a"]; len(res) != 1 || res[0] != tt.result {
					t.Errorf("the breaker of a was told %v, want one %v", res, tt.result)
				}
				if got := r.Traffic().Moved; got != 1 {
					t.Errorf("moved = %d, want 1", got)
				}
			})
		}
	}
}

// lossAfterContent is every way in which a stream can break after content: the client gets
// one error event and a broken connection, never a clean end.
func lossAfterContent(t *testing.T) {
	head := evRole + evText("some") + evText(" text é")
	var r *rig
	cut := func(tail string, reset bool) func(testing.TB) string {
		return func(t testing.TB) string {
			t.Helper()
			return serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) {
				io.WriteString(c, streamHead+chunk(evRole)+chunk(evText("some"))+chunk(evText(" text é")))
				// The client must have the content before the stream breaks.
				for live := r.InFlight(nil); len(live) == 1 && live[0].Usage.Output < 2; live = r.InFlight(nil) {
					runtime.Gosched()
				}
				io.WriteString(c, tail)
				if reset {
					c.SetLinger(0)
				}
			})
		}
	}
	half := evText("héllo")
	for _, tt := range []struct {
		name   string
		worker func(testing.TB) string
		code   string
	}{
		{"cut after k tokens", cut("", false), "upstream_failed"},
		{"reset after k tokens", cut("", true), "upstream_failed"},
		{"cut in the middle of an event", cut(chunk(half[:len(half)-30]), false), "upstream_failed"},
		{"cut in the middle of a character", cut(chunk(half[:strings.Index(half, "é")+1]), false), "upstream_failed"},
		{"cut in the middle of a chunk's head", cut("1", false), "upstream_failed"},
		{"clean end without [DONE]", cut("0\r\n\r\n", false), "upstream_failed"},
		{"clean end after finish_reason, without [DONE]", cut(chunk(evFinish)+"0\r\n\r\n", false), "upstream_failed"},
		{"[DONE] without finish_reason", cut(chunk(evDone)+"0\r\n\r\n", false), "upstream_failed"},
		{"clean end in the middle of an event", cut(chunk(half[:len(half)-30])+"0\r\n\r\n", false), "upstream_failed"},
		{"error event and [DONE]", cut(chunk(evError)+chunk(evDone)+"0\r\n\r\n", false), "upstream_failed"},
		{"error event and [DONE] in one piece", cut(chunk(evError+evDone)+"0\r\n\r\n", false), "upstream_failed"},
		{"abort as finish_reason", cut(chunk(strings.Replace(evFinish, `"stop"`, `"abort"`, 1))+chunk(evDone)+"0\r\n\r\n", false), "upstream_failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r = second(t, tt.worker(t), good(t))
			got := r.post(t, "/v1/chat/completions", streamBody)
			if got.err == nil {
				t.Errorf("the client saw a clean end of %q, want a broken one", got.body)
			}
			rest, ok := strings.CutPrefix(got.body, head)
			if !ok {
				t.Fatalf("client got %q, want it to begin with %q", got.body, head)
			}
			rest = strings.TrimPrefix(rest, evFinish)
			data, found := strings.CutPrefix(rest, "data: ")
			if !found || strings.Count(rest, "data: ") != 1 || !strings.HasSuffix(rest, "}}\n\n") {
				t.Fatalf("after the content came %q, want exactly one error event", rest)
			}
			e := gjson.Get(data, "error")
			if e.Get("type").Str != "upstream_lost" || e.Get("code").Str != tt.code || e.Get("param").Type != gjson.Null || e.Get("request_id").Str != got.header.Get("X-Request-Id") || e.Get("message").Str == "" {
				t.Errorf("error event = %s, want type upstream_lost, code %s, param null, the request id and a message", e, tt.code)
			}
			row := r.pool.row(t)
			if row.Outcome != api.OutcomeLost || row.UsageSource != api.UsageCounted || row.Usage.Output != 2 || row.Error == "" {
				t.Errorf("row = %s, %s usage %+v, error %q; want upstream_lost with 2 tokens counted", row.Outcome, row.UsageSource, row.Usage, row.Error)
			}
			if len(row.Attempts) != 1 || row.Attempts[0].Outcome != api.OutcomeLost {
				t.Errorf("attempts = %+v, want one that was lost", row.Attempts)
			}
			if n := r.pool.acquired["b"]; n != 0 {
				t.Errorf("the other worker got %d requests, want 0: an answer is never begun twice", n)
			}
		})
	}
}

func TestAnswerCutInTheMiddleIsServedByAnotherWorker(t *testing.T) {
	for name, raw := range map[string]string{
		"shorter than Content-Length":  fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(wholeAnswer), wholeAnswer[:100]),
		"chunks without an end":        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(wholeAnswer[:100]),
		"whole but for the last chunk": "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(wholeAnswer),
		"no length, cut":               "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + wholeAnswer[:100],
		"no length, cut at a brace":    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + wholeAnswer[:len(wholeAnswer)-1],
		"chunks ended at a brace":      "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(wholeAnswer[:len(wholeAnswer)-1]) + "0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			bad := serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) { io.WriteString(c, raw) })
			r := second(t, bad, goodAnswer(t), func(g *Gateway) { g.CostInfo = false })
			got := r.post(t, "/v1/chat/completions", chatBody)
			if got.status != 200 || got.body != wholeAnswer || got.err != nil {
				t.Errorf("client got %d %q (%v), want the whole answer", got.status, got.body, got.err)
			}
			if row := r.pool.row(t); row.Outcome != api.OutcomeOK || len(row.Attempts) != 2 {
				t.Errorf("row = %s with %d attempts, want ok with 2", row.Outcome, len(row.Attempts))
			}
		})
	}
}

func ownRefusalIsPassedThrough(t *testing.T) {
	for _, name := range []string{"err_model", "err_toolong_prompt"} {
		t.Run(name, func(t *testing.T) {
			status, header, body := recording(t, name)
			worker := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				w.Header().Set("Content-Type", header.Get("Content-Type"))
				w.WriteHeader(status)
				io.WriteString(w, body)
			})
			r := second(t, worker, goodAnswer(t))
			for range 20 { // a burst of 4xx must not open a breaker
				got := r.post(t, "/v1/chat/completions", chatBody)
				if got.status != status || got.body != body {
					t.Fatalf("client got %d %q, want the worker's %d %q", got.status, got.body, status, body)
				}
				if row := r.pool.row(t); row.Outcome != api.OutcomeRejected || row.Status != status || len(row.Attempts) != 1 {
					t.Fatalf("row = %s %d with %d attempts, want rejected %d with 1", row.Outcome, row.Status, len(row.Attempts), status)
				}
			}
			if res := r.pool.results["a"]; len(res) != 20 || slices.ContainsFunc(res, func(x route.Result) bool { return x != route.Neutral }) {
				t.Errorf("the breaker was told %v, want 20 neutral results", res)
			}
		})
	}
}

func TestRetriesEnd(t *testing.T) {
	var calls counter
	bad := func(t testing.TB) string {
		t.Helper()
		return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			calls.Add(1)
			w.WriteHeader(http.StatusInternalServerError)
			io.WriteString(w, `{"error":{"message":"boom","type":"InternalServerError","param":null,"code":500}}`)
		})
	}
	t.Run("two extra tries for 5xx, then 502 that asks for no more", func(t *testing.T) {
		calls.Store(0)
		r := newRig(t)
		for i := range 8 {
			r.pool.add(fmt.Sprintf("w%d", i), bad(t))
		}
		got := r.post(t, "/v1/chat/completions", chatBody)
		if got.status != 502 || calls.Load() != 3 {
			t.Errorf("status %d after %d calls, want 502 after 3", got.status, calls.Load())
		}
		if got.header.Get("X-Should-Retry") != "false" {
			t.Errorf("x-should-retry = %q, want false", got.header.Get("X-Should-Retry"))
		}
		if msg := gjson.Get(got.body, "error.message").Str; !strings.Contains(msg, "boom") || !strings.Contains(msg, "3 tries") {
			t.Errorf("message = %q, want the worker's words and the number of tries", msg)
		}
		if row := r.pool.row(t); row.Outcome != api.OutcomeError || row.Status != 502 || len(row.Attempts) != 3 {
			t.Errorf("row = %s %d with %d attempts, want error 502 with 3", row.Outcome, row.Status, len(row.Attempts))
		}
	})
	t.Run("a request that kills workers is not handed round", func(t *testing.T) {
		calls.Store(0)
		r := newRig(t)
		for i := range 8 {
			r.pool.add(fmt.Sprintf("w%d", i), serveRaw(t, func(*net.TCPConn, *http.Request, string) { calls.Add(1) }))
		}
		if got := r.post(t, "/v1/chat/completions", chatBody); got.status != 502 || calls.Load() != 2 {
			t.Errorf("status %d after %d workers died, want 502 after 2", got.status, calls.Load())
		}
		r.pool.row(t)
	})
	t.Run("with the budget spent only a death is moved", func(t *testing.T) {
		calls.Store(0)
		r := second(t, bad(t), goodAnswer(t))
		for r.budget.Take(1) {
		}
		if got := r.post(t, "/v1/chat/completions", chatBody); got.status != 502 || calls.Load() != 1 {
			t.Errorf("status %d after %d calls, want 502 after 1", got.status, calls.Load())
		}
		r.pool.row(t)
		r = second(t, serveRaw(t, func(*net.TCPConn, *http.Request, string) {}), goodAnswer(t))
		for r.budget.Take(1) {
		}
		if got := r.post(t, "/v1/chat/completions", chatBody); got.status != 200 {
			t.Errorf("status %d after a worker died with the budget spent, want 200 from the other", got.status)
		}
		r.pool.row(t)
	})
	t.Run("claims of the budget come back", func(t *testing.T) {
		r := newRig(t)
		for i := range 3 {
			r.pool.add(fmt.Sprintf("w%d", i), bad(t))
		}
		for range 10 {
			r.post(t, "/v1/chat/completions", chatBody)
			if row := r.pool.row(t); len(row.Attempts) != 3 {
				t.Fatalf("%d attempts, want 3 each time", len(row.Attempts))
			}
		}
	})
	t.Run("busy everywhere is told with Retry-After", func(t *testing.T) {
		busy := func(code int, retry string) string {
			return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				w.Header().Set("Retry-After", retry)
				w.WriteHeader(code)
			})
		}
		for _, code := range []int{429, 503} {
			r := newRig(t)
			r.pool.add("a", busy(code, "17"))
			got := r.post(t, "/v1/chat/completions", chatBody)
			if got.status != code || got.header.Get("Retry-After") != "17" || got.header.Get("X-Should-Retry") != "false" {
				t.Errorf("got %d, Retry-After %q, x-should-retry %q; want %d, 17, false", got.status, got.header.Get("Retry-After"), got.header.Get("X-Should-Retry"), code)
			}
			r.pool.row(t)
		}
	})
}

func TestStaleKeptConnectionIsReplacedUnseen(t *testing.T) {
	var conns counter
	url := serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) {
		conns.Add(1)
		// Keep-alive is promised, but the connection is closed after one answer.
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(wholeAnswer), wholeAnswer)
	})
	r := newRig(t)
	r.pool.add("a", url)
	for i := range 5 {
		got := r.post(t, "/v1/chat/completions", chatBody)
		if got.status != 200 {
			t.Fatalf("request %d: status %d %s, want 200", i, got.status, got.body)
		}
		if row := r.pool.row(t); len(row.Attempts) != 1 {
			t.Errorf("request %d took %d attempts, want 1: a stale connection is not the worker's fault", i, len(row.Attempts))
		}
	}
	if conns.Load() != 5 {
		t.Errorf("%d connections were used, want 5", conns.Load())
	}
}

func TestConnectionsAreKept(t *testing.T) {
	var conns counter
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), `"stream":true`) {
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			io.WriteString(w, evRole+evText("x")+evFinish+evUsage+evDone)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, wholeAnswer)
	})
	s := newServer(t, h, func(net.Conn) { conns.Add(1) })
	r := newRig(t)
	r.pool.add("a", s)
	for range 10 {
		r.post(t, "/v1/chat/completions", chatBody)
		r.post(t, "/v1/chat/completions", streamBody)
		r.pool.row(t)
		r.pool.row(t)
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections for 20 requests one after the other, want 1", conns.Load())
	}
}
