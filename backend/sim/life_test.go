package sim

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const deadEvent = `data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", "type": "InternalServerError", "param": null, "code": 500}}` + "\n\ndata: [DONE]\n\n"

func TestPortIsRefusedUntilReady(t *testing.T) {
	inBox(t, Options{Model: "m", Start: 10 * time.Second}, func(b *box) {
		time.Sleep(9900 * time.Millisecond)
		if _, err := b.c.Get("http://sim/health"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("health while loading: %v, want connection refused", err)
		}
		b.srv.Drain() // swallowed while the engine loads
		time.Sleep(200 * time.Millisecond)
		res, err := b.c.Get("http://sim/health")
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("health when ready = %v, %v", res, err)
		}
		res.Body.Close()
		at := 0
		for _, phase := range []string{
			"SIMULATED", "vLLM server version 0.32.0, serving model m", "Resolved architecture:", "Using max model len 8192", "Initializing a V1 LLM engine (v0.32.0) with config:",
			"Starting to load model m...", "\rLoading safetensors checkpoint shards:  50% Completed | 2/4", "Loading weights took", "GPU KV cache size: 65,536 tokens, Maximum concurrency for 8,192 tokens per request: 8.00x",
			"init engine (profile, create kv cache, warmup model) took", "Starting vLLM server on http://", "Application startup complete.",
		} {
			i := strings.Index(b.log.String()[at:], phase)
			if i < 0 {
				t.Fatalf("log lacks %q after byte %d:\n%s", phase, at, b.log)
			}
			at += i
		}
	})
}

// stream begins a long stream and gives its body after the first event.
func (b *box) stream() io.ReadCloser {
	b.t.Helper()
	res := b.post("/v1/chat/completions", chatBody("Long", `,"max_tokens":200,"ignore_eos":true,"stream":true`))
	if _, err := io.ReadFull(res.Body, make([]byte, 100)); err != nil {
		b.t.Fatal(err)
	}
	return res.Body
}

func (b *box) health() int {
	res, err := b.c.Get("http://sim/health")
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

func TestDeadEngine(t *testing.T) {
	inBox(t, Options{Model: "m"}, func(b *box) {
		body := b.stream()
		time.Sleep(100 * time.Millisecond)
		b.srv.Die()
		rest, err := io.ReadAll(body)
		if err != nil || !strings.HasSuffix(string(rest), deadEvent) {
			t.Errorf("stream ends with %q, %v; want the error event and [DONE]", rest[max(0, len(rest)-300):], err)
		}
		res := b.post("/v1/chat/completions", chatBody("x", ""))
		plain, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusInternalServerError || !strings.Contains(string(plain), "EngineCore encountered an issue.") {
			t.Errorf("new request = %d %s, want 500", res.StatusCode, plain)
		}
		if got := b.health(); got != 503 {
			t.Errorf("health = %d, want 503", got)
		}
		if err := <-b.done; err != nil {
			t.Errorf("Serve = %v; vLLM exits with 0", err)
		}
		if got := b.health(); got != 0 {
			t.Errorf("health after the end = %d, want refused", got)
		}
		if !strings.Contains(b.log.String(), "engine core exited unexpectedly") {
			t.Errorf("log does not say that the engine died")
		}
	})
}

func TestDrainLetsRequestsFinish(t *testing.T) {
	inBox(t, Options{Model: "m", ShutdownTimeout: 30 * time.Second, Start: 5 * time.Second}, func(b *box) {
		time.Sleep(5100 * time.Millisecond)
		body := b.stream()
		b.srv.Drain()
		synctest.Wait()
		res := b.post("/v1/chat/completions", chatBody("x", ""))
		got, _ := io.ReadAll(res.Body)
		res.Body.Close()
		want := `{"error":{"message":"cannot schedule new futures after shutdown","type":"InternalServerError","param":null,"code":500}}`
		if res.StatusCode != http.StatusInternalServerError || string(got) != want {
			t.Errorf("new request = %d %s\nwant 500 %s", res.StatusCode, got, want)
		}
		rest, err := io.ReadAll(body)
		if err != nil || !strings.Contains(string(rest), `"finish_reason":"length"`) || strings.Contains(string(rest), "error") {
			t.Errorf("running stream does not finish: %v", err)
		}
		ended := time.Now()
		if got := b.health(); got != 200 {
			t.Errorf("health while draining = %d, want 200", got)
		}
		if err := <-b.done; err != nil {
			t.Errorf("Serve = %v", err)
		}
		if d := time.Since(ended); d < 6*time.Second || d > 10*time.Second {
			t.Errorf("left %v after the last request, want 6 to 10 s", d)
		}
		if !strings.Contains(b.log.String(), "request processing complete; starting resource teardown") {
			t.Errorf("log does not say that the drain is through")
		}
	})
}

func TestDrainTimeoutAndAbort(t *testing.T) {
	for _, c := range []struct {
		timeout, atMost time.Duration
	}{{time.Second, 1500 * time.Millisecond}, {0, 500 * time.Millisecond}} {
		inBox(t, Options{Model: "m", ShutdownTimeout: c.timeout}, func(b *box) {
			body := b.stream()
			begun := time.Now()
			b.srv.Drain()
			rest, err := io.ReadAll(body)
			if err != nil || !strings.HasSuffix(string(rest), deadEvent) {
				t.Errorf("timeout %v: stream ends with %q, %v; want the error event and [DONE]", c.timeout, rest[max(0, len(rest)-200):], err)
			}
			if err := <-b.done; err != nil {
				t.Errorf("Serve = %v", err)
			}
			if d := time.Since(begun); d > c.atMost {
				t.Errorf("timeout %v: ended after %v, want at most %v", c.timeout, d, c.atMost)
			}
		})
	}
}

func TestFrozenEngineLooksHealthy(t *testing.T) {
	inBox(t, Options{Model: "m"}, func(b *box) {
		body := b.stream()
		time.Sleep(50 * time.Millisecond)
		b.srv.Freeze(true)
		time.Sleep(time.Second)
		steps, gen := b.metric("vllm:iteration_tokens_total_count"), b.metric("vllm:generation_tokens_total")
		time.Sleep(time.Minute)
		if b.metric("vllm:iteration_tokens_total_count") != steps || b.metric("vllm:generation_tokens_total") != gen {
			t.Errorf("counters move while frozen")
		}
		if n := b.metric("vllm:num_requests_running"); n != 1 {
			t.Errorf("running = %v, want the last value, 1", n)
		}
		if got := b.health(); got != 200 {
			t.Errorf("health = %d, want 200", got)
		}
		b.srv.Freeze(false)
		rest, err := io.ReadAll(body)
		if err != nil || !strings.HasSuffix(string(rest), "data: [DONE]\n\n") {
			t.Errorf("stream does not go on after the freeze: %v", err)
		}
	})
}

func TestKilledServerCutsConnections(t *testing.T) {
	inBox(t, Options{Model: "m"}, func(b *box) {
		body := b.stream()
		plain := make(chan error, 1)
		go func() {
			res, err := b.try("/v1/chat/completions", chatBody("x", `,"max_tokens":500,"ignore_eos":true`))
			if err == nil {
				_, err = io.ReadAll(res.Body)
				if res.StatusCode == http.StatusOK && err == nil {
					err = errors.New("answered")
				}
				res.Body.Close()
			}
			plain <- err
		}()
		time.Sleep(100 * time.Millisecond)
		b.cancel()
		rest, err := io.ReadAll(body)
		if err == nil {
			t.Errorf("stream of a killed server ends cleanly with %q", rest[max(0, len(rest)-100):])
		}
		if err := <-plain; err == nil || err.Error() == "answered" {
			t.Errorf("plain request of a killed server = %v, want a cut connection", err)
		}
		if err := <-b.done; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
}

func TestStatsLineComesWhileBusy(t *testing.T) {
	inBox(t, Options{Model: "m"}, func(b *box) {
		time.Sleep(65 * time.Second)
		if strings.Contains(b.log.String(), "Engine 000:") {
			t.Errorf("idle server logs statistics")
		}
		b.ask(chatBody("x", `,"max_tokens":1000,"ignore_eos":true`))
		time.Sleep(time.Minute)
		n := strings.Count(b.log.String(), "Engine 000: Avg prompt throughput: ")
		if n < 2 || n > 4 {
			t.Errorf("%d statistics lines for 12 busy seconds, want 2 to 4:\n%s", n, b.log)
		}
		if !strings.Contains(b.log.String(), "Running: 1 reqs, Waiting: 0 reqs, GPU KV cache usage: ") {
			t.Errorf("no line shows the running request:\n%s", b.log)
		}
	})
}

func TestAPIKeyGuardsV1(t *testing.T) {
	inBox(t, Options{Model: "m", APIKey: "secret"}, func(b *box) {
		res := b.post("/v1/chat/completions", chatBody("x", ""))
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusUnauthorized || string(body) != `{"error":"Unauthorized"}` {
			t.Errorf("without a key = %d %s", res.StatusCode, body)
		}
		if got := b.health(); got != 200 {
			t.Errorf("health without a key = %d, want 200", got)
		}
		req, _ := http.NewRequest(http.MethodGet, "http://sim/v1/models", nil)
		req.Header.Set("Authorization", "Bearer secret")
		ok, err := b.c.Do(req)
		if err != nil || ok.StatusCode != http.StatusOK {
			t.Fatalf("with the key = %v, %v", ok, err)
		}
		ok.Body.Close()
	})
}
