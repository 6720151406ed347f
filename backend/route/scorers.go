package route

// Scorer rates how well c suits r, from 0 (worst) to 1.
type Scorer func(r Request, c *Candidate) float64

// Scorers are summed by weight. The weights add up to 1.
var Scorers = []struct {
	Name   string
	Weight float64
	Rate   Scorer
}{
	{"load", 0.6, load},
	{"kv", 0.2, kv},
	{"prefix", 0.2, prefix},
}

// Score is the weighted sum of all Scorers, in [0,1].
func Score(r Request, c *Candidate) float64 {
	sum := 0.0
	for i := range Scorers {
		sum += Scorers[i].Weight * Scorers[i].Rate(r, c)
	}
	return sum
}

// defaultSeqs stands in for max_num_seqs where that is not known: vLLM's own default.
const defaultSeqs = 256

// load is the share of the batch that is free. What the server holds back in its own queue
// counts too: it may be other people's requests, which InFlight does not see.
func load(_ Request, c *Candidate) float64 {
	seqs := c.MaxSeqs
	if seqs <= 0 {
		seqs = defaultSeqs
	}
	busy := float64(max(c.InFlight, 0))
	if c.Waiting > 0 {
		busy += c.Waiting
	}
	return unit(1 - busy/float64(seqs))
}

// kv is a barrier, not a balance: flat while there is room, steep where the cache is nearly
// full and vLLM begins to preempt. The figure is up to a second old, so below that it must not
// outweigh InFlight, which is exact.
func kv(_ Request, c *Candidate) float64 {
	k := unit(c.KV)
	return 1 - k*k*k*k
}

// prefix draws a conversation back to where its past is cached. The share is squared, so that a system prompt
// that all requests have in common does not herd them; and the weight is such that a conversation's
// worker may have at most a third of its batch more to do than another.
func prefix(_ Request, c *Candidate) float64 {
	p := unit(c.Prefix)
	return p * p
}

// unit clamps to [0,1]; NaN gives 0.
func unit(v float64) float64 {
	switch {
	case v >= 1:
		return 1
	case v > 0:
		return v
	}
	return 0
}
