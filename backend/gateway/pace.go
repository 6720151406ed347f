package gateway

import (
	"sync"
	"time"
)

// pace is how fast requests of one model are served: means over about the last 16 that ended.
type pace struct {
	mu      sync.Mutex
	service float64 // seconds that a request is with a worker
	first   float64 // seconds from there to its first content
	serviceN,
	firstN int // samples, up to 16
}

// paceSpan is over how many requests the means go.
const paceSpan = 16

// learn takes in a request that ended: how long it was with the worker, and how long to its first
// content; 0: it had none, or was not streamed.
func (p *pace) learn(service, first time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if service > 0 {
		p.serviceN = min(p.serviceN+1, paceSpan)
		p.service += (service.Seconds() - p.service) / float64(p.serviceN)
	}
	if first > 0 {
		p.firstN = min(p.firstN+1, paceSpan)
		p.first += (first.Seconds() - p.first) / float64(p.firstN)
	}
}

// wait is how long it takes until n more places become free while running requests run: each is
// held for the mean service time, so running/service of them become free per second (Little's
// law). False where nothing is known of it yet.
func (p *pace) wait(n, running int) (time.Duration, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.serviceN == 0 || running <= 0 {
		return 0, false
	}
	return time.Duration(float64(n) * p.service / float64(running) * float64(time.Second)), true
}

// prefill is the time to first content once a request is with a worker.
func (p *pace) prefill() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Duration(p.first * float64(time.Second))
}
