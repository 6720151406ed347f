package gateway

import (
	"cmp"
	"context"
	"crypto/sha256"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// Gateway is the OpenAI-compatible endpoint. Its exported fields are set before it serves and not
// changed after; only Keys may change at any time. A limit that is 0 has its default.
type Gateway struct {
	Upstreams Upstreams
	Accounts  Accounts
	Log       *slog.Logger

	Keys         KeySet   // client keys with their limits; empty: none is asked for
	Internal     string   // bearer token of the engine's own prompt tester and load test
	MediaDomains []string // hosts that media URLs in requests may name

	Continue      bool          // go on with a stream elsewhere when it loses its worker after content
	CostInfo      bool          // splice cost_info into answers
	MaxBody       int64         // bytes of a request; default 32 MiB
	MaxBodies     int64         // bytes of all requests that are held at once; default 256 MiB
	Queue         int           // requests that may wait for a worker, per model; default 256, negative: none
	QueueWait     time.Duration // how long one may wait; default 30 s
	TTFTTarget    time.Duration // requests that would wait past it for their first token are refused at once; 0: none is
	TTFTTimeout   time.Duration // silence before the first content of a stream; default 120 s
	IdleTimeout   time.Duration // silence between events; default 60 s
	AnswerTimeout time.Duration // for an answer that is not streamed, all tries together; default 10 min, as in OpenAI's clients
	StreamTimeout time.Duration // for a whole stream; default 4 h
	KeepAlive     time.Duration // silence after which the client of a stream gets a comment; 0: none
	WriteTimeout  time.Duration // how long a client may take to read one event; default 30 s
	Version       string        // sent to workers as vllmdeck/VERSION

	Health         func() (any, int)                                     // body and status of GET /health
	CostComparison func(ctx context.Context, period string) (any, error) // body of GET /cost-comparison
	Metrics        http.Handler                                          // GET /metrics

	// Rated is given complete answers of text with their prompt, after Settle. It must not block.
	Rated func(r *api.Request, prompt, answer string)
	// Rates says whether the next answer would be rated: false saves reading its text. Nil: each is.
	Rates func() bool
	// Captured is given the prompt (JSON, as the client wrote it) and the answer's text of requests whose key is to have
	// them kept, after Settle; more says that the answer was longer. It must not block. Nil: none are kept.
	Captured func(r *api.Request, prompt, answer string, more bool)
	// Tokens is told of output tokens as they stream. It must not block.
	Tokens func(n int)
	// Estimate says what a request is likely to cost at most, from the tokens of its prompt and the
	// greatest length of its answer; false: that is not known. It must not block. Nil: it never is.
	Estimate func(model string, prompt, completion int64) (api.Nanos, bool)
	// Repeated is told of each prompt that a worker is sent where there are several: how much of its beginning that one was
	// sent before, 0..1. It must not block. Nil: nobody is.
	Repeated func(worker string, share float64)
	// Wanted is told of a model whose requests wait for a worker: one that sleeps can be woken. It must not block.
	Wanted func(model string)
	// Dial reaches a worker that is not behind a Lease.Client; nil: a net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	once     sync.Once
	internal [sha256.Size]byte // hash of Internal
	wire     wire
	client   http.Client
	budget   route.Budget
	prefixes route.Prefixes
	inFlight atomic.Int64
	queued   atomic.Int64
	bodies   atomic.Int64
	texts    atomic.Int64 // bytes of long answers that are kept for a continuation
	pressure pressure
	draining atomic.Bool
	guesses  guesses

	mu     sync.Mutex
	queues map[string]*queue
	first  *call // in flight, oldest first
	last   *call
	idle   chan struct{} // closed when the last call ends; nil: nobody waits for that

	total, failed, rejected, cancelled, moved atomic.Int64
}

// ServeHTTP serves one request.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.once.Do(g.prepare)
	defer g.tell(r)
	rt := g.route(r)
	switch {
	case rt == nil:
		g.refuse(w, r, invalid(http.StatusNotFound, "not_found", "", "there is no such route here: see GET /v1/models, POST /v1/chat/completions"))
	case r.Method != rt.method && (rt.method != http.MethodGet || r.Method != http.MethodHead):
		w.Header().Set("Allow", rt.allow())
		g.refuse(w, r, invalid(http.StatusMethodNotAllowed, "method_not_allowed", "", "this route takes "+rt.allow()))
	case rt.method == http.MethodPost && crossSite(r):
		g.refuse(w, r, invalid(http.StatusForbidden, "cross_site", "", "requests from web pages of other sites are refused"))
	default:
		who, err := g.identify(r)
		if err != nil && !rt.open {
			g.refuse(w, r, err)
			return
		}
		if rt.dialect != nil {
			g.serve(w, r, rt.dialect, who)
			return
		}
		// A connection may come with the write deadline of the request before.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(g.writeTimeout()))
		rt.serve(g, w, r, who)
	}
}

// tell logs a panic outside of a call; net/http then ends the connection.
func (g *Gateway) tell(r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p != any(http.ErrAbortHandler) {
		g.Log.Error("request handler panicked", "route", cut(r.URL.Path, 100), "panic", p, "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}

func (g *Gateway) prepare() {
	if g.Log == nil {
		g.Log = slog.New(slog.DiscardHandler)
	}
	g.internal = HashKey(g.Internal)
	g.wire.dial = g.Dial
	transport := &http.Transport{
		DialContext:         g.Dial,
		MaxIdleConnsPerHost: 1024,
		IdleConnTimeout:     keepIdle,
		DisableCompression:  true,
		ForceAttemptHTTP2:   true,
	}
	if g.Dial == nil {
		transport.DialContext = (&net.Dialer{Timeout: dialTimeout}).DialContext
	}
	g.client = http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// crossSite reports whether a web page of another site sent the request. It would need no key where none is set.
func crossSite(r *http.Request) bool {
	v := r.Header["Sec-Fetch-Site"]
	return len(v) > 0 && v[0] != "same-origin" && v[0] != "none"
}

// refuse answers a request that has no call.
func (g *Gateway) refuse(w http.ResponseWriter, r *http.Request, err *refusal) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(g.writeTimeout()))
	g.rejected.Add(1)
	g.total.Add(1)
	id := requestID(r.Header)
	if id == "" {
		id = newID(time.Now())
	}
	_ = err.write(w, id, r.URL.Path == "/v1/messages") // nobody is left to tell
}

// queue gives the line of a model.
func (g *Gateway) queue(model string) *queue {
	g.mu.Lock()
	defer g.mu.Unlock()
	q := g.queues[model]
	if q == nil {
		if g.queues == nil {
			g.queues = map[string]*queue{}
		}
		q = &queue{}
		g.queues[model] = q
	}
	return q
}

// missedFor is for how long a request that found no place in line, nor a worker, counts as waiting: it may come again.
const missedFor = 5 * time.Second

// Waiting says whether requests wait for a worker of a model.
func (g *Gateway) Waiting(model string) bool {
	g.mu.Lock()
	q := g.queues[model]
	g.mu.Unlock()
	if q == nil {
		return false
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.n > 0 || !q.missed.IsZero() && time.Since(q.missed) < missedFor
}

// wanted tells that requests wait for a worker of a model.
func (g *Gateway) wanted(model string) {
	if g.Wanted != nil {
		g.Wanted(model)
	}
}

func (g *Gateway) agent() string {
	if g.Version == "" {
		return "vllmdeck"
	}
	return "vllmdeck/" + g.Version
}

func (g *Gateway) maxBody() int64               { return cmp.Or(g.MaxBody, 32<<20) }
func (g *Gateway) maxBodies() int64             { return cmp.Or(g.MaxBodies, 256<<20) }
func (g *Gateway) queueLimit() int              { return cmp.Or(g.Queue, 256) }
func (g *Gateway) queueWait() time.Duration     { return cmp.Or(g.QueueWait, 30*time.Second) }
func (g *Gateway) ttftTimeout() time.Duration   { return cmp.Or(g.TTFTTimeout, 2*time.Minute) }
func (g *Gateway) idleTimeout() time.Duration   { return cmp.Or(g.IdleTimeout, time.Minute) }
func (g *Gateway) answerTimeout() time.Duration { return cmp.Or(g.AnswerTimeout, 10*time.Minute) }
func (g *Gateway) streamTimeout() time.Duration { return cmp.Or(g.StreamTimeout, 4*time.Hour) }
func (g *Gateway) writeTimeout() time.Duration  { return cmp.Or(g.WriteTimeout, 30*time.Second) }
