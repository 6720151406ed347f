package worker

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/vllmdeck/vllmdeck/config"
)

// resetAfter is how long a worker must be ready until its earlier failures are forgotten.
const resetAfter = 10 * time.Minute

// resourceBase is what the waits for something to become free begin with: a process that dies gives its GPU memory back
// within tens of seconds. The first tries would be used up before.
const resourceBase = 20 * time.Second

// maxEnds is how many ends in config.Restart.Window are a crash loop.
const maxEnds = 5

// troubles is what a worker's failures so far mean for the next one.
type troubles struct {
	waits  int         // doublings of the wait
	starts int         // failed starts in a row
	ends   []time.Time // of unasked ends, oldest first
}

// next counts a failure and says how long to wait before the next start; giveUp, if not empty,
// says why there is none.
func (t *troubles) next(r config.Restart, v verdict, now time.Time) (wait time.Duration, giveUp string) {
	t.ends = append(t.ends, now)
	for len(t.ends) > 0 && r.Window > 0 && now.Sub(t.ends[0]) > r.Window {
		t.ends = t.ends[1:]
	}
	if v.early {
		t.starts++
	} else {
		t.starts = 0
	}
	switch {
	case v.final:
		return 0, "it was to be stopped"
	case v.class == classConfig:
		return 0, "a configuration error is not retried"
	case r.Policy == "never":
		return 0, "restart.policy is never"
	case r.Tries > 0 && t.starts >= r.Tries:
		return 0, fmt.Sprintf("gave up after %s in a row", count(t.starts, "failed start"))
	case len(t.ends) >= maxEnds:
		return 0, fmt.Sprintf("gave up after %d ends in %v", len(t.ends), r.Window)
	}
	// Full jitter: workers that fell together do not all load from one disk at once.
	most, least := r.Base, time.Duration(0)
	if v.class == classResource {
		most = max(most, resourceBase)
	}
	most <<= min(t.waits, 30)
	if most <= 0 || most > r.Max {
		most = r.Max
	}
	if v.class == classResource {
		least = most / 2
	}
	t.waits++
	return least + time.Duration(rand.Int64N(int64(max(most-least, 1)))) + 1, ""
}

func (t *troubles) forget() { *t = troubles{} }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
