package worker

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// The kinds of workers, as in launch.Spec.Kind and api.Worker.Kind.
const (
	kindVLLM   = "vllm"
	kindSim    = "sim"
	kindAttach = "attach"
)

// How often a worker is looked at, and how long one look may take.
const (
	healthEvery  = 2 * time.Second
	healthLimit  = 5 * time.Second
	scrapeEvery  = time.Second     // while something moves
	scrapeIdle   = 5 * time.Second // while nothing does
	scrapeLimit  = 5 * time.Second
	treeEvery    = 2 * time.Second
	trendEvery   = 2 * time.Second
	trendPoints  = 60
	followEvery  = 250 * time.Millisecond
	followFast   = 50 * time.Millisecond // for the first followFirst: a simulated start takes a second
	followFirst  = 5 * time.Second
	redrawEvery  = 500 * time.Millisecond
	canaryLimit  = 2 * time.Minute // the first request took 30 to 60 s on some GPUs (vllm-project/vllm#19824)
	adoptLimit   = 10 * time.Second
	attachLimit  = 5 * time.Second // an attached server that has not answered by then is away
	attachRetry  = 5 * time.Second
	staleAfter   = 10 * time.Second // readings older than this are not shown
	stillAfter   = 45 * time.Second // no progress for so long: ask for a token
	stillLimit   = 15 * time.Second // … which may take so long
	stillRecheck = 10 * time.Second
	hungCanaries = 4 // so many more that give no token, a minute at least, and the worker is restarted
)

// Options is what a Pool is built from. Set before NewPool, not changed after.
type Options struct {
	Launchers map[string]launch.Launcher // by kind: vllm, sim, attach
	Self      []string                   // command of our own binary, for simulated workers
	State     string                     // state folder; workers live in State/workers/NAME
	Lease     string                     // launch.Spec.Lease of every worker; "" for none
	Cleanup   string                     // launch.Spec.Cleanup of every worker; "" for none
	Log       *slog.Logger
	HTTP      *http.Client // to probe with; nil: one of our own without proxy

	// Notice is told what an operator should know; nil: nobody.
	Notice func(api.Notice)
	// Hung is told of a worker that gives no token any more: what is with it waits in vain. It must not block; nil: nobody.
	Hung func(worker string)
	// Scraper makes a reader of one server's metrics, anew at each start; nil: none are read.
	Scraper func(url, key string) Scraper
	// Check looks before a start whether it can succeed; nil: it is tried.
	Check func(launch.Spec) error
	// Port gives a free port, none of those to avoid, for workers whose config names none.
	Port func(avoid ...int) (int, error)
	// Listens says who listens on a server's port if that is none of its processes; nil: whoever
	// answers is taken for the server.
	Listens func(port int, pids []int) error
	// Redact hides secrets in a command line that is shown; nil: it is shown as it is.
	Redact func(argv []string) []string
	// Waiting says whether requests wait for a worker of a model; nil: none do. It must not block.
	Waiting func(model string) bool
	// GPUs gives the cards of the host with the processes on them, and whether that is all there is to
	// know; false: they are not read yet. nil: no start waits for memory.
	GPUs func() (cards []api.GPU, settled bool)
	// HasGPU says whether the host has accelerators; nil: looks for the drivers' device files.
	HasGPU func() bool

	book  *book  // the pool's
	rota  *rota  // of those that sleep
	turns *turns // of the pool's workers
}

// Scraper reads one server's metrics. It is used from one goroutine at a time.
type Scraper interface {
	Scrape(ctx context.Context) (Reading, error)
}

// Reading is what a server's metrics say now. What is not known is nil or 0.
type Reading struct {
	Running  *float64 // requests
	Waiting  *float64 // requests
	KV       *float64 // share of the KV cache in use, 0..1
	Prefix   *float64 // prefix cache hit rate over the last minute, 0..1
	OutRate  *float64 // tokens/s
	InRate   *float64 // tokens/s
	Preempt  *float64 // per second
	TTFT95   *float64 // seconds, over the last minute
	KVTokens int64    // capacity
	MaxSeqs  int      // requests it runs at once
	Steps    float64  // engine steps and tokens so far: any change is progress

	Accept        *float64 // share of drafted tokens that the model took, over the last minute, 0..1
	NoPrefixCache bool     // its prefix cache is off
	Totals        Totals
}

// Totals are counts since the scraper was made; they never fall. What is not known is nil.
type Totals struct {
	Preemptions *float64
	Finished    *float64 // requests
	Length      *float64 // of Finished, those that ended at a limit of their length
	Drafted     *float64 // tokens
	Accepted    *float64 // of Drafted
	Generated   *float64 // tokens
	Longest     *float64 // tokens that no request went over, prompt and answer together; at most a bucket too much
}

func (o *Options) fill() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.HTTP == nil {
		o.HTTP = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute}}
	}
	if o.Notice == nil {
		o.Notice = func(api.Notice) {}
	}
	if o.Hung == nil {
		o.Hung = func(string) {}
	}
	if o.Waiting == nil {
		o.Waiting = func(string) bool { return false }
	}
	if o.Check == nil {
		o.Check = func(launch.Spec) error { return nil }
	}
	if o.Redact == nil {
		o.Redact = func(argv []string) []string { return argv }
	}
	if o.HasGPU == nil {
		o.HasGPU = hasGPU
	}
	o.turns, o.rota = newTurns(), newRota()
}

// hasGPU looks for the device files of NVIDIA's and AMD's drivers (and of CUDA under WSL):
// a container without GPUs given to it has none of them.
func hasGPU() bool {
	for _, path := range []string{"/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg"} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}
