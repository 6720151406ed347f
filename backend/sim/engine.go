package sim

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// How a sequence stands, as its handler sees it.
const (
	seqRunning int32 = iota
	seqDone
	seqDead // the engine died
)

var (
	errEngineDead = errors.New("EngineCore encountered an issue. See stack trace (above) for the root cause.") //nolint:revive,staticcheck // vLLM's words
	errDraining   = errors.New("cannot schedule new futures after shutdown")
	errBusy       = errors.New("The engine is currently busy and cannot accept new requests. Please try again later or on a different instance.") //nolint:revive,staticcheck // vLLM's words
)

// seq is one answer in the engine. What it will say is known beforehand (ids); the engine only
// decides when each token is out.
type seq struct {
	prompt []int32
	ids    []int32 // of the answer, the end token included
	reason string  // finished_reason
	maxTok int     // asked for
	salt   uint64  // prefix cache isolation
	job    *job

	produced atomic.Int32
	state    atomic.Int32
	aborted  atomic.Bool
	cached   atomic.Int32 // prompt tokens found in the prefix cache
	created  atomic.Int32 // prompt tokens that the prefix cache gained

	// The engine's own, under its lock.
	arrived, queued, first, last time.Time
	scheduled                    time.Time
	computed                     int // tokens whose KV is there
	chunk                        int // tokens of the step that runs
	blocks                       []int32
	hashes                       []uint64 // of full blocks of prompt and answer
	preempted                    int
}

func (q *seq) total() int { return len(q.prompt) + int(q.produced.Load()) }

// token is the i-th of prompt and answer.
func (q *seq) token(i int) int32 {
	if i < len(q.prompt) {
		return q.prompt[i]
	}
	return q.ids[i-len(q.prompt)]
}

// hashTo extends the block hashes to n tokens.
func (q *seq) hashTo(n int) {
	var buf [blockSize]int32
	for len(q.hashes) < n/blockSize {
		at := len(q.hashes) * blockSize
		for i := range buf {
			buf[i] = q.token(at + i)
		}
		prev := q.salt
		if len(q.hashes) > 0 {
			prev = q.hashes[len(q.hashes)-1]
		}
		q.hashes = append(q.hashes, chain(prev, buf[:]))
	}
}

// job is one HTTP request in the engine: one sequence per choice.
type job struct {
	seqs []*seq
	n    int           // choices per prompt
	left int           // sequences not finished, under the engine's lock
	wake chan struct{} // capacity 1: something came out
}

func (j *job) signal() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// engine runs sequences in steps, as vLLM's does: each step gives every decoding sequence one
// token and shares what is left of the token budget among prompts.
type engine struct {
	o    Options
	m    *metrics
	kick chan struct{} // capacity 1: there is something to do

	mu       sync.Mutex
	rng      *rand.Rand
	slow     float64
	kv       *kvCache
	waiting  []*seq
	running  []*seq
	inflight int // admitted and not finished: running, waiting and on their way in
	dead     bool
	draining bool
	frozen   bool
	nap      nap
	thaw     chan struct{} // closed and replaced when frozen ends
	idle     chan struct{} // closed when draining and empty
	gone     chan struct{} // closed when dead
}

func newEngine(o Options, m *metrics) *engine {
	e := &engine{
		o: o, m: m, kick: make(chan struct{}, 1), slow: 1,
		rng:  rand.New(rand.NewPCG(uint64(o.Seed), 0x71c5)),
		kv:   newKV(o.KVTokens / blockSize),
		thaw: make(chan struct{}), idle: make(chan struct{}), gone: make(chan struct{}),
	}
	if f := o.fault("slow"); f != nil {
		e.slow = f.X
	}
	return e
}

// perToken is the prefill cost of one prompt token.
func (e *engine) perToken() time.Duration { return e.o.TTFT / 1024 }

// frontTime is what a request spends before the scheduler sees it (HTTP, template, tokenizer):
// what is left of the mean TTFT after one step with a prompt of 100 tokens.
func (e *engine) frontTime() time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	mean := e.o.TTFT - e.o.ITL - 100*e.perToken()
	return e.jitter(max(0, mean), 0.2)
}

// jitter spreads d log-normally around its mean.
func (e *engine) jitter(d time.Duration, sigma float64) time.Duration {
	return time.Duration(float64(d) * e.slow * math.Exp(sigma*e.rng.NormFloat64()-sigma*sigma/2))
}

// stepTime is how long a step takes: a step with one sequence is the mean ITL, each further
// one adds 1.2 % (memory-bound decoding), prompts add their compute, and one step in a hundred
// is late.
func (e *engine) stepTime(decoding, prefill int) time.Duration {
	d := float64(e.o.ITL) * (1 + 0.012*float64(max(0, decoding-1)))
	d += float64(e.perToken()) * float64(prefill)
	if e.rng.IntN(100) == 0 {
		d *= 1.7
	}
	return max(50*time.Microsecond, e.jitter(time.Duration(d), 0.07))
}

// admit counts n sequences in, or says why not.
func (e *engine) admit(n int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.dead:
		return errEngineDead
	case e.draining:
		return errDraining
	case e.o.MaxQueued > 0 && e.inflight+n > e.o.MaxQueued:
		e.m.rejected.add(1)
		return errBusy
	}
	e.inflight += n
	return nil
}

// leave undoes admit for sequences that never reached submit.
func (e *engine) leave(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leaveLocked(n)
}

func (e *engine) leaveLocked(n int) {
	e.inflight -= n
	if e.inflight == 0 && e.draining {
		select {
		case <-e.idle:
		default:
			close(e.idle)
		}
	}
}

// submit queues an admitted job.
func (e *engine) submit(j *job, arrived time.Time) {
	e.mu.Lock()
	now := time.Now()
	j.left = len(j.seqs)
	for _, q := range j.seqs {
		q.arrived, q.queued = arrived, now
		if e.dead {
			q.state.Store(seqDead)
			continue
		}
		if e.nap.paused {
			e.nap.parked = append(e.nap.parked, q)
			continue
		}
		e.waiting = append(e.waiting, q)
	}
	if e.dead {
		e.leaveLocked(len(j.seqs))
	}
	e.mu.Unlock()
	j.signal()
	e.poke()
}

func (e *engine) poke() {
	select {
	case e.kick <- struct{}{}:
	default:
	}
}

// abort ends a job whose client has gone. The engine notices at its next step.
func (e *engine) abort(j *job) {
	for _, q := range j.seqs {
		q.aborted.Store(true)
	}
	e.poke()
}

// die ends the engine: everything in flight gets an error.
func (e *engine) die() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.dead {
		return
	}
	e.dead = true
	close(e.gone)
	for _, qs := range [][]*seq{e.running, e.waiting, e.nap.parked} {
		for _, q := range qs {
			q.state.Store(seqDead)
			q.job.signal()
		}
	}
	e.leaveLocked(len(e.running) + len(e.waiting) + len(e.nap.parked))
	e.running, e.waiting, e.nap.parked = nil, nil, nil
}

// drain refuses what is new. The channel is closed when nothing is in flight.
func (e *engine) drain() <-chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.draining = true
	e.leaveLocked(0)
	return e.idle
}

// freeze stops the engine between two steps, as SIGSTOP does, until it is called with false.
func (e *engine) freeze(on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.frozen && !on {
		close(e.thaw)
		e.thaw = make(chan struct{})
	}
	e.frozen = on
}

// run steps until the context or the engine ends.
func (e *engine) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if !e.unfrozen(ctx) {
			return
		}
		d := e.schedule()
		if d == 0 {
			select {
			case <-ctx.Done():
				return
			case <-e.gone:
				return
			case <-e.kick:
			}
			continue
		}
		timer.Reset(d)
		select {
		case <-ctx.Done():
			return
		case <-e.gone:
			return
		case <-timer.C:
		}
		if !e.unfrozen(ctx) {
			return
		}
		e.commit()
	}
}

// unfrozen waits while the engine is frozen; false: it has ended.
func (e *engine) unfrozen(ctx context.Context) bool {
	for {
		e.mu.Lock()
		frozen, thaw, dead := e.frozen, e.thaw, e.dead
		e.mu.Unlock()
		if dead {
			return false
		}
		if !frozen {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-e.gone:
			return false
		case <-thaw:
		}
	}
}
