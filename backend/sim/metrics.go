package sim

import (
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// metrics are vLLM's, by its names. One lock guards all but what is atomic.
type metrics struct {
	name string // model_name
	born time.Time

	mu               sync.Mutex
	running, waiting int
	kvUsage          float64
	queries, hits    float64
	prompt, cachedP  float64
	generated        float64
	finished         map[string]float64 // by finished_reason
	hitRate          window
	sleepLevel       int // 0: awake

	hPrompt, hGen, hIter, hMaxGen, hN, hMaxTok              histogram
	hTTFT, hITL, hTPOT, hE2E, hQueue, hInfer, hPre, hDecode histogram
	hPreempt, hComputed                                     histogram

	preemptions, rejected counter
	http                  httpMetrics
}

// counter may be raised from anywhere.
type counter struct{ v atomic.Int64 }

func (c *counter) add(n int64) { c.v.Add(n) }

// histogram counts like prometheus_client's: counts[i] holds what is <= bounds[i], not
// cumulated.
type histogram struct {
	bounds []float64
	counts []float64
	inf    float64
	sum    float64
}

func (h *histogram) observe(v float64) {
	h.sum += v
	for i, b := range h.bounds {
		if v <= b {
			h.counts[i]++
			return
		}
	}
	h.inf++
}

func newHistogram(bounds []float64) histogram {
	return histogram{bounds: bounds, counts: make([]float64, len(bounds))}
}

// window is the prefix cache hit rate over the last 1000 requests, as the log line shows it.
type window struct {
	ring          [1000][2]int
	at            int
	queries, hits int
}

func (w *window) add(queries, hits int) {
	old := w.ring[w.at]
	w.queries, w.hits = w.queries-old[0]+queries, w.hits-old[1]+hits
	w.ring[w.at] = [2]int{queries, hits}
	w.at = (w.at + 1) % len(w.ring)
}

func (w *window) percent() float64 {
	if w.queries == 0 {
		return 0
	}
	return 100 * float64(w.hits) / float64(w.queries)
}

// Bucket bounds of vLLM 0.32.
var (
	ttftBounds    = []float64{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560}
	itlBounds     = []float64{0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80}
	latencyBounds = []float64{0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680}
	iterBounds    = []float64{1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384}
	preemptBounds = []float64{1, 2, 3, 4, 5, 10, 20}
	nBounds       = []float64{1, 2, 5, 10, 20}
)

// lengthBounds are 1-2-5 steps up to the context length.
func lengthBounds(maxLen int) []float64 {
	var b []float64
	for e := 1; ; e *= 10 {
		for _, m := range []int{1, 2, 5} {
			if m*e > maxLen {
				return b
			}
			b = append(b, float64(m*e))
		}
	}
}

func newMetrics(o Options) *metrics {
	tokens := lengthBounds(o.MaxLen)
	m := &metrics{
		name: o.Names[0], born: time.Now(), finished: map[string]float64{},
		hIter: newHistogram(iterBounds), hN: newHistogram(nBounds),
		hTTFT: newHistogram(ttftBounds), hITL: newHistogram(itlBounds), hTPOT: newHistogram(itlBounds),
		hPreempt: newHistogram(preemptBounds),
	}
	for _, h := range []*histogram{&m.hPrompt, &m.hGen, &m.hMaxGen, &m.hMaxTok, &m.hComputed} {
		*h = newHistogram(tokens)
	}
	for _, h := range []*histogram{&m.hE2E, &m.hQueue, &m.hInfer, &m.hPre, &m.hDecode} {
		*h = newHistogram(latencyBounds)
	}
	m.http.init()
	return m
}

// lookup counts a prefix cache query.
func (m *metrics) lookup(queried, hit int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.queries += float64(queried)
	m.hits += float64(hit)
	m.hitRate.add(queried, hit)
}

func (m *metrics) firstToken(q *seq) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.prompt += float64(len(q.prompt))
	m.cachedP += float64(q.cached.Load())
	m.generated++
	m.hTTFT.observe(q.first.Sub(q.arrived).Seconds())
}

func (m *metrics) nextToken(gap time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.generated++
	m.hITL.observe(gap.Seconds())
}

// step counts a step that gave output; vLLM counts no others.
func (m *metrics) step(out, computed int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hIter.observe(float64(out + computed))
}

func (m *metrics) gauges(running, waiting int, kv float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.running, m.waiting, m.kvUsage = running, waiting, kv
}

// finish counts a sequence that ended by itself; its job has already counted it out.
func (m *metrics) finish(q *seq, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(q.ids)
	m.finished[q.reason]++
	m.hPrompt.observe(float64(len(q.prompt)))
	m.hGen.observe(float64(n))
	m.hMaxTok.observe(float64(q.maxTok))
	m.hE2E.observe(now.Sub(q.arrived).Seconds())
	m.hQueue.observe(q.scheduled.Sub(q.queued).Seconds())
	m.hPre.observe(q.first.Sub(q.scheduled).Seconds())
	m.hInfer.observe(now.Sub(q.scheduled).Seconds())
	decode := now.Sub(q.first).Seconds()
	m.hDecode.observe(decode)
	m.hTPOT.observe(decode / math.Max(1, float64(n-1)))
	m.hPreempt.observe(float64(q.preempted))
	m.hComputed.observe(float64(len(q.prompt) - int(q.cached.Load())))
	// One sample per prompt, with the longest of its choices. Choices of one prompt follow
	// each other in the job.
	if q.job.left%q.job.n == 0 {
		longest := 0
		for _, s := range q.job.seqs {
			longest = max(longest, int(s.produced.Load()))
		}
		m.hMaxGen.observe(float64(longest))
		m.hN.observe(float64(q.job.n))
	}
}

// pyFloat writes a float as prometheus_client for Python does: 1.0, 0.05, 4.686331904e+09.
func pyFloat(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsNaN(v):
		return "NaN"
	}
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if abs := math.Abs(v); abs != 0 && (abs < 1e-4 || abs >= 1e16) {
		return strconv.FormatFloat(v, 'e', -1, 64)
	}
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	if dot := strings.IndexByte(s, '.'); v > 0 && dot > 6 {
		// The client's own quirk: always a zero before the exponent.
		return strings.TrimRight(s[:1]+"."+s[1:dot]+s[dot+1:], "0.") + "e+0" + strconv.Itoa(dot-1)
	}
	return s
}
