package worker

import (
	"context"
	"slices"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// batchLines is how many lines are told at once: a server that writes 100 MB in a second must not be held in memory whole.
const batchLines = 2000

// batch is what one step of reading a log gave.
type batch struct {
	lines []api.Line
	bar   string // the unfinished last line
	past  bool   // it was written before we looked
}

// add takes a line; what there is is told before it grows past batchLines.
func (b *batch) add(line api.Line, tell func(batch) bool) {
	if len(b.lines) == batchLines {
		tell(*b) // where nobody listens any more the last one finds it too
		b.lines = nil
	}
	b.lines = append(b.lines, line)
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
	began := time.Now()
	tick := time.NewTicker(followFast)
	defer tick.Stop()
	fast := true
	past, complained := l.adopted, false
	for last := false; !last; {
		var b batch
		now := time.Now()
		heard := func(b batch) bool {
			b.past = past
			return w.post(func(ctx context.Context) { w.heard(ctx, l, b) })
		}
		take := func(text string) {
			p := parse(text)
			line := api.Line{Time: now, Level: p.level, Text: text}
			if past {
				line.Time = p.at(now)
			}
			b.add(w.lines.add(line), heard)
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
		b.bar = f.partial()
		if (len(b.lines) > 0 || b.bar != "") && !heard(b) {
			return
		}
		past = false
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
		if fast && time.Since(began) > followFirst {
			fast = false
			tick.Reset(followEvery)
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
	switch {
	case w.life != l:
	case w.st.State == api.Starting || b.past && w.st.State != api.Stopping:
		// An adopted server may have answered before its log was read back.
		w.trace(l, b)
	case w.st.State == api.Stopping && l.step == stepTerm && !b.past:
		if slices.ContainsFunc(b.lines, func(line api.Line) bool { return drainedLine.MatchString(line.Text) }) {
			w.kill(ctx, l)
		}
	}
}

// trace follows the start that the lines tell of.
func (w *worker) trace(l *life, b batch) {
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
	if w.st.State == api.Starting {
		w.showPhases(now)
		if l.phases.up {
			poke(l.kick)
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
