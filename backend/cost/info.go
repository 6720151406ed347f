package cost

import "github.com/vllmdeck/vllmdeck/backend/api"

// Earns reports whether a class has savings at all: only what a worker served in place of the
// baseline does, and what a simulated one did, which is labelled.
func Earns(class string) bool { return class == api.ClassServed || class == api.ClassSimulated }

// CostInfo is the cost_info of a priced request: what is not known is null, and a class that earns
// no savings has none.
func CostInfo(r *api.Request) *api.CostInfo {
	c := &api.CostInfo{
		Actual:    r.Actual,
		Would:     r.Would,
		Baseline:  r.Baseline,
		PriceDate: r.PriceDate,
		Basis:     r.Basis,
		Simulated: r.Simulated,
	}
	if Earns(r.Class) {
		c.Savings = Savings(r.Would, r.Actual)
		c.SavingsPercent = Percent(r.Would, r.Actual)
	}
	switch r.UsageSource {
	case api.UsageUpstream:
	case "", api.UsageUnknown:
		c.UsageSource = api.UsageUnknown
		return c
	default:
		c.UsageSource = r.UsageSource
	}
	c.PromptTokens = new(r.Usage.Prompt())
	c.CachedTokens = new(r.Usage.CacheRead)
	c.CompletionTokens = new(r.Usage.Completion())
	return c
}
