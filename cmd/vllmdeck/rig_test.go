package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	_ "modernc.org/sqlite"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// TestMain puts a copy of the test binary called vllmdeck into PATH: it is the program, with all
// its roles, for scripts and for the tests that start it themselves.
func TestMain(m *testing.M) {
	// Not by the name that it is called by: the engine of a simulated server calls itself
	// VLLM::EngineCore.
	if exe, err := os.Executable(); err == nil && filepath.Base(exe) == "vllmdeck" {
		main()
	}
	// These tests wait for other processes most of the time: two cores can run more than two.
	flag.Parse()
	if n := flag.Lookup("test.parallel"); n.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = n.Value.Set("6")
	}
	testscript.Main(m, map[string]func(){"vllmdeck": main})
}

// rig is a vllmdeck binary with folders of its own, driven as a user would.
type rig struct {
	t      *testing.T
	bin    string
	dir    string
	config string
	env    []string
}

// newRig makes the folders, and writes the config if there is one.
func newRig(t *testing.T, config func(state string) string) *rig {
	t.Helper()
	bin, err := exec.LookPath("vllmdeck")
	if err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	r := &rig{t: t, bin: bin, dir: dir, config: filepath.Join(dir, "vllmdeck.yaml"), env: ownEnv(dir, os.Environ())}
	if config != nil {
		r.env = append(r.env, "VLLMDECK_CONFIG="+r.config)
		r.write(config(filepath.Join(dir, "state")))
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, path := range []string{"state/logs/engine.log", "serve.out"} {
				if text, err := os.ReadFile(filepath.Join(dir, path)); err == nil {
					t.Logf("%s:\n%s", path, text[max(0, len(text)-8000):])
				}
			}
		}
		killMarked(t, dir)
		_ = os.RemoveAll(dir)
	})
	return r
}

// shortDir is not t.TempDir: that name would make the paths of sockets too long for them.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vd")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"home", "run", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// ownEnv is an environment in which nothing meets the user's files. XDG_RUNTIME_DIR is also the
// mark by which every process of a rig is found.
func ownEnv(dir string, base []string) []string {
	env := slices.DeleteFunc(slices.Clone(base), func(kv string) bool {
		return strings.HasPrefix(kv, "VLLMDECK_") || strings.HasPrefix(kv, "NO_COLOR=") || strings.HasPrefix(kv, "VIRTUAL_ENV=")
	})
	return append(env,
		"HOME="+filepath.Join(dir, "home"), "TMPDIR="+filepath.Join(dir, "tmp"), "XDG_RUNTIME_DIR="+filepath.Join(dir, "run"),
		"XDG_CONFIG_HOME="+filepath.Join(dir, "home", "config"), "XDG_STATE_HOME="+filepath.Join(dir, "home", "state"),
		"XDG_CACHE_HOME="+filepath.Join(dir, "home", "cache"), "TERM=xterm-256color")
}

// killMarked ends every process of a rig, engines first: shims then still see to their trees.
func killMarked(t *testing.T, dir string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		pids := markedProcesses(t, "XDG_RUNTIME_DIR="+filepath.Join(dir, "run"))
		if len(pids) == 0 {
			return
		}
		late := time.Now().After(deadline) // by now: looking may have taken all of the time
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if late {
			t.Errorf("processes of the test are slow to end: %v", pids)
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

// processes lists everything that the rig has started and that lives.
func (r *rig) processes() []int {
	r.t.Helper()
	return markedProcesses(r.t, "XDG_RUNTIME_DIR="+filepath.Join(r.dir, "run"))
}

// markedProcesses lists live processes whose environment holds a text. It needs /proc.
func markedProcesses(t *testing.T, marker string) (pids []int) {
	t.Helper()
	envs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range envs {
		text, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(text, []byte(marker)) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

// write replaces the config.
func (r *rig) write(config string) {
	r.t.Helper()
	if err := os.WriteFile(r.config, []byte(config), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// simConfig is a config of simulated workers of one model, w0, w1 …
func simConfig(workers int, more ...string) func(state string) string {
	return func(state string) string {
		var b strings.Builder
		fmt.Fprintf(&b, "listen: 127.0.0.1:0\nstate: %s\nmodels: [{name: toy, aliases: [default]}]\ncost: {gpu_hour: 1.00}\n%s\nworkers:\n", state, strings.Join(more, "\n"))
		for i := range workers {
			fmt.Fprintf(&b, "  - {name: w%d, model: toy, gpus: 1, stop_timeout: 500ms, sim: {seed: %d, start: 20ms, ttft: 5ms, itl: 10ms}}\n", i, i+1)
		}
		return b.String()
	}
}

// proc is a started vllmdeck.
type proc struct {
	*exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // of Wait, after done
}

// start starts a command that goes on, in a session of its own. Its output is in serve.out.
func (r *rig) start(args ...string) *proc { return r.startIn("", args...) }

func (r *rig) startIn(dir string, args ...string) *proc {
	r.t.Helper()
	out, err := os.OpenFile(filepath.Join(r.dir, "serve.out"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		r.t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(r.bin, args...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = r.env, dir, out, out
	detach(cmd)
	return r.begin(cmd)
}

func (r *rig) begin(cmd *exec.Cmd) *proc {
	r.t.Helper()
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	p := &proc{Cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p
}

// serve starts an engine that outlives the call, and waits until it answers.
func (r *rig) serve(args ...string) *proc {
	r.t.Helper()
	p := r.start(append([]string{"serve"}, args...)...)
	r.until(20*time.Second, "the engine answers", func() bool {
		select {
		case <-p.done:
			r.t.Fatalf("the engine ended: %v", p.err)
		default:
		}
		s, err := r.trySnapshot()
		return err == nil && s.Engine.PID == p.Process.Pid
	})
	return p
}

func (p *proc) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// exit waits for the end and gives the exit code; -1 for one that a signal ended.
func (p *proc) exit(t *testing.T, limit time.Duration) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(limit):
		t.Fatalf("pid %d still runs after %s", p.Process.Pid, limit)
	}
	return p.ProcessState.ExitCode()
}

// try runs a command and gives its stdout.
func (r *rig) try(args ...string) (string, error) {
	out, stderr, err := r.output(args...)
	if err != nil {
		err = fmt.Errorf("vllmdeck %s: %w\n%s", strings.Join(args, " "), err, stderr)
	}
	return out, err
}

func (r *rig) output(args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.bin, args...)
	cmd.Env, cmd.Dir = r.env, r.dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	return string(out), errs.String(), err
}

func (r *rig) run(args ...string) string {
	r.t.Helper()
	out, err := r.try(args...)
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// client is a console's view of the engine. It needs no process, so that tests can ask often.
func (r *rig) client() *api.Client {
	r.t.Helper()
	c, err := api.Dial("unix:" + filepath.Join(r.dir, "state", socketName))
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) trySnapshot() (*api.Snapshot, error) {
	c := r.client()
	defer c.Close()
	return fetch(r.t.Context(), c)
}

func (r *rig) snapshot() *api.Snapshot {
	r.t.Helper()
	s, err := r.trySnapshot()
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) worker(name string) api.Worker {
	r.t.Helper()
	w, ok := findWorker(r.snapshot(), name)
	if !ok {
		r.t.Fatalf("no worker %s", name)
	}
	return w
}

func (r *rig) until(limit time.Duration, what string, cond func() bool) {
	r.t.Helper()
	until(r.t, limit, what, cond)
}

func until(t *testing.T, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	began := time.Now()
	for !cond() {
		if time.Since(began) > limit {
			t.Fatalf("after %s still not: %s", limit, what)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// awaitReady waits for a worker and gives the phases that were seen on the way.
func (r *rig) awaitReady(name string) (phases []string) {
	r.t.Helper()
	r.until(5*time.Minute, name+" is ready", func() bool {
		w := r.worker(name)
		if w.State == api.Failed && w.NextStart.IsZero() {
			r.t.Fatalf("%s failed: %s\n%s", name, w.Error, w.Remedy)
		}
		if w.Phase != "" && (len(phases) == 0 || phases[len(phases)-1] != w.Phase) {
			phases = append(phases, w.Phase)
		}
		return w.State == api.Ready
	})
	return phases
}

// post sends a request to the gateway and gives status and body.
func (r *rig) post(path, body string) (int, []byte, error) {
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.snapshot().Engine.URL+path, strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, text, err
}

// stream is a streamed answer as its client sees it.
type stream struct {
	mu      sync.Mutex
	content int  // events with content
	done    bool // [DONE] came
	failure bool // an error event came
	status  int
	id      string // of the request, as the gateway says
	err     error  // how the body ended; nil for a clean end
	ended   chan struct{}
}

// stream asks the gateway at url for so many tokens.
func (r *rig) stream(url string, tokens int) *stream {
	s := &stream{ended: make(chan struct{})}
	body := fmt.Sprintf(`{"messages":[{"role":"user","content":"A story."}],"max_tokens":%d,"ignore_eos":true,"stream":true}`, tokens)
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	go func() {
		defer close(s.ended)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			s.set(func() { s.err = err })
			return
		}
		defer resp.Body.Close()
		s.set(func() { s.status, s.id = resp.StatusCode, resp.Header.Get("X-Request-Id") })
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			text := lines.Text()
			s.set(func() {
				switch {
				case text == "data: [DONE]":
					s.done = true
				case strings.Contains(text, `"content":"`):
					s.content++
				case strings.Contains(text, `"error"`):
					s.failure = true
				}
			})
		}
		s.set(func() { s.err = lines.Err() })
	}()
	return s
}

func (s *stream) set(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

func (s *stream) seen() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.content
}

// flows waits until some more of the answer has come.
func (s *stream) flows(t *testing.T) {
	t.Helper()
	before := s.seen()
	until(t, 10*time.Second, "the stream flows", func() bool { return s.seen() >= before+3 })
}

// wait waits for the end of the answer and says what the client has: "whole", "told" (an error
// event and a cut connection), or what it must never have.
func (s *stream) wait(t *testing.T, limit time.Duration) string {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(limit):
		t.Fatalf("the stream has not ended after %s", limit)
	}
	switch {
	case s.status != http.StatusOK:
		return fmt.Sprintf("HTTP %d, %v", s.status, s.err)
	case s.done && s.err == nil && !s.failure:
		return "whole"
	case s.failure && errors.Is(s.err, io.ErrUnexpectedEOF):
		return "told"
	default:
		return fmt.Sprintf("%d tokens, error event %v, then %v", s.content, s.failure, s.err)
	}
}

// rows reads the ledger of an engine: request id to outcome.
func (r *rig) rows() map[string]string {
	r.t.Helper()
	out := map[string]string{}
	db, err := sql.Open("sqlite", "file:"+filepath.Join(r.dir, "state", "ledger.db")+"?mode=ro&_pragma=busy_timeout(5000)")
	if err != nil {
		r.t.Fatal(err)
	}
	defer db.Close()
	found, err := db.QueryContext(r.t.Context(), "SELECT id, outcome FROM request")
	if err != nil {
		r.t.Fatal(err)
	}
	defer found.Close()
	for found.Next() {
		var id, outcome string
		if err := found.Scan(&id, &outcome); err != nil {
			r.t.Fatal(err)
		}
		out[id] = outcome
	}
	if err := found.Err(); err != nil {
		r.t.Fatal(err)
	}
	return out
}

// getJSON reads a route of the gateway.
func getJSON(t *testing.T, url string, into any) int {
	t.Helper()
	return answerJSON(t, into, func() (*http.Response, error) { return http.Get(url) })
}

func postJSON(t *testing.T, url, body string, into any) int {
	t.Helper()
	return answerJSON(t, into, func() (*http.Response, error) {
		return http.Post(url, "application/json", strings.NewReader(body))
	})
}

func answerJSON(t *testing.T, into any, do func() (*http.Response, error)) int {
	t.Helper()
	resp, err := do()
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
		t.Fatalf("%s: %v", resp.Request.URL, err)
	}
	return resp.StatusCode
}
