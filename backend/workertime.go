package backend

import (
	"context"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
	"github.com/vllmdeck/vllmdeck/backend/ledger"
)

const (
	// timeEvery is how often the ledger is told how long workers have run; each time is a commit.
	// What a crash loses of it comes back when the next engine adopts the worker.
	timeEvery = 5 * time.Second
	// timeLook is how often we look whether one has ended or begun, and, while requests are with
	// one, tell its time: else their shares would be on record before the time that they are of.
	timeLook = time.Second
)

// timekeeper tells the ledger how long each process of each worker has run. One goroutine uses it.
type timekeeper struct {
	tell func(ledger.WorkerTime)
	of   func(worker string) *upstream
	runs map[string]*run // by worker: its newest process
}

// run is one process of a worker, or a part of its life: where several share a GPU by turns, what one sleeps through while another
// is awake is no part of it.
type run struct {
	of    time.Time         // when the process started, or woke
	last  ledger.WorkerTime // as last told
	meter *cost.Meter
	ended bool
}

// keepTime tells worker time until ctx ends.
func (b *Backend) keepTime(ctx context.Context) error {
	k := &timekeeper{tell: b.ledger.WorkerTime, of: b.upstreams.of, runs: map[string]*run{}}
	tick := time.NewTicker(timeLook)
	defer tick.Stop()
	for {
		now := time.Now()
		k.look(now, b.pool.Statuses(), b.pricing.Load())
		select {
		case <-ctx.Done():
			now := time.Now()
			for _, r := range k.runs {
				if !r.ended {
					r.until(k, now)
				}
			}
			return nil
		case <-tick.C:
		}
	}
}

// look takes the workers as they are at now.
func (k *timekeeper) look(now time.Time, workers []api.Worker, p *pricing) {
	seen := map[string]bool{}
	for i := range workers {
		w := &workers[i]
		seen[w.Name] = true
		r := k.runs[w.Name]
		begun := awakeSince(w)
		if r != nil && !r.of.Equal(begun) {
			// Another process has taken its place, or is about to, since the last look; or it has woken.
			end := begun
			if end.IsZero() {
				end = w.Since
			}
			r.end(k, end)
			delete(k.runs, w.Name)
			r = nil
		}
		// An attached server that does not answer has not ended for us: it is asked again.
		away := w.State == api.Failed && w.Kind == "attach"
		if w.Started.IsZero() || away {
			continue
		}
		if ok, since := pays(workers, w, p.shares); !ok && w.State == api.Asleep {
			if r != nil {
				r.end(k, latest(w.Since, since))
			}
			continue
		}
		if r == nil || r.ended && w.State == api.Asleep {
			at := begun
			if w.State == api.Asleep && len(p.shares[w.Name]) > 0 {
				at = now // what it slept through before was another's
			}
			r = &run{
				of:    begun,
				meter: k.of(w.Name).meterOf(at, now),
				last: ledger.WorkerTime{
					Worker: w.Name, Incarnation: w.Name + "@" + at.UTC().Format(time.RFC3339Nano), Model: w.Model,
					Started: at, Simulated: w.Simulated,
				},
			}
			k.runs[w.Name] = r
			// One that lived for less than a look has its rate too: time without one makes the whole day's cost not known.
			r.last.Hour, r.last.Flat = p.hours[w.Name], p.perToken != nil
		}
		if w.State == api.Stopped || w.State == api.Failed {
			r.end(k, w.Since)
			continue
		}
		r.last.Hour, r.last.Flat = p.hours[w.Name], p.perToken != nil
		if r.last.Until.IsZero() || now.Sub(r.last.Until) >= timeEvery || r.meter.Busy(now) > r.last.Busy {
			r.until(k, now)
		}
	}
	for name, r := range k.runs {
		if !seen[name] { // removed from the config, and gone by now
			r.end(k, now)
			delete(k.runs, name)
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// until tells that the process ran until now.
func (r *run) until(k *timekeeper, now time.Time) {
	r.last.Until, r.last.Busy = now, r.meter.Busy(now)
	k.tell(r.last)
}

// end tells that the process ended at at.
func (r *run) end(k *timekeeper, at time.Time) {
	if r.ended {
		return
	}
	r.ended = true
	r.meter.Stop(at)
	r.until(k, at)
}
