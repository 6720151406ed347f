package worker

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// batch is what one step of reading a log gave.
type batch struct {
	lines []api.Line
	bar   string // the unfinished last line
	past  bool   // it was written before we looked
}

// follow reads the server's log until its process tree is gone, and reports that last: what it
// wrote before its end is known by then.
func (w *worker) follow(ctx context.Context, l *life) {
	path := l.inst.LogPath()
	if path == "" {
		select {
		case <-ctx.Done():
		case <-l.inst.Done():
			w.post(func(ctx context.Context) { w.died(ctx, l) })
		}
		return
	}
	f := &follower{path: path, tail: l.adopted, mark: l.mark}
	defer f.close()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	past, complained := l.adopted, false
	for last := false; !last; {
		var b batch
		now := time.Now()
		take := func(text string) {
			p := parse(text)
			line := api.Line{Time: now, Level: p.level, Text: text}
			if past {
				line.Time = p.at(now)
			}
			b.lines = append(b.lines, w.lines.add(line))
		}
		if err := f.read(take); err != nil && !complained {
			complained = true
			w.log.Warn("log not read", "path", path, "error", err)
		}
		if last = isDone(l.inst.Done()); last {
			// The first read may have come before the last words.
			_ = f.read(take) // said above
			if rest := f.rest(); rest != "" {
				take(rest)
			}
		}
		b.bar, b.past = f.partial(), past
		past = false
		if len(b.lines) > 0 || b.bar != "" {
			if !w.post(func(ctx context.Context) { w.heard(ctx, l, b) }) {
				return
			}
		}
		if last {
			w.post(func(ctx context.Context) { w.died(ctx, l) })
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-l.inst.Done():
		case <-tick.C:
		}
	}
}

func isDone(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// heard takes what the log says: phases of a start, the end of a drain.
func (w *worker) heard(ctx context.Context, l *life, b batch) {
	if w.life != l {
		return
	}
	switch w.st.State {
	case api.Starting:
		now := time.Now()
		for _, line := range b.lines {
			at := now
			if b.past {
				if !line.Time.IsZero() {
					at = line.Time
				}
				if bannerLine.MatchString(line.Text) {
					// The log of an adopted server may hold earlier starts.
					l.phases = newTracker(api.PhaseImports, started(l.inst, at))
					l.lastSeq = line.Seq - 1
				}
			}
			l.phases.line(line.Text, at)
		}
		if b.bar != "" {
			l.phases.line(b.bar, now)
		}
		w.learn(l)
		w.showPhases(now)
		if l.phases.up {
			poke(l.kick)
		}
	case api.Stopping:
		if l.step != stepTerm || b.past {
			return
		}
		for _, line := range b.lines {
			if drainedLine.MatchString(line.Text) {
				w.kill(ctx, l)
				return
			}
		}
	}
}

// learn takes over what the log tells about the server.
func (w *worker) learn(l *life) {
	t := l.phases
	if t.version != "" {
		w.st.Version = t.version
	}
	if t.maxLen != 0 {
		w.st.MaxLen = t.maxLen
	}
	if t.maxSeqs != 0 {
		w.st.MaxSeqs = t.maxSeqs
	}
	if t.kvTokens != 0 {
		w.st.KVTokens = t.kvTokens
	}
}

// started is when an instance's process started, now if that is not known.
func started(i launch.Instance, now time.Time) time.Time {
	if t := i.Started(); !t.IsZero() {
		return t
	}
	return now
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// watchHealth asks /health every healthEvery, and at once when somebody doubts it.
func (w *worker) watchHealth(ctx context.Context, l *life) {
	t := w.target(l)
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	for {
		doubted := false
		select {
		case <-ctx.Done():
			return
		case <-l.kick:
			doubted = true
		case <-tick.C:
		}
		err := t.health(ctx)
		if ctx.Err() != nil || !w.post(func(ctx context.Context) { w.checked(ctx, l, err, doubted) }) {
			return
		}
	}
}

// How many failures of /health in a row unroute a worker. A time-out alone says little: a busy
// server is slow to answer, and must not be taken for dead.
const (
	failuresMost = 3
	slowMost     = 6
)

// checked takes one answer of /health.
func (w *worker) checked(ctx context.Context, l *life, err error, doubted bool) {
	if w.life != l || w.st.State != api.Ready && w.st.State != api.Draining {
		return
	}
	h := &l.health
	switch {
	case err == nil:
		h.failed, h.slow = 0, 0
		if !l.answers {
			l.answers = true
			w.unstall(l, "answers again")
		}
		return
	case tooSlow(err):
		h.slow++
	default:
		h.failed++
	}
	if l.answers && (h.failed >= failuresMost || h.slow >= slowMost || doubted && h.failed > 0) {
		l.answers = false
		l.problem = plain(err)
		if l.plan.kind == kindAttach {
			w.away(ctx, l)
			return
		}
		w.stall(fmt.Sprintf("%s does not answer /health (%s) while its process lives: requests go elsewhere", w.name, l.problem))
	}
}

// stall unroutes a worker that lives but does not serve.
func (w *worker) stall(why string) {
	if w.st.Stalled {
		return
	}
	w.st.Stalled = true
	w.notice("error", why)
	w.log.Error("worker stalled", "reason", why)
}

// unstall routes to it again, once nothing speaks against it.
func (w *worker) unstall(l *life, why string) {
	if !w.st.Stalled || !l.answers || l.still.stuck {
		return
	}
	w.st.Stalled = false
	w.notice("info", w.name+" "+why)
	w.log.Info("worker serves again", "reason", why)
}

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
	if r.KVTokens != 0 {
		w.st.KVTokens = r.KVTokens
	}
	if r.MaxSeqs != 0 {
		w.st.MaxSeqs = r.MaxSeqs
	}
	w.st.Scraped = now
	w.progress(ctx, l, r, now)
}

// stillness watches for an engine that has requests of ours and does nothing with them. Its
// /health stays 200 and its gauges freeze; a paused one even says that nothing runs (seen with
// vLLM 0.32), so our own count decides whether there is something to do.
type stillness struct {
	steps  float64
	kv     *float64
	seen   time.Time
	idle   time.Duration // without progress, counting only time with requests of ours
	asking bool          // a canary is under way
	stuck  bool
	asked  time.Time
}

func (w *worker) progress(ctx context.Context, l *life, r Reading, now time.Time) {
	s := &l.still
	moved := s.seen.IsZero() || r.Steps != s.steps || !same(r.KV, s.kv)
	since := now.Sub(s.seen)
	s.steps, s.kv, s.seen = r.Steps, r.KV, now
	switch {
	case moved:
		s.idle = 0
		if s.stuck {
			s.stuck = false
			w.unstall(l, "makes progress again")
		}
		return
	case w.gate.count() > 0:
		s.idle += since
	}
	due := s.idle >= stillAfter || s.stuck && now.Sub(s.asked) >= stillRecheck
	if !due || s.asking {
		return
	}
	// Refused requests make no progress either: only a token that does not come proves a hang.
	s.asking, s.asked = true, now
	t, served := w.target(l), l.served
	w.wg.Go(func() {
		err := t.canary(ctx, served, stillLimit)
		w.post(func(context.Context) { w.canaried(l, err) })
	})
}

func (w *worker) canaried(l *life, err error) {
	if w.life != l {
		return
	}
	s := &l.still
	s.asking, s.idle = false, 0
	switch {
	case err == nil:
		s.stuck = false
		w.unstall(l, "generates again")
	case !s.stuck:
		s.stuck = true
		w.stall(fmt.Sprintf("%s makes no progress and gives no token (%s): requests go elsewhere; \"vllmdeck worker restart %s\" replaces it", w.name, plain(err), w.name))
	}
}

// forgetReadings makes everything unknown that the server or its processes said.
func (w *worker) forgetReadings() {
	w.st.Running, w.st.Waiting, w.st.KV, w.st.Prefix = nil, nil, nil, nil
	w.st.OutRate, w.st.InRate, w.st.Preempt, w.st.TTFT95 = nil, nil, nil, nil
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
			w.st.CPU = api.Ptr(used / dt)
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
