package backend

import (
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// accounts is where the gateway records requests: priced, kept for the screen, counted, written.
type accounts struct{ b *Backend }

// Open implements gateway.Accounts.
func (a accounts) Open(r *api.Request) { a.b.ledger.Opened(*r) }

// Price implements gateway.Accounts.
func (a accounts) Price(r *api.Request) { a.b.pricing.Load().price(r) }

// Settle implements gateway.Accounts.
func (a accounts) Settle(r *api.Request) {
	now := time.Now()
	if len(r.Attempts) == 0 && a.b.upstreams.simulated(r.Model) {
		// No lease has said so. Simulated never mixes with real, refused requests included.
		r.Simulated, r.Class = true, api.ClassSimulated
	}
	a.b.recent.add(r)
	a.b.recorder.Ended(now, r)
	a.b.exporter.Observe(r)
	a.b.ledger.Closed(*r)
}
