package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/sim/simtest"
)

// realVLLM is the folder that "vllmdeck setup cpu --tiny" built. These tests run by "make
// test-vllm"; "make test" does without a real server.
func realVLLM(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("VLLMDECK_REAL_VLLM")
	if dir == "" {
		t.Skip("NOT RUN: the real vLLM; \"make test-vllm\" sets it up and runs this")
	}
	for _, path := range []string{"venv/bin/vllm", "models/" + cpuModel + "/config.json", "models/tiny/config.json"} {
		if _, err := os.Stat(filepath.Join(dir, path)); err != nil {
			t.Fatalf("%v: run \"vllmdeck setup cpu --tiny --dir %s\"", err, dir)
		}
	}
	return dir
}

func realConfig(dir, model string, workers int) func(string) string {
	return func(state string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "listen: 127.0.0.1:0\nstate: %s\ngateway: {queue_wait: 3m}\nmodels: [{name: %s, aliases: [default]}]\ncost: {host_hour: 0.05}\nworkers:\n", state, model)
		for i := range workers {
			fmt.Fprintf(&b, "  - name: w%d\n    model: %s\n    vllm:\n      bin: %s/venv/bin/vllm\n      path: %s/models/%s\n      args: [--max-model-len=1024, --max-num-seqs=16, --block-size=32]\n", i, model, dir, dir, model)
			b.WriteString("      env: {VLLM_TARGET_DEVICE: cpu, VLLM_CPU_KVCACHE_SPACE: \"1\", VLLM_CPU_OMP_THREADS_BIND: nobind, OMP_NUM_THREADS: \"1\", HF_HUB_OFFLINE: \"1\"}\n")
		}
		return b.String()
	}
}

// generated reads vllm:generation_tokens_total of a worker.
func generated(t *testing.T, url string) int64 {
	t.Helper()
	resp, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		if strings.HasPrefix(sc.Text(), "vllm:generation_tokens_total{") {
			f := strings.Fields(sc.Text())
			v, err := strconv.ParseFloat(f[len(f)-1], 64)
			if err != nil {
				t.Fatal(err)
			}
			return int64(v)
		}
	}
	t.Fatal("no vllm:generation_tokens_total")
	return 0
}

// workerMarker is what marks the processes of one incarnation of a worker.
func workerMarker(t *testing.T, pid int) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	for kv := range strings.SplitSeq(string(text), "\x00") {
		if strings.HasPrefix(kv, "VLLMDECK_WORKER_ID=") {
			return kv
		}
	}
	t.Fatalf("process %d carries no marker", pid)
	return ""
}

// TestRealVLLMOneWorker is the life of one real worker with a real model.
func TestRealVLLMOneWorker(t *testing.T) {
	dir := realVLLM(t)
	r := newRig(t, realConfig(dir, cpuModel, 1))
	engine := r.serve()
	began := time.Now()
	phases := r.awaitReady("w0")
	w := r.worker("w0")
	t.Logf("ready after %s, phases seen live %v, recorded %v", time.Since(began).Round(time.Second), phases, w.Phases)

	t.Run("start phases are seen in order", func(t *testing.T) {
		order := []string{api.PhaseImports, api.PhaseEngine, api.PhaseWeights, api.PhaseKV, api.PhaseGraphs, api.PhaseServer}
		var got []string
		for _, p := range w.Phases {
			got = append(got, p.Name)
		}
		at := -1
		for _, p := range got {
			i := slices.Index(order, p)
			if i <= at {
				t.Errorf("phases %v are not in the order of %v", got, order)
			}
			at = i
		}
		for _, want := range []string{api.PhaseImports, api.PhaseEngine, api.PhaseWeights, api.PhaseServer} {
			if !slices.Contains(got, want) {
				t.Errorf("phase %q was not recorded: %v", want, got)
			}
		}
		if w.Version != "0.32.0" {
			t.Errorf("version = %q, want 0.32.0", w.Version)
		}
	})

	t.Run("the prompt command gets a real answer", func(t *testing.T) {
		out := r.run("prompt", "--temperature", "0", "--json", "What is the capital of France?")
		var p struct {
			api.Prompt
			Answer string `json:"answer"`
		}
		if err := json.Unmarshal([]byte(out), &p); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(p.Answer, "Paris") {
			t.Errorf("answer = %q, want Paris in it", p.Answer)
		}
		if p.TTFT == 0 || p.Rate == nil || p.UsageSource != api.UsageUpstream || p.Would == nil || p.Actual == nil {
			t.Errorf("figures are missing: %+v", p.Prompt)
		}
		t.Logf("%q: TTFT %s, %.1f tokens/s, actual %s, would have cost %s", p.Answer, time.Duration(p.TTFT), *p.Rate, p.Actual, p.Would)
	})

	t.Run("usage is the same in client, ledger and vLLM", func(t *testing.T) {
		before := spendOf(t, r)
		made := generated(t, w.URL)
		var client api.Usage
		for i, stream := range []bool{true, false, true, false} {
			body := fmt.Sprintf(`{"model":"default","messages":[{"role":"user","content":"Count to %d."}],"max_tokens":24,"temperature":0,"stream":%t%s}`, i+5, stream,
				map[bool]string{true: `,"stream_options":{"include_usage":true}`}[stream])
			status, text, err := r.post("/v1/chat/completions", body)
			if err != nil || status != http.StatusOK {
				t.Fatalf("HTTP %d, %v: %s", status, err, text)
			}
			client = client.Add(usageIn(t, text, stream))
		}
		var after api.Row
		until(t, 10*time.Second, "four more rows", func() bool {
			after = spendOf(t, r)
			return after.Requests == before.Requests+4
		})
		in, out := after.Usage.Prompt()-before.Usage.Prompt(), after.Usage.Completion()-before.Usage.Completion()
		if in != client.Prompt() || out != client.Completion() {
			t.Errorf("ledger has %d + %d tokens, clients were told %d + %d", in, out, client.Prompt(), client.Completion())
		}
		if got := generated(t, w.URL) - made; got != client.Completion() {
			t.Errorf("vLLM generated %d tokens, clients were told %d", got, client.Completion())
		}
	})

	t.Run("the real server keeps the simulator's contract", func(t *testing.T) {
		simtest.Contract(t, simtest.Target{BaseURL: w.URL, Model: cpuModel, Client: http.DefaultClient})
	})

	t.Run("a killed engine leaves its worker, the next takes it up", func(t *testing.T) {
		// A request is under way when it happens.
		go func() {
			_, _, _ = r.post("/v1/chat/completions", `{"model":"default","messages":[{"role":"user","content":"Write a long story."}],"max_tokens":400,"stream":true}`)
		}()
		until(t, 10*time.Second, "a request is in flight", func() bool { return r.snapshot().Traffic.InFlight > 0 })
		until(t, 5*time.Second, "it is on disk", func() bool { return r.snapshot().Engine.Ledger.Queued == 0 })
		if err := engine.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		<-engine.done
		if !processAlive(w.PID) {
			t.Fatal("the worker died with its engine")
		}
		began := time.Now()
		engine = r.serve()
		until(t, 10*time.Second, "the worker is ready again", func() bool { return r.worker("w0").State == api.Ready })
		again := r.worker("w0")
		t.Logf("taken up again %s after the new engine's start began", time.Since(began).Round(10*time.Millisecond))
		if again.PID != w.PID || !again.Adopted {
			t.Errorf("pid %d, adopted %v; want pid %d adopted", again.PID, again.Adopted, w.PID)
		}
		status, text, err := r.post("/v1/chat/completions", `{"messages":[{"role":"user","content":"Hello"}],"max_tokens":8}`)
		if err != nil || status != http.StatusOK {
			t.Errorf("HTTP %d, %v: %s", status, err, text)
		}
		if row := spendOf(t, r); row.Interrupted != 1 {
			t.Errorf("interrupted rows = %d, want 1", row.Interrupted)
		}
	})

	t.Run("stop leaves no process", func(t *testing.T) {
		r.run("stop", "--yes")
		<-engine.done
		if pids := r.processes(); len(pids) > 0 {
			t.Errorf("processes are left: %v", pids)
		}
	})
}

// TestRealVLLMTwoWorkers kills one of two real workers under load, and then restarts both in turn.
func TestRealVLLMTwoWorkers(t *testing.T) {
	dir := realVLLM(t)
	r := newRig(t, realConfig(dir, "tiny", 2))
	r.serve()
	r.awaitReady("w0")
	r.awaitReady("w1")
	victim := r.worker("w0")

	type result struct {
		status  int
		err     error
		content bool
		ended   bool
		failure bool
	}
	const clients = 12
	results := make(chan result, clients)
	url := r.snapshot().Engine.URL
	for i := range clients {
		go func() {
			var res result
			defer func() { results <- res }()
			body := fmt.Sprintf(`{"messages":[{"role":"user","content":"Story %d please"}],"max_tokens":900,"ignore_eos":true,"stream":%t,"temperature":0}`, i, i%2 == 0)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/chat/completions", strings.NewReader(body))
			if err != nil {
				res.err = err
				return
			}
			req.Header.Set("Content-Type", "application/json")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				res.err = err
				return
			}
			defer resp.Body.Close()
			res.status = resp.StatusCode
			text, err := io.ReadAll(resp.Body)
			res.err = err
			res.content = bytes.Contains(text, []byte(`"content":"`))
			res.ended = bytes.Contains(text, []byte("data: [DONE]")) || (i%2 == 1 && json.Valid(text))
			res.failure = bytes.Contains(text, []byte(`"error"`))
		}()
	}
	until(t, 20*time.Second, "both workers are busy", func() bool {
		s := r.snapshot()
		return s.Workers[0].InFlight > 0 && s.Workers[1].InFlight > 0
	})
	marker := workerMarker(t, victim.PID) // a restarted w0 has another
	killed := time.Now()
	if err := syscall.Kill(victim.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, 5*time.Second, "EngineCore and Worker of the killed server are gone", func() bool {
		return len(markedProcesses(t, marker)) == 0
	})
	t.Logf("its tree was gone %s after the kill", time.Since(killed).Round(10*time.Millisecond))

	var whole, cut int
	for range clients {
		res := <-results
		switch {
		case res.err == nil && res.status == http.StatusOK && res.ended && !res.failure:
			whole++
		case errors.Is(res.err, io.ErrUnexpectedEOF) && res.failure && res.content:
			cut++ // its content had begun: it was told so and cut
		default:
			t.Errorf("a client got neither its answer nor the truth: %+v", res)
		}
	}
	t.Logf("%d whole answers, %d cut after content with an error event", whole, cut)
	if whole < clients/2 {
		t.Errorf("%d whole answers of %d: those not streamed, at least, had no content yet", whole, clients)
	}

	until(t, 10*time.Second, "w0 is started again", func() bool { return r.worker("w0").Restarts == 1 })
	r.awaitReady("w0")
	again := r.worker("w0")
	if again.PID == victim.PID || again.Restarts != 1 {
		t.Errorf("pid %d, restarts %d; want a new pid and 1 restart", again.PID, again.Restarts)
	}
	rollUnderLoad(t, r, "tiny")
	r.run("stop", "--yes")
	if pids := r.processes(); len(pids) > 0 {
		t.Errorf("processes are left: %v", pids)
	}
}

func spendOf(t *testing.T, r *rig) api.Row {
	t.Helper()
	c := r.client()
	defer c.Close()
	rows, err := c.Spend(t.Context(), api.Query{})
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) == 0 {
		return api.Row{}
	}
	return rows[0]
}

// usageIn reads the usage that a client was told.
func usageIn(t *testing.T, text []byte, stream bool) api.Usage {
	t.Helper()
	var last struct {
		Usage *struct {
			Prompt     int64 `json:"prompt_tokens"`
			Completion int64 `json:"completion_tokens"`
		} `json:"usage"`
	}
	if !stream {
		if err := json.Unmarshal(text, &last); err != nil {
			t.Fatal(err)
		}
	} else {
		for line := range strings.SplitSeq(string(text), "\n") {
			if data, ok := strings.CutPrefix(line, "data: {"); ok && strings.Contains(data, `"usage"`) {
				if err := json.Unmarshal([]byte("{"+data), &last); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if last.Usage == nil {
		t.Fatalf("no usage in %s", text)
	}
	return api.Usage{Input: last.Usage.Prompt, Output: last.Usage.Completion}
}
