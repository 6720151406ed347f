package ledger

import (
	"slices"
	"sync"
	"time"
)

const (
	flushAfter = 50 * time.Millisecond // a row waits no longer than that for others
	flushRows  = 2048                  // rows that are enough to write at once
	maxBatch   = 4096                  // rows of one transaction
)

// queue holds what was accepted and is not on disk yet. Nothing in it blocks or is dropped.
type queue struct {
	mu      sync.Mutex
	rows    []row
	spare   []row          // memory of a batch that was written, for the next
	opened  map[string]int // id: its index in rows, where it waits as open
	workers map[string]WorkerTime
	writing int           // rows taken that are not on disk yet
	wake    chan struct{} // something waits
	full    chan struct{} // enough waits, or somebody waits for it

	synced []chan struct{} // closed once all that waits now is on disk …
	taken  []chan struct{} // … and once what was taken is
}

func newQueue() *queue {
	return &queue{opened: map[string]int{}, workers: map[string]WorkerTime{}, wake: make(chan struct{}, 1), full: make(chan struct{}, 1)}
}

// put adds a row. It takes the place of itself as open, if that still waits: then it is written
// once.
func (q *queue) put(r row) {
	q.mu.Lock()
	if i, ok := q.opened[r.ID]; ok {
		q.rows[i] = r
		if !r.open() {
			delete(q.opened, r.ID)
		}
	} else {
		if r.open() {
			q.opened[r.ID] = len(q.rows)
		}
		q.rows = append(q.rows, r)
	}
	n := len(q.rows)
	q.mu.Unlock()
	poke(q.wake)
	if n >= flushRows {
		poke(q.full)
	}
}

func (q *queue) putWorker(w WorkerTime) {
	q.mu.Lock()
	q.workers[w.Incarnation] = w
	q.mu.Unlock()
	poke(q.wake)
}

// take gives the oldest rows and what is known of the workers. They count as writing until
// done or back.
func (q *queue) take() ([]row, []WorkerTime) {
	q.mu.Lock()
	defer q.mu.Unlock()
	batch := q.rows
	if len(batch) > maxBatch {
		batch = slices.Clone(batch[:maxBatch])
	}
	q.rows = append(q.spare[:0], q.rows[len(batch):]...)
	q.spare = nil
	q.index()
	q.writing = len(batch)
	if len(q.rows) == 0 {
		q.taken, q.synced = append(q.taken, q.synced...), nil
	}
	var workers []WorkerTime
	for _, w := range q.workers {
		workers = append(workers, w)
	}
	clear(q.workers)
	return batch, workers
}

// done says that the rows taken are in the database. Their memory is used again.
func (q *queue) done(rows []row) {
	clear(rows)
	q.mu.Lock()
	q.writing, q.spare = 0, rows
	q.releaseLocked()
	q.mu.Unlock()
}

// spooled says that the rows taken are in the spool. The workers go back.
func (q *queue) spooled(workers []WorkerTime) {
	q.mu.Lock()
	q.releaseLocked()
	q.mu.Unlock()
	q.back(nil, workers)
}

func (q *queue) releaseLocked() {
	for _, c := range q.taken {
		close(c)
	}
	q.taken = nil
}

// sync gives a channel that is closed once all that was put so far is on disk, and hurries that; nil if it is.
func (q *queue) sync() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := make(chan struct{})
	switch {
	case len(q.rows) > 0:
		q.synced = append(q.synced, c)
		poke(q.full)
	case q.writing > 0:
		q.taken = append(q.taken, c)
	default:
		return nil
	}
	return c
}

// back returns what was taken. It is older than what waits, and loses to it.
func (q *queue) back(rows []row, workers []WorkerTime) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.writing = 0
	q.synced, q.taken = append(q.taken, q.synced...), nil
	q.rows = append(rows, q.rows...)
	q.index()
	for _, w := range workers {
		if _, newer := q.workers[w.Incarnation]; !newer {
			q.workers[w.Incarnation] = w
		}
	}
}

func (q *queue) index() {
	clear(q.opened)
	for i := range q.rows {
		if q.rows[i].open() {
			q.opened[q.rows[i].ID] = i
		} else {
			delete(q.opened, q.rows[i].ID)
		}
	}
}

func (q *queue) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.rows) + q.writing
}

// waiting reports whether rows wait, and whether anything does.
func (q *queue) waiting() (rows, any bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.rows) > 0, len(q.rows) > 0 || len(q.workers) > 0
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
