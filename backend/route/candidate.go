package route

// Candidate is a copied view of one upstream. Nothing is locked while a choice is made.
type Candidate struct {
	ID       string  // name of the worker or provider
	Ready    bool    // answers and may be routed to (not starting, draining, stalled …)
	Provider bool    // a paid API: only when no worker can
	InFlight int     // requests of ours that are with it now
	MaxSeqs  int     // requests it runs at once; 0: not known
	Waiting  float64 // requests queued in it, as last scraped; 0 where not known
	KV       float64 // share of its KV cache in use, 0..1; 0 where not known
	Open     bool    // its breaker is open
	Busy     bool    // it asked to be left alone for a while: as good as full
	Prefix   float64 // share of the request's prompt that it has computed before, 0..1, as far as is known

	Overload bool // a provider that may serve too when workers only have too much to do

	Coming bool   // not Ready, but will be without anybody's doing: it starts, or will be started again
	Late   bool   // Coming, but hardly within the time that a request waits: who may be served by a provider does not wait for it
	State  string // in a word, for messages: starting, failed, draining …
}

// Request is what a choice depends on.
type Request struct {
	Tried    []string // upstreams that failed this request already
	Overflow bool     // it has waited long enough: a provider may serve although a worker is only full or starting
	Busy     bool     // a worker that it was sent to had too much to do
}
