package backend

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/worker"
	"github.com/vllmdeck/vllmdeck/metrics"
)

// newScrapeClient reads workers' metrics: an idle connection is dropped before vLLM drops it (5 s).
func newScrapeClient() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2, IdleConnTimeout: 4 * time.Second}}
}

// scraper is one server's metrics as package worker wants them.
type scraper struct {
	from  metrics.Scraper
	track metrics.Tracker
	names *metricNames
}

func (b *Backend) newScraper(url, key string) worker.Scraper {
	return &scraper{from: metrics.Scraper{URL: url, Key: key, Client: b.scrapes}, names: &b.metricNames}
}

func totals(t metrics.Totals) worker.Totals {
	out := worker.Totals{
		Preemptions: t.Preemptions, Finished: t.Finished, Length: t.Length, Drafted: t.Drafted, Accepted: t.Accepted, Generated: t.Generated,
	}
	prompt, ok := t.PromptLen.Most(1)
	answer, both := t.AnswerLen.Most(1)
	if ok && both {
		out.Longest = new(prompt + answer)
	}
	return out
}

// Scrape implements worker.Scraper.
func (s *scraper) Scrape(ctx context.Context) (worker.Reading, error) {
	sample, err := s.from.Scrape(ctx)
	if err != nil {
		return worker.Reading{}, err
	}
	s.names.look(sample, s.from.URL)
	now := time.Now()
	s.track.Add(now, sample)
	r := s.track.Rates(now)
	out := worker.Reading{
		Running: sample.Running, Waiting: sample.Waiting, KV: sample.KV, Prefix: r.Prefix, OutRate: r.Out, InRate: r.In, Preempt: r.Preempt,
		KVTokens: sample.KVTokens, Steps: s.track.Steps(), Accept: r.Accept, NoPrefixCache: sample.NoPrefixCache, Totals: totals(s.track.Totals()),
	}
	if sample.Generation != nil {
		out.Steps += *sample.Generation
	}
	if r.TTFT95 != nil {
		out.TTFT95 = &r.TTFT95.Value
	}
	return out, nil
}

// metricNames notices names of metrics that come and go between versions of vLLM, each once.
type metricNames struct {
	notice func(api.Notice)

	mu   sync.Mutex
	told map[string]bool
}

// look tells of the names of one page that are news.
func (m *metricNames) look(s *metrics.Sample, url string) {
	if len(s.Unknown)+len(s.Missing) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.told == nil {
		m.told = map[string]bool{}
	}
	fresh := func(mark string, names []string) string {
		var out []string
		for _, n := range names {
			if len(m.told) < maxMetricNames && !m.told[mark+n] {
				m.told[mark+n] = true
				out = append(out, n)
			}
		}
		return strings.Join(out, ", ")
	}
	if names := fresh("new ", s.Unknown); names != "" {
		m.notice(api.Notice{Level: "info", Text: fmt.Sprintf("the vLLM at %s exports metrics that this version of vllmdeck does not know, and leaves alone: %s", url, names)})
	}
	if names := fresh("gone ", s.Missing); names != "" {
		m.notice(api.Notice{Level: "info", Text: fmt.Sprintf("the vLLM at %s does not export what others do, so it is shown as unknown: %s", url, names)})
	}
}

// maxMetricNames bounds what is remembered of a server that makes names up.
const maxMetricNames = 1000
