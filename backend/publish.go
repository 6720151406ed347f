package backend

import (
	"context"
	"os"
	"slices"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// publish makes a new Snapshot every tick until ctx ends.
func (b *Backend) publish(ctx context.Context) error {
	tick := time.NewTicker(api.Tick)
	defer tick.Stop()
	for {
		b.publishOnce(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (b *Backend) publishOnce(now time.Time) {
	b.watchLedger(now)
	s := b.build(now)
	for _, n := range b.providers.failovers.look(s.Models, s.Providers, now) {
		b.notice(n)
	}
	b.exporter.State(s)
	b.snap.Store(s)
}

// watchLedger keeps a notice up for as long as the ledger cannot be written.
func (b *Backend) watchLedger(now time.Time) {
	n := api.Notice{Time: now, Level: "error"}
	if st := b.ledger.Status(); st.Error != "" {
		n.Text = "the ledger cannot be written: requests go on and are recorded later. " + st.Error
	}
	if b.notices.set("ledger", n) && n.Text == "" {
		b.notices.add(api.Notice{Time: now, Level: "info", Text: "the ledger can be written again, nothing is missing from it"})
	}
}

// build makes a Snapshot. What it hands out is not changed afterwards.
func (b *Backend) build(now time.Time) *api.Snapshot {
	s := b.look(now)
	fit(s)
	return s
}

// look looks at every part once.
func (b *Backend) look(now time.Time) *api.Snapshot {
	cfg := b.config.Load()
	m := b.money.Load()
	s := &api.Snapshot{
		Schema:  api.Schema,
		Seq:     b.seq.Add(1),
		Time:    now,
		Models:  b.upstreams.Models(),
		Workers: b.pool.Statuses(),

		Providers: b.providers.statuses(now),
		GPUs:      append([]api.GPU{}, b.machine.cards()...),
		Host:      b.host.Read(),
		Rolls:     b.pool.Rolls(),
		Advice:    b.pool.Advice(now),
		Traffic:   b.gateway.Traffic(),
		Answers:   b.answers.Answers(now),
		Prompts:   b.tester.prompts(b.healthOf),
		Notices:   b.notices.list(),
		Keys:      b.gateway.Keys.Keys(now),
		Crashes:   b.pool.Crashes(),
		Requests:  b.requests(),
		Cache:     b.cacheState(),
	}
	s.Strays = b.machine.list(s.GPUs)
	p := b.pricing.Load()
	ttft := b.recent.ttft95(now.Add(-time.Minute))
	for i := range s.Workers {
		w := &s.Workers[i]
		w.HourCost = p.hours[w.Name]
		if v, ok := ttft[w.Name]; ok && (w.State == api.Ready || w.State == api.Draining) { // exact; the server's buckets are coarse
			w.TTFT95 = &v
		}
	}
	b.recorder.InFlight(now, s.Traffic.InFlight)
	b.recorder.Savings(now, m.netUSD())
	s.Windows = b.recorder.Windows(now)
	s.Money = m.show(s, p)
	s.Engine = api.Engine{
		Version: b.opts.Version, PID: os.Getpid(), Host: b.hostname, Started: b.started, URL: b.url, State: cfg.State, Config: cfg.Path,
		Demo: b.opts.Demo, Simulated: allSimulated(s.Workers), Status: status(s.Models), Stopping: b.stopping.Load(),
		Memory: residentMemory(), Exposed: cfg.Exposed(), Ledger: b.ledger.Status(),
	}
	return s
}

// requests lists those in flight first, oldest first, then the newest that ended.
func (b *Backend) requests() []api.Request {
	out := b.gateway.InFlight([]api.Request{})
	slices.SortFunc(out, func(x, y api.Request) int { return x.Started.Compare(y.Started) })
	if len(out) > maxRequests/2 {
		out = out[:maxRequests/2]
	}
	return b.recent.list(out, maxRequests-len(out))
}

func (b *Backend) healthOf(requestID string) *float64 {
	if q, ok := b.recent.find(requestID); ok {
		return q.Health
	}
	return nil
}

func allSimulated(workers []api.Worker) bool {
	for _, w := range workers {
		if !w.Simulated {
			return false
		}
	}
	return len(workers) > 0
}

// status is the state of the whole: ok if every model has all its workers ready, degraded if
// every model can be served, down otherwise. A worker that sleeps serves: a request wakes it. A model that a provider takes over can be served; one
// that has no worker at all is whole while its provider takes requests.
func status(models []api.Model) string {
	worst := "ok"
	for _, m := range models {
		switch {
		case !m.Servable():
			return "down"
		case m.Ready+m.Asleep < m.Workers: // one that sleeps is as it should be
			worst = "degraded"
		}
	}
	return worst
}
