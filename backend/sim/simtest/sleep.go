package simtest

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// sleepMode holds where the server has its development routes (VLLM_SERVER_DEV_MODE=1); else they must not be there. On a CPU
// vLLM frees nothing, but answers, pauses and parks like on a GPU.
func sleepMode(t *testing.T, s Target) {
	asleep := func() bool {
		v, _ := parse(t, s.do(t, "GET", "/is_sleeping", "").body).at("is_sleeping").(bool)
		return v
	}
	if a := s.do(t, "GET", "/is_sleeping", ""); a.status == http.StatusNotFound {
		if a := s.do(t, "POST", "/sleep", ""); a.status != http.StatusNotFound {
			t.Errorf("/is_sleeping is 404 and /sleep %d", a.status)
		}
		t.Log("no development routes: sleep mode not checked")
		return
	}
	if asleep() {
		t.Fatal("it sleeps already")
	}
	if a := s.do(t, "POST", "/sleep?level=3", ""); a.status != http.StatusBadRequest {
		t.Errorf("level 3 = %d %s, want 400", a.status, a.body)
	}
	for _, level := range []string{"1", "2"} {
		if a := s.do(t, "POST", "/sleep?level="+level, ""); a.status != 200 || string(a.body) != `{"status":"sleeping","level":`+level+`}` {
			t.Fatalf("sleep = %d %s", a.status, a.body)
		}
		if !asleep() {
			t.Error("it does not say that it sleeps")
		}
		if a := s.do(t, "GET", "/health", ""); a.status != 200 {
			t.Errorf("/health = %d while it sleeps, want 200", a.status)
		}
		state := map[string]string{"1": "weights_offloaded", "2": "discard_all"}[level]
		if m := s.scrape(t); m["vllm:engine_sleep_state{engine=0,sleep_state="+state+"}"] != 1 || m["vllm:engine_sleep_state{engine=0,sleep_state=awake}"] != 0 {
			t.Errorf("the sleep gauges do not say %s", state)
		}
		parked := s.park(t)
		if m := s.scrape(t); m["vllm:num_requests_running{engine=0}"] != 0 || m["vllm:num_requests_waiting{engine=0}"] != 0 {
			t.Error("a parked request shows in the gauges")
		}
		if level == "2" {
			if a := s.do(t, "POST", "/wake_up?tags=weights", ""); a.status != 200 || string(a.body) != `{"status":"sleeping","tags":["weights"]}` {
				t.Errorf("partial wake = %d %s", a.status, a.body)
			}
			if a := s.do(t, "POST", "/collective_rpc", `{"method":"reload_weights"}`); a.status != 200 || string(a.body) != `{"results":[null]}` {
				t.Errorf("reload_weights = %d %s", a.status, a.body)
			}
		}
		if a := s.do(t, "POST", "/wake_up", ""); a.status != 200 || string(a.body) != `{"status":"awake","tags":null}` {
			t.Errorf("wake_up = %d %s", a.status, a.body)
		}
		if a := s.do(t, "POST", "/reset_prefix_cache", ""); a.status != 200 || !strings.HasPrefix(string(a.body), `{"success":`) {
			t.Errorf("reset_prefix_cache = %d %s", a.status, a.body)
		}
		if text := <-parked; !strings.HasSuffix(strings.TrimSpace(text), "data: [DONE]") {
			t.Errorf("the parked request ends with %q", text)
		}
		if asleep() {
			t.Error("it sleeps after wake_up")
		}
	}
}

// park sends a stream to a sleeping server: its headers come, and no byte. The channel gives the whole stream in the end.
func (t Target) park(tt *testing.T) <-chan string {
	tt.Helper()
	ctx, cancel := context.WithTimeout(tt.Context(), time.Minute)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.BaseURL+"/v1/chat/completions", strings.NewReader(t.body(user+`,"max_tokens":3,"stream":true`)))
	if err != nil {
		tt.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := t.Client.Do(req) //nolint:bodyclose // by who reads it, below
	if err != nil || resp.StatusCode != http.StatusOK {
		tt.Fatalf("a request to a sleeping server = %v, %v; want 200 at once", resp, err)
	}
	first, all := make(chan struct{}), make(chan string, 1)
	go func() {
		defer cancel()
		defer resp.Body.Close()
		var one [1]byte
		n, _ := io.ReadFull(resp.Body, one[:])
		close(first)
		rest, _ := io.ReadAll(resp.Body)
		all <- string(one[:n]) + string(rest)
	}()
	select {
	case <-first:
		tt.Error("a sleeping server answers")
	case <-time.After(300 * time.Millisecond):
	}
	return all
}
