package backend

import (
	"fmt"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
	"github.com/vllmdeck/vllmdeck/config"
)

// pricing is everything that money figures come from, of one config; immutable.
type pricing struct {
	table     *cost.Table
	rates     cost.Rates
	hours     map[string]*api.Nanos // worker: what an hour of it costs; nil: not known
	baselines map[string]string     // model: reference of the price table
	baseline  string                // the default one
	hostile   string                // "" finds it by model
	label     string
	anyHost   bool // some worker has no GPU
	anyGPU    bool
	noGPUs    []string // attached workers that do not say how many GPUs they use
}

func newPricing(table *cost.Table, c *config.Config) *pricing {
	p := &pricing{
		table: table, hours: map[string]*api.Nanos{}, baselines: map[string]string{},
		baseline: c.Cost.Baseline, hostile: c.Cost.Hostile, label: c.Cost.Label,
		rates: cost.Rates{GPUHour: c.Cost.GPUHour, HostHour: c.Cost.HostHour},
	}
	if t := c.Cost.PerToken; t != nil {
		p.rates.PerToken = &cost.PerToken{Input: t.Input, Cached: t.Cached, Output: t.Output}
	}
	for _, m := range c.AllModels() {
		p.baselines[m.Name] = m.Baseline
	}
	for _, w := range c.Workers {
		n := gpusOf(&w)
		p.hours[w.Name] = p.rates.Hour(n, w.Hour)
		switch {
		case w.Hour != nil:
		case n == cost.GPUsUnknown:
			p.noGPUs = append(p.noGPUs, w.Name)
		case n == 0:
			p.anyHost = true
		default:
			p.anyGPU = true
		}
	}
	return p
}

// gpusOf is how many GPUs a worker uses. An attached one that does not say may sit on any number.
func gpusOf(w *config.Worker) int {
	switch {
	case w.NGPUs > 0:
		return w.NGPUs
	case w.VLLM != nil:
		return len(w.VLLM.GPUs)
	case w.Attach != "":
		return cost.GPUsUnknown
	}
	return 0
}

// price fills the cost fields of a request.
func (p *pricing) price(r *api.Request) {
	if r.Simulated {
		r.Class = api.ClassSimulated
	}
	r.Baseline = p.baselines[r.Model]
	if r.Baseline == "" {
		r.Baseline = p.baseline
	}
	r.PriceVersion = p.table.Version()
	known := r.UsageSource != api.UsageUnknown && r.UsageSource != ""
	if base, ok := p.table.Lookup(r.Baseline); ok {
		r.PriceDate = base.Date
		prices := base.Prices
		r.Prices = &prices
		if known {
			r.Would = cost.Would(base, r.Usage)
		}
	}
	r.Basis = p.rates.Basis()
	for i := range r.Attempts {
		a := &r.Attempts[i]
		if hour := p.hours[a.Upstream]; hour != nil && p.rates.PerToken == nil {
			a.Actual = api.Ptr(cost.Share(*hour, spanDuration(a.Share)))
		}
	}
	switch {
	case p.rates.PerToken != nil:
		if known {
			if n, ok := cost.Cost(p.rates.PerToken.Prices(), r.Usage); ok {
				r.Actual = &n
			}
		}
	case len(r.Attempts) == 0:
		// It never reached a worker: no worker's time was used.
		r.Actual = api.Ptr(api.Nanos(0))
	default:
		r.Actual = r.Attempts[len(r.Attempts)-1].Actual
	}
}

// missing says, as sentences, what must be set for the money figures that are not known.
func (p *pricing) missing() []string {
	var out []string
	if p.rates.PerToken == nil {
		if p.anyGPU && p.rates.GPUHour == nil {
			out = append(out, "set cost.gpu_hour (USD per GPU and hour) to see savings")
		}
		if p.anyHost && p.rates.HostHour == nil {
			out = append(out, "set cost.host_hour to see savings")
		}
		for _, w := range p.noGPUs {
			out = append(out, fmt.Sprintf("set gpus: or hour: of attached worker %s to see savings", w))
		}
	}
	if _, ok := p.table.Lookup(p.baseline); !ok {
		out = append(out, fmt.Sprintf("set cost.baseline to a model of the price table: %q is not in it", p.baseline))
	}
	return out
}

// rateLabel says where the actual cost comes from.
func (p *pricing) rateLabel(c *config.Config) string {
	if p.label != "" {
		return p.label
	}
	if t := p.rates.PerToken; t != nil {
		return fmt.Sprintf("flat $%s in / $%s out per M tokens, an assumption", t.Input, t.Output)
	}
	gpus, hosts, own := 0, 0, 0
	for _, w := range c.Workers {
		switch n := gpusOf(&w); {
		case w.Hour != nil:
			own++
		case n > 0:
			gpus += n
		case n == 0:
			hosts++
		}
	}
	label := ""
	add := func(s string) {
		if label != "" {
			label += " + "
		}
		label += s
	}
	if gpus > 0 && p.rates.GPUHour != nil {
		add(fmt.Sprintf("%d GPU x $%s/h", gpus, p.rates.GPUHour))
	}
	if hosts > 0 && p.rates.HostHour != nil {
		add(fmt.Sprintf("%d host x $%s/h", hosts, p.rates.HostHour))
	}
	if own > 0 {
		add(fmt.Sprintf("%d worker with a rate of its own", own))
	}
	return label
}
