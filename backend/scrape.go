package backend

import (
	"context"
	"net/http"
	"time"

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
}

func (b *Backend) newScraper(url, key string) worker.Scraper {
	return &scraper{from: metrics.Scraper{URL: url, Key: key, Client: b.scrapes}}
}

func totals(t metrics.Totals) worker.Totals {
	out := worker.Totals{
		Preemptions: t.Preemptions, Finished: t.Finished, Length: t.Length, Drafted: t.Drafted, Accepted: t.Accepted, Generated: t.Generated,
	}
	prompt, ok := t.PromptLen.Most(0.99)
	answer, both := t.AnswerLen.Most(0.99)
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
