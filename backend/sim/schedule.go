package sim

import (
	"slices"
	"time"
)

// schedule picks the work of the next step and says how long it takes; 0: there is none.
func (e *engine) schedule() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dead {
		return 0
	}
	e.sweepLocked()
	budget, decoding, prefill := batchedTok, 0, 0
	preempted := false
	give := func(q *seq, n int) {
		q.chunk = n
		budget -= n
		if q.computed+n > len(q.prompt) && n == 1 {
			decoding++
		} else {
			prefill += n
		}
	}
	for i := 0; i < len(e.running); i++ { //nolint:intrange // running shrinks on the way
		q := e.running[i]
		n := min(budget, q.total()-q.computed)
		q.chunk = 0
		for n > 0 && !e.reserveLocked(q, q.computed+n) {
			// vLLM takes the place of the request that came last, be it this one.
			victim := e.running[len(e.running)-1]
			e.preemptLocked(victim)
			preempted = true
			if victim == q {
				n = 0
			}
		}
		if n > 0 {
			give(q, n)
		}
	}
	for !preempted && budget > 0 && len(e.waiting) > 0 && len(e.running) < e.o.MaxSeqs {
		q := e.waiting[0]
		n, ok := e.enterLocked(q, budget)
		if !ok {
			break
		}
		e.waiting = e.waiting[1:]
		e.running = append(e.running, q)
		give(q, n)
	}
	if len(e.running) == 0 {
		e.gaugesLocked()
		return 0
	}
	return e.stepTime(decoding, prefill)
}

// enterLocked gives a waiting sequence its first blocks and the size of its first chunk.
func (e *engine) enterLocked(q *seq, budget int) (int, bool) {
	total := q.total()
	q.hashTo(total)
	// The last token is always computed: its output is what is wanted.
	hit, free := e.kv.match(q.hashes[:min(len(q.hashes), (total-1)/blockSize)])
	n := min(budget, total-len(hit)*blockSize)
	need := (len(hit)*blockSize+n+blockSize-1)/blockSize - len(hit)
	if need > e.kv.free-free {
		return 0, false
	}
	for _, b := range hit {
		e.kv.hold(b)
	}
	q.blocks = append(q.blocks[:0], hit...)
	q.computed = len(hit) * blockSize
	e.reserveLocked(q, q.computed+n)
	if q.preempted == 0 && q.scheduled.IsZero() {
		q.scheduled = time.Now()
		q.cached.Store(int32(q.computed))
		q.created.Store(int32(len(q.prompt)/blockSize*blockSize - q.computed))
		e.m.lookup(total, q.computed)
	}
	return n, true
}

// reserveLocked makes sure that q has blocks for n tokens, and names those that the step fills.
func (e *engine) reserveLocked(q *seq, n int) bool {
	for len(q.blocks)*blockSize < n {
		if e.kv.free == 0 {
			return false
		}
		q.blocks = append(q.blocks, e.kv.take())
	}
	q.hashTo(n)
	for i := q.computed / blockSize; i < n/blockSize; i++ {
		e.kv.seal(q.blocks[i], q.hashes[i])
	}
	return true
}

// preemptLocked takes a running sequence's blocks away and queues it again, first in line. Its
// tokens are computed anew, except for what the prefix cache still has.
func (e *engine) preemptLocked(q *seq) {
	e.kv.drop(q.blocks)
	q.blocks, q.computed, q.chunk = q.blocks[:0], 0, 0
	q.preempted++
	e.m.preemptions.add(1)
	e.running = slices.DeleteFunc(e.running, func(r *seq) bool { return r == q })
	e.waiting = slices.Insert(e.waiting, 0, q)
}

// sweepLocked lets go of sequences whose client has gone. vLLM does not count them as aborted.
func (e *engine) sweepLocked() {
	gone := func(q *seq) bool {
		if !q.aborted.Load() {
			return false
		}
		e.kv.drop(q.blocks)
		q.blocks = nil
		e.leaveLocked(1)
		return true
	}
	e.running = slices.DeleteFunc(e.running, gone)
	e.waiting = slices.DeleteFunc(e.waiting, gone)
	e.nap.parked = slices.DeleteFunc(e.nap.parked, gone)
}

// commit lets the step's tokens out.
func (e *engine) commit() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dead {
		return
	}
	now := time.Now()
	e.sweepLocked()
	out, computed := 0, 0
	e.running = slices.DeleteFunc(e.running, func(q *seq) bool {
		q.computed += q.chunk
		if q.chunk == 0 || q.computed < q.total() {
			return false
		}
		q.chunk = 0
		n := int(q.produced.Add(1))
		out++
		if n == 1 {
			q.first = now
			computed += len(q.prompt) - int(q.cached.Load())
			e.m.firstToken(q)
		} else {
			e.m.nextToken(now.Sub(q.last))
		}
		q.last = now
		defer q.job.signal()
		if n < len(q.ids) {
			return false
		}
		e.kv.drop(q.blocks)
		q.blocks = nil
		e.leaveLocked(1)
		q.job.left--
		e.m.finish(q, now)
		q.state.Store(seqDone)
		return true
	})
	if out > 0 {
		e.m.step(out, computed)
	}
	e.gaugesLocked()
}

func (e *engine) gaugesLocked() {
	e.m.gauges(len(e.running), len(e.waiting), e.kv.usage())
}
