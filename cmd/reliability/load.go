package main

import (
	"context"
	"fmt"
	"sync"
)

// load is clients that ask one thing after the other, on all routes, half of them streamed, until it is stopped.
type load struct {
	stop context.CancelFunc
	wait sync.WaitGroup

	mu      sync.Mutex
	answers []answer
}

// load starts one.
func (t *trial) load(ctx context.Context, c *client, url string, clients, tokens int) *load {
	l := &load{}
	asking, stop := context.WithCancel(ctx)
	l.stop = stop
	t.cleanup(stop)
	for i := range clients {
		l.wait.Go(func() {
			for n := i; asking.Err() == nil; n += clients {
				// Begun requests go on: ctx, not asking.
				a := c.do(ctx, url, ask{route: routes[n/2%len(routes)].name, prompt: fmt.Sprintf("Tell me story %d.", n%50), tokens: tokens, stream: n%2 == 0})
				l.mu.Lock()
				l.answers = append(l.answers, a)
				l.mu.Unlock()
				if a.verdict == dead && pause(ctx, tick) != nil {
					return
				}
			}
		})
	}
	return l
}

// end stops it and gives every answer, once all have ended.
func (l *load) end() []answer {
	l.stop()
	l.wait.Wait()
	return l.answers
}

// failures counts the answers that are not whole, and tells of each.
func (t *trial) failures(when string, answers []answer) int {
	n := 0
	for i := range answers {
		if answers[i].verdict != complete {
			n++
			t.failf("%s: %s", when, &answers[i])
		}
	}
	return n
}
