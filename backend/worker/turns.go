package worker

import (
	"slices"
	"sync"
)

// turns lets one server at a time start on a GPU: while a vLLM measures how much memory there is, it takes
// whatever another one allocates for its own (vLLM issues 10643 and 55827).
type turns struct {
	mu    sync.Mutex
	held  map[*life]turn
	freed chan struct{} // closed when a turn is given back
}

type turn struct {
	worker string
	gpus   []string
}

func newTurns() *turns { return &turns{held: map[*life]turn{}, freed: make(chan struct{})} }

// take gives l its turn on all of the GPUs, or says who is starting on one of them and gives a channel that
// is closed when it is worth asking again.
func (t *turns) take(l *life, worker string, gpus []string) (by, gpu string, again <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for other, h := range t.held {
		if other == l {
			continue
		}
		for _, g := range gpus {
			if slices.Contains(h.gpus, g) {
				return h.worker, g, t.freed
			}
		}
	}
	t.held[l] = turn{worker, gpus}
	return "", "", nil
}

// claim is take for a server that starts already.
func (t *turns) claim(l *life, worker string, gpus []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held[l] = turn{worker, gpus}
}

// give ends l's turn, if it has one.
func (t *turns) give(l *life) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.held[l]; ok {
		delete(t.held, l)
		close(t.freed)
		t.freed = make(chan struct{})
	}
}
