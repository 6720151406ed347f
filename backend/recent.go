package backend

import (
	"slices"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// maxRequests is how many requests a snapshot shows at most.
const maxRequests = 120

// recent keeps the requests that ended last.
type recent struct {
	mu   sync.Mutex
	ring [maxRequests]api.Request
	next int
	n    int
}

func (r *recent) add(q *api.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring[r.next] = *q
	r.next = (r.next + 1) % len(r.ring)
	r.n = min(r.n+1, len(r.ring))
}

// list appends the kept requests to dst, newest first, at most limit.
func (r *recent) list(dst []api.Request, limit int) []api.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range min(limit, r.n) {
		dst = append(dst, r.ring[(r.next-1-i+len(r.ring))%len(r.ring)])
	}
	return dst
}

// ttft95 gives, by worker, the 95th percentile of the time to first token of the kept requests that
// ended since a time.
func (r *recent) ttft95(since time.Time) map[string]float64 {
	all := map[string][]time.Duration{}
	r.mu.Lock()
	for i := range r.n {
		q := &r.ring[(r.next-1-i+len(r.ring))%len(r.ring)]
		if q.TTFT > 0 && q.Worker != "" && q.Started.Add(time.Duration(q.Duration)).After(since) {
			all[q.Worker] = append(all[q.Worker], time.Duration(q.TTFT))
		}
	}
	r.mu.Unlock()
	out := make(map[string]float64, len(all))
	for name, v := range all {
		slices.Sort(v)
		out[name] = v[(len(v)*95+99)/100-1].Seconds()
	}
	return out
}

// find gives the kept request with an id.
func (r *recent) find(id string) (api.Request, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.n {
		if q := &r.ring[(r.next-1-i+len(r.ring))%len(r.ring)]; q.ID == id {
			return *q, true
		}
	}
	return api.Request{}, false
}

// rated notes the health of a kept request.
func (r *recent) rated(id string, health float64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.n {
		if q := &r.ring[(r.next-1-i+len(r.ring))%len(r.ring)]; q.ID == id {
			q.Health = &health
			return
		}
	}
}
