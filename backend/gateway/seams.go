package gateway

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// Upstreams is where requests can go. All methods may be called from many goroutines and
// must not block.
type Upstreams interface {
	// Resolve maps the name a client asked for to a model: itself, an alias, or, for "", the
	// only model there is.
	Resolve(name string) (model string, ok bool)
	// Models lists what clients may ask for.
	Models() []api.Model
	// Candidates appends a view of every upstream of model to dst.
	Candidates(model string, dst []route.Candidate) []route.Candidate
	// Acquire counts a request in on an upstream. False if it cannot take one any more.
	Acquire(id string) (Lease, bool)
	// Changed gives a channel that is closed when some upstream becomes ready, frees a slot
	// or goes away: those who wait look again.
	Changed() <-chan struct{}
}

// Lease is one request's place on an upstream.
type Lease struct {
	URL       string // base, e.g. http://127.0.0.1:18000
	Model     string // name the upstream knows the model by; "" leaves the request's as it is
	Key       string // bearer token for the upstream; "" for none
	Limit     string // what it calls the greatest length of a chat's answer, max_tokens or max_completion_tokens; "" leaves the client's word
	Simulated bool
	Client    *http.Client // to reach it with; nil: the gateway's own
	// Reserve is called before the request is sent, if it is not nil: the upstream costs money by the
	// request. It gives the name that it knows the model by; its error says in words for the client why
	// the request may not be sent there.
	Reserve func(n Need) (model string, err error)
	// Release counts the request out and gives the worker time that falls to it. It may be
	// called more than once; later calls give the first answer.
	Release func() time.Duration
	// Report says what became of the request, for the upstream's breaker. It is called once.
	Report func(r route.Result)
	// Beat counts the signs of life that the upstream gives: content of streams, whole answers. nil: nobody looks.
	Beat *atomic.Int64
	// Busy says that the upstream asked to be left alone for d. nil: nobody listens.
	Busy func(d time.Duration)
}

// Need is what is known of a request that may be paid for.
type Need struct {
	ID        string // of the row
	Route     string
	Class     string
	Model     string // as it resolved
	Bytes     int    // of the body
	MaxTokens int64  // that each answer may have; 0: it does not say
	Answers   int    // that it asks for, at least 1
}

// Accounts is where requests are recorded. No method blocks, but for Open with a provider.
type Accounts interface {
	// Open records that r is dispatched; once more if it goes on to a provider. There it returns once that is on disk, or
	// it has become clear that it takes too long. r may change afterwards.
	Open(r *api.Request)
	// Price fills the cost fields of r and its attempts from their usage and shares. A stream
	// whose client wants cost_info is priced before its end, while its Outcome is still open; if
	// more is known later, Price is called again and starts over.
	Price(r *api.Request)
	// Settle records the end of r, priced. r must not change afterwards.
	Settle(r *api.Request)
}
