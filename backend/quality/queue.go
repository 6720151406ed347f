package quality

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// queued bounds the answers that wait for their rating.
	queued = 256
	// perSecond bounds the answers that are rated: more would say no more about the health of
	// all, and would take from the traffic what they cost (about 50 µs each).
	perSecond = 50
)

// Job is one answer to be rated off the hot path.
type Job struct {
	Model  string
	Answer Answer
	Done   func(Score) // told the score, if not nil; called from a worker of the queue
}

// Queue rates answers beside the traffic. When it is full, or not running, an answer is not
// rated: the answer itself is long with its client, and nothing ever waits here.
type Queue struct {
	workers int
	into    *Distribution
	jobs    chan Job
	dropped atomic.Int64
	next    atomic.Int64 // unix nanoseconds at which the next answer is due, at perSecond
}

// NewQueue makes a queue that rates with so many workers (at least one) into a distribution.
func NewQueue(workers int, into *Distribution) *Queue {
	return &Queue{workers: max(1, workers), into: into, jobs: make(chan Job, queued)}
}

// Offer queues an answer. False if it will not be rated: because the queue is full, which is
// counted; because more than 50 a second came for longer than a burst, which is counted too; or
// because there is no text to rate, as in an answer that only calls tools.
func (q *Queue) Offer(j Job) bool {
	if strings.TrimSpace(j.Answer.Text) == "" && (j.Answer.Finish == "tool_calls" || j.Answer.Finish == "function_call") {
		return false
	}
	if !q.due(time.Now().UnixNano()) {
		q.dropped.Add(1)
		return false
	}
	j.Answer = j.Answer.trimmed()
	select {
	case q.jobs <- j:
		return true
	default:
		q.dropped.Add(1)
		return false
	}
}

// Wants says whether an answer that came now would be rated. One that is not wanted counts as
// dropped, so it need not be offered.
func (q *Queue) Wants() bool {
	if len(q.jobs) < cap(q.jobs) && q.next.Load() < time.Now().UnixNano() {
		return true
	}
	q.dropped.Add(1)
	return false
}

// due takes one of perSecond places, of which a burst as long as the queue may come at once.
func (q *Queue) due(now int64) bool {
	const every = int64(time.Second) / perSecond
	for {
		next := q.next.Load()
		at := max(next, now-queued*every)
		if at >= now {
			return false
		}
		if q.next.CompareAndSwap(next, at+every) {
			return true
		}
	}
}

// Dropped is how many answers with text were not rated, because too many came.
func (q *Queue) Dropped() int64 { return q.dropped.Load() }

// Run rates until ctx is done; what is queued then stays unrated.
func (q *Queue) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for range q.workers {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case j := <-q.jobs:
					s := Rate(j.Answer)
					q.into.Add(time.Now(), j.Model, s)
					if j.Done != nil {
						j.Done(s)
					}
				}
			}
		})
	}
	wg.Wait()
	return nil
}

// trimmed keeps only what Rate looks at, so that a full queue holds little.
func (a Answer) trimmed() Answer {
	if len(a.Text) > maxText {
		a.Text = a.Text[:maxText/2] + a.Text[len(a.Text)-maxText/2:]
	}
	if len(a.Prompt) > 2*maxContext {
		a.Prompt = strings.Clone(a.Prompt[len(a.Prompt)-2*maxContext:])
	}
	return a
}
