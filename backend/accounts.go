package backend

import (
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
}

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
