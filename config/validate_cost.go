package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func (r *report) providers(c *Config) {
	known := c.ModelNames()
	for i := range c.Providers {
		v, p := &c.Providers[i], fmt.Sprintf("providers[%d]", i)
		switch {
		case v.Name == "":
			r.missing(p, "name", "name: e.g. openai")
		case !workerName.MatchString(v.Name):
			r.problem(p+".name", "use up to 32 lower-case letters, digits and -", "the name %q cannot be used", v.Name)
		case slices.ContainsFunc(c.Workers, func(w Worker) bool { return w.Name == v.Name }):
			r.problem(p+".name", "name one of them differently", "a worker is called %q too", v.Name)
		case slices.ContainsFunc(c.Providers[:i], func(o Provider) bool { return o.Name == v.Name }):
			r.problem(p+".name", "name each provider differently", "two providers are called %q", v.Name)
		}
		if v.URL == "" {
			r.missing(p, "url", `url: e.g. "https://api.openai.com/v1"`)
		} else if u := r.baseURL(v.URL, p+".url", true); u != nil {
			v.URL = strings.TrimRight(v.URL, "/")
			if u.Scheme == "http" && v.Key.Ref != "" && !loopback(u.Hostname()) {
				r.warn(p+".url", "use https", "the key of %s goes over the network in clear text", v.Name)
			}
		}
		if len(v.Models) == 0 && !r.broken[p+".models"] {
			r.missing(p, "models", "models: {OUR-NAME: THEIR-NAME}")
		}
		for _, ours := range slices.Sorted(maps.Keys(v.Models)) {
			at := join(p+".models", ours)
			if v.Models[ours] == "" {
				r.problem(at, "write the name that the provider knows it by", "the model %s has no name there", ours)
			}
			if !slices.Contains(known, ours) {
				hint := "list it under models:"
				if near := nearest(ours, known); near != "" {
					hint = fmt.Sprintf("did you mean %q? Else list it under models:", near)
				}
				r.problem(at, hint, "no worker and no entry of models: is called %q", ours)
			}
		}
		for _, ours := range slices.Sorted(maps.Keys(v.Prices)) {
			if _, ok := v.Models[ours]; !ok {
				r.problem(join(p+".prices", ours), "list it under models: of this provider", "the provider does not have the model %q", ours)
			}
		}
		r.spendCap(v.SpendCap, p)
		switch v.OutputLimit {
		case "", LimitCompletion, LimitTokens, LimitAsSent:
		default:
			r.problem(p+".output_limit", "write max_completion_tokens, max_tokens or as-sent", "%q is no name of an answer's greatest length", v.OutputLimit)
		}
	}
}

// failover checks when providers serve.
func (r *report) failover(c *Config) {
	for i, m := range c.Models {
		p := fmt.Sprintf("models[%d].failover", i)
		backed := slices.ContainsFunc(c.Providers, func(v Provider) bool { _, ok := v.Models[m.Name]; return ok })
		worked := slices.ContainsFunc(c.Workers, func(w Worker) bool { return w.Model == m.Name })
		switch m.Failover {
		case FailoverNever:
			if backed && !worked {
				r.problem(p, "drop failover:, or add a worker", "nobody may serve %q: it has no worker, and no provider may", m.Name)
			}
		case "", FailoverDown, FailoverOverload:
			if m.Failover == FailoverOverload && !backed {
				r.warn(p, "list the model under models: of a provider", "no provider has %q", m.Name)
			}
		default:
			r.problem(p, "write never, down or overload", "%q is not a way to fail over", m.Failover)
		}
	}
}

// providerPrices checks that what is capped can be counted.
func (r *report) providerPrices(c *Config, prices PriceLookup) {
	for i := range c.Providers {
		v, p := &c.Providers[i], fmt.Sprintf("providers[%d]", i)
		for _, ours := range slices.Sorted(maps.Keys(v.Models)) {
			ref, at := v.PriceRef(ours), join(p+".models", ours)
			if v.Prices[ours] != "" {
				at = join(p+".prices", ours)
			}
			ok, near := prices(ref)
			if ok || v.Models[ours] == "" || v.Name == "" {
				continue
			}
			hint := fmt.Sprintf("name one that is the same, as prices: {%s: PROVIDER/MODEL}", ours)
			if len(near) > 0 {
				hint += "; near are " + strings.Join(near[:min(len(near), 3)], ", ")
			}
			if v.SpendCap == (SpendCap{}) {
				r.warn(at, hint, "no price is known for %q: what it costs will not be known", ref)
			} else {
				r.problem(at, hint, "no price is known for %q, so that spend_cap cannot be kept", ref)
			}
		}
	}
}

func (r *report) spendCap(s SpendCap, p string) {
	for key, limit := range map[string]*USD{"day": s.Day, "month": s.Month} {
		if limit != nil && *limit < 0 {
			r.problem(p+".spend_cap."+key, "0 spends nothing", "a limit cannot be negative")
		}
	}
	if s.Day == nil && s.Month == nil && !r.broken[p+".spend_cap"] && !r.broken[p+".spend_cap.day"] && !r.broken[p+".spend_cap.month"] {
		r.warn(p, "add spend_cap: {day: 5.00}", "this paid provider has no spending limit")
	}
}

// What nobody pays; more is a wrong unit.
const (
	dearHour  = 1000 * api.Dollar   // an hour of one GPU
	dearToken = 10_000 * api.Dollar // a million tokens
)

func (r *report) cost(c *Config) {
	hours := map[string]*USD{"cost.gpu_hour": c.Cost.GPUHour, "cost.host_hour": c.Cost.HostHour}
	for i, w := range c.Workers {
		hours[fmt.Sprintf("workers[%d].hour", i)] = w.Hour
	}
	for path, rate := range hours {
		switch {
		case rate == nil:
		case *rate < 0:
			r.problem(path, "leave it out if it is not known", "a price cannot be negative")
		case c.Cost.PerToken != nil:
			r.problem(path, "keep the hourly rate for real savings; keep per_token alone to assume a flat price", "per_token and an hourly rate contradict each other")
		case *rate == 0:
			r.warn(path, "leave it out if the price is not known", "0 says that the hour is free")
		case *rate > dearHour:
			r.warn(path, "it is the price of one hour, of one GPU for gpu_hour", "%s USD an hour is a lot", *rate)
		}
	}
	t := c.Cost.PerToken
	if t == nil {
		return
	}
	for _, key := range []string{"input", "output"} {
		if at, ok := r.places["cost.per_token."+key]; r.places != nil && (!ok || at.line == 0) {
			r.missing("cost.per_token", key, key+": USD per million tokens")
		}
	}
	rates := map[string]USD{"input": t.Input, "output": t.Output}
	if t.Cached != nil {
		rates["cached"] = *t.Cached
	}
	for key, v := range rates {
		switch path := "cost.per_token." + key; {
		case v < 0:
			r.problem(path, "", "a price cannot be negative")
		case v > dearToken:
			r.warn(path, "prices are USD per million tokens", "%s USD for a million tokens is a lot", v)
		case v > 0 && v < api.Dollar/10_000:
			r.warn(path, "prices are USD per million tokens, not per token", "%s USD for a million tokens is next to nothing", v)
		}
	}
}

// baselines checks that every model that is compared with has a known price.
func (r *report) baselines(c *Config, prices PriceLookup) {
	if prices == nil {
		return
	}
	check := func(ref, path string) {
		if ref == "" || r.broken[path] {
			return
		}
		ok, near := prices(ref)
		if ok {
			return
		}
		hint := `"vllmdeck prices" lists the known ones`
		if len(near) > 0 {
			hint = "did you mean " + strings.Join(near[:min(len(near), 3)], ", ") + "? " + hint
		}
		r.problem(path, hint, "no price is known for %q", ref)
	}
	r.providerPrices(c, prices)
	check(c.Cost.Baseline, "cost.baseline")
	check(c.Cost.Hostile, "cost.hostile")
	for i, m := range c.Models {
		if m.Baseline != c.Cost.Baseline {
			check(m.Baseline, fmt.Sprintf("models[%d].baseline", i))
		}
	}
}
