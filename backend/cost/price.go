package cost

import (
	"math"
	"math/bits"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// million is the number of tokens that a unit price is for.
const million = 1_000_000

// Price is what one provider charges for one model from a day on.
type Price struct {
	Ref        string // provider/model, e.g. openai/gpt-4o-mini
	api.Prices        // nano-dollars per million tokens; nil: not offered or not known
	Date       string // YYYY-MM-DD: the day its source was read, or the announced first day of a later price
	Source     string // who publishes it: SourceLiteLLM or SourceGenAI
}

// Cost is what u is billed at p. It is false where a class with tokens has no price.
func (p Price) Cost(u api.Usage) (api.Nanos, bool) { return Cost(p.Prices, u) }

// Cost is what u is billed at unit prices p, rounded once to nano-dollars, half away from
// zero. It is false where a class with tokens has no price, where a count or price is
// negative, and where the amount is past what Nanos holds.
//
// Cached prompt tokens without a cache price of their own are billed as input: that is what a
// provider without cache pricing does. The usual tenth of the input price is a guess and is
// not made here. Reasoning tokens are billed as output.
func Cost(p api.Prices, u api.Usage) (api.Nanos, bool) {
	return bill(p, u, 1, 1, million)
}

// bill sums price × tokens × weight over the classes and divides by scale, which is a million
// times the unit of the weights. The sum is exact in 128 bits, so that only the division rounds.
func bill(p api.Prices, u api.Usage, prompt, completion, scale uint64) (api.Nanos, bool) {
	var hi, lo uint64
	for _, t := range [...]struct {
		tokens int64
		price  *api.Nanos
		weight uint64
	}{
		{u.Input, p.Input, prompt},
		{u.CacheRead, or(p.CacheRead, p.Input), prompt},
		{u.CacheWrite, or(p.CacheWrite, p.Input), prompt},
		{u.Output, p.Output, completion},
		{u.Reasoning, p.Output, completion},
	} {
		if t.tokens == 0 {
			continue
		}
		if t.tokens < 0 || t.price == nil || *t.price < 0 {
			return 0, false
		}
		over, unit := bits.Mul64(uint64(*t.price), t.weight)
		if over != 0 {
			return 0, false
		}
		h, l := bits.Mul64(unit, uint64(t.tokens))
		var carry uint64
		lo, carry = bits.Add64(lo, l, 0)
		if hi, carry = bits.Add64(hi, h, carry); carry != 0 {
			return 0, false
		}
	}
	return divide(hi, lo, scale)
}

// divide rounds (hi, lo)/d to nano-dollars, half up: the amount is never negative here.
func divide(hi, lo, d uint64) (api.Nanos, bool) {
	lo, carry := bits.Add64(lo, d/2, 0)
	hi, carry = bits.Add64(hi, 0, carry)
	if carry != 0 || hi >= d {
		return 0, false
	}
	q, _ := bits.Div64(hi, lo, d)
	if q > math.MaxInt64 {
		return 0, false
	}
	return api.Nanos(q), true
}

func or(a, b *api.Nanos) *api.Nanos {
	if a != nil {
		return a
	}
	return b
}
