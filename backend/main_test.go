package backend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
	"github.com/vllmdeck/vllmdeck/backend/sim"
	"github.com/vllmdeck/vllmdeck/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an engine with attached servers, all in this process.
type rig struct {
	*Backend
	t    *testing.T
	cfg  string // of the config, without its workers
	toy  string // more keys of the model
	sims []*sim.Server
	urls []string
	dir  string
	load func() (*config.Config, error)
	done chan struct{}
	err  error // of Run, after done
}

// newRig starts servers of a model "toy" and an engine that has them as w0, w1 …
func newRig(t *testing.T, servers int, more ...string) *rig {
	t.Helper()
	return startRig(&rig{t: t, dir: t.TempDir(), cfg: strings.Join(more, "\n") + "\n"}, servers)
}

// startRig is newRig for a rig whose t, dir, cfg and toy are set. Servers at its urls are workers too.
func startRig(r *rig, servers int) *rig {
	r.t.Helper()
	t := r.t
	r.done = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	for range servers {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		r.urls = append(r.urls, "http://"+ln.Addr().String())
		srv := sim.New(sim.Options{Model: "toy", TTFT: 2 * time.Millisecond, ITL: 2 * time.Millisecond, Log: io.Discard})
		r.sims = append(r.sims, srv)
		served.Go(func() { _ = srv.Serve(ctx, ln) })
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	all := len(r.urls) // with those that ran already
	r.load = func() (*config.Config, error) { return r.config(all), nil }
	b, err := New(t.Context(), Options{
		Config: r.config(all), Load: func() (*config.Config, error) { return r.load() }, Version: "1.2.3", Self: []string{"/nowhere"},
		Listener: ln, Log: NewLog(),
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Backend = b
	go func() {
		defer close(r.done)
		r.err = b.Run(context.Background())
	}()
	t.Cleanup(func() {
		b.Stop(false)
		r.ended(10 * time.Second)
		cancel()
		served.Wait()
		http.DefaultClient.CloseIdleConnections()
	})
	return r
}

// idleEngine is an engine that is built and does not run. more is the rest of its config.
func idleEngine(t *testing.T, more string) *Backend {
	t.Helper()
	text := fmt.Sprintf("listen: 127.0.0.1:0\nstate: %s\ncost: {gpu_hour: 3.60}\n%s", filepath.Join(t.TempDir(), "state"), more)
	c, err := config.Reader{Prices: cost.Embedded().Known}.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(t.Context(), Options{Config: c, Version: "1.2.3", Self: []string{"/nowhere"}, Listener: ln, Log: NewLog()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.endLife()
		if err := errors.Join(ln.Close(), b.closeStores()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// config has the first n servers as workers.
func (r *rig) config(n int) *config.Config {
	r.t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "listen: 127.0.0.1:0\nstate: %s\nmodels: [{name: toy, aliases: [default]%s}]\ncost: {gpu_hour: 3.60}\n%sworkers:\n", filepath.Join(r.dir, "state"), r.toy, r.cfg)
	for i := range n {
		fmt.Fprintf(&b, "  - {name: w%d, model: toy, attach: %q, gpus: 1}\n", i, r.urls[i])
	}
	c, err := config.Reader{Prices: cost.Embedded().Known}.Parse("test.yaml", []byte(b.String()))
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) ended(limit time.Duration) {
	r.t.Helper()
	select {
	case <-r.done:
	case <-time.After(limit):
		r.t.Fatalf("the engine still runs after %s", limit)
	}
}

func (r *rig) snapshot() *api.Snapshot {
	r.t.Helper()
	s, err := r.Snapshot(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) allReady() {
	r.t.Helper()
	until(r.t, "every worker is ready", func() bool {
		for _, w := range r.snapshot().Workers {
			if w.State != api.Ready {
				return false
			}
		}
		return true
	})
}

// chat sends a plain request through the gateway's port.
func (r *rig) chat(tokens int) (int, string) {
	r.t.Helper()
	body := fmt.Sprintf(`{"model":"toy","messages":[{"role":"user","content":"Hello"}],"max_tokens":%d,"ignore_eos":true}`, tokens)
	resp, err := http.Post(r.URL()+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// syncBuffer is written and read by different goroutines.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// full is a disk without space.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }
