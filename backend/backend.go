package backend

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/capture"
	"github.com/vllmdeck/vllmdeck/backend/gateway"
	"github.com/vllmdeck/vllmdeck/backend/keys"
	"github.com/vllmdeck/vllmdeck/backend/launch"
	"github.com/vllmdeck/vllmdeck/backend/ledger"
	"github.com/vllmdeck/vllmdeck/backend/modelcache"
	"github.com/vllmdeck/vllmdeck/backend/quality"
	"github.com/vllmdeck/vllmdeck/backend/worker"
	"github.com/vllmdeck/vllmdeck/config"
	"github.com/vllmdeck/vllmdeck/metrics"
)

// Options is what a Backend is built from.
type Options struct {
	Config   *config.Config
	Load     func() (*config.Config, error) // reads the config again; nil: there is nothing to reload
	Version  string
	Self     []string // command of our own binary, for shims and simulated workers
	Demo     bool
	Lease    string       // lock file that local workers live by; "" for none
	Runtime  string       // folder for sockets whose path in the state folder would be too long
	Listener net.Listener // of the gateway; Run closes it
	Log      *Log
}

// Backend is the engine. Build it with New, run it with Run.
type Backend struct {
	opts     Options
	log      *slog.Logger
	hostname string
	started  time.Time
	url      string

	config  atomic.Pointer[config.Config]
	secrets atomic.Pointer[[]string] // variables that no worker inherits: those of every config so far
	pricing atomic.Pointer[pricing]
	money   atomic.Pointer[money]
	snap    atomic.Pointer[api.Snapshot]
	seq     atomic.Uint64

	pool      *worker.Pool
	upstreams *upstreams
	providers *providers
	gateway   *gateway.Gateway
	ledger    *ledger.Ledger
	keys      *keys.Store
	captures  *capture.Store
	estimates estimates
	recorder  *metrics.Recorder
	exporter  *metrics.Exporter
	gpus      *metrics.GPUs
	machine   *machine
	host      *metrics.HostReader
	scrapes   *http.Client

	metricNames metricNames
	answers     *quality.Distribution
	ratings     *quality.Queue
	recent      recent
	notices     noticeBoard
	tester      *tester
	cache       *modelcache.Cache

	reloading sync.Mutex
	life      context.Context //nolint:containedctx // the prompt tests that an order starts outlive the order, not the engine
	endLife   context.CancelFunc
	stopped   chan struct{} // closed when the end begins
	stopping  atomic.Bool

	ending  sync.Mutex // guards the following
	endAll  bool       // workers too
	restart bool
}

// New builds an engine: it opens the ledger and the keys, and starts nothing.
func New(ctx context.Context, o Options) (*Backend, error) {
	b := &Backend{opts: o, log: slog.New(o.Log), started: time.Now(), stopped: make(chan struct{})}
	b.life, b.endLife = context.WithCancel(context.WithoutCancel(ctx))
	b.hostname, _ = os.Hostname()
	b.url = gatewayURL(o.Config, o.Listener.Addr())

	l, err := ledger.Open(ctx, o.Config.State, b.log)
	if err != nil {
		return nil, err
	}
	b.ledger = l
	if b.keys, err = keys.Open(ctx, o.Config.State); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	for _, text := range l.Found().Notices {
		b.notice(api.Notice{Level: "warning", Text: text})
	}
	b.captures = capture.New(o.Config.State, b.log)
	b.recorder = metrics.NewRecorder(b.started)
	b.exporter = metrics.NewExporter(o.Version)
	b.gpus = metrics.NewGPUs(b.log)
	b.gpus.Xid = func(card string, x api.Xid, serious bool) { b.notice(toldXid(card, x, serious)) }
	b.host = &metrics.HostReader{}
	b.scrapes = newScrapeClient()
	b.metricNames.notice = b.notice
	b.answers = quality.NewDistribution(b.started, o.Config.Health.Target)
	b.ratings = quality.NewQueue(1, b.answers)

	local := &launch.Local{Shim: append(slices.Clone(o.Self), "shim"), Secrets: func() []string { return *b.secrets.Load() }, Runtime: o.Runtime, Log: b.log}
	local.Buried = func(name string, n int) {
		b.notice(api.Notice{Level: "warning", Worker: name, Text: fmt.Sprintf("%s: its shim died while no engine looked after it; what it left (%d processes) was ended", name, n)})
	}
	b.machine = &machine{local: local, gpus: b.gpus}
	cleanup := ""
	if o.Lease != "" {
		cleanup = o.Config.State
	}
	b.pool = worker.NewPool(worker.Options{
		Launchers: map[string]launch.Launcher{"vllm": local, "sim": local, "attach": launch.Attach{}},
		Self:      o.Self, State: o.Config.State, Lease: o.Lease, Cleanup: cleanup, Log: b.log, Notice: b.notices.add, // the pool logs for itself
		Scraper: b.newScraper, Check: launch.Check, Port: launch.FreePort, Listens: launch.Listens, Redact: launch.Redact,
		GPUs:    func() ([]api.GPU, bool) { return b.machine.cards(), b.gpus.Settled() },
		Hung:    func(name string) { b.gateway.Evict(name) }, // set below, before a worker can hang
		Waiting: func(model string) bool { return b.gateway.Waiting(model) },
	})
	b.providers = &providers{ledger: l}
	b.upstreams = newUpstreams(b.pool, b.providers)
	b.gateway = b.newGateway(o.Config)
	b.cache = modelcache.New(modelcache.Options{Env: CacheEnv, Log: b.log, Notice: b.notices.add}) // it logs for itself
	b.tester = &tester{gateway: &inproc{handler: b.gateway}, key: b.gateway.Internal, find: b.recent.find}
	b.money.Store(&money{})
	if err := b.apply(ctx, o.Config); err != nil {
		return nil, errors.Join(err, b.closeStores())
	}
	b.warn(o.Config)
	b.publishOnce(time.Now())
	return b, nil
}

// newGateway wires the gateway to the pool and the accounts.
func (b *Backend) newGateway(c *config.Config) *gateway.Gateway {
	return &gateway.Gateway{
		Upstreams: b.upstreams, Accounts: accounts{b}, Log: b.log, Version: b.opts.Version, Internal: rand.Text(),
		MediaDomains: c.MediaDomains, CostInfo: *c.Gateway.CostInfo, MaxBody: int64(c.Gateway.MaxBody),
		// The gateway takes 0 for its default, the config for none.
		Queue: cmp.Or(c.Gateway.Queue, -1), QueueWait: cmp.Or(c.Gateway.QueueWait, -1), TTFTTarget: c.Gateway.TTFTTarget,
		TTFTTimeout: c.Gateway.TTFTTimeout, IdleTimeout: c.Gateway.IdleTimeout,
		AnswerTimeout: c.Gateway.AnswerTimeout, StreamTimeout: c.Gateway.StreamTimeout, KeepAlive: c.Gateway.KeepAlive, Continue: *c.Gateway.Continue,
		Health: b.health, CostComparison: b.costComparison, Metrics: b.exporter.Handler(),
		Tokens:   func(n int) { b.recorder.Tokens(time.Now(), n) },
		Rates:    b.ratings.Wants,
		Rated:    b.rate,
		Captured: b.capture,
		Estimate: b.estimate,
		Repeated: b.pool.Repeat,
		Wanted:   b.pool.Wanted,
	}
}

// capture keeps the texts of a request whose key is to have them kept.
func (b *Backend) capture(r *api.Request, prompt, answer string, more bool) {
	e := capture.Entry{
		ID: r.ID, Client: r.Client, Started: r.Started, Key: r.Key, Route: r.Route, Model: r.Model, Outcome: r.Outcome,
		Prompt: capture.Head(prompt), Answer: capture.Head(answer),
	}
	e.Cut = more || len(e.Prompt) < len(prompt) || len(e.Answer) < len(answer)
	b.captures.Offer(e)
}

// rate has an answer's health rated off the hot path.
func (b *Backend) rate(r *api.Request, prompt, answer string) {
	if n := len(r.Attempts); n > 0 && r.Attempts[n-1].Provider {
		return // another model gave it: it says nothing about ours
	}
	id := r.ID
	b.ratings.Offer(quality.Job{
		Model: r.Model, Answer: quality.Answer{Prompt: prompt, Text: answer, Finish: r.Finish},
		Done: func(s quality.Score) { b.recent.rated(id, s.Overall) },
	})
}

// URL is where clients reach the gateway.
func (b *Backend) URL() string { return b.url }

// Restarting says that the engine ended to be run anew.
func (b *Backend) Restarting() bool {
	b.ending.Lock()
	defer b.ending.Unlock()
	return b.restart
}

// Stop makes Run end: requests first, then, if asked, the workers, then the ledger. It turns a
// restart that has begun into a stop. A later call can only ask for more: the workers too.
func (b *Backend) Stop(workers bool) {
	b.ending.Lock()
	defer b.ending.Unlock()
	b.restart = false
	b.endAll = b.endAll || workers
	b.beginEndLocked()
}

// Restart makes Run end with Restarting true and the workers running. It is refused if the
// engine ends already, and if what it would come back with cannot work.
func (b *Backend) Restart() error {
	if b.opts.Demo {
		return fmt.Errorf("%w: the demo cannot restart: its folder goes with it", api.ErrRefused)
	}
	if b.opts.Load != nil {
		if _, err := b.opts.Load(); err != nil {
			return fmt.Errorf("%w: it would not start again: %w", api.ErrRefused, err)
		}
	}
	b.ending.Lock()
	defer b.ending.Unlock()
	if b.stopping.Load() {
		return fmt.Errorf("%w: the engine is ending already", api.ErrRefused)
	}
	b.restart = true
	b.beginEndLocked()
	return nil
}

func (b *Backend) beginEndLocked() {
	if !b.stopping.Swap(true) {
		close(b.stopped)
	}
}

// endsWorkers says whether the workers go too, as far as is known now.
func (b *Backend) endsWorkers() bool {
	b.ending.Lock()
	defer b.ending.Unlock()
	return b.endAll
}

// Run runs the engine until Stop or the end of ctx, which is a Stop that keeps the workers.
//
// The end goes from the outside in: the gateway stops accepting and lets requests end (grace),
// then workers are ended or let go, then the ledger is flushed.
func (b *Backend) Run(ctx context.Context) error {
	inner, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	records, closeRecords := context.WithCancel(context.WithoutCancel(ctx))
	defer closeRecords()
	ledgerDone := make(chan error, 1)
	go func() { ledgerDone <- b.ledger.Run(records) }()

	g, gctx := errgroup.WithContext(inner)
	g.Go(func() error { return b.pool.Run(gctx) })
	g.Go(func() error { return b.gpus.Run(gctx) })
	g.Go(func() error {
		b.machine.watch(gctx, b.notice, b.notices.set, func(err error) { b.log.Warn("processes not read", "error", err) })
		return nil
	})
	g.Go(func() error { return b.ratings.Run(gctx) })
	g.Go(func() error { return b.captures.Run(gctx) })
	g.Go(func() error { return b.publish(gctx) })
	g.Go(func() error { return b.keepTime(gctx) })
	g.Go(func() error { return b.countMoney(gctx) })
	if !b.opts.Demo {
		g.Go(func() error { return b.cache.Run(gctx) })
	}
	front, closeFront := context.WithCancel(inner)
	defer closeFront()
	frontDone := make(chan struct{})
	certs, err := certificates(b.config.Load().TLS)
	if err != nil {
		end()
		closeRecords()
		return errors.Join(err, g.Wait(), <-ledgerDone, b.closeStores())
	}
	grace := b.config.Load().Grace
	g.Go(func() error {
		defer close(frontDone)
		return b.gateway.Serve(front, b.opts.Listener, certs, grace)
	})
	g.Go(func() error {
		select {
		case <-ctx.Done():
			b.Stop(false)
		case <-b.stopped:
		case <-gctx.Done(): // a part failed: the rest ends too
		}
		b.stopping.Store(true)
		// The gateway cuts its connections after the grace; prompt tests have none.
		cut := time.AfterFunc(grace, b.endLife)
		defer cut.Stop()
		closeFront()
		<-frontDone
		b.endLife()
		b.tester.close()
		var err error
		if b.endsWorkers() {
			// However long that takes: who asked for it waits for "all gone".
			err = b.pool.StopAll(context.WithoutCancel(ctx))
		}
		end()
		return err
	})
	err = g.Wait()
	b.providers.close()
	b.scrapes.CloseIdleConnections()
	closeRecords()
	return errors.Join(err, <-ledgerDone, b.closeStores())
}

// closeStores closes what is on disk.
func (b *Backend) closeStores() error { return errors.Join(b.ledger.Close(), b.keys.Close()) }

// notice shows something to the operator and logs it.
func (b *Backend) notice(n api.Notice) {
	b.notices.add(n)
	level := slog.LevelInfo
	switch n.Level {
	case "warning":
		level = slog.LevelWarn
	case "error":
		level = slog.LevelError
	}
	b.log.Log(context.Background(), level, "notice", "worker", n.Worker, "text", n.Text)
}

// secretNames are the variables of our environment that the config reads secrets from: no
// worker inherits them.
func secretNames(c *config.Config) []string {
	var out []string
	add := func(s config.Secret) {
		if name, ok := strings.CutPrefix(s.Ref, "env:"); ok {
			out = append(out, name)
		}
	}
	for _, k := range c.Keys {
		add(k.Key)
	}
	for _, p := range c.Providers {
		add(p.Key)
	}
	for _, w := range c.Workers {
		add(w.APIKey)
	}
	return out
}

// gatewayURL is the base URL for a client on this host.
func gatewayURL(c *config.Config, addr net.Addr) string {
	scheme := "http"
	if c.TLS != nil {
		scheme = "https"
	}
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return scheme + "://" + addr.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return scheme + "://" + net.JoinHostPort(strings.TrimSpace(host), port)
}
