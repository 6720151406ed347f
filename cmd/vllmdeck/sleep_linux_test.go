package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// TestSleepOfProcesses has two models of one GPU as processes: orders from the shell, a client that is held while
// its model wakes, an engine that is killed while a worker sleeps, and a server that does not wake.
func TestSleepOfProcesses(t *testing.T) {
	t.Parallel()
	config := func(fault string) func(string) string {
		return func(state string) string {
			return fmt.Sprintf(`listen: 127.0.0.1:0
state: %s
gateway: {queue_wait: 60s}
workers:
  - {name: a, model: ma, sleep: {level: 2, stay: 200ms, share: gpu0}, restart: {base: 10ms}, sim: {start: 400ms, ttft: 5ms, itl: 2ms}}
  - {name: b, model: mb, sleep: {level: 1, stay: 200ms, share: gpu0}, restart: {base: 10ms}, sim: {start: 400ms, ttft: 5ms, itl: 2ms%s}}
`, state, fault)
		}
	}
	ask := func(r *rig, model string) string {
		t.Helper()
		status, text, err := r.post("/v1/chat/completions", fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"What is a canal?"}],"max_tokens":6,"temperature":0,"ignore_eos":true}`, model))
		if err != nil || status != http.StatusOK || strings.Contains(string(text), `"!!`) {
			t.Errorf("%s: HTTP %d, %v: %s", model, status, err, text)
		}
		return string(text)
	}
	state := func(r *rig, name string) api.State { return r.worker(name).State }

	t.Run("turns", func(t *testing.T) {
		r := newRig(t, config(""))
		engine := r.serve()
		until(t, 60*time.Second, "both were loaded", func() bool {
			a, b := state(r, "a"), state(r, "b")
			return a == api.Asleep && b == api.Ready || a == api.Ready && b == api.Asleep
		})
		for _, w := range r.snapshot().Workers {
			if cmd := strings.Join(w.Command, " "); !strings.Contains(cmd, "--enable-sleep-mode") || !w.CanSleep {
				t.Errorf("%s: command %q, can sleep %v", w.Name, cmd, w.CanSleep)
			}
		}
		for range 2 {
			ask(r, "ma")
			ask(r, "mb")
		}
		until(t, 30*time.Second, "a sleeps", func() bool { return state(r, "a") == api.Asleep && state(r, "b") == api.Ready })
		if out := r.run("worker", "sleep", "b"); !strings.Contains(out, "b  asleep") {
			t.Errorf("sleep prints %q", out)
		}
		if out := r.run("worker", "list"); !strings.Contains(out, "asleep (level 1)") || !strings.Contains(out, "asleep (level 2)") {
			t.Errorf("list prints\n%s", out)
		}
		if _, out, err := r.output("worker", "sleep", "b"); err == nil || !strings.Contains(out, "asleep already") {
			t.Errorf("a second sleep: %v, %s", err, out)
		}
		var health struct{ Status string }
		if code := getJSON(t, r.snapshot().Engine.URL+"/health", &health); code != http.StatusOK || health.Status != "ok" {
			t.Errorf("with all asleep: HTTP %d %s, want ok", code, health.Status)
		}

		// The next engine finds both asleep, and sends nothing to them before they are awake.
		pid := r.worker("a").PID
		if err := engine.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-engine.done
		r.serve()
		until(t, 30*time.Second, "both are found asleep", func() bool { return state(r, "a") == api.Asleep && state(r, "b") == api.Asleep })
		ask(r, "ma")
		if w := r.worker("a"); w.PID != pid || !w.Adopted || w.Awake.IsZero() {
			t.Errorf("a = pid %d, adopted %v, awake since %v; want pid %d adopted", w.PID, w.Adopted, w.Awake, pid)
		}
		if out := r.run("worker", "wake", "b"); !strings.Contains(out, "b  ready") || state(r, "a") == api.Ready {
			t.Errorf("wake prints %q, a is %s", out, state(r, "a"))
		}
	})

	t.Run("a server that does not wake is replaced", func(t *testing.T) {
		r := newRig(t, config(", faults: [sleep-fails]"))
		r.serve()
		until(t, 60*time.Second, "b is ready", func() bool { return state(r, "b") == api.Ready })
		if out, err := r.try("worker", "sleep", "--wait", "2s", "b"); err == nil {
			t.Errorf("sleep prints %q", out)
		}
		until(t, 30*time.Second, "b serves on", func() bool { return state(r, "b") == api.Ready })
		ask(r, "mb")
	})
}
