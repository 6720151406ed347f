package sim

import (
	"strconv"
	"sync"
	"time"
)

// httpMetrics are those of prometheus-fastapi-instrumentator. /metrics, /health, /load, /ping
// and /version are not counted; unknown paths have the handler "none".
type httpMetrics struct {
	mu       sync.Mutex
	requests ordered // handler, method, status
	handlers []*handlerStats
	seconds  []*methodStats
	highr    histogram
}

// ordered is counters in the order they came up.
type ordered struct {
	keys []string
	vs   map[string]float64
}

func (o *ordered) add(key string) {
	if _, ok := o.vs[key]; !ok {
		o.keys = append(o.keys, key)
	}
	o.vs[key]++
}

type handlerStats struct {
	handler               string
	n, reqBytes, resBytes float64
}

type methodStats struct {
	handler, method string
	h               histogram
}

var (
	highrBounds = []float64{0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 7.5, 10, 30, 60}
	lowrBounds  = []float64{0.1, 0.5, 1}
)

func (h *httpMetrics) init() {
	h.requests.vs = map[string]float64{}
	h.highr = newHistogram(highrBounds)
}

// observe counts one answered request. Lengths that are not declared count as 0.
func (h *httpMetrics) observe(handler, method string, status int, took time.Duration, reqBytes, resBytes int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests.add(`handler="` + handler + `",method="` + method + `",status="` + strconv.Itoa(status/100) + `xx"`)
	var hs *handlerStats
	for _, c := range h.handlers {
		if c.handler == handler {
			hs = c
		}
	}
	if hs == nil {
		hs = &handlerStats{handler: handler}
		h.handlers = append(h.handlers, hs)
	}
	hs.n++
	hs.reqBytes += float64(max(0, reqBytes))
	hs.resBytes += float64(max(0, resBytes))
	h.highr.observe(took.Seconds())
	for _, m := range h.seconds {
		if m.handler == handler && m.method == method {
			m.h.observe(took.Seconds())
			return
		}
	}
	m := &methodStats{handler: handler, method: method, h: newHistogram(lowrBounds)}
	m.h.observe(took.Seconds())
	h.seconds = append(h.seconds, m)
}

func (h *httpMetrics) write(x *expo) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var vs []labelled
	for _, k := range h.requests.keys {
		vs = append(vs, labelled{k, h.requests.vs[k]})
	}
	x.counter("http_requests", "Total number of requests by method, status and handler.", vs...)
	summary := func(name, help string, sum func(*handlerStats) float64) {
		x.head(name, help, "summary")
		for _, s := range h.handlers {
			l := `handler="` + s.handler + `"`
			x.sample(name+"_count", l, s.n)
			x.sample(name+"_sum", l, sum(s))
		}
	}
	summary("http_request_size_bytes", "Content length of incoming requests by handler. Only value of header is respected. Otherwise ignored. No percentile calculated. ", func(s *handlerStats) float64 { return s.reqBytes })
	summary("http_response_size_bytes", "Content length of outgoing responses by handler. Only value of header is respected. Otherwise ignored. No percentile calculated. ", func(s *handlerStats) float64 { return s.resBytes })
	const highr = "http_request_duration_highr_seconds"
	x.head(highr, "Latency with many buckets but no API specific labels. Made for more accurate percentile calculations. ", "histogram")
	x.buckets(highr, &h.highr, "", "")
	const lowr = "http_request_duration_seconds"
	x.head(lowr, "Latency with only few buckets by handler. Made to be only used if aggregation by handler is important. ", "histogram")
	for _, m := range h.seconds {
		x.buckets(lowr, &m.h, `handler="`+m.handler+`"`, `method="`+m.method+`"`)
	}
}
