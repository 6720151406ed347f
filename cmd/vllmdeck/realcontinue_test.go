package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// told is one streamed answer as its client reads it.
type told struct {
	text, finish string
	ids          map[string]bool
	roles        int
	usages       []api.Usage
	done         bool
	failure      string
	events       int // with content
	err          error
}

// readTold reads a stream of chat or completions; seen is called after each event with content.
func readTold(body io.Reader, seen func(events int)) told {
	a := told{ids: map[string]bool{}}
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		switch {
		case !ok:
			continue
		case data == "[DONE]":
			a.done = true
			continue
		}
		var ev struct {
			ID      string
			Choices []struct {
				Delta  struct{ Role, Content string }
				Text   string
				Finish string `json:"finish_reason"`
			}
			Usage *struct {
				Prompt     int64 `json:"prompt_tokens"`
				Completion int64 `json:"completion_tokens"`
			}
			Error *struct{ Message string }
		}
		if err := json.Unmarshal([]byte(data), &ev); err != nil {
			a.err = fmt.Errorf("read %q: %w", data, err)
			return a
		}
		if ev.Error != nil {
			a.failure = ev.Error.Message
			continue
		}
		a.ids[ev.ID] = true
		if ev.Usage != nil {
			a.usages = append(a.usages, api.Usage{Input: ev.Usage.Prompt, Output: ev.Usage.Completion})
		}
		for _, c := range ev.Choices {
			if c.Delta.Role != "" {
				a.roles++
			}
			a.finish += c.Finish
			if text := c.Delta.Content + c.Text; text != "" {
				a.text += text
				a.events++
				if seen != nil {
					seen(a.events)
				}
			}
		}
	}
	a.err = lines.Err()
	return a
}

// askTold sends a request and reads its stream.
func askTold(t *testing.T, url, path, body string, seen func(events int)) told {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+path, strings.NewReader(body))
	if err != nil {
		return told{err: err}
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return told{err: err}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return told{err: fmt.Errorf("HTTP %d: %s", resp.StatusCode, text)}
	}
	return readTold(resp.Body, seen)
}

// sameAnswer checks that a client saw the uncut answer, whatever happened to the workers. usage says whether the token
// counts must be the same too.
func sameAnswer(t *testing.T, got, want told) {
	t.Helper()
	if got.text != want.text || got.finish != want.finish {
		t.Errorf("the client got %q, finish %q;\nwant %q, finish %q", got.text, got.finish, want.text, want.finish)
	}
	if got.err != nil || got.failure != "" || !got.done || len(got.ids) != 1 || got.roles != want.roles || len(got.usages) != 1 {
		t.Errorf("the client saw error %v, error event %q, end %v, ids %v, %d roles, %d usages; want one whole answer", got.err, got.failure, got.done, got.ids, got.roles, len(got.usages))
		return
	}
	if got.usages[0] != want.usages[0] {
		t.Errorf("the client was told of %+v, want %+v", got.usages[0], want.usages[0])
	}
}

// cutter stands before a real server and cuts the first leg of each answer.
type cutter struct {
	after atomic.Int64 // events with content that pass
	how   atomic.Int64 // 0: connection cut, 1: clean end, 2: error event, 3: half an event, 4: half a character
	cuts  atomic.Int64
}

func (c *cutter) before(t *testing.T, url string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		req, err := http.NewRequestWithContext(r.Context(), r.Method, url+r.URL.Path, bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header = r.Header.Clone()
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		maps.Copy(w.Header(), resp.Header)
		w.WriteHeader(resp.StatusCode)
		first := bytes.Contains(body, []byte(`"stream":true`)) && !bytes.Contains(body, []byte(`"continue_final_message":true`))
		after := c.after.Load()
		if !first || after < 0 {
			_, _ = io.Copy(w, resp.Body)
			return
		}
		flush := w.(http.Flusher).Flush
		lines := bufio.NewReader(resp.Body)
		for n := int64(0); ; {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			content := strings.Contains(line, `"delta":{"content":"`) && !strings.Contains(line, `"content":""`) || strings.Contains(line, `"text":"`)
			end := strings.HasPrefix(line, "data: [DONE]") || strings.Contains(line, `"finish_reason":"`)
			if end || content && n == after {
				time.Sleep(200 * time.Millisecond) // the client has what came before: else the answer would simply be asked for again
				c.cuts.Add(1)
				switch c.how.Load() {
				case 0:
					panic(http.ErrAbortHandler)
				case 1:
				case 2:
					if r.URL.Path == "/v1/messages" {
						_, _ = io.WriteString(w, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"internal_error\",\"message\":\"2 validation errors\"}}\n\n")
						return
					}
					_, _ = io.WriteString(w, `data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", "type": "InternalServerError", "param": null, "code": 500}}`+"\n\ndata: [DONE]\n\n")
				case 3:
					_, _ = io.WriteString(w, line[:len(line)/2])
					flush()
					panic(http.ErrAbortHandler)
				case 4:
					_, _ = io.WriteString(w, line[:len(line)/2]+"\xf0\x9f")
					flush()
					panic(http.ErrAbortHandler)
				}
				return
			}
			if content {
				n++
			}
			_, _ = io.WriteString(w, line)
			if line == "\n" {
				flush()
			}
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// TestRealVLLMContinues loses answers of real workers in their middle: by a cutting proxy, and by kill -9.
func TestRealVLLMContinues(t *testing.T) {
	dir := realVLLM(t)
	r := newRig(t, func(state string) string {
		// Longer than it takes to find a hang: that, not the idle limit, is what moves requests away.
		c := strings.Replace(realConfig(dir, cpuModel, 2)(state), "queue_wait: 3m", "queue_wait: 3m, idle_timeout: 5m", 1)
		return strings.ReplaceAll(c, "    vllm:\n", "    restart: {window: 1s}\n    vllm:\n") // they die more often than is forgiven
	})
	r.serve()
	r.awaitReady("w0")
	r.awaitReady("w1")
	body := func(prompt string, tokens int) string {
		return fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":%q}],"max_tokens":%d,"temperature":0,"stream":true,"stream_options":{"include_usage":true}}`, cpuModel, prompt, tokens)
	}

	t.Run("cut eight times", func(t *testing.T) {
		c := &cutter{}
		c.after.Store(-1)
		first, second := c.before(t, r.worker("w0").URL), c.before(t, r.worker("w1").URL)
		e := newRig(t, func(state string) string {
			return fmt.Sprintf("listen: 127.0.0.1:0\nstate: %s\nmodels: [{name: %s}]\ncost: {host_hour: 0.05}\nworkers:\n  - {name: a, model: %[2]s, attach: %[3]q, gpus: 0}\n  - {name: b, model: %[2]s, attach: %[4]q, gpus: 0}\n", state, cpuModel, first, second)
		})
		e.serve()
		e.until(20*time.Second, "both are attached", func() bool {
			return e.worker("a").State == api.Ready && e.worker("b").State == api.Ready
		})
		url := e.snapshot().Engine.URL
		for i, tt := range []struct {
			prompt        string
			tokens, after int
		}{
			{"What is the capital of France?", 40, 1},
			{"What is the capital of France?", 40, 1000}, // behind the last text, before its finish_reason
			{"Write a haiku about the sea.", 48, 5},
			{"Schreibe einen Satz über Brücken.", 48, 13},
			{"Write a Python function that adds two numbers.", 64, 21},
			{"Count from one to twenty.", 64, 30},
			{"Say three emojis and explain them.", 48, 17},
			{"Make a table of three fruits and their colours.", 64, 44},
		} {
			c.after.Store(-1)
			want := askTold(t, url, "/v1/chat/completions", body(tt.prompt, tt.tokens), nil)
			if want.err != nil || !want.done || len(want.usages) != 1 {
				t.Fatalf("the uncut answer is %+v", want)
			}
			before := c.cuts.Load()
			c.after.Store(int64(tt.after))
			c.how.Store(int64(i % 5))
			got := askTold(t, url, "/v1/chat/completions", body(tt.prompt, tt.tokens), nil)
			if n := c.cuts.Load() - before; n != 1 {
				t.Errorf("%d cuts, want 1", n)
			}
			sameAnswer(t, got, want)
			t.Logf("cut %d after %d of %d events, %s, %+v: %q", i+1, min(tt.after, want.events), want.events, want.finish, got.usages, cutText(want.text, 60))
		}
		// What cannot be continued is told, and cut.
		for how := range int64(5) {
			c.after.Store(3)
			c.how.Store(how)
			resp, err := http.Post(url+"/v1/messages", "application/json", strings.NewReader(fmt.Sprintf(`{"model":%q,"max_tokens":40,"stream":true,"messages":[{"role":"user","content":"Write a haiku about the sea."}]}`, cpuModel)))
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if !errors.Is(err, io.ErrUnexpectedEOF) || bytes.Count(text, []byte("event: error")) != 1 || bytes.Contains(text, []byte("message_stop")) {
				t.Errorf("messages broken in way %d: HTTP %d, %v; want an error event and a cut: %s", how, resp.StatusCode, err, text)
			}
		}
		c.how.Store(0)
		const prompt = `{"model":"` + cpuModel + `","prompt":"The longest river of the world is%s","max_tokens":32,"temperature":0,"stream":true,"stream_options":{"include_usage":true}}`
		c.after.Store(-1)
		want := askTold(t, url, "/v1/completions", fmt.Sprintf(prompt, ""), nil)
		for _, after := range []int64{3, 20} {
			c.after.Store(after)
			cuts := c.cuts.Load()
			got := askTold(t, url, "/v1/completions", fmt.Sprintf(prompt, ""), func(n int) {
				if int64(n) == after {
					c.after.Store(-1) // the next leg is whole
				}
			})
			if n := c.cuts.Load() - cuts; n != 1 {
				t.Errorf("%d cuts, want 1", n)
			}
			sameAnswer(t, got, want)
		}
		e.until(5*time.Second, "all are recorded", func() bool { return e.snapshot().Traffic.InFlight == 0 })
		continued := 0
		for _, row := range e.snapshot().Requests {
			if len(row.Attempts) > 1 {
				continued++
				if row.UsageSource != api.UsageTokenized || row.Outcome != api.OutcomeOK || row.Attempts[0].Outcome != api.OutcomeLost {
					t.Errorf("row = %s with %s usage and attempts %+v, want ok and tokenized after a lost leg", row.Outcome, row.UsageSource, row.Attempts)
				}
			}
		}
		if continued < 8 {
			t.Errorf("%d rows were continued, want 8 at least", continued)
		}
		e.run("stop", "--yes")
	})

	t.Run("killed twice", func(t *testing.T) {
		url := r.snapshot().Engine.URL
		story := body("Write a long story about a river and a bridge.", 160)
		want := askTold(t, r.worker("w0").URL, "/v1/chat/completions", story, nil)
		if want.err != nil || want.events < 100 {
			t.Fatalf("the uncut answer is %+v", want)
		}
		for i, after := range []int{12, 60} {
			victim := ""
			var killed time.Time
			var resumed time.Duration
			got := askTold(t, url, "/v1/chat/completions", story, func(n int) {
				if !killed.IsZero() && resumed == 0 {
					resumed = time.Since(killed)
				}
				if n != after {
					return
				}
				for _, w := range r.snapshot().Workers {
					if w.InFlight > 0 {
						victim = w.Name
						killed = time.Now()
						if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
							t.Error(err)
						}
					}
				}
			})
			sameAnswer(t, got, want)
			if victim == "" {
				t.Fatal("no worker had the request: nothing was killed")
			}
			r.until(10*time.Second, "it is recorded", func() bool { return r.snapshot().Traffic.InFlight == 0 })
			row := r.snapshot().Requests[0]
			if row.UsageSource != api.UsageTokenized || len(row.Attempts) != 2 || row.Attempts[0].Upstream != victim || row.Attempts[0].Outcome != api.OutcomeLost || row.Outcome != api.OutcomeOK {
				t.Errorf("row = %s with %s usage and attempts %+v, want ok and tokenized after a lost leg on %s", row.Outcome, row.UsageSource, row.Attempts, victim)
			}
			t.Logf("%s killed after %d of %d events; the next one came %s later; usage %+v", victim, after, want.events, resumed.Round(time.Millisecond), got.usages)
			if i == 0 {
				r.until(time.Minute, victim+" is started again", func() bool { return r.worker(victim).Restarts == 1 })
				r.awaitReady(victim)
			}
		}
	})

	t.Run("frozen", func(t *testing.T) {
		for _, name := range []string{"w0", "w1"} {
			r.until(2*time.Minute, name+" is ready", func() bool { return r.worker(name).State == api.Ready })
		}
		url := r.snapshot().Engine.URL
		story := body("Write a long story about a river and a bridge.", 160)
		want := askTold(t, r.worker("w0").URL, "/v1/chat/completions", story, nil)
		victim, restarts := "", 0
		var frozen time.Time
		var moved time.Duration
		got := askTold(t, url, "/v1/chat/completions", story, func(n int) {
			if gap := time.Since(frozen); victim != "" && moved == 0 && gap > 5*time.Second {
				moved = gap
			}
			if n != 20 {
				return
			}
			for _, w := range r.snapshot().Workers {
				if w.InFlight > 0 {
					victim, restarts, frozen = w.Name, w.Restarts, time.Now()
					for _, pid := range markedProcesses(t, workerMarker(t, w.PID)) {
						if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil && strings.HasPrefix(string(comm), "VLLM::EngineCor") {
							if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
								t.Error(err)
							}
						}
					}
				}
			}
		})
		sameAnswer(t, got, want)
		if moved == 0 || moved > 90*time.Second {
			t.Errorf("the answer went on %v after the engine of %q froze, want it within 90s", moved, victim)
		}
		r.until(3*time.Minute, victim+" is restarted", func() bool { return r.worker(victim).Restarts == restarts+1 })
		said := ""
		for _, n := range r.snapshot().Notices {
			if n.Worker == victim && strings.Contains(n.Text, "hung: /health answers but no token in") {
				said = n.Text
			}
		}
		if said == "" {
			t.Errorf("no notice says that %s hung: %+v", victim, r.snapshot().Notices)
		}
		t.Logf("%s frozen: the answer went on after %s, the worker was restarted after %s: %s", victim, moved.Round(time.Second), time.Since(frozen).Round(time.Second), said)
	})
	t.Run("killed three times under load", func(t *testing.T) { killedUnderLoad(t, r) })
	r.run("stop", "--yes")
}

func cutText(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}
