package cost

import (
	"math"
	"math/bits"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// Share is what d of a worker costs at rate per hour, rounded to nano-dollars. It stays at the
// greatest amount where it would be past it.
func Share(rate api.Nanos, d time.Duration) api.Nanos {
	if rate <= 0 || d <= 0 {
		return 0
	}
	hi, lo := bits.Mul64(uint64(rate), uint64(d))
	n, ok := divide(hi, lo, uint64(time.Hour))
	if !ok {
		return math.MaxInt64
	}
	return n
}

// PerToken are flat rates in nano-dollars per million tokens.
type PerToken struct {
	Input  api.Nanos
	Cached *api.Nanos // nil: as Input
	Output api.Nanos
}

// Prices gives the rates as unit prices.
func (p PerToken) Prices() api.Prices {
	return api.Prices{Input: &p.Input, CacheRead: or(p.Cached, &p.Input), CacheWrite: &p.Input, Output: &p.Output}
}
