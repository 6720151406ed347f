package gateway

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// caution is by which part more than the mean a wait is taken to be: under overload the line is as
// long as it may be, and without a margin half of those who join it would be refused later, after
// they have waited.
const caution = 4

// join lines the call up, unless it would wait too long there. Its error is a *refusal.
func (c *call) join(q *queue) (*waiter, error) {
	class := ""
	if c.who.quota != nil {
		class = c.who.quota.bounds().Priority
	}
	again := len(c.tried) > 0
	if target := c.g.TTFTTarget; target > 0 && !again {
		c.look()
		wait, known := q.pace.wait(q.ahead(c.who.key, class)+1, running(c.cands))
		first := wait + q.pace.prefill()
		if late := first + wait/caution - target; known && late > 0 {
			return nil, c.slow(fmt.Sprintf("the first token would come after about %v", first.Round(100*time.Millisecond)), late)
		}
	}
	if w := q.join(c, c.who.key, class, again, c.g.queueLimit()); w != nil {
		return w, nil
	}
	return nil, c.crowded()
}

// running is how many requests the workers that serve now have.
func running(cands []route.Candidate) int {
	n := 0
	for i := range cands {
		if c := &cands[i]; c.Ready && !c.Provider {
			n += c.InFlight
		}
	}
	return n
}

// mayWait is how long the call may wait in line: so long that its first token still comes within the
// target, if there is one. What has been with a worker before is late already, and is not given up for that.
func (c *call) mayWait() time.Duration {
	limit := c.g.queueWait()
	if c.g.TTFTTarget > 0 && len(c.tried) == 0 {
		limit = min(limit, max(0, c.g.TTFTTarget-c.turns.pace.prefill()))
	}
	return limit
}

// elsewhere sends a call that may not wait in line to a provider, if one may serve it; why is its
// answer where none may. Workers are left to those who wait.
func (c *call) elsewhere(why error) (Lease, error) {
	c.look()
	busy := slices.ContainsFunc(c.cands, func(o route.Candidate) bool { return o.Ready && !o.Provider })
	c.cands = slices.DeleteFunc(c.cands, func(o route.Candidate) bool { return !o.Provider || busy && !o.Overload })
	if l, reason := c.pick(true); reason.Picked() {
		return l, nil
	}
	return Lease{}, why
}

// crowded is the answer where too many wait.
func (c *call) crowded() error {
	r := &refusal{
		status: http.StatusTooManyRequests, kind: "rate_limit_error", code: "queue_full", final: true, retry: retrySoon(),
		msg: fmt.Sprintf("model %q is busy: %d requests wait for a worker already", c.row.Model, c.g.queueLimit()),
	}
	if c.g.queueLimit() < 0 {
		r.msg = fmt.Sprintf("model %q is busy, and gateway.queue lets no request wait", c.row.Model)
	}
	return r
}

// slow is the answer where the target cannot be met; it may be again after about late.
func (c *call) slow(why string, late time.Duration) error {
	// Different for each, so that those who were refused together do not come back together.
	retry := int(min(late, time.Minute).Seconds()) + 1 + rand.IntN(3)
	return &refusal{
		status: http.StatusTooManyRequests, kind: "rate_limit_error", code: "ttft_target", final: true, retry: strconv.Itoa(retry),
		msg: fmt.Sprintf("model %q is busy: %s, and gateway.ttft_target is %v", c.row.Model, why, c.g.TTFTTarget),
	}
}

// teach lets the line learn from the call, which has ended.
func (c *call) teach(now time.Time) {
	if c.turns == nil || c.paid || len(c.row.Attempts) != 1 || c.row.Outcome != api.OutcomeOK && c.row.Outcome != api.OutcomeCancelled {
		return
	}
	first := time.Duration(0)
	if !c.tap.first.IsZero() {
		first = c.tap.first.Sub(c.begun)
	}
	c.turns.pace.learn(now.Sub(c.begun), first)
}

// spot is a call's place in line.
type spot struct {
	position    int
	wait, sofar time.Duration
}

// waiting gives the place of every call that waits.
func (g *Gateway) waiting(now time.Time) map[*call]spot {
	if g.queued.Load() == 0 {
		return nil
	}
	g.mu.Lock()
	lines := maps.Clone(g.queues)
	g.mu.Unlock()
	spots := map[*call]spot{}
	var cands []route.Candidate
	for model, q := range lines {
		order := q.order()
		if len(order) == 0 {
			continue
		}
		cands = g.Upstreams.Candidates(model, cands[:0])
		n := running(cands)
		for i, w := range order {
			s := spot{position: i + 1, sofar: now.Sub(w.since)}
			if wait, known := q.pace.wait(i+1, n); known {
				s.wait = wait
			}
			spots[w.call] = s
		}
	}
	return spots
}
