package backend

import (
	"slices"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// comesWithin reports whether a worker that is coming can be expected to be ready within d. vLLM
// needs seconds to many minutes, by model and machine: the last start of this worker is the measure,
// and what takes longer than it should is expected to take as long again.
func comesWithin(w *api.Worker, d time.Duration, now time.Time) bool {
	var took time.Duration // 0: it has never started
	for _, p := range w.LastStart {
		took += time.Duration(p.Seconds * float64(time.Second))
	}
	if w.Blocked != "" {
		return false // nobody knows for how long
	}
	switch w.State {
	case api.Starting:
		left := took - now.Sub(w.Since)
		return max(left, -left) <= d
	case api.Failed:
		// A phase that is not done is where its last start failed: the next one may fail too.
		failed := slices.ContainsFunc(w.Phases, func(p api.PhaseTime) bool { return !p.Done })
		return !failed && w.NextStart.Sub(now)+took <= d
	}
	if wakes(w) {
		return true // in seconds, but for its turn: who waits for that in vain goes elsewhere in the end
	}
	return false // it stalls: nobody knows for how long
}
