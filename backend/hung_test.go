package backend

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/gateway"
	"github.com/vllmdeck/vllmdeck/backend/launch"
	"github.com/vllmdeck/vllmdeck/backend/sim"
	"github.com/vllmdeck/vllmdeck/backend/worker"
	"github.com/vllmdeck/vllmdeck/config"
	"github.com/vllmdeck/vllmdeck/metrics"
)

// rows are accounts that keep what ended.
type rows struct {
	mu  sync.Mutex
	all []api.Request
}

func (*rows) Open(*api.Request)  {}
func (*rows) Price(*api.Request) {}
func (r *rows) Settle(q *api.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, *q)
}

// muted is a connection whose other side says nothing any more while silent is set, as that of a stopped process.
type muted struct {
	net.Conn
	silent *atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (m *muted) Close() error {
	m.once.Do(func() { close(m.closed) })
	return m.Conn.Close()
}

func (m *muted) Read(p []byte) (int, error) {
	for {
		n, err := m.Conn.Read(p)
		if !m.silent.Load() {
			return n, err
		}
		if err != nil { // its end is not to be seen either
			select {
			case <-m.closed:
			case <-time.After(time.Hour): // of the bubble: whoever waits so long has no limit at all
			}
			return 0, net.ErrClosed
		}
	}
}

// TestARequestIsNotHeldByAHungWorker has a worker hang under a request, with the real watchdog on virtual time: the
// request moves to the other worker within about a minute, long before its own limit, streamed or not.
func TestARequestIsNotHeldByAHungWorker(t *testing.T) {
	const body = `{"model":"toy","messages":[{"role":"user","content":"Hello"}],"max_tokens":8`
	for _, tt := range []struct {
		name, body string
		hang       func(s *sim.Server, silent *atomic.Bool)
	}{
		{"a plain request, the engine hangs", body + `}`, func(s *sim.Server, _ *atomic.Bool) { s.Freeze(true) }},
		{"a stream, the engine hangs", body + `,"stream":true}`, func(s *sim.Server, _ *atomic.Bool) { s.Freeze(true) }},
		{"a plain request, the whole server is silent", body + `}`, func(_ *sim.Server, silent *atomic.Bool) { silent.Store(true) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(context.Background())
				var wg sync.WaitGroup
				pipes, sims, silent := map[string]*sim.Pipe{}, map[string]*sim.Server{}, map[string]*atomic.Bool{}
				for _, name := range []string{"w0", "w1"} {
					s, ln := sim.New(sim.Options{Model: "toy", Log: io.Discard, Start: time.Second, TTFT: time.Second}), sim.Listen()
					pipes[name+":80"], sims[name], silent[name+":80"] = ln, s, &atomic.Bool{}
					wg.Go(func() {
						if err := s.Serve(ctx, ln); err != nil {
							t.Errorf("Serve = %v", err)
						}
					})
				}
				dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
					c, err := pipes[addr].Dial(ctx, network, addr)
					if err != nil {
						return nil, err
					}
					return &muted{Conn: c, silent: silent[addr], closed: make(chan struct{})}, nil
				}
				client := &http.Client{Transport: &http.Transport{DialContext: dial, DisableCompression: true}}
				c, err := config.Reader{}.Parse("test.yaml", []byte("listen: 127.0.0.1:0\nstate: "+dir+"\nworkers: [{name: w0, model: toy, attach: \"http://w0\"}, {name: w1, model: toy, attach: \"http://w1\"}]\n"))
				if err != nil {
					t.Fatal(err)
				}
				var g *gateway.Gateway
				pool := worker.NewPool(worker.Options{
					Launchers: map[string]launch.Launcher{"attach": launch.Attach{}}, State: dir, HTTP: client, Hung: func(name string) { g.Evict(name) },
					Scraper: func(url, key string) worker.Scraper {
						return &scraper{from: metrics.Scraper{URL: url, Key: key, Client: client}}
					},
				})
				up, accounts := newUpstreams(pool, &providers{}), &rows{}
				g = &gateway.Gateway{Upstreams: up, Accounts: accounts, Dial: dial}
				if err := pool.Apply(c); err != nil {
					t.Fatal(err)
				}
				up.apply(c)
				wg.Go(func() {
					if err := pool.Run(ctx); err != nil {
						t.Errorf("Run = %v", err)
					}
				})
				for range 60 {
					if m := up.Models(); len(m) == 1 && m[0].Ready == 2 {
						break
					}
					time.Sleep(time.Second)
				}
				time.Sleep(30 * time.Second) // of calm

				front := &inproc{handler: g}
				began := time.Now()
				wg.Go(func() {
					var at string
					for at == "" {
						time.Sleep(10 * time.Millisecond)
						for _, r := range g.InFlight(nil) {
							at = r.Worker
						}
					}
					tt.hang(sims[at], silent[at+":80"])
				})
				res, err := (&http.Client{Transport: front}).Post("http://gateway/v1/chat/completions", "application/json", strings.NewReader(tt.body))
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(res.Body)
				res.Body.Close()
				took := time.Since(began)
				whole := json.Valid(text) || strings.HasSuffix(string(text), "data: [DONE]\n\n")
				if res.StatusCode != http.StatusOK || err != nil || !whole {
					t.Errorf("the client got %d %s (%v), want the other worker's answer", res.StatusCode, text, err)
				}
				if took < 30*time.Second || took > 80*time.Second {
					t.Errorf("it took %v, want about a minute", took)
				}
				accounts.mu.Lock()
				if row := accounts.all[0]; len(accounts.all) != 1 || len(row.Attempts) != 2 || !strings.Contains(row.Attempts[0].Error, "it hangs") || row.Outcome != api.OutcomeOK {
					t.Errorf("rows = %+v, want one that is ok after an attempt that hung", accounts.all)
				}
				accounts.mu.Unlock()
				for _, s := range sims {
					s.Freeze(false)
				}
				for _, s := range silent {
					s.Store(false)
				}
				stop()
				front.calls.Wait()
				wg.Wait()
				client.CloseIdleConnections()
				time.Sleep(time.Minute) // kept connections end by themselves
			})
		})
	}
}
