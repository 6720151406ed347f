package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

func TestMain(m *testing.M) {
	if os.Getenv(peerEnv) != "" {
		peer() // this process is the other side of a benchmark
		return
	}
	goleak.VerifyTestMain(m)
}

// pool is upstreams and accounts in one, for tests.
type pool struct {
	mu       sync.Mutex
	models   []api.Model
	cands    map[string][]route.Candidate // by model
	urls     map[string]string
	name     string // upstream's name of the model
	key      string
	client   *http.Client
	sim      bool
	share    time.Duration
	beat     *atomic.Int64
	busy     map[string]time.Duration
	price    func(r *api.Request)
	changed  chan struct{}
	rows     []api.Request
	opened   int
	results  map[string][]route.Result
	acquired map[string]int
	settled  chan struct{} // gets one per row
}

func newPool() *pool {
	return &pool{
		models: []api.Model{{Name: "m", Aliases: []string{"default"}, MaxLen: 1024}}, cands: map[string][]route.Candidate{}, urls: map[string]string{},
		changed: make(chan struct{}), results: map[string][]route.Result{}, acquired: map[string]int{}, busy: map[string]time.Duration{}, settled: make(chan struct{}, 10000),
	}
}

// add puts a worker into the pool.
func (p *pool) add(id, url string) {
	p.set(route.Candidate{ID: id, Ready: true, State: "ready"}, url)
}

func (p *pool) set(c route.Candidate, url string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.cands["m"]
	if i := slices.IndexFunc(list, func(o route.Candidate) bool { return o.ID == c.ID }); i >= 0 {
		c.InFlight = list[i].InFlight
		list[i] = c
	} else {
		p.cands["m"] = append(list, c)
	}
	p.urls[c.ID] = url
	p.wakeLocked()
}

func (p *pool) wakeLocked() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pool) Resolve(name string) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if name == "" && len(p.models) == 1 {
		return p.models[0].Name, true
	}
	for _, m := range p.models {
		if m.Name == name || slices.Contains(m.Aliases, name) {
			return m.Name, true
		}
	}
	return "", false
}

func (p *pool) Models() []api.Model { return p.models }

func (p *pool) Candidates(model string, dst []route.Candidate) []route.Candidate {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append(dst, p.cands[model]...)
}

func (p *pool) Acquire(id string) (Lease, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.cands["m"] {
		c := &p.cands["m"][i]
		if c.ID != id || !c.Ready || c.MaxSeqs > 0 && c.InFlight >= c.MaxSeqs {
			continue
		}
		c.InFlight++
		p.acquired[id]++
		var once sync.Once
		return Lease{URL: p.urls[id], Model: p.name, Key: p.key, Client: p.client, Simulated: p.sim, Release: func() time.Duration {
			once.Do(func() {
				p.mu.Lock()
				defer p.mu.Unlock()
				for i := range p.cands["m"] {
					if p.cands["m"][i].ID == id {
						p.cands["m"][i].InFlight--
					}
				}
				p.wakeLocked()
			})
			return p.share
		}, Report: func(r route.Result) { p.report(id, r) }, Beat: p.beat, Busy: func(d time.Duration) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.busy[id] = d
		}}, true
	}
	return Lease{}, false
}

func (p *pool) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *pool) report(id string, r route.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.results[id] = append(p.results[id], r)
}

func (p *pool) Open(*api.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opened++
}

func (p *pool) Price(r *api.Request) {
	if p.price != nil {
		p.price(r)
	}
}

func (p *pool) Settle(r *api.Request) {
	p.mu.Lock()
	p.rows = append(p.rows, *r)
	p.mu.Unlock()
	p.settled <- struct{}{}
}

// row waits for the next row and gives it.
func (p *pool) row(t testing.TB) api.Request {
	t.Helper()
	select {
	case <-p.settled:
	case <-time.After(10 * time.Second):
		t.Fatal("no row after 10 s, want one")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.rows[0]
	p.rows = p.rows[1:]
	for _, c := range p.cands["m"] {
		if c.InFlight != 0 && len(p.rows) == 0 && len(p.settled) == 0 {
			// Rows are settled after the place is given back, so none may be left.
			t.Errorf("worker %s has %d requests in flight after the row, want 0", c.ID, c.InFlight)
		}
	}
	return r
}

// idleRow is row for tests with several requests at once.
func (p *pool) idleRow(t testing.TB) api.Request {
	t.Helper()
	<-p.settled
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.rows[0]
	p.rows = p.rows[1:]
	return r
}

// rig is a gateway with its pool, listening.
type rig struct {
	*Gateway
	pool *pool
	url  string
	http *http.Client
}

func newRig(t testing.TB, change ...func(*Gateway)) *rig {
	t.Helper()
	p := newPool()
	g := &Gateway{Upstreams: p, Accounts: p, Log: slog.New(slog.DiscardHandler), CostInfo: true}
	for _, f := range change {
		f(g)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, ln, nil, 5*time.Second) }()
	tr := &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		stop()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v, want nil", err)
		}
	})
	return &rig{Gateway: g, pool: p, url: "http://" + ln.Addr().String(), http: &http.Client{Transport: tr}}
}

// answer is what a client got.
type answer struct {
	status  int
	header  http.Header
	body    string
	err     error // of reading the body
	trailer http.Header
}

func (r *rig) post(t testing.TB, path, body string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, r.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := r.http.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{status: res.StatusCode, header: res.Header, body: string(b), err: err, trailer: res.Trailer}
}

// serveHTTP starts a worker that answers with h.
func serveHTTP(t testing.TB, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL
}

// serveRaw starts a worker that speaks for itself: it is given each request with its body read.
// What it writes goes out as it is; when it returns the connection is closed.
func serveRaw(t testing.TB, h func(c *net.TCPConn, req *http.Request, body string)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}
				body, _ := io.ReadAll(req.Body)
				h(c.(*net.TCPConn), req, string(body))
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return "http://" + ln.Addr().String()
}

const streamHead = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"

// chunk writes s as one chunk.
func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

const (
	evRole   = `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}` + "\n\n"
	evFinish = `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":""},"logprobs":null,"finish_reason":"stop","stop_reason":null}]}` + "\n\n"
	evUsage  = `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":14,"total_tokens":18,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":8}}}` + "\n\n"
	evDone   = "data: [DONE]\n\n"
	evError  = `data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for the root cause.", "type": "InternalServerError", "param": null, "code": 500}}` + "\n\n"
	evOops   = `data: {"error": {"message": "Internal server error", "type": "InternalServerError", "param": null, "code": 500}}` + "\n\n"
	evBusy   = `data: {"error": {"message": "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance.", "type": "Service Unavailable", "param": null, "code": 503}}` + "\n\n"

	chatBody   = `{"model":"m","messages":[{"role":"user","content":"Hello there"}]}`
	streamBody = `{"model":"m","messages":[{"role":"user","content":"Hello there"}],"stream":true}`

	wholeAnswer = `{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":14,"total_tokens":18,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":8}}}`
)

func evText(s string) string {
	return `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":` + quote(s) + `},"logprobs":null,"finish_reason":null,"token_ids":null}]}` + "\n\n"
}

// events is a worker that sends these events, one chunk each, and ends cleanly.
func events(t testing.TB, evs ...string) string {
	t.Helper()
	return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for _, e := range evs {
			io.WriteString(w, e)
			w.(http.Flusher).Flush()
		}
	})
}

func good(t testing.TB) string {
	t.Helper()
	return events(t, evRole, evText("good"), evText(" one"), evFinish, evUsage, evDone)
}

func goodStream() string { return evRole + evText("good") + evText(" one") + evFinish + evDone }

// goodAnswer is a worker that gives wholeAnswer.
func goodAnswer(t testing.TB) string {
	t.Helper()
	return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, wholeAnswer)
	})
}

// counter counts in tests.
type counter = atomic.Int64

// newServer is serveHTTP that tells of each new connection.
func newServer(t testing.TB, h http.Handler, opened func(net.Conn)) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ConnState = func(c net.Conn, st http.ConnState) {
		if st == http.StateNew {
			opened(c)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return s.URL
}

// recording reads one answer that vLLM gave.
func recording(t testing.TB, name string) (status int, header http.Header, body string) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name + ".txt")
	if err != nil {
		t.Fatal(err)
	}
	s := string(b)
	at := strings.Index(s, "HTTP/1.1 ")
	head, rest, ok := strings.Cut(s[at:], "\n\n")
	if !ok {
		t.Fatalf("%s has no head", name)
	}
	lines := strings.Split(head, "\n")
	if _, err := fmt.Sscanf(lines[0], "HTTP/1.1 %d", &status); err != nil {
		t.Fatal(err)
	}
	header = http.Header{}
	for _, l := range lines[1:] {
		k, v, _ := strings.Cut(l, ": ")
		header.Set(k, v)
	}
	if i := strings.LastIndex(rest, "[curl exit"); i >= 0 {
		rest = rest[:i]
	}
	// The recorder left events out of long streams and said so between them.
	if i := strings.Index(rest, "[…"); i >= 0 {
		_, after, _ := strings.Cut(rest[i:], "\n\n")
		rest = rest[:i] + after
	}
	if n := header.Get("Content-Length"); n != "" {
		rest = strings.TrimRight(rest, "\n")
	} else {
		rest = strings.TrimRight(rest, "\n") + "\n\n"
	}
	return status, header, rest
}
