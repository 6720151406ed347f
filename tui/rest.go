package tui

import (
	"math"
	"slices"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// A console at rest holds its picture: nothing is served and nothing changes its state, but every
// snapshot differs, because idle time costs money, uptimes grow and a card's temperature wavers. Such
// figures alone are not worth a byte on the line. They are taken over when something happens, with a
// key, and every restFor; the header then says since when there is rest instead of the time.
const (
	restAfter = 15 * time.Second // without anything happening
	restFor   = 10 * time.Minute
)

// adopt takes the newest snapshot for the one that is shown, unless all is at rest.
func (c *Console) adopt(before *api.Snapshot) {
	now := c.live
	if before == nil || busy(now) || happened(before, now) {
		c.movedAt = now.Time
	}
	was := c.resting
	c.resting = now.Time.Sub(c.movedAt) >= restAfter
	if c.resting && was && c.snap != nil && now.Time.Sub(c.snap.Time) < restFor && !happened(c.snap, now) && !c.drifted(c.snap, now) {
		return
	}
	c.snap = now
	c.sync()
}

// refresh takes the newest snapshot over because somebody is there to look at it.
func (c *Console) refresh() {
	if !c.paused && c.live != nil && c.snap != c.live {
		c.snap = c.live
		c.sync()
	}
}

// busy says that something is under way whose progress is shown.
func busy(s *api.Snapshot) bool {
	return s.Traffic.InFlight > 0 || s.Traffic.Queued > 0 || s.Engine.Stopping ||
		slices.ContainsFunc(s.Workers, func(w api.Worker) bool {
			return w.State == api.Starting && w.Blocked == "" || w.Phase == api.PhaseWaking || w.State == api.Stopping || w.InFlight > 0
		}) ||
		slices.ContainsFunc(s.Prompts, func(p api.Prompt) bool { return !ended(p.State) }) ||
		slices.ContainsFunc(s.Rolls, func(r api.Roll) bool { return r.State == "running" }) ||
		s.Cache != nil && slices.ContainsFunc(s.Cache.Downloads, func(d api.Download) bool { return d.State == "running" })
}

// happened says that between two snapshots something changed its state, or was served.
func happened(a, b *api.Snapshot) bool {
	e, f := a.Engine, b.Engine
	e.Memory, e.Ledger.Rows, e.Ledger.Queued = f.Memory, f.Ledger.Rows, f.Ledger.Queued
	if e.Started.Equal(f.Started) { // the same instant has one value for each zone it was read in
		e.Started = f.Started
	}
	m, n := &a.Money, &b.Money
	return e != f || a.Traffic != b.Traffic || m.Period != n.Period || m.Requests != n.Requests || m.Baseline != n.Baseline || m.RateLabel != n.RateLabel || !slices.Equal(m.Missing, n.Missing) ||
		a.Answers.Rated != b.Answers.Rated ||
		!slices.EqualFunc(a.Workers, b.Workers, sameWorker) ||
		!slices.EqualFunc(a.Models, b.Models, func(a, b api.Model) bool {
			return a.Name == b.Name && a.Ready == b.Ready && a.Workers == b.Workers && a.Backed == b.Backed && a.MaxLen == b.MaxLen && a.Baseline == b.Baseline
		}) ||
		!slices.EqualFunc(a.Requests, b.Requests, func(a, b api.Request) bool { return a.ID == b.ID && a.Outcome == b.Outcome }) ||
		!slices.EqualFunc(a.Notices, b.Notices, func(a, b api.Notice) bool { return a.Time.Equal(b.Time) && a.Text == b.Text && a.Active == b.Active }) ||
		!slices.EqualFunc(a.Prompts, b.Prompts, func(a, b api.Prompt) bool { return a.ID == b.ID && a.State == b.State }) ||
		!slices.EqualFunc(a.Crashes, b.Crashes, func(a, b api.Crash) bool { return a.ID == b.ID }) ||
		!slices.EqualFunc(a.Strays, b.Strays, func(a, b api.Stray) bool { return a.PID == b.PID && a.Started.Equal(b.Started) }) ||
		!slices.EqualFunc(a.Advice, b.Advice, func(a, b api.Advice) bool { return a.Rule == b.Rule && a.Worker == b.Worker && a.Model == b.Model }) ||
		!slices.EqualFunc(a.Rolls, b.Rolls, func(a, b api.Roll) bool { return a.Model == b.Model && a.State == b.State && a.Done == b.Done }) ||
		!slices.EqualFunc(a.Providers, b.Providers, func(a, b api.Provider) bool { return a.Name == b.Name && a.State == b.State && a.Error == b.Error }) ||
		!slices.EqualFunc(a.Keys, b.Keys, func(a, b api.Key) bool { return a.Name == b.Name && a.ID == b.ID && a.Revoked.Equal(b.Revoked) }) ||
		!sameCache(a.Cache, b.Cache)
}

func sameWorker(a, b api.Worker) bool {
	return a.Name == b.Name && a.Model == b.Model && a.State == b.State && a.Blocked == b.Blocked && a.Error == b.Error && a.Stalled == b.Stalled &&
		a.PID == b.PID && a.Level == b.Level && a.Phase == b.Phase && a.Restarts == b.Restarts && a.Crashes == b.Crashes && (a.Fix == nil) == (b.Fix == nil) && slices.Equal(a.Fixed, b.Fixed) && a.CanSleep == b.CanSleep
}

func sameCache(a, b *api.Cache) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Size == b.Size && a.Error == b.Error && a.Offline == b.Offline && len(a.Models) == len(b.Models) &&
		slices.EqualFunc(a.Downloads, b.Downloads, func(a, b api.Download) bool { return a.Name == b.Name && a.State == b.State })
}

// drifted says that a reading has moved by more than it wavers by, or the chart shown by a bucket.
func (c *Console) drifted(a, b *api.Snapshot) bool {
	if i := c.window; i >= 0 && i < len(a.Windows) && i < len(b.Windows) {
		v, w := &a.Windows[i], &b.Windows[i]
		if drawn := v.Count > 0 || peakOf(v.Output, v.Requests, v.InFlight) > 0; drawn && !v.End.Equal(w.End) {
			return true
		}
	}
	for i := range a.Workers { // both have the same: see happened
		v, w := &a.Workers[i], &b.Workers[i]
		for _, f := range [][2]*float64{{v.Running, w.Running}, {v.Waiting, w.Waiting}, {v.OutRate, w.OutRate}, {v.InRate, w.InRate}, {v.Preempt, w.Preempt}, {v.TTFT95, w.TTFT95}, {v.Prefix, w.Prefix}, {v.KV, w.KV}, {v.Accept, w.Accept}} {
			if apart2(f[0], f[1], 0.01) {
				return true
			}
		}
		if apart2(v.CPU, w.CPU, 0.25) || math.Abs(float64(v.RSS-w.RSS)) > float64(v.RSS)/10 || peakOf(v.Trend) != peakOf(w.Trend) {
			return true
		}
	}
	if math.Abs(float64(a.Host.MemoryFree-b.Host.MemoryFree)) > float64(a.Host.MemoryTotal)/10 || len(a.GPUs) != len(b.GPUs) {
		return true
	}
	for i := range a.GPUs {
		if g, h := &a.GPUs[i], &b.GPUs[i]; apart2(g.Utilisation, h.Utilisation, 0.1) || apart2(g.Temperature, h.Temperature, 5) || apart2(g.Power, h.Power, 25) || apart2(bytesOf(g.MemoryUsed), bytesOf(h.MemoryUsed), 256<<20) ||
			!slices.Equal(g.Throttle, h.Throttle) || len(g.Xids) != len(h.Xids) || len(g.Processes) != len(h.Processes) || apart2(bytesOf(g.ECC), bytesOf(h.ECC), 1) {
			return true
		}
	}
	return false
}

func bytesOf(n *int64) *float64 {
	if n == nil {
		return nil
	}
	v := float64(*n)
	return &v
}

// apart2 says that two readings differ by a step or more, or that only one of them is known.
func apart2(a, b *float64, step float64) bool {
	if a == nil || b == nil {
		return a != b
	}
	return math.Abs(*a-*b) >= step
}
