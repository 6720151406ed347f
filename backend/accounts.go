package backend

import (
	"context"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/ledger"
)

// accounts is where the gateway records requests: priced, kept for the screen, counted, written.
type accounts struct{ b *Backend }

// Open implements gateway.Accounts.
func (a accounts) Open(r *api.Request) {
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
	a.b.recent.add(r)
	a.b.recorder.Ended(now, r)
	a.b.exporter.Observe(r)
	a.b.ledger.Closed(*r)
}

// timeEvery is how often the ledger is told how long workers have run; each time is a commit. What
// a crash loses of it comes back when the next engine adopts the worker.
const timeEvery = 5 * time.Second

// keepTime tells the ledger how long each worker has run, until ctx ends.
func (b *Backend) keepTime(ctx context.Context) error {
	tick := time.NewTicker(timeEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			b.tellTime(time.Now())
			return nil
		case now := <-tick.C:
			b.tellTime(now)
		}
	}
}

func (b *Backend) tellTime(now time.Time) {
	p := b.pricing.Load()
	for _, w := range b.pool.Statuses() {
		if w.Started.IsZero() || w.State == api.Stopped || w.State == api.Failed {
			continue
		}
		b.ledger.WorkerTime(ledger.WorkerTime{
			Worker: w.Name, Incarnation: w.Name + "@" + w.Started.UTC().Format(time.RFC3339Nano), Model: w.Model,
			Started: w.Started, Until: now, Busy: b.upstreams.of(w.Name).meter.Busy(now),
			Hour: p.hours[w.Name], Flat: p.perToken != nil, Simulated: w.Simulated,
		})
	}
}
