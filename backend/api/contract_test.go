package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/api/apitest"
)

func TestMain(m *testing.M) {
	// After a body that is too large the server lingers for half a second, so that its answer arrives.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// fake is the smallest Source that keeps the contract: one worker, one model, no processes.
type fake struct {
	mu      sync.Mutex
	seq     uint64
	state   api.State
	prompts map[string]bool
	did     []api.Action
}

func newFake() *fake { return &fake{state: api.Ready, prompts: map[string]bool{}} }

func (f *fake) Snapshot(ctx context.Context) (*api.Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq++
	return &api.Snapshot{
		Schema: api.Schema, Seq: f.seq, Time: time.Now(), Models: []api.Model{{Name: "toy"}},
		Workers: []api.Worker{{Name: "w0", Model: "toy", State: f.state}},
	}, nil
}

func (f *fake) Log(_ context.Context, name string, after uint64) ([]api.Line, error) {
	if name != "engine" && name != "w0" && name != "crashes" {
		return nil, fmt.Errorf("%w: no log %q", api.ErrUnknown, name)
	}
	var out []api.Line
	for seq := after + 1; seq <= 5; seq++ {
		out = append(out, api.Line{Seq: seq, Text: fmt.Sprintf("line %d \x1b[31m of %s", seq, name)})
	}
	return out, nil
}

func (f *fake) Spend(_ context.Context, q api.Query) ([]api.Row, error) {
	labels := map[string]string{}
	for _, by := range q.By {
		if !slices.Contains([]string{"model", "worker", "class", "key", "route", "outcome", "day", "hour"}, by) {
			return nil, fmt.Errorf("group by %q: no such column", by)
		}
		labels[by] = "x"
	}
	return []api.Row{{Labels: labels, Requests: 3}}, nil
}

func (f *fake) Do(_ context.Context, a api.Action) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.did = append(f.did, a)
	switch {
	case (a.Verb == api.PromptSend || strings.HasPrefix(string(a.Verb), "model.")) && a.Target != "toy":
		return fmt.Errorf("%w: no model %q", api.ErrUnknown, a.Target)
	case a.Verb == api.PromptSend && (a.ID == "" || strings.Trim(a.ID, "abcdefghijklmnopqrstuvwxyz0123456789-") != ""):
		return fmt.Errorf("%w: prompt id %q", api.ErrRefused, a.ID)
	case a.Verb == api.PromptSend:
		f.prompts[a.ID] = true
	case a.Verb == api.PromptCancel && !f.prompts[a.Target], strings.HasPrefix(string(a.Verb), "worker.") && a.Target != "w0":
		return fmt.Errorf("%w: no %q", api.ErrUnknown, a.Target)
	case a.Verb == api.WorkerResume && f.state != api.Draining:
		return fmt.Errorf("%w: w0 is %s", api.ErrRefused, f.state)
	case a.Verb == api.WorkerFix, a.Verb == api.WorkerUnfix, a.Verb == api.ModelUnroll:
		return fmt.Errorf("%w: nothing to do", api.ErrRefused)
	case a.Verb == api.WorkerDrain:
		f.state = api.Draining
	case !strings.Contains(string(a.Verb), ".") || a.Verb == "no.such":
		return fmt.Errorf("%w: no verb %q", api.ErrUnknown, a.Verb)
	}
	return nil
}

// serve puts a Source behind a socket and gives a client for it.
func serve(t *testing.T, src api.Source) *api.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "vd")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "engine.sock")
	ln, err := api.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: api.Handler(src, "1.2.3")}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	c, err := api.Dial("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		_ = srv.Close()
		<-done
		if _, err := os.Stat(path); err == nil {
			t.Error("the socket file is still there after its listener was closed")
		}
		_ = os.RemoveAll(dir)
	})
	return c
}

func TestFakeKeepsTheContract(t *testing.T) { apitest.Source(t, newFake(), "w0") }

func TestClientKeepsTheContract(t *testing.T) { apitest.Source(t, serve(t, newFake()), "w0") }

func TestErrorsSurviveTheSocket(t *testing.T) {
	c := serve(t, newFake())
	err := c.Do(t.Context(), api.Action{Verb: api.WorkerStop, Target: "w9"})
	if !errors.Is(err, api.ErrUnknown) || err.Error() != `unknown: no "w9"` {
		t.Errorf("Do = %v, want ErrUnknown in the engine's own words", err)
	}
	if _, err = c.Spend(t.Context(), api.Query{By: []string{"password"}}); err == nil || errors.Is(err, api.ErrUnknown) || errors.Is(err, api.ErrRefused) {
		t.Errorf("Spend = %v, want an error of no kind", err)
	}
	if c.Version() != "1.2.3" {
		t.Errorf("Version = %q, want the engine's", c.Version())
	}
	err = c.Do(t.Context(), api.Action{Verb: api.PromptSend, ID: "big", Target: "toy", Text: strings.Repeat("x", 3<<20)})
	if err == nil || errors.Is(err, api.ErrAway) {
		t.Errorf("a prompt of 3 MB gives %v, want a refusal", err)
	}
}

// TestAnEngineThatEndsInItsAnswerIsAway cuts an answer off, as the end of an engine does.
func TestAnEngineThatEndsInItsAnswerIsAway(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `[{"seq":1,"text":`)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(ln) }()
	defer func() { _ = s.Close(); <-done }()
	c, err := api.Dial("unix:" + ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Log(t.Context(), "engine", 0); !errors.Is(err, api.ErrAway) {
		t.Errorf("Log = %v, want ErrAway", err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	c, err := api.Dial("unix:/nowhere/engine.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Snapshot(t.Context()); !errors.Is(err, api.ErrAway) || !strings.Contains(err.Error(), "/nowhere/engine.sock") {
		t.Errorf("Snapshot = %v, want ErrAway that names the socket", err)
	}
	dead, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Snapshot(dead); !errors.Is(err, context.Canceled) || errors.Is(err, api.ErrAway) {
		t.Errorf("Snapshot after a cancel = %v, want that alone", err)
	}
	for _, addr := range []string{"", "host:80", "tcp://x", "ssh://", "ssh://-oProxyCommand=x", "ssh://host/path"} {
		if _, err := api.Dial(addr); err == nil {
			t.Errorf("Dial(%q) gives no error", addr)
		}
	}
}

func TestABrowserIsTurnedAway(t *testing.T) {
	f := newFake()
	rec := &recorder{header: http.Header{}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://engine/v1/do", strings.NewReader(`{"verb":"engine.stop"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Origin", "https://evil.example")
	api.Handler(f, "1").ServeHTTP(rec, req)
	if rec.status != http.StatusForbidden || len(f.did) > 0 {
		t.Errorf("HTTP %d, orders %v; want 403 and none", rec.status, f.did)
	}
}

type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(p []byte) (int, error) { return len(p), nil }
func (r *recorder) WriteHeader(status int)      { r.status = status }

func TestListen(t *testing.T) {
	dir, err := os.MkdirTemp("", "vd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "engine.sock")
	if err := os.WriteFile(path, nil, 0o644); err != nil { // what a killed engine leaves nobody answers on
		t.Fatal(err)
	}
	ln, err := api.Listen(t.Context(), path)
	if err != nil {
		t.Fatalf("a stale socket is in the way: %v", err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket has mode %v, %v; want 0600", st.Mode(), err)
	}
	if _, err := api.Listen(t.Context(), path); !errors.Is(err, api.ErrInUse) {
		t.Errorf("a second Listen = %v, want ErrInUse", err)
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(dir, strings.Repeat("x", api.MaxSocketPath))
	if _, err := api.Listen(t.Context(), long); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("Listen on a path too long for a socket = %v", err)
	}
}
