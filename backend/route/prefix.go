package route

import (
	"hash/maphash"
	"math/bits"
	"sync"
)

// Prefixes remembers which upstream was sent which beginnings of prompts, and so where a prompt's beginning is likely
// to be in the prefix cache still. vLLM's own block hashes are over token ids and cannot be had without its tokenizer;
// so beginnings are told apart by the bytes of the request: a conversation that goes on keeps all bytes of its past.
//
// It is an estimate and needs no more: memory is fixed (1.5 MiB), what was not used for long is forgotten, as
// a cache forgets it. The zero Prefixes is ready; it may be used from many goroutines.
type Prefixes struct {
	seed maphash.Seed
	once sync.Once

	mu    sync.Mutex
	sets  [][ways]link
	clock uint32
	names map[string]int // upstream: its bit
	known uint64         // bits of upstreams that links name
}

const (
	ways    = 4       // links that share a place in the table; the one unused for longest makes room
	nSets   = 1 << 14 // x ways = 65,536 links: the last 3,000 conversations of 20 kB
	maxBits = 64      // upstreams
)

// link is one beginning of a prompt: the hash of all its bytes, and who was sent it.
type link struct {
	hash uint64
	who  uint64
	used uint32
}

// ends are where beginnings end, in bytes: dense at first, where most prompts part, and then in proportion. A step
// of 128 bytes is about two of vLLM's blocks.
var ends = func() (e [32]int) {
	at, i := 0, 0
	for _, part := range [...]struct{ step, n int }{{128, 8}, {512, 6}, {2048, 6}, {8192, 6}, {32768, 6}} {
		for range part.n {
			at += part.step
			e[i] = at
			i++
		}
	}
	return e
}()

// Chain is the beginnings of one prompt.
type Chain struct {
	hash [len(ends)]uint64
	n    int
	size int // bytes of the prompt, as far as beginnings reach
}

// Chain fills dst with the beginnings of prompt, which is the part of a request that the model is given, as it is
// written.
func (p *Prefixes) Chain(dst *Chain, prompt []byte) {
	p.once.Do(p.prepare)
	dst.n, dst.size = 0, min(len(prompt), ends[len(ends)-1])
	from, h := 0, uint64(0)
	for i, end := range ends {
		if end > len(prompt) {
			break
		}
		// Each hash covers the one before it, and with that all bytes from the first on.
		h = bits.RotateLeft64(h*0x9e3779b97f4a7c15, 31) ^ maphash.Bytes(p.seed, prompt[from:end])
		dst.hash[i] = h | 1 // 0 is an empty place
		dst.n, from = i+1, end
	}
}

func (p *Prefixes) prepare() {
	p.seed = maphash.MakeSeed()
	p.sets = make([][ways]link, nSets)
	p.names = map[string]int{}
}

// Rate fills in the Prefix of each candidate. What is known of one that is not ready is forgotten: it comes back
// with an empty cache.
func (p *Prefixes) Rate(c *Chain, cands []Candidate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var who [len(ends)]uint64
	n := 0
	for n < c.n {
		l := p.findLocked(c.hash[n])
		if l == nil {
			break
		}
		who[n] = l.who
		n++
	}
	for i := range cands {
		u := &cands[i]
		u.Prefix = 0
		bit, ok := p.names[u.ID]
		if !ok {
			continue
		}
		mask := uint64(1) << bit
		if !u.Ready {
			p.forgetLocked(mask)
			continue
		}
		depth := 0
		for depth < n && who[depth]&mask != 0 {
			depth++
		}
		if depth > 0 {
			u.Prefix = float64(ends[depth-1]) / float64(c.size)
		}
	}
}

// Add notes that upstream id was sent a prompt.
func (p *Prefixes) Add(c *Chain, id string) {
	if c.n == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	bit, ok := p.names[id]
	if !ok {
		if len(p.names) == maxBits { // names come and go with the config: begin anew
			clear(p.names)
			clear(p.sets)
			p.known = 0
		}
		bit = len(p.names)
		p.names[id] = bit
	}
	mask := uint64(1) << bit
	p.known |= mask
	p.clock++
	for i := range c.n {
		h := c.hash[i]
		set := &p.sets[h>>32%nSets]
		at := 0
		for k := range set {
			if set[k].hash == h {
				at = k
				break
			}
			if p.clock-set[k].used > p.clock-set[at].used {
				at = k
			}
		}
		l := &set[at]
		if l.hash != h {
			l.hash, l.who = h, 0
		}
		l.who |= mask
		l.used = p.clock
	}
}

// findLocked gives the link with that hash, and keeps it from being forgotten for a while.
func (p *Prefixes) findLocked(h uint64) *link {
	set := &p.sets[h>>32%nSets]
	for k := range set {
		if set[k].hash == h {
			set[k].used = p.clock
			return &set[k]
		}
	}
	return nil
}

// forgetLocked takes an upstream out of all links.
func (p *Prefixes) forgetLocked(mask uint64) {
	if p.known&mask == 0 {
		return
	}
	p.known &^= mask
	for i := range p.sets {
		for k := range p.sets[i] {
			p.sets[i][k].who &^= mask
		}
	}
}
