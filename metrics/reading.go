package metrics

import (
	"math"
	"strconv"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// reading fills a Sample from parsed families.
type reading struct {
	families map[string][]*dto.MetricFamily
}

func (r reading) into(s *Sample) {
	if v := r.sum(nameStarted); v != nil {
		s.Started = unix(*v)
	}
	r.each(nameCreated, func(m *dto.Metric) {
		if v := number(m); v > s.Created {
			s.Created = v
		}
	})
	blocks := r.config(s)
	r.gauges(s, blocks)

	s.Generation = r.sum(nameGeneration)
	s.Prompt = r.sum(namePrompt)
	s.Cached = r.sum(nameCached)
	s.Sources = r.by(nameSources, "source")
	s.Preemptions = r.sum(namePreempt)
	s.Queries = r.sum(nameQueries)
	s.Hits = r.sum(nameHits)
	s.HitRate = r.mean(nameHitRate, nil)
	s.Finished = r.by(nameFinished, "finished_reason")
	if steps := r.histogram(nameSteps); steps != nil {
		s.Steps = &steps.total
	} else {
		s.Steps = r.sum(nameSteps) // without a TYPE line
	}
	s.TTFT = r.buckets(nameTTFT)
	s.ITL = r.buckets(nameITL)
	s.E2E = r.buckets(nameE2E)
	s.Queue = r.buckets(nameQueue)
	s.Drafted = r.sum(nameDrafted)
	s.Accepted = r.sum(nameAccepted)
	s.PromptLen = r.buckets(namePromptLen)
	s.AnswerLen = r.buckets(nameAnswerLen)

	for _, f := range families {
		if f.always && len(r.metrics(f.name)) == 0 {
			s.Missing = append(s.Missing, f.name)
		}
	}
}

// gauges reads what describes this moment.
func (r reading) gauges(s *Sample, blocks map[string]float64) {
	s.Running = r.sum(nameRunning)
	s.Waiting = r.sum(nameWaiting)
	s.Capacity = s.Waiting
	if v, ok := r.by(nameReasons, "reason")["capacity"]; ok {
		s.Capacity = &v
	}
	s.KV = r.mean(nameKV, blocks)

	engines := map[string]bool{}
	r.each(nameRunning, func(m *dto.Metric) {
		engines[label(m, "engine")] = true
		if s.Model == "" {
			s.Model = label(m, "model_name")
		}
	})
	s.Engines = len(engines)

	// One sleeping engine of several makes the server unable to serve what is sent to it.
	states := map[string]string{}
	r.each(nameSleep, func(m *dto.Metric) {
		e, state := label(m, "engine"), label(m, "sleep_state")
		switch {
		case number(m) > 0 && (state == SleepAwake || state == SleepWeights || state == SleepDiscard):
			states[e] = state
		case states[e] == "":
			states[e] = SleepPaused
		}
	})
	for _, state := range states {
		if s.Sleep == "" || s.Sleep == SleepAwake || (state != SleepAwake && state < s.Sleep) {
			s.Sleep = state
		}
	}
}

// config reads the labels of cache_config_info and gives the blocks of each engine.
func (r reading) config(s *Sample) map[string]float64 {
	blocks := map[string]float64{}
	r.each(nameConfig, func(m *dto.Metric) {
		n, size := whole(label(m, "num_gpu_blocks")), whole(label(m, "block_size"))
		// On hybrid models blocks times size is not the capacity: newer servers say it.
		tokens := whole(label(m, "kv_cache_size_tokens"))
		if tokens == 0 {
			tokens = n * size
		}
		s.KVTokens += tokens
		s.Blocks += n
		s.BlockSize = max(s.BlockSize, size)
		s.NoPrefixCache = s.NoPrefixCache || label(m, "enable_prefix_caching") == "False"
		blocks[label(m, "engine")] += float64(n)
	})
	return blocks
}

// metrics gives the series of a family, under its present name or, where that is absent, an
// older one.
func (r reading) metrics(name string) []*dto.MetricFamily {
	if fs := r.families[name]; len(fs) > 0 {
		return fs
	}
	for _, f := range families {
		if f.name != name {
			continue
		}
		for _, old := range f.old {
			if fs := r.families[old]; len(fs) > 0 {
				return fs
			}
		}
	}
	return nil
}

func (r reading) each(name string, do func(*dto.Metric)) {
	for _, f := range r.metrics(name) {
		for _, m := range f.GetMetric() {
			do(m)
		}
	}
}

// sum adds the series of all engines, and of unknown extra labels: older releases leaked
// pid= (#28792). nil where there is none.
func (r reading) sum(name string) *float64 {
	var total *float64
	r.each(name, func(m *dto.Metric) {
		v := number(m)
		if !sane(v) {
			return
		}
		if total == nil {
			total = new(float64)
		}
		*total += v
	})
	return total
}

// mean averages a gauge over engines, weighted where every engine has a weight.
func (r reading) mean(name string, weights map[string]float64) *float64 {
	var sum, weight, plain, n float64
	weighted := true
	r.each(name, func(m *dto.Metric) {
		v := number(m)
		if !sane(v) {
			return
		}
		w := weights[label(m, "engine")]
		weighted = weighted && w > 0
		sum, weight = sum+v*w, weight+w
		plain, n = plain+v, n+1
	})
	switch {
	case n == 0:
		return nil
	case weighted:
		mean := sum / weight
		return &mean
	}
	mean := plain / n
	return &mean
}

// by sums a family over everything but one label.
func (r reading) by(name, key string) map[string]float64 {
	var out map[string]float64
	r.each(name, func(m *dto.Metric) {
		v := number(m)
		if !sane(v) {
			return
		}
		if out == nil {
			out = map[string]float64{}
		}
		out[label(m, key)] += v
	})
	return out
}

// counted is a histogram summed over engines, with the number of its observations.
type counted struct {
	buckets *Buckets
	total   float64
}

func (r reading) buckets(name string) *Buckets {
	if h := r.histogram(name); h != nil {
		return h.buckets
	}
	return nil
}

func (r reading) histogram(name string) *counted {
	var out *counted
	mixed := false
	r.each(name, func(m *dto.Metric) {
		h := m.GetHistogram()
		if h == nil {
			return
		}
		n := h.GetSampleCountFloat()
		if n == 0 {
			n = float64(h.GetSampleCount())
		}
		if !sane(n) {
			return
		}
		b := &Buckets{Sum: h.GetSampleSum()}
		for _, x := range h.GetBucket() {
			c := x.GetCumulativeCountFloat()
			if c == 0 {
				c = float64(x.GetCumulativeCount())
			}
			b.Bounds, b.Counts = append(b.Bounds, x.GetUpperBound()), append(b.Counts, c)
		}
		b = b.normalise(n)
		if out == nil {
			out = &counted{buckets: b, total: n}
			return
		}
		out.total += n
		if out.buckets == nil || b == nil || !out.buckets.add(b) {
			mixed = true
		}
	})
	if mixed {
		out.buckets = nil
	}
	return out
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

// number reads a counter, a gauge, or a series without a TYPE line.
func number(m *dto.Metric) float64 {
	switch {
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue()
	case m.GetGauge() != nil:
		return m.GetGauge().GetValue()
	case m.GetUntyped() != nil:
		return m.GetUntyped().GetValue()
	}
	return math.NaN()
}

// whole reads a label that should be a count; "None", fractions and junk are 0.
func whole(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 1<<40 {
		return 0
	}
	return n
}

func unix(seconds float64) time.Time {
	if seconds <= 0 || seconds > 1<<40 {
		return time.Time{}
	}
	s, frac := math.Modf(seconds)
	return time.Unix(int64(s), int64(frac*1e9))
}
