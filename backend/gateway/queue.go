package gateway

import (
	"container/list"
	"sync"
)

// queue is the requests that wait for a worker of one model, first come first served. Only the
// first looks for a place: hundreds that all look at each change would starve the worker's own host.
type queue struct {
	mu      sync.Mutex
	waiters list.List // of *waiter
}

// waiter is one request in a queue.
type waiter struct {
	first chan struct{} // closed when the request is the first
	at    *list.Element
}

// empty reports whether nobody waits.
func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.waiters.Len() == 0
}

// join lines a request up; in front if it has been with a worker before. False if limit
// requests wait already.
func (q *queue) join(front bool, limit int) (*waiter, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.waiters.Len() >= limit && !front {
		return nil, false
	}
	w := &waiter{first: make(chan struct{})}
	switch head := q.waiters.Front(); {
	case head == nil:
		w.at = q.waiters.PushFront(w)
		close(w.first)
	case front:
		w.at = q.waiters.InsertAfter(w, head) // the first is looking: it stays the first
	default:
		w.at = q.waiters.PushBack(w)
	}
	return w, true
}

// leave takes a request out; the next one becomes the first.
func (q *queue) leave(w *waiter) {
	q.mu.Lock()
	defer q.mu.Unlock()
	was := q.waiters.Front() == w.at
	q.waiters.Remove(w.at)
	if head := q.waiters.Front(); was && head != nil {
		close(head.Value.(*waiter).first)
	}
}
