package route

import "slices"

// Reason says why a candidate was picked, or why none was.
type Reason uint8

// The reasons of a choice.
const (
	Best     Reason = iota // rated best
	Tie                    // one of several that are rated best, at random
	Last                   // its breaker is open, but no other worker is left
	Failover               // a provider, because no worker can

	Empty    // there is no candidate at all
	Down     // none is ready, and none will be by itself
	Starting // none is ready, but one will be
	Tried    // all that are ready failed this request already
	Full     // all that are ready run as many requests as they can
)

var reasons = [...]string{"best", "tie", "last", "failover", "empty", "down", "starting", "tried", "full"}

func (r Reason) String() string { return reasons[r] }

// Picked reports whether the reason is that of a choice.
func (r Reason) Picked() bool { return r <= Failover }

// Pick chooses the candidate that serves req and gives its index, or -1. rnd decides between
// equals and should be random. It allocates nothing.
//
// A breaker never takes the last worker away: when every worker that is ready and was not tried
// has an open one, they are all considered. A worker that is merely full is not passed over for
// one whose breaker is open.
//
// A provider costs money: it serves when no worker can, which is at once if none is there, and
// after the wait (Overflow) if one was coming. While workers only have too much to do, it takes one
// that may serve then too (Overload).
func Pick(req Request, cands []Candidate, rnd uint64) (int, Reason) {
	if i, why := pick(req, cands, rnd, false, false); i >= 0 {
		return i, why
	}
	why := none(req, cands)
	if (why == Full || why == Starting) && !req.Overflow {
		return -1, why
	}
	busy := why == Full || why == Tried && req.Busy
	if i, _ := pick(req, cands, rnd, true, busy); i >= 0 {
		return i, Failover
	}
	return -1, why
}

// pick chooses among the workers, or among the providers; if the workers are only busy, among those
// that may serve then.
func pick(req Request, cands []Candidate, rnd uint64, providers, busy bool) (int, Reason) {
	closed := false // somebody's breaker is closed
	for i := range cands {
		if c := &cands[i]; c.Provider == providers && !c.Open && c.Ready && !req.tried(c.ID) {
			closed = true
			break
		}
	}
	best, ties, at, other := -1.0, 0, -1, -1
	for i := range cands {
		c := &cands[i]
		if c.Provider != providers || !c.Ready || c.full() || req.tried(c.ID) || c.Open && (closed || providers) || busy && !c.Overload {
			continue
		}
		switch s := Score(req, c); {
		case s > best+tie:
			best, ties, at, other = s, 1, i, -1
		case s > best-tie:
			// Of n that are as good as equal two are kept: each is at with probability 1/n.
			ties++
			switch rnd % uint64(ties) {
			case 0:
				if ties == 2 {
					other = at
				}
				at = i
			case 1:
				other = i
			}
			rnd = rnd*6364136223846793005 + 1442695040888963407
			rnd ^= rnd >> 32
		}
	}
	if other >= 0 && busier(&cands[at], &cands[other]) {
		at = other // the better of two at random: many who look at the same figures do not all go to one
	}
	switch {
	case at < 0:
		return -1, Empty
	case cands[at].Open:
		return at, Last
	case ties > 1:
		return at, Tie
	}
	return at, Best
}

// busier reports whether a has more of its batch to do than b.
func busier(a, b *Candidate) bool {
	return load(Request{}, a) < load(Request{}, b)
}

// tie is how near two scores must be to count as equal: figures that are a second old differ by as much for no reason.
const tie = 1e-3

// none says why no worker was picked. The strongest hope wins: full before starting before tried.
func none(req Request, cands []Candidate) Reason {
	paid := false // a provider would take the request now
	for i := range cands {
		c := &cands[i]
		paid = paid || c.Provider && c.Ready && !c.Open
	}
	why := Empty
	for i := range cands {
		c := &cands[i]
		if c.Provider {
			if why == Empty {
				why = Down
			}
			continue
		}
		r := Down
		switch {
		case c.Ready && req.tried(c.ID):
			r = Tried
		case c.Ready:
			r = Full
		case c.Coming && (!c.Late || !paid):
			r = Starting
		}
		if why == Empty || hope[r] > hope[why] {
			why = r
		}
	}
	return why
}

var hope = [...]int{Down: 0, Tried: 1, Starting: 2, Full: 3}

func (c *Candidate) full() bool { return c.Busy || c.MaxSeqs > 0 && c.InFlight >= c.MaxSeqs }

func (r *Request) tried(id string) bool {
	return len(r.Tried) > 0 && slices.Contains(r.Tried, id)
}
