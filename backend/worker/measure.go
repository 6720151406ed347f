package worker

import (
	"context"
	"math"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// watchMetrics scrapes every second while requests of ours are there or something moves, and
// every five seconds while nothing does.
func (w *worker) watchMetrics(ctx context.Context, l *life) {
	tick := time.NewTicker(scrapeEvery)
	defer tick.Stop()
	var last time.Time
	var before Reading
	moving := true
	for {
		if moving || w.gate.count() > 0 || time.Since(last) >= scrapeIdle {
			last = time.Now()
			sctx, cancel := context.WithTimeout(ctx, scrapeLimit)
			r, err := l.scraper.Scrape(sctx)
			cancel()
			if ctx.Err() != nil || !w.post(func(ctx context.Context) { w.scraped(ctx, l, r, err) }) {
				return
			}
			if err == nil {
				moving = r.Steps != before.Steps || !same(r.Running, before.Running) || !same(r.Waiting, before.Waiting)
				before = r
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func same(a, b *float64) bool { return a == b || a != nil && b != nil && *a == *b }

// scraped takes one reading.
func (w *worker) scraped(ctx context.Context, l *life, r Reading, err error) {
	if w.life != l || w.st.State != api.Ready && w.st.State != api.Draining {
		return
	}
	now := time.Now()
	if err != nil {
		if now.Sub(w.st.Scraped) > staleAfter {
			w.forgetReadings()
		}
		return
	}
	w.st.Running, w.st.Waiting, w.st.KV, w.st.Prefix = r.Running, r.Waiting, r.KV, r.Prefix
	w.st.OutRate, w.st.InRate, w.st.Preempt, w.st.TTFT95 = r.OutRate, r.InRate, r.Preempt, r.TTFT95
	w.st.Accept = r.Accept
	if r.KVTokens != 0 {
		w.st.KVTokens = r.KVTokens
	}
	if r.MaxSeqs != 0 {
		w.st.MaxSeqs = r.MaxSeqs
	}
	w.st.Scraped = now
	w.advise(r, now)
	w.progress(ctx, l, r, now)
}

// forgetReadings makes everything unknown that the server or its processes said.
func (w *worker) forgetReadings() {
	w.st.Running, w.st.Waiting, w.st.KV, w.st.Prefix = nil, nil, nil, nil
	w.st.OutRate, w.st.InRate, w.st.Preempt, w.st.TTFT95 = nil, nil, nil, nil
	w.st.Accept, w.advisor = nil, advisor{}
	if w.life == nil {
		w.st.KVTokens, w.st.Scraped = 0, time.Time{}
		w.st.CPU, w.st.RSS = nil, 0
	}
}

// watchTree measures the process tree.
func (w *worker) watchTree(ctx context.Context, l *life) {
	tick := time.NewTicker(treeEvery)
	defer tick.Stop()
	for {
		procs := l.inst.Tree()
		if !w.post(func(context.Context) { w.measured(l, procs) }) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// measured takes one look at the process tree.
func (w *worker) measured(l *life, procs []launch.Process) {
	if w.life != l {
		return
	}
	now := time.Now()
	cpu := make(map[int]float64, len(procs))
	var used float64
	w.st.RSS = 0
	for _, p := range procs {
		cpu[p.PID] = p.CPUTime
		// A process that is new has used all its time since the last look.
		used += math.Max(p.CPUTime-l.cpu[p.PID], 0)
		w.st.RSS += p.RSS
	}
	if l.cpu != nil {
		if dt := now.Sub(l.cpuAt).Seconds(); dt > 0 {
			w.st.CPU = new(used / dt)
		}
	}
	l.cpu, l.cpuAt = cpu, now
}

// point adds a point to the trend of output tokens.
func (w *worker) point(now time.Time) {
	v := math.NaN()
	if w.st.OutRate != nil && now.Sub(w.st.Scraped) <= staleAfter {
		v = *w.st.OutRate
	}
	w.st.Trend = append(w.st.Trend, v)
	if n := len(w.st.Trend); n > trendPoints {
		w.st.Trend = w.st.Trend[n-trendPoints:]
	}
}
