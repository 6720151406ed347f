package metrics

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// state reads the gauges off the newest snapshot when the page is asked for, so that a worker
// that is gone takes its series with it.
type state struct {
	snapshot *atomic.Pointer[api.Snapshot]
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("vllmdeck_"+name, help, labels, nil)
}

var (
	descInFlight = desc("requests_in_flight", "Client requests in flight in the gateway.")
	descQueued   = desc("requests_queued", "Client requests that wait in the gateway for a worker.")
	descMemory   = desc("engine_memory_bytes", "Resident memory of the engine process.")
	descRows     = desc("ledger_queued_rows", "Ledger rows accepted and not yet on disk.")
	descSpooled  = desc("ledger_spooled_rows", "Ledger rows on disk beside the database, because that cannot be written.")
	descMoney    = desc("period_usd", "US dollars of the running period (today): actual, idle (part of actual), would_have_cost, savings. What is not known is absent.", "kind", "simulated")

	descState    = desc("worker_state", "1 for the state a worker is in, 0 for the others.", "worker", "model", "state", "simulated")
	descStart    = desc("worker_start_seconds", "How long each phase of a worker's last start took.", "worker", "phase")
	descRestarts = desc("worker_restarts_total", "Restarts of a worker that nobody asked for, since the engine started.", "worker")
	descWith     = desc("worker_requests_in_flight", "Requests of ours that are with a worker.", "worker")
	descKV       = desc("worker_kv_cache_ratio", "Share of a worker's KV cache in use, as its server says.", "worker")

	descPaidState = desc("provider_state", "1 for the state a paid API is in, 0 for the others.", "provider", "state")
	descPaidSpent = desc("provider_spent_usd", "US dollars that a paid API has cost in the local day or month. What is not known is absent.", "provider", "period")
	descPaidCap   = desc("provider_cap_usd", "US dollars that a paid API may cost in the local day or month. Without a limit it is absent.", "provider", "period")
)

// states are all states of a worker.
var states = []api.State{api.Starting, api.Ready, api.Draining, api.Stopping, api.Stopped, api.Failed, api.Asleep}

// providerStates are all states of a provider.
var providerStates = []string{api.ProviderOK, api.ProviderOpen, api.ProviderCapped, api.ProviderUnaccountable}

// Describe implements prometheus.Collector.
func (state) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descInFlight, descQueued, descMemory, descRows, descSpooled, descMoney,
		descState, descStart, descRestarts, descWith, descKV,
		descPaidState, descPaidSpent, descPaidCap,
	} {
		ch <- d
	}
	for _, d := range gpuDescs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c state) Collect(ch chan<- prometheus.Metric) {
	s := c.snapshot.Load()
	if s == nil {
		return
	}
	// A label that is no valid text would fail the whole page: it is left out instead.
	give := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		if m, err := prometheus.NewConstMetric(d, t, v, labels...); err == nil {
			ch <- m
		}
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) { give(d, prometheus.GaugeValue, v, labels...) }
	gauge(descInFlight, float64(s.Traffic.InFlight))
	gauge(descQueued, float64(s.Traffic.Queued))
	gauge(descMemory, float64(s.Engine.Memory))
	gauge(descRows, float64(s.Engine.Ledger.Queued))
	gauge(descSpooled, float64(s.Engine.Ledger.Spooled))
	for _, m := range []struct {
		kind string
		usd  *api.Nanos
	}{{"actual", s.Money.Actual}, {"idle", s.Money.Idle}, {"would_have_cost", s.Money.Would}, {"savings", s.Money.Savings}} {
		if m.usd != nil {
			gauge(descMoney, m.usd.USD(), m.kind, flag(s.Money.Simulated))
		}
	}
	for _, p := range s.Providers { // their names are checked, and each is there once
		for _, st := range providerStates {
			v := 0.0
			if p.State == st {
				v = 1
			}
			gauge(descPaidState, v, p.Name, st)
		}
		for _, m := range []struct {
			d      *prometheus.Desc
			period string
			usd    *api.Nanos
		}{{descPaidSpent, "day", p.SpentDay}, {descPaidSpent, "month", p.SpentMonth}, {descPaidCap, "day", p.CapDay}, {descPaidCap, "month", p.CapMonth}} {
			if m.usd != nil {
				gauge(m.d, m.usd.USD(), p.Name, m.period)
			}
		}
	}
	gpuSeries(s, give)
	seen := map[string]bool{} // two series of one name would fail the whole page
	for _, w := range s.Workers {
		if seen[w.Name] {
			continue
		}
		seen[w.Name] = true
		for _, st := range states {
			v := 0.0
			if w.State == st {
				v = 1
			}
			gauge(descState, v, w.Name, w.Model, string(st), flag(w.Simulated))
		}
		phases := map[string]float64{}
		for _, p := range w.Phases {
			phases[p.Name] += p.Seconds
		}
		for name, seconds := range phases {
			gauge(descStart, seconds, w.Name, name)
		}
		give(descRestarts, prometheus.CounterValue, float64(w.Restarts), w.Name)
		gauge(descWith, float64(w.InFlight), w.Name)
		if w.KV != nil {
			gauge(descKV, *w.KV, w.Name)
		}
	}
}
