package backend

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/config"
)

// Failure cases that other gateways were seen to break in, and that need more than the gateway; the others are in
// failures_test.go there, the death of the supervisor in cmd/vllmdeck.

// attachable is a server of toy with h for its chats.
func attachable(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/v1/models":
			io.WriteString(w, `{"object":"list","data":[{"id":"toy","object":"model"}]}`)
		case "/v1/chat/completions":
			h(w, r)
		}
	})
}

const answered = `{"id":"c","object":"chat.completion","created":1,"model":"toy","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"total_tokens":10,"completion_tokens":1}}`

func TestStatusCodesAndBreaker(t *testing.T) {
	t.Run("a burst of 4xx must not open a breaker", burstOfRefusals)
	t.Run("a fast-failing backend must lose traffic", fastFailing)
}

// burstOfRefusals is many requests that are wrong, and then one that is right: with two workers, so that an open breaker
// would show in who serves.
func burstOfRefusals(t *testing.T) {
	t.Parallel()
	var right [2]atomic.Int64
	refuse := func(n *atomic.Int64) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if len(b) > 0 && r.Header.Get("X-Wrong") != "" {
				w.WriteHeader(http.StatusBadRequest)
				io.WriteString(w, `{"error":{"message":"max_tokens is too large","type":"BadRequestError","param":"max_tokens","code":400}}`)
				return
			}
			n.Add(1)
			io.WriteString(w, answered)
		}
	}
	dir := t.TempDir()
	r := startRig(&rig{t: t, dir: dir, urls: []string{attachable(t, refuse(&right[0])), attachable(t, refuse(&right[1]))}}, 0)
	r.allReady()
	for range 100 {
		if code := r.header("X-Wrong", "1"); code != 400 {
			t.Fatalf("HTTP %d, want the worker's own 400", code)
		}
	}
	for range 60 {
		if code := r.header(); code != 200 {
			t.Fatalf("HTTP %d after the burst, want 200", code)
		}
	}
	for _, name := range []string{"w0", "w1"} {
		if s := r.upstreams.of(name); s.breaker.Tripped() {
			t.Errorf("the breaker of %s is open", name)
		}
	}
	if a, b := right[0].Load(), right[1].Load(); a == 0 || b == 0 {
		t.Errorf("after the burst the workers served %d and %d, want both some", a, b)
	}
}

// header sends a plain chat with a header.
func (r *rig) header(pairs ...string) int {
	r.t.Helper()
	req, err := http.NewRequest(http.MethodPost, r.URL()+"/v1/chat/completions", strings.NewReader(`{"model":"toy","messages":[{"role":"user","content":"Hello"}]}`))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(pairs); i += 2 {
		req.Header.Set(pairs[i], pairs[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// fastFailing is a worker that fails at once, and so always looks the least busy: it must not draw the requests.
func fastFailing(t *testing.T) {
	t.Parallel()
	var bad, good atomic.Int64
	failing := attachable(t, func(w http.ResponseWriter, _ *http.Request) {
		bad.Add(1)
		w.WriteHeader(http.StatusInternalServerError)
		io.WriteString(w, `{"error":{"message":"Internal server error","code":500}}`)
	})
	slow := attachable(t, func(w http.ResponseWriter, r *http.Request) {
		good.Add(1)
		time.Sleep(5 * time.Millisecond)
		io.WriteString(w, answered)
	})
	r := startRig(&rig{t: t, dir: t.TempDir(), urls: []string{failing, slow}}, 0)
	r.allReady()
	const n = 300
	for range n {
		if code := r.header(); code != 200 {
			t.Fatalf("HTTP %d, want every request served by the other worker", code)
		}
	}
	if b := bad.Load(); b < 1 || b > n/10 {
		t.Errorf("the failing worker got %d of %d requests, want a few", b, n)
	}
	if g := good.Load(); g != n {
		t.Errorf("the good one served %d, want %d", g, n)
	}
}

// TestStart is the engine without a network: prices are with the binary.
func TestStart(t *testing.T) {
	t.Run("price table unreachable at start", func(t *testing.T) {
		for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"} {
			t.Setenv(name, "http://127.0.0.1:1") // whatever is asked outside fails
		}
		t.Setenv("NO_PROXY", "127.0.0.1,localhost")
		began := time.Now()
		r := newRig(t, 1)
		r.allReady()
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("ready after %v: it waited for something", took)
		}
		if code, text := r.chat(8); code != 200 {
			t.Fatalf("HTTP %d: %s", code, text)
		}
		until(t, "the request is priced", func() bool { return r.spendOf(api.ClassServed).Requests == 1 })
		row := r.spendOf(api.ClassServed)
		if row.Would == nil || *row.Would <= 0 || row.Actual == nil || *row.Actual <= 0 {
			t.Errorf("the row cost %v and would have cost %v, want both known and more than 0", row.Actual, row.Would)
		}
	})
}

// TestAReloadDropsNoStream changes the config twice while streams run on both workers: one of them goes and comes back.
func TestAReloadDropsNoStream(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.allReady()
	const n, tokens = 8, 500 // 2 ms each
	type end struct {
		text string
		err  error
	}
	ends := make(chan end, n)
	for range n {
		go func() {
			body := fmt.Sprintf(`{"model":"toy","messages":[{"role":"user","content":"Hello"}],"max_tokens":%d,"ignore_eos":true,"stream":true}`, tokens)
			resp, err := http.Post(r.URL()+"/v1/chat/completions", "application/json", strings.NewReader(body))
			if err != nil {
				ends <- end{err: err}
				return
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			ends <- end{string(text), err}
		}()
	}
	until(t, "all streams flow", func() bool {
		flows := 0
		for _, q := range r.gateway.InFlight(nil) {
			if q.TTFT > 0 {
				flows++
			}
		}
		return flows == n
	})
	r.load = func() (*config.Config, error) {
		c := r.config(1)
		c.Cost.Label = "another"
		return c, nil
	}
	for _, workers := range []int{1, 2} {
		if err := r.Do(t.Context(), api.Action{Verb: api.EngineReload}); err != nil {
			t.Fatal(err)
		}
		r.load = func() (*config.Config, error) { return r.config(2), nil }
		until(t, fmt.Sprintf("%d workers take requests", workers), func() bool {
			m := r.upstreams.Models()
			return len(m) == 1 && m[0].Workers == workers
		})
	}
	if len(ends) == n {
		t.Error("all streams had ended before: the test shows nothing")
	}
	for range n {
		if e := <-ends; e.err != nil || !strings.HasSuffix(e.text, "data: [DONE]\n\n") || strings.Contains(e.text, `"error"`) {
			t.Errorf("a stream ended with %v after %d bytes, want it whole: …%s", e.err, len(e.text), e.text[max(0, len(e.text)-300):])
		}
	}
	until(t, "all are in the ledger", func() bool { return r.spendOf(api.ClassServed).Requests > 0 })
}
