package backend

import (
	"slices"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// startTime is what is known of how long a worker takes to be ready, from its last starts. vLLM
// needs seconds to many minutes, by model and machine.
type startTime struct {
	mu     sync.Mutex
	took   time.Duration // of the last start that succeeded; 0: none was seen
	failed bool          // the last start did not succeed
}

// see takes a look at the worker's state.
func (s *startTime) see(w *api.Worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch w.State {
	case api.Ready:
		s.failed = false
		if len(w.Phases) > 0 { // none: adopted, nobody saw it start
			s.took = 0
		}
		for _, p := range w.Phases {
			s.took += time.Duration(p.Seconds * float64(time.Second))
		}
	case api.Failed:
		// The phases are those of the last start: one that is not done is where it failed.
		s.failed = slices.ContainsFunc(w.Phases, func(p api.PhaseTime) bool { return !p.Done })
	}
}

// comesWithin reports whether a worker that is coming can be expected to be ready within d. What
// takes longer than it should is expected to take as long again.
func (s *startTime) comesWithin(w *api.Worker, d time.Duration, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case w.State == api.Ready: // it stalls, and that ends one way or the other
		return true
	case s.failed:
		return false
	case w.State == api.Failed:
		return w.NextStart.Sub(now)+s.took <= d
	}
	left := s.took - now.Sub(w.Since)
	return max(left, -left) <= d
}
