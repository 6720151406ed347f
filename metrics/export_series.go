package metrics

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// labels are those that a request is counted under.
type labels struct {
	model, worker, route, outcome string
	simulated                     bool
}

// tokenClasses are the values of the label class of vllmdeck_tokens_total.
var tokenClasses = [...]string{"input", "cache_read", "cache_write", "output", "reasoning"}

// series are the counters of some labels. To find one by its labels takes several times as long as
// to count, and a request mostly has the labels of the one before. Each is looked for when there is
// something to count, because it is shown from then on.
type series struct {
	labels
	requests            one[prometheus.Counter]
	tokens              [len(tokenClasses)]one[prometheus.Counter]
	ttft, itl, duration one[prometheus.Observer]
}

type one[T any] struct{ found atomic.Pointer[T] }

func (o *one[T]) keep(v T) T {
	o.found.Store(&v)
	return v
}

func (e *Exporter) seriesOf(l labels) *series {
	s := e.last.Load()
	if s == nil || s.labels != l {
		s = &series{labels: l}
		e.last.Store(s)
	}
	return s
}

func (e *Exporter) requestsOf(s *series) prometheus.Counter {
	if c := s.requests.found.Load(); c != nil {
		return *c
	}
	return s.requests.keep(e.requests.WithLabelValues(s.model, s.worker, s.route, s.outcome, flag(s.simulated)))
}

func (e *Exporter) tokensOf(s *series, class int) prometheus.Counter {
	if c := s.tokens[class].found.Load(); c != nil {
		return *c
	}
	return s.tokens[class].keep(e.tokens.WithLabelValues(s.model, tokenClasses[class], flag(s.simulated)))
}

// observe adds a duration to a histogram of s.
func (s *series) observe(o *one[prometheus.Observer], of *prometheus.HistogramVec, d api.Span) {
	h := o.found.Load()
	if h == nil {
		h = new(o.keep(of.WithLabelValues(s.model, flag(s.simulated))))
	}
	(*h).Observe(time.Duration(d).Seconds())
}
