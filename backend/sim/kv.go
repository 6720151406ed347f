package sim

import "slices"

// kvCache is vLLM's paged KV cache: blocks of blockSize tokens. A block that is full has a
// hash of all tokens up to its end; a freed block keeps its hash, so that a later prompt with
// the same beginning finds it, until the block is needed (least recently freed first).
type kvCache struct {
	hash       []uint64 // of a block's content and all before it; 0: none
	ref        []int32  // live sequences that hold the block
	prev, next []int32  // of the free list; the sentinel is the last entry
	byHash     map[uint64]int32
	free       int
}

func newKV(blocks int) *kvCache {
	k := &kvCache{
		hash: make([]uint64, blocks), ref: make([]int32, blocks),
		prev: make([]int32, blocks+1), next: make([]int32, blocks+1),
		byHash: map[uint64]int32{},
	}
	end := int32(blocks)
	k.prev[end], k.next[end] = end, end
	for i := range blocks {
		k.push(int32(i))
	}
	return k
}

func (k *kvCache) blocks() int { return len(k.hash) }

// usage is the share of blocks that live sequences hold: cached but free blocks count as free.
func (k *kvCache) usage() float64 { return float64(k.blocks()-k.free) / float64(k.blocks()) }

func (k *kvCache) push(b int32) { // to the end of the free list
	end := int32(len(k.hash))
	last := k.prev[end]
	k.next[last], k.prev[b], k.next[b], k.prev[end] = b, last, end, b
	k.free++
}

func (k *kvCache) unlink(b int32) {
	k.next[k.prev[b]], k.prev[k.next[b]] = k.next[b], k.prev[b]
	k.free--
}

// match gives the cached blocks of the longest known beginning of hashes, taking none, and how
// many of them are on the free list.
func (k *kvCache) match(hashes []uint64) (hit []int32, free int) {
	for _, h := range hashes {
		b, ok := k.byHash[h]
		if !ok {
			break
		}
		if k.ref[b] == 0 {
			free++
		}
		hit = append(hit, b)
	}
	return hit, free
}

func (k *kvCache) hold(b int32) {
	if k.ref[b] == 0 {
		k.unlink(b)
	}
	k.ref[b]++
}

// take gives an empty block; the caller has seen that free > 0.
func (k *kvCache) take() int32 {
	b := k.next[len(k.hash)]
	k.unlink(b)
	if h := k.hash[b]; h != 0 {
		delete(k.byHash, h)
		k.hash[b] = 0
	}
	k.ref[b] = 1
	return b
}

// seal names a full block. A block with the same content keeps the name.
func (k *kvCache) seal(b int32, h uint64) {
	if _, ok := k.byHash[h]; ok || k.hash[b] != 0 {
		return
	}
	k.byHash[h], k.hash[b] = b, h
}

// drop gives blocks back, last first, so that the beginning of a prompt is evicted last.
func (k *kvCache) drop(bs []int32) {
	for _, b := range slices.Backward(bs) {
		if k.ref[b]--; k.ref[b] == 0 {
			k.push(b)
		}
	}
}

// chain hashes the next block of tokens onto prev.
func chain(prev uint64, tokens []int32) uint64 {
	h := prev ^ 0x9e3779b97f4a7c15
	for _, t := range tokens {
		h = mix(h ^ uint64(uint32(t)))
	}
	return h | 1 // never 0, which means none
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
