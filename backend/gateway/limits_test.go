package gateway

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// pipes is a network in memory, so that time limits run in a synctest bubble.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	a, b := net.Pipe()
	select {
	case p.conns <- b:
		return a, nil
	case <-p.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// bubble runs f in a synctest bubble, with a gateway whose workers a and b are h. Worker b is the second choice.
func bubble(t *testing.T, h map[string]http.HandlerFunc, change func(*Gateway), f func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPool()
		nets := map[string]*pipes{}
		var wg sync.WaitGroup
		var servers []*http.Server
		for id, handler := range h {
			ln := newPipes()
			nets[id+":80"] = ln
			s := &http.Server{Handler: handler}
			servers = append(servers, s)
			wg.Go(func() { s.Serve(ln) })
			p.set(route.Candidate{ID: id, Ready: true, Waiting: float64(id[0] - 'a')}, "http://"+id)
		}
		g := &Gateway{Upstreams: p, Accounts: p, Log: slog.New(slog.DiscardHandler)}
		g.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			return nets[addr].dial(ctx, network, addr)
		}
		if change != nil {
			change(g)
		}
		ln := newPipes()
		ctx, stop := context.WithCancel(t.Context())
		wg.Go(func() {
			if err := g.Serve(ctx, ln, nil, time.Second); err != nil {
				t.Errorf("Serve = %v", err)
			}
		})
		tr := &http.Transport{DialContext: ln.dial, DisableCompression: true}
		f(&rig{Gateway: g, pool: p, url: "http://gateway", http: &http.Client{Transport: tr}})
		tr.CloseIdleConnections()
		stop()
		for _, s := range servers {
			s.Close()
		}
		wg.Wait()
		time.Sleep(time.Minute) // of the bubble: handlers that sleep see the end
	})
}

// stall sends events and then nothing until the gateway goes away.
func stall(evs ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		w.WriteHeader(http.StatusOK)
		for _, e := range evs {
			io.WriteString(w, e)
		}
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
}

func sends(evs ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for _, e := range evs {
			io.WriteString(w, e)
		}
	}
}

func near(got, want time.Duration) bool { return got >= want*9/10 && got <= want*11/10 }

func silenceBeforeContent(t *testing.T) {
	for name, evs := range map[string][]string{"after the head": {}, "after the role": {evRole}, "with comments": {evRole, ": ping\n\n"}} {
		t.Run(name, func(t *testing.T) {
			handlers := map[string]http.HandlerFunc{"a": stall(evs...), "b": sends(evRole, evText("x"), evFinish, evDone)}
			bubble(t, handlers, func(g *Gateway) { g.TTFTTimeout = 7 * time.Second }, func(r *rig) {
				start := time.Now()
				got := r.post(t, "/v1/chat/completions", streamBody)
				if took := time.Since(start); !near(took, 7*time.Second) {
					t.Errorf("took %v, want 7s", took)
				}
				if got.status != 200 || got.err != nil || !strings.HasSuffix(got.body, evDone) {
					t.Errorf("got %d %q (%v), want the other worker's answer", got.status, got.body, got.err)
				}
				if row := r.pool.row(t); len(row.Attempts) != 2 || r.pool.results["a"][0] != route.Failed {
					t.Errorf("attempts = %+v, breaker told %v; want two, and a failure", row.Attempts, r.pool.results["a"])
				}
			})
		})
	}
	t.Run("with nobody else it is a 504", func(t *testing.T) {
		bubble(t, map[string]http.HandlerFunc{"a": stall()}, func(g *Gateway) { g.TTFTTimeout = 7 * time.Second }, func(r *rig) {
			got := r.post(t, "/v1/chat/completions", streamBody)
			if got.status != 504 || gjson.Get(got.body, "error.code").Str != "upstream_timeout" || got.header.Get("X-Should-Retry") != "false" {
				t.Errorf("got %d %s, want 504 upstream_timeout", got.status, got.body)
			}
			r.pool.row(t)
		})
	})
	t.Run("a pause of the head alone is no silence of an answer that is not streamed", func(t *testing.T) {
		slow := func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			time.Sleep(9 * time.Minute)
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, wholeAnswer)
		}
		bubble(t, map[string]http.HandlerFunc{"a": slow}, nil, func(r *rig) {
			if got := r.post(t, "/v1/chat/completions", chatBody); got.status != 200 {
				t.Errorf("got %d after 9 minutes, want 200", got.status)
			}
			r.pool.row(t)
		})
	})
}

func silenceAfterContent(t *testing.T) {
	for name, comments := range map[string]bool{"nothing at all": false, "comments are no progress": true} {
		t.Run(name, func(t *testing.T) {
			h := stall(evRole, evText("x"))
			if comments {
				h = func(w http.ResponseWriter, r *http.Request) {
					io.Copy(io.Discard, r.Body)
					w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
					io.WriteString(w, evRole+evText("x"))
					for r.Context().Err() == nil {
						io.WriteString(w, ": ping\n\n")
						w.(http.Flusher).Flush()
						time.Sleep(time.Second)
					}
				}
			}
			bubble(t, map[string]http.HandlerFunc{"a": h}, func(g *Gateway) { g.IdleTimeout = 40 * time.Second }, func(r *rig) {
				start := time.Now()
				got := r.post(t, "/v1/chat/completions", streamBody)
				if took := time.Since(start); !near(took, 40*time.Second) {
					t.Errorf("took %v, want 40s", took)
				}
				if got.err == nil || !strings.Contains(got.body, `"code":"upstream_timeout"`) {
					t.Errorf("got %q (%v), want an error event and a broken connection", got.body, got.err)
				}
				r.pool.row(t)
			})
		})
	}
}

func TestALongAnswerIsNotCut(t *testing.T) {
	const n = 600
	long := func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		io.WriteString(w, evRole)
		for range n {
			io.WriteString(w, evText("x"))
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Second)
		}
		io.WriteString(w, evFinish+evDone)
	}
	bubble(t, map[string]http.HandlerFunc{"a": long}, nil, func(r *rig) {
		got := r.post(t, "/v1/chat/completions", streamBody)
		if got.err != nil || strings.Count(got.body, `"content":"x"`) != n {
			t.Errorf("got %d of %d events (%v), want all of a stream of 200 minutes", strings.Count(got.body, `"content":"x"`), n, got.err)
		}
		row := r.pool.row(t)
		if time.Duration(row.ITL) != 20*time.Second || time.Duration(row.MaxGap) != 20*time.Second || row.TTFT <= 0 && row.TTFT != 0 {
			t.Errorf("gaps: mean %v, longest %v; want 20s each", time.Duration(row.ITL), time.Duration(row.MaxGap))
		}
	})
}

func TestQueueWaitIsALimitForAllWaitingTogether(t *testing.T) {
	bubble(t, map[string]http.HandlerFunc{}, func(g *Gateway) { g.QueueWait = 30 * time.Second }, func(r *rig) {
		r.pool.set(route.Candidate{ID: "a", Coming: true, State: "starting"}, "")
		start := time.Now()
		got := r.post(t, "/v1/chat/completions", chatBody)
		if took := time.Since(start); got.status != 503 || took != 30*time.Second {
			t.Errorf("got %d after %v, want 503 after 30s", got.status, took)
		}
		if row := r.pool.row(t); time.Duration(row.Queue) != 30*time.Second {
			t.Errorf("row says %v in line, want 30s", time.Duration(row.Queue))
		}
	})
}

func TestSlowHeadersAndBodiesAreCut(t *testing.T) {
	for name, tt := range map[string]struct {
		send  string
		limit time.Duration
	}{
		"slow headers": {"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-", 10 * time.Second},
		"slow body":    {"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", bodyTime(100)},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, map[string]http.HandlerFunc{"a": sends()}, nil, func(r *rig) {
				c, err := r.http.Transport.(*http.Transport).DialContext(context.Background(), "tcp", "gateway")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				start := time.Now()
				io.WriteString(c, tt.send)
				io.Copy(io.Discard, bufio.NewReader(c))
				if took := time.Since(start); !near(took, tt.limit) {
					t.Errorf("cut after %v, want %v", took, tt.limit)
				}
			})
		})
	}
}

func TestGraceLetsRequestsEndAndThenCutsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		worker := newPipes()
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			io.WriteString(w, evRole+evText("x"))
			w.(http.Flusher).Flush()
			wait := 3 * time.Second
			if strings.Contains(string(b), "long") {
				wait = time.Hour
			}
			select {
			case <-time.After(wait):
				io.WriteString(w, evFinish+evDone)
			case <-r.Context().Done():
			}
		})}
		var wg sync.WaitGroup
		wg.Go(func() { s.Serve(worker) })
		p := newPool()
		p.add("a", "http://a")
		g := &Gateway{Upstreams: p, Accounts: p, Dial: worker.dial}
		ln := newPipes()
		ctx, stop := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- g.Serve(ctx, ln, nil, 10*time.Second) }()
		tr := &http.Transport{DialContext: ln.dial}
		r := &rig{Gateway: g, pool: p, url: "http://gateway", http: &http.Client{Transport: tr}}
		short, long := make(chan answer, 1), make(chan answer, 1)
		go func() { short <- r.post(t, "/v1/chat/completions", streamBody) }()
		go func() { long <- r.post(t, "/v1/chat/completions", strings.Replace(streamBody, "Hello", "long", 1)) }()
		synctest.Wait()
		if n := len(r.InFlight(nil)); n != 2 {
			t.Errorf("%d requests in flight, want 2", n)
		}
		start := time.Now()
		stop()
		if got := <-short; got.err != nil || !strings.HasSuffix(got.body, evDone) {
			t.Errorf("the short one got %q (%v), want its whole answer", got.body, got.err)
		}
		got := <-long
		if took := time.Since(start); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("the long one was cut after %v, want after the grace of 10s", took)
		}
		if got.err == nil || !strings.Contains(got.body, "the engine is stopping") {
			t.Errorf("the long one got %q (%v), want an error event and a broken connection", got.body, got.err)
		}
		if err := <-served; err != nil {
			t.Errorf("Serve = %v, want nil", err)
		}
		outcomes := p.row(t).Outcome + " " + p.row(t).Outcome
		if outcomes != api.OutcomeOK+" "+api.OutcomeLost {
			t.Errorf("rows: %s, want ok and upstream_lost", outcomes)
		}
		tr.CloseIdleConnections()
		s.Close()
		wg.Wait()
	})
}

func TestIdleConnectionsAreClosedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		worker := newPipes()
		open := map[net.Conn]bool{}
		var mu sync.Mutex
		s := &http.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, wholeAnswer) }),
			ConnState: func(c net.Conn, st http.ConnState) {
				mu.Lock()
				defer mu.Unlock()
				if st == http.StateNew {
					open[c] = true
				}
				if st == http.StateClosed {
					delete(open, c)
				}
			},
		}
		count := func() int { mu.Lock(); defer mu.Unlock(); return len(open) }
		var wg sync.WaitGroup
		wg.Go(func() { s.Serve(worker) })
		w := &wire{dial: worker.dial}
		fetch := func() {
			c, err := w.get(t.Context(), "a:80", false)
			if err != nil {
				t.Fatal(err)
			}
			rep, err := c.roundTrip([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), nil)
			if err != nil {
				t.Fatal(err)
			}
			rep.stop = func() bool { return true }
			if b, err := io.ReadAll(rep.body); err != nil || string(b) != wholeAnswer {
				t.Fatalf("got %q, %v", b, err)
			}
			rep.close(true)
		}
		fetch()
		time.Sleep(3 * time.Second)
		fetch()
		if n := count(); n != 1 {
			t.Errorf("%d connections, want 1: it is kept", n)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if n := count(); n != 0 {
			t.Errorf("%d connections after 5 s without a request, want 0", n)
		}
		fetch()
		w.close()
		s.Close()
		wg.Wait()
	})
}
