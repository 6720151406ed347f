package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
	"github.com/vllmdeck/vllmdeck/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a fake machine: it launches fake servers and is the network to them.
type host struct {
	t *testing.T

	mu       sync.Mutex
	play     func(*proc) // what a launched server does; it runs in a goroutine
	procs    []*proc     // launched, oldest first
	alive    map[string]*proc
	attached map[string]*proc // by URL
	refuse   error            // of Launch
	lost     error            // of Adopt
	check    error            // of Check
	port     int
	pid      int
	notices  []api.Notice
	readings map[string]*reading      // by URL
	hung     func(string)             // Options.Hung
	cards    func() ([]api.GPU, bool) // Options.GPUs
	waiting  map[string]bool          // models that requests wait for
}

// proc is a fake server.
type proc struct {
	h    *host
	spec launch.Spec
	pid  int
	at   time.Time
	done chan struct{}

	mu      sync.Mutex
	exit    launch.Exit
	up      bool // answers
	hang    bool // answers /health and /v1/models alone
	status  int  // of /health
	models  []string
	term    func() // what SIGTERM does
	killErr error
	dev     *dev // routes of sleep mode; nil: none

	terms, kills, canary atomic.Int32
	closed               atomic.Bool
}

func (p *proc) Spec() launch.Spec     { return p.spec }
func (p *proc) PID() int              { return p.pid }
func (p *proc) Started() time.Time    { return p.at }
func (p *proc) Done() <-chan struct{} { return p.done }
func (p *proc) Tree() []launch.Process {
	return []launch.Process{{PID: p.pid, RSS: 1 << 20, CPUTime: time.Since(p.at).Seconds() / 2}}
}

func (p *proc) Exit() launch.Exit {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exit
}

func (p *proc) LogPath() string {
	if p.spec.Kind == kindAttach {
		return ""
	}
	return filepath.Join(p.spec.Folder, "log")
}

func (p *proc) Terminate() error {
	p.terms.Add(1)
	p.mu.Lock()
	f := p.term
	p.mu.Unlock()
	if f != nil {
		f()
	}
	return nil
}

func (p *proc) Kill(context.Context) error {
	p.kills.Add(1)
	p.mu.Lock()
	err := p.killErr
	p.mu.Unlock()
	if err == nil {
		p.die(launch.Exit{Code: -1, Signal: "killed", Known: true})
	}
	return err
}

func (p *proc) Close() error {
	p.closed.Store(true)
	return nil
}

func (p *proc) die(e launch.Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if isDone(p.done) {
		return
	}
	p.exit, p.up = e, false
	close(p.done)
	p.h.mu.Lock()
	delete(p.h.alive, p.spec.Folder)
	p.h.mu.Unlock()
}

// wait lets time pass; false once the server is dead.
func (p *proc) wait(d time.Duration) bool {
	select {
	case <-p.done:
		return false
	case <-time.After(d):
		return true
	}
}

func (p *proc) say(lines string) {
	f, err := os.OpenFile(p.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.h.t.Error(err)
		return
	}
	defer f.Close()
	if _, err := f.WriteString(lines); err != nil {
		p.h.t.Error(err)
	}
}

func (p *proc) set(f func(p *proc)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

func (p *proc) serve() { p.set(func(p *proc) { p.up = true }) }

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t, alive: map[string]*proc{}, attached: map[string]*proc{}, port: 20000, pid: 100, readings: map[string]*reading{}}
	h.play = func(p *proc) { p.serve() }
	// The fake servers' goroutines end with them.
	t.Cleanup(func() {
		for _, p := range h.procs {
			p.die(launch.Exit{})
		}
	})
	return h
}

func (h *host) Launch(_ context.Context, s launch.Spec) (launch.Instance, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refuse != nil {
		return nil, h.refuse
	}
	if s.Kind == kindAttach {
		if p := h.attached[s.URL]; p != nil {
			return p, nil
		}
		p := &proc{h: h, spec: s, done: make(chan struct{}), status: 200}
		h.attached[s.URL] = p
		return p, nil
	}
	if err := os.MkdirAll(s.Folder, 0o700); err != nil {
		return nil, err
	}
	h.pid++
	p := &proc{h: h, spec: s, pid: h.pid, at: time.Now(), done: make(chan struct{}), status: 200, models: []string{s.Labels[labelModel]}}
	p.term = func() { go p.die(launch.Exit{Code: 0, Known: true}) }
	h.procs = append(h.procs, p)
	h.alive[s.Folder] = p
	go h.play(p)
	return p, nil
}

func (h *host) Adopt(_ context.Context, s launch.Spec) (launch.Instance, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.lost != nil {
		return nil, h.lost
	}
	if p := h.alive[s.Folder]; p != nil {
		return p, nil
	}
	return nil, nil
}

func (h *host) last() *proc {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.procs[len(h.procs)-1]
}

func (h *host) launches() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.procs)
}

// RoundTrip is the network to the fake servers.
func (h *host) RoundTrip(r *http.Request) (*http.Response, error) {
	base := r.URL.Scheme + "://" + r.URL.Host
	h.mu.Lock()
	var p *proc
	for _, x := range h.alive {
		if x.spec.URL == base {
			p = x
		}
	}
	if p == nil {
		p = h.attached[base]
	}
	h.mu.Unlock()
	if p == nil {
		return nil, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	}
	p.mu.Lock()
	up, hang, status, models := p.up, p.hang, p.status, p.models
	p.mu.Unlock()
	if !up {
		return nil, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	}
	w := httptest.NewRecorder()
	switch r.URL.Path {
	case "/health":
		w.WriteHeader(status)
	case "/version":
		_, _ = io.WriteString(w, `{"version":"0.32.0"}`)
	case "/v1/models":
		var ids []string
		for _, m := range models {
			ids = append(ids, fmt.Sprintf(`{"id":%q,"max_model_len":1024}`, m))
		}
		_, _ = io.WriteString(w, `{"object":"list","data":[`+strings.Join(ids, ",")+`]}`)
	case "/v1/completions":
		p.canary.Add(1)
		if p.dev != nil && p.dev.sleeps() {
			h.t.Errorf("a server that sleeps is asked for a token: it would be parked")
		}
		if hang {
			select {
			case <-r.Context().Done():
				return nil, r.Context().Err()
			case <-p.done:
				return nil, io.ErrUnexpectedEOF
			}
		}
		_, _ = io.WriteString(w, `{"choices":[{"text":"a"}]}`)
	default:
		if p.dev == nil || !p.dev.serve(w, r) {
			w.WriteHeader(http.StatusNotFound)
		}
	}
	return w.Result(), nil
}

// reading is a fake Scraper.
type reading struct {
	mu  sync.Mutex
	r   Reading
	err error
	n   int
}

func (r *reading) Scrape(context.Context) (Reading, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n++
	return r.r, r.err
}

func (h *host) options(state string) Options {
	return Options{
		Launchers: map[string]launch.Launcher{kindVLLM: h, kindSim: h, kindAttach: h},
		Self:      []string{"/bin/vllmdeck"},
		State:     state,
		Hung:      h.hung,
		Waiting: func(model string) bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.waiting[model]
		},
		GPUs:   h.cards,
		HTTP:   &http.Client{Transport: h},
		HasGPU: func() bool { return false },
		Notice: func(n api.Notice) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.notices = append(h.notices, n)
		},
		Check: func(launch.Spec) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.check
		},
		Port: func(...int) (int, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.port++
			return h.port, nil
		},
		Scraper: func(url, _ string) Scraper {
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.readings[url] == nil {
				h.readings[url] = &reading{}
			}
			return h.readings[url]
		},
	}
}

func (h *host) noticed(text string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, n := range h.notices {
		if strings.Contains(n.Text, text) {
			return true
		}
	}
	return false
}

func vllmWorker(name string, args ...string) config.Worker {
	return config.Worker{
		Name: name, Model: "m", VLLM: &config.VLLM{Bin: "vllm", Path: "/models/m", Args: args},
		Restart:      config.Restart{Policy: "on-failure", Base: time.Second, Max: time.Minute, Tries: 3, Window: 30 * time.Minute},
		StartTimeout: 30 * time.Minute, StopTimeout: 30 * time.Second,
	}
}

func attachWorker(name, url string) config.Worker {
	w := vllmWorker(name)
	w.VLLM, w.Attach = nil, url
	return w
}

func conf(workers ...config.Worker) *config.Config { return &config.Config{Workers: workers} }

// pool runs a pool in the present bubble until stop is called or the test ends.
func (h *host) pool(state string, c *config.Config) (p *Pool, stop func()) {
	h.t.Helper()
	p = NewPool(h.options(state))
	if err := p.Apply(c); err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	synctest.Wait()
	var once sync.Once
	return p, func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				h.t.Error(err)
			}
		})
	}
}

// run gives a test a bubble with one running pool.
func run(t *testing.T, c *config.Config, prepare func(h *host), f func(t *testing.T, h *host, p *Pool)) {
	t.Helper()
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		if prepare != nil {
			prepare(h)
		}
		p, stop := h.pool(state, c)
		defer stop()
		f(t, h, p)
	})
}

// until lets virtual time pass until ok, at most d.
func until(t *testing.T, d time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); ; time.Sleep(50 * time.Millisecond) {
		synctest.Wait()
		if ok() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, d)
		}
	}
}

func (p *Pool) stateOf(name string) api.State {
	s, _ := p.Status(name)
	return s.State
}

func is(p *Pool, name string, s api.State) func() bool {
	return func() bool { return p.stateOf(name) == s }
}

func mustStatus(t *testing.T, p *Pool, name string) api.Worker {
	t.Helper()
	synctest.Wait()
	s, ok := p.Status(name)
	if !ok {
		t.Fatalf("no worker %s", name)
	}
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantRefused(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, api.ErrRefused) {
		t.Errorf("error = %v, want ErrRefused", err)
	}
}
