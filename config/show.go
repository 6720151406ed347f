package config

import (
	"cmp"
	"net"
	"slices"
)

// ModelNames lists every model there is: those under models, then those that only workers name.
func (c *Config) ModelNames() []string {
	var out []string
	for _, m := range c.Models {
		if m.Name != "" && !slices.Contains(out, m.Name) {
			out = append(out, m.Name)
		}
	}
	for _, w := range c.Workers {
		if w.Model != "" && !slices.Contains(out, w.Model) {
			out = append(out, w.Model)
		}
	}
	return out
}

// Model gives the settings of a model by its name, with defaults where models does not list it.
func (c *Config) Model(name string) Model {
	i := slices.IndexFunc(c.Models, func(m Model) bool { return m.Name == name })
	if i < 0 {
		return Model{Name: name, Baseline: c.Cost.Baseline, Failover: FailoverDown}
	}
	m := c.Models[i]
	m.Baseline = cmp.Or(m.Baseline, c.Cost.Baseline)
	m.Failover = cmp.Or(m.Failover, FailoverDown)
	return m
}

// PriceRef names what a model of the provider costs in the price table: provider/model.
func (p *Provider) PriceRef(model string) string {
	return cmp.Or(p.Prices[model], p.Name+"/"+p.Models[model])
}

// Exposed says whether the gateway is reachable from other machines in clear text.
func (c *Config) Exposed() bool {
	return c.NeedsKeys() && c.TLS == nil
}

// NeedsKeys says whether the gateway is reachable from other machines, so that it must ask for keys.
func (c *Config) NeedsKeys() bool {
	host, _, err := net.SplitHostPort(c.Listen)
	return err == nil && !loopback(host)
}

// Simulated says whether everything that serves is simulated.
func (c *Config) Simulated() bool {
	return len(c.Providers) == 0 && !slices.ContainsFunc(c.Workers, func(w Worker) bool { return w.Sim == nil })
}

// Kind names what a worker is: vllm, attach or sim.
func (w *Worker) Kind() string {
	switch {
	case w.VLLM != nil:
		return "vllm"
	case w.Attach != "":
		return "attach"
	default:
		return "sim"
	}
}

// GPUs counts the GPUs that a worker is charged for. known is false for a server that runs
// already and does not say how many it uses.
func (w *Worker) GPUs() (n int, known bool) {
	switch {
	case w.VLLM != nil:
		return len(w.VLLM.GPUs), true
	case w.NGPUs > 0:
		return w.NGPUs, true
	default:
		return 0, w.Sim != nil
	}
}

// Hour gives what an hour of a worker costs: its own hour, else its GPUs at gpu_hour, else
// host_hour. Nil with the key to set if that is not known; nil without one under per_token,
// where hours do not count.
func (c *Config) Hour(w *Worker) (rate *USD, missing string) {
	if c.Cost.PerToken != nil {
		return nil, ""
	}
	if w.Hour != nil {
		return w.Hour, ""
	}
	n, known := w.GPUs()
	switch {
	case !known:
		return nil, "gpus or hour of worker " + w.Name
	case n == 0 && c.Cost.HostHour == nil:
		return nil, "cost.host_hour"
	case n == 0:
		return c.Cost.HostHour, ""
	case c.Cost.GPUHour == nil:
		return nil, "cost.gpu_hour"
	}
	total := *c.Cost.GPUHour * USD(n)
	return &total, ""
}
