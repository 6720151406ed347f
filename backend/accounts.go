package backend

import (
	"context"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// accounts is where the gateway records requests: priced, kept for the screen, counted, written.
type accounts struct{ b *Backend }

// Open implements gateway.Accounts.
func (a accounts) Open(r *api.Request) {
	if !a.b.providers.any() {
		a.b.ledger.Opened(*r)
		return
	}
	row := *r
	a.b.providers.each(func(p *paidAPI) { p.Note(&row) })
	a.b.ledger.Opened(row)
	if row.Basis != api.BasisProviderPrice {
		return
	}
	// Money is spent from here on: no crash may forget what is reserved for it.
	ctx, stop := context.WithTimeout(context.Background(), paidWait)
	defer stop()
	if err := a.b.ledger.Sync(ctx); err != nil {
		a.b.log.Warn("paid request is sent before its row is on disk", "request", r.ID, "error", err)
	}
}

// paidWait is how long a request to a paid API waits at most for its row in the ledger. A slow disk is no reason to refuse it.
const paidWait = time.Second

// Price implements gateway.Accounts.
func (a accounts) Price(r *api.Request) {
	a.b.pricing.Load().price(r)
	a.b.providers.each(func(p *paidAPI) { p.Price(r) })
}

// Settle implements gateway.Accounts.
func (a accounts) Settle(r *api.Request) {
	now := time.Now()
	a.b.providers.each(func(p *paidAPI) { p.Settle(r) })
	if len(r.Attempts) == 0 && a.b.upstreams.simulated(r.Model) {
		// No lease has said so. Simulated never mixes with real, refused requests included.
		r.Simulated, r.Class = true, api.ClassSimulated
	}
	a.b.estimates.learn(r)
	a.b.recent.add(r)
	a.b.recorder.Ended(now, r)
	a.b.exporter.Observe(r)
	a.b.ledger.Closed(*r)
}
