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

// Rates are what the operator says workers cost. What is nil was not said.
type Rates struct {
	GPUHour  *api.Nanos // per GPU and hour
	HostHour *api.Nanos // per hour of a worker without GPU
	PerToken *PerToken  // in place of hours: an assumption, and labelled so
}

// GPUsUnknown is the number of GPUs of an attached worker that does not say.
const GPUsUnknown = -1

// Hour is what a worker with so many GPUs costs per hour; nil: not known. The worker's own
// hour wins. GPUsUnknown makes the rate unknown: such a worker may sit on anything.
func (r Rates) Hour(gpus int, own *api.Nanos) *api.Nanos {
	switch {
	case own != nil:
		return api.Ptr(*own)
	case gpus == 0 && r.HostHour != nil:
		return api.Ptr(*r.HostHour)
	case gpus > 0 && r.GPUHour != nil && *r.GPUHour <= api.Nanos(math.MaxInt64/gpus):
		return api.Ptr(*r.GPUHour * api.Nanos(gpus))
	}
	return nil
}

// Basis is how workers' requests are costed under these rates.
func (r Rates) Basis() string {
	if r.PerToken != nil {
		return api.BasisPerToken
	}
	return api.BasisGPUTime
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
