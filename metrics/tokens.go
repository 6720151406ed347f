package metrics

import (
	"math/rand/v2"
	"sync/atomic"
)

const (
	shards = 8
	// slots is how many of the finest buckets a shard can hold before they must have been
	// collected: eight seconds, where the publisher collects twice a second.
	slots = 16
)

// tokens counts tokens by the finest bucket they came in. It is written for each event of
// each stream, so writers do not share a lock, nor, mostly, a cache line.
type tokens struct {
	shards [shards]struct {
		slots [slots]slot
		_     [64]byte
	}
}

type slot struct {
	bucket atomic.Int64 // number of the finest bucket
	n      atomic.Int64
}

// add counts n tokens in a bucket. False where the slot still holds an older bucket: then
// the caller collects and opens the slot first.
func (t *tokens) add(bucket, n int64) bool {
	s := t.slot(rand.Uint32()%shards, bucket)
	if s.bucket.Load() != bucket {
		return false
	}
	s.n.Add(n)
	return true
}

// open makes a bucket's slots current in every shard. The slots' earlier counts must have
// been collected. A writer that looked just before and adds just after is counted with the
// new bucket: late, never lost.
func (t *tokens) open(bucket int64) {
	for i := range t.shards {
		t.slot(uint32(i), bucket).bucket.Store(bucket)
	}
}

// collect hands over and clears what has been counted.
func (t *tokens) collect(into func(bucket, n int64)) {
	for i := range t.shards {
		for j := range t.shards[i].slots {
			s := &t.shards[i].slots[j]
			if n := s.n.Swap(0); n > 0 {
				into(s.bucket.Load(), n)
			}
		}
	}
}

func (t *tokens) slot(shard uint32, bucket int64) *slot {
	return &t.shards[shard].slots[uint64(bucket)%slots]
}
