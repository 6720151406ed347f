package metrics

import (
	"net/http"
	"runtime"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	// other stands for a label value that is not ours to create a series for.
	other = "other"
	// maxValues bounds the values of a label that the config decides.
	maxValues = 256
)

// Exporter is our own metrics page. No label ever holds a client key, a request id or a name
// that a client made up: the number of series is bounded by the config. Its methods may be
// called from many goroutines.
type Exporter struct {
	registry *prometheus.Registry
	snapshot atomic.Pointer[api.Snapshot]
	models   atomic.Pointer[map[string]bool]
	workers  bounded
	routes   bounded

	requests *prometheus.CounterVec
	tokens   *prometheus.CounterVec
	cost     *prometheus.CounterVec
	ttft     *prometheus.HistogramVec
	itl      *prometheus.HistogramVec
	duration *prometheus.HistogramVec

	last atomic.Pointer[series] // of the request before
}

// NewExporter makes the page of an engine of this version.
func NewExporter(version string) *Exporter {
	e := &Exporter{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vllmdeck_requests_total",
			Help: "Client requests that have ended, by outcome: ok, client_cancelled, rejected, error (failed before any content), upstream_lost (cut after content).",
		}, []string{"model", "worker", "route", "outcome", "simulated"}),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vllmdeck_tokens_total",
			Help: "Tokens of ended requests by disjoint class: input, cache_read, cache_write, output, reasoning. Requests whose usage is unknown add nothing.",
		}, []string{"model", "class", "simulated"}),
		cost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vllmdeck_cost_usd_total",
			Help: "US dollars that ended requests cost, by cost class. Idle worker time belongs to no request and is not in it; requests without a known cost add nothing.",
		}, []string{"class", "simulated"}),
		ttft: histogramVec("vllmdeck_ttft_seconds",
			"Time from a request's arrival at the gateway to its first content, as the client saw it.",
			.01, .025, .05, .1, .2, .3, .5, .75, 1, 1.5, 2, 3, 5, 10, 20, 40, 80),
		itl: histogramVec("vllmdeck_inter_token_seconds",
			"Mean gap between content events, one observation for each request.",
			.002, .005, .01, .015, .02, .03, .04, .06, .08, .1, .15, .2, .3, .5, 1, 2.5),
		duration: histogramVec("vllmdeck_request_duration_seconds",
			"Time from a request's arrival at the gateway to its end, of requests that ended well.",
			.05, .1, .25, .5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 120, 300, 600),
	}
	e.models.Store(&map[string]bool{})
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "vllmdeck_build_info",
		Help: "Always 1; the labels are the version of vllmdeck and of the Go it was built with.",
	}, []string{"version", "goversion"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	e.registry.MustRegister(
		e.requests, e.tokens, e.cost, e.ttft, e.itl, e.duration, build, state{&e.snapshot},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return e
}

func histogramVec(name, help string, buckets ...float64) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{"model", "simulated"})
}

// Handler serves the page.
func (e *Exporter) Handler() http.Handler {
	return promhttp.HandlerFor(e.registry, promhttp.HandlerOpts{Registry: e.registry})
}

// State gives the engine's present state, of which the gauges are read at each scrape. The
// models it names are the only ones that become labels.
func (e *Exporter) State(s *api.Snapshot) {
	e.snapshot.Store(s)
	known := *e.models.Load()
	fresh := len(known) < len(s.Models)
	for _, m := range s.Models {
		fresh = fresh || !known[m.Name]
	}
	if !fresh {
		return
	}
	// A model that is gone keeps its series, so it stays known, within bounds.
	next := make(map[string]bool, len(known)+len(s.Models))
	for m := range known {
		next[m] = true
	}
	for _, m := range s.Models {
		if len(next) < maxValues {
			next[m.Name] = true
		}
	}
	e.models.Store(&next)
}

// Observe counts a request that has ended.
func (e *Exporter) Observe(r *api.Request) {
	if r.Outcome == api.OutcomeOpen {
		return
	}
	model := other
	if (*e.models.Load())[r.Model] {
		model = r.Model
	}
	s := e.seriesOf(labels{model, e.workers.value(r.Worker), e.routes.value(r.Route), outcome(r.Outcome), r.Simulated})
	e.requestsOf(s).Inc()
	if r.TTFT > 0 {
		s.observe(&s.ttft, e.ttft, r.TTFT)
	}
	if r.ITL > 0 {
		s.observe(&s.itl, e.itl, r.ITL)
	}
	if r.Outcome == api.OutcomeOK && r.Duration > 0 {
		s.observe(&s.duration, e.duration, r.Duration)
	}
	if r.UsageSource != api.UsageUnknown {
		u := r.Usage
		for class, n := range [...]int64{u.Input, u.CacheRead, u.CacheWrite, u.Output, u.Reasoning} {
			if n > 0 {
				e.tokensOf(s, class).Add(float64(n))
			}
		}
	}
	e.spend(r, flag(r.Simulated))
}

// spend counts what a request cost. Each leg has its own share; all but the last are class
// retry, whatever the request's class. Simulated money stays simulated.
func (e *Exporter) spend(r *api.Request, simulated string) {
	own := r.Actual
	if n := len(r.Attempts); n > 0 {
		if last := r.Attempts[n-1].Actual; last != nil {
			own = last
		}
		retry := api.ClassRetry
		if r.Class == api.ClassSimulated {
			retry = api.ClassSimulated
		}
		for _, a := range r.Attempts[:n-1] {
			e.add(retry, simulated, a.Actual)
		}
	}
	e.add(class(r.Class), simulated, own)
}

func (e *Exporter) add(class, simulated string, usd *api.Nanos) {
	if usd != nil && *usd > 0 {
		e.cost.WithLabelValues(class, simulated).Add(usd.USD())
	}
}

func outcome(s string) string {
	switch s {
	case api.OutcomeOK, api.OutcomeCancelled, api.OutcomeRejected, api.OutcomeError, api.OutcomeLost, api.OutcomeInterrupted:
		return s
	}
	return other
}

func class(s string) string {
	switch s {
	case api.ClassServed, api.ClassFailover, api.ClassRetry, api.ClassTester, api.ClassLoad, api.ClassSimulated:
		return s
	}
	return other
}

func flag(b bool) string {
	if b {
		return "true"
	}
	return "false"
}
