package backend

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
	"github.com/vllmdeck/vllmdeck/config"
)

// pricing is everything that money figures come from, of one config; immutable.
type pricing struct {
	table     *cost.Table
	perToken  *api.Prices           // flat rates in place of hours
	hours     map[string]*api.Nanos // worker: what an hour of it costs; nil: not known
	shares    map[string][]string   // worker: what it shares with others that sleep
	baselines map[string]string     // model: reference of the price table
	baseline  string                // the default one
	hostile   string                // "" finds it by model
	label     string                // where the actual cost comes from
	missing   []string              // what must be set for figures that are not known, as sentences
}

func newPricing(table *cost.Table, c *config.Config) *pricing {
	p := &pricing{
		table: table, hours: map[string]*api.Nanos{}, baselines: map[string]string{},
		baseline: c.Cost.Baseline, hostile: c.Cost.Hostile, label: rateLabel(c), missing: []string{}, shares: sharesOf(c),
	}
	if t := c.Cost.PerToken; t != nil {
		prices := cost.PerToken{Input: t.Input, Cached: t.Cached, Output: t.Output}.Prices()
		p.perToken = &prices
	}
	for _, name := range c.ModelNames() {
		p.baselines[name] = c.Model(name).Baseline
	}
	for i := range c.Workers {
		w := &c.Workers[i]
		hour, missing := c.Hour(w)
		p.hours[w.Name] = hour
		if line := "set " + missing + " to see savings"; missing != "" && !slices.Contains(p.missing, line) {
			p.missing = append(p.missing, line)
		}
	}
	if _, ok := table.At(p.baseline, time.Now()); !ok {
		p.missing = append(p.missing, fmt.Sprintf("set cost.baseline to a model of the price table: %q is not in it", p.baseline))
	}
	return p
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
	if base, ok := p.table.At(r.Baseline, r.Started); ok {
		r.PriceDate = base.Date
		prices := base.Prices
		r.Prices = &prices
		if known {
			r.Would = cost.Would(base, r.Usage)
		}
	}
	r.Basis = api.BasisGPUTime
	if p.perToken != nil {
		r.Basis = api.BasisPerToken
	}
	for i := range r.Attempts {
		a := &r.Attempts[i]
		switch hour := p.hours[a.Upstream]; {
		case a.Provider: // its prices are the provider's own
		case p.perToken != nil && i < len(r.Attempts)-1:
			a.Actual = new(api.Nanos(0)) // a flat rate is for what was served
		case hour != nil && p.perToken == nil:
			a.Actual = new(cost.Share(*hour, time.Duration(a.Share)))
		}
	}
	switch {
	case p.perToken != nil:
		if known {
			if n, ok := cost.Cost(*p.perToken, r.Usage); ok {
				r.Actual = &n
			}
		}
	case len(r.Attempts) == 0:
		// It never reached a worker: no worker's time was used.
		r.Actual = new(api.Nanos(0))
	default:
		r.Actual = r.Attempts[len(r.Attempts)-1].Actual
	}
}

// rateLabel says where the actual cost comes from.
func rateLabel(c *config.Config) string {
	if c.Cost.Label != "" {
		return c.Cost.Label
	}
	if t := c.Cost.PerToken; t != nil {
		return fmt.Sprintf("flat $%s in / $%s out per M tokens, an assumption", t.Input, t.Output)
	}
	gpus, hosts, own := 0, 0, 0
	seen := map[string]bool{} // what takes turns is there once
	shares := sharesOf(c)
	for i := range c.Workers {
		w := &c.Workers[i]
		fresh := len(shares[w.Name]) == 0
		for _, key := range shares[w.Name] {
			fresh = fresh || !seen[key]
			seen[key] = true
		}
		switch n, known := w.GPUs(); {
		case !fresh:
		case w.Hour != nil:
			own++
		case known && n > 0:
			gpus += n
		case known:
			hosts++
		}
	}
	var parts []string
	if gpus > 0 && c.Cost.GPUHour != nil {
		parts = append(parts, fmt.Sprintf("%d GPU x $%s/h", gpus, c.Cost.GPUHour))
	}
	if hosts > 0 && c.Cost.HostHour != nil {
		parts = append(parts, fmt.Sprintf("%d host x $%s/h", hosts, c.Cost.HostHour))
	}
	if own > 0 {
		parts = append(parts, fmt.Sprintf("%d with a rate of its own", own))
	}
	return strings.Join(parts, " + ")
}
