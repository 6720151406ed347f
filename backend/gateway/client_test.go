package gateway

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// dial opens a raw connection to the gateway and sends a request.
func (r *rig) dial(t testing.TB, path, body string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	return c.(*net.TCPConn)
}

// begin sends a chat request; leave hangs up.
func (r *rig) begin(t testing.TB, body string) (leave func()) {
	t.Helper()
	c := r.dial(t, "/v1/chat/completions", body)
	return func() { c.Close() }
}

// clientLeaves hangs up at every stage of a request, on every route: the worker must hear of it at once.
func clientLeaves(t *testing.T) {
	for _, tt := range []struct {
		name   string
		body   string
		before string // what the worker sends before it goes on generating
		seen   string // what the client waits for before it leaves
		tokens int64
	}{
		{"non-stream", chatBody, "", "", 0},
		{"non-stream, in the middle of the body", chatBody, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 900\r\n\r\n{", "", 0},
		{"before headers", streamBody, "", "", 0},
		{"before the first token", streamBody, streamHead + chunk(evRole), "", 0},
		{"mid-stream", streamBody, streamHead + chunk(evRole) + chunk(evText("a")) + chunk(evText("b")), `"b"`, 2},
	} {
		for _, d := range dialects {
			if d.event == nil && tt.body == streamBody || d.name != "chat" && tt.tokens > 0 {
				continue
			}
			t.Run(tt.name+"/"+d.name, func(t *testing.T) {
				started, gone := make(chan struct{}), make(chan time.Time, 1)
				r := second(t, serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) {
					io.WriteString(c, tt.before)
					close(started)
					c.SetReadDeadline(time.Now().Add(10 * time.Second))
					if _, err := c.Read(make([]byte, 1)); errors.Is(err, io.EOF) || strings.Contains(fmt.Sprint(err), "reset") {
						gone <- time.Now()
					}
				}), goodAnswer(t))
				c := r.dial(t, d.path, tt.body)
				<-started
				if tt.seen != "" {
					in := bufio.NewReader(c)
					for line := ""; !strings.Contains(line, tt.seen); {
						var err error
						if line, err = in.ReadString('\n'); err != nil {
							t.Fatal(err)
						}
					}
				}
				left := time.Now()
				c.Close()
				// Within 50 ms on a machine that is free. What must not be is that the worker hears of it by its own next write.
				if d := (<-gone).Sub(left); d > 5*time.Second {
					t.Errorf("the worker noticed after %v, want at once", d)
				} else if d > 50*time.Millisecond {
					t.Logf("the worker noticed after %v (limit 50ms)", d)
				}
				row := r.pool.row(t)
				if row.Outcome != api.OutcomeCancelled || len(row.Attempts) != 1 || row.Attempts[0].Outcome != api.OutcomeCancelled || row.Usage.Output != tt.tokens {
					t.Errorf("row = %s, attempts %+v, %d tokens; want client_cancelled once with %d", row.Outcome, row.Attempts, row.Usage.Output, tt.tokens)
				}
				if want := api.UsageUnknown; tt.tokens == 0 && row.UsageSource != want {
					t.Errorf("usage source = %s, want %s: nothing was counted", row.UsageSource, want)
				}
				if res := r.pool.results["a"]; len(res) != 1 || res[0] != route.Neutral {
					t.Errorf("the breaker was told %v, want one neutral result", res)
				}
			})
		}
	}
}

func TestClientThatDoesNotReadIsCut(t *testing.T) {
	var sent counter
	stopped := make(chan struct{})
	r := newRig(t, func(g *Gateway) { g.WriteTimeout = 300 * time.Millisecond })
	r.pool.add("a", serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
		defer close(stopped)
		w.Header().Set("Content-Type", "text/event-stream")
		ev := evText(strings.Repeat("x", 64<<10))
		for {
			n, err := io.WriteString(w, ev)
			if err != nil {
				return
			}
			sent.Add(int64(n))
		}
	}))
	c := r.dial(t, "/v1/chat/completions", streamBody)
	c.SetReadBuffer(4096)
	start := time.Now()
	row := r.pool.row(t)
	if row.Outcome != api.OutcomeCancelled || !strings.Contains(row.Error, "does not read") {
		t.Errorf("row = %s %q, want client_cancelled because the client does not read", row.Outcome, row.Error)
	}
	if d := time.Since(start); d > 8*time.Second {
		t.Errorf("cut after %v, want soon after the limit of 300ms", d)
	}
	<-stopped // the worker is told
	if sent.Load() > 64<<20 {
		t.Errorf("%d bytes were taken from the worker for a client that reads nothing", sent.Load())
	}
}

func TestPanicIsRecordedAndAnswered(t *testing.T) {
	r := newRig(t)
	r.pool.add("a", goodAnswer(t))
	r.pool.price = func(*api.Request) { panic("boom") }
	got := r.post(t, "/v1/chat/completions", chatBody)
	if got.status != 500 || !strings.Contains(got.body, `"internal_error"`) || strings.Contains(got.body, "boom") {
		t.Errorf("got %d %s, want an OpenAI-shaped 500 without the panic's text", got.status, got.body)
	}
	if row := r.pool.row(t); row.Outcome != api.OutcomeError {
		t.Errorf("row = %s, want error", row.Outcome)
	}
	if tr := r.Traffic(); tr.InFlight != 0 {
		t.Errorf("%d requests in flight, want 0", tr.InFlight)
	}
}

func TestPanicInTheMiddleOfAStreamAborts(t *testing.T) {
	r := newRig(t, func(g *Gateway) { g.Tokens = func(int) { panic("boom") } })
	r.pool.add("a", good(t))
	if got := r.post(t, "/v1/chat/completions", streamBody); got.err == nil {
		t.Errorf("client saw a clean end of %q, want a broken one", got.body)
	}
	if row := r.pool.row(t); row.Outcome != api.OutcomeLost {
		t.Errorf("row = %s, want upstream_lost", row.Outcome)
	}
}

func TestHTTP10ClientSeesABrokenStreamAsBroken(t *testing.T) {
	r := newRig(t)
	r.pool.add("a", serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) {
		io.WriteString(c, streamHead+chunk(evRole)+chunk(evText("x")))
		for live := r.InFlight(nil); len(live) == 1 && live[0].Usage.Output < 1; live = r.InFlight(nil) {
			runtime.Gosched()
		}
	}))
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /v1/chat/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(streamBody), streamBody)
	if b, err := io.ReadAll(c); err == nil {
		t.Errorf("the client saw a clean end of %q, want a reset", b)
	}
	r.pool.row(t)
}

func TestHalfClosedClientGetsNoEmptyAnswer(t *testing.T) {
	r := newRig(t)
	url, pass, order := gate(t)
	defer close(pass)
	r.pool.add("a", url)
	c := r.dial(t, "/v1/chat/completions", chatBody)
	until(t, "request is with the worker", func() bool { return len(order()) == 1 })
	c.CloseWrite()
	if b, _ := io.ReadAll(c); len(b) != 0 {
		t.Errorf("a client that closed its side got %q, want nothing", b)
	}
	r.pool.row(t)
}
