package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// validate checks what no single value can show: how they fit together.
func (r *report) validate(c *Config, prices PriceLookup) {
	r.listen(c)
	r.keys(c)
	r.times(c)
	r.names(c)
	for i := range c.Workers {
		r.worker(c, i)
	}
	r.ports(c)
	r.gpus(c)
	r.providers(c)
	r.failover(c)
	r.simulated(c)
	r.cost(c)
	r.baselines(c, prices)
	if len(c.Workers) == 0 && len(c.Providers) == 0 && !r.broken["workers"] && !r.broken["providers"] {
		r.problem("", `add workers:, or let "vllmdeck init" write a config that fits this machine`, "nothing here can serve: no workers and no providers")
	}
}

// listen checks the gateway's address.
func (r *report) listen(c *Config) {
	if r.broken["listen"] {
		return
	}
	_, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		hint := "write it as 127.0.0.1:8090"
		if _, numErr := strconv.Atoi(c.Listen); numErr == nil {
			hint = "write 127.0.0.1:" + c.Listen
		} else if addr, ipErr := netip.ParseAddr(c.Listen); ipErr == nil {
			hint = "write " + netip.AddrPortFrom(addr, 8090).String()
		}
		r.problem("listen", hint, "want HOST:PORT, got %q", c.Listen)
		return
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		r.problem("listen", "0 means any free one", "a port is a number from 0 to 65535, got %q", port)
		return
	}
	if c.NeedsKeys() && len(c.Keys) == 0 && !r.broken["keys"] && (r.made == nil || !r.made(c.State)) {
		r.problem("listen", `make one with "vllmdeck keys create NAME", add keys: [{name: me, key: "env:VLLMDECK_KEY"}], or listen on 127.0.0.1`,
			"listening on %s without keys would let anybody on the network use the models", c.Listen)
	}
}

// loopback says whether a host can only be reached from this machine. An empty host means
// every interface.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// keyName is also what labels and reports show.
var keyName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

func (r *report) keys(c *Config) {
	names, values := map[string]int{}, map[string]string{}
	for i, k := range c.Keys {
		p := fmt.Sprintf("keys[%d]", i)
		switch first, twice := names[k.Name]; {
		case k.Name == "":
			r.missing(p, "name", "name: who uses the key; it stands in reports")
		case !keyName.MatchString(k.Name):
			r.problem(p+".name", "use letters, digits, _ . and -", "the name %q cannot be used", k.Name)
		case twice:
			r.problem(p+".name", "name each key differently", "keys[%d] has the name %q too", first, k.Name)
		case k.Name == "console" || k.Name == "load":
			r.problem(p+".name", "name it differently", "%s is the name of vllmdeck's own requests", k.Name)
		}
		names[k.Name] = i
		switch k.Failover {
		case "", FailoverNever, FailoverDown, FailoverOverload:
		default:
			r.problem(p+".failover", "write never, down or overload", "%q is not a way to fail over", k.Failover)
		}
		if k.Key.Ref == "" {
			r.missing(p, "key", `key: "env:NAME" or "file:PATH"`)
			continue
		}
		if other, twice := values[k.Key.Val]; twice && k.Key.Val != "" {
			r.problem(p+".key", "give each its own", "%s and %s are the same secret", other, k.Name)
		}
		values[k.Key.Val] = k.Name
		if n := len(k.Key.Val); n > 0 && n < 16 {
			r.warn(p+".key", "openssl rand -hex 24 makes a good one", "the key of %s has only %d characters", k.Name, n)
		}
	}
	for i, d := range c.MediaDomains {
		if d == "" || strings.ContainsAny(d, "/:@ ") {
			r.problem(fmt.Sprintf("media_domains[%d]", i), "write the host alone, e.g. images.example.com", "%q is not a host name", d)
		}
	}
}

// times checks that limits are limits: a time-out of 0 would refuse everything.
func (r *report) times(c *Config) {
	g := c.Gateway
	r.positive("gateway.ttft_timeout", g.TTFTTimeout)
	r.positive("gateway.idle_timeout", g.IdleTimeout)
	if g.TTFTTarget < 0 {
		r.problem("gateway.ttft_target", "leave it out for none", "cannot be negative")
	}
	if k := g.KeepAlive; k != 0 && k < time.Second {
		r.problem("gateway.keep_alive", "15s is usual; leave it out for none", "less than a second is no silence")
	}
	r.positive("gateway.answer_timeout", g.AnswerTimeout)
	r.positive("gateway.stream_timeout", g.StreamTimeout)
	if g.MaxBody <= 0 {
		r.problem("gateway.max_body", "the default is 32MiB", "must be more than 0")
	}
	if g.Queue < 0 {
		r.problem("gateway.queue", "0 lets none wait", "cannot be negative")
	}
	r.positive("capture.keep", c.Capture.Keep)
	if c.Capture.Size < 1<<20 {
		r.problem("capture.size", "the default is 256MiB", "the captured texts need at least 1MiB, got %s", c.Capture.Size)
	}
	if c.Logs.Size < 64<<10 {
		r.problem("logs.size", "the default is 20MiB", "a log file needs at least 64KiB, got %s", c.Logs.Size)
	}
	if c.Logs.Keep < 0 || c.Logs.Keep > 1000 {
		r.problem("logs.keep", "the default is 5", "keep 0 to 1000 rotated files, got %d", c.Logs.Keep)
	}
	if t := c.Health.Target; !(t > 0 && t <= 1) {
		r.problem("health.target", "the default is 0.8", "the target is a share: more than 0, at most 1, got %v", t)
	}
}

func (r *report) positive(path string, d time.Duration) {
	if d <= 0 {
		r.problem(path, "leave it out for the default", "must be more than 0s")
	}
}

// missing reports a key that must be there, unless a misspelt one was reported for it.
func (r *report) missing(path, key, hint string) {
	if p := join(path, key); !r.broken[p] && !r.broken[path] {
		r.problemAt(r.place(path), p, hint, "%s is missing", key)
	}
}

// badName gives why a model cannot be asked for by that name; "" if it can.
func badName(name string) string {
	switch {
	case len(name) > 200:
		return "is longer than 200 bytes"
	case strings.ContainsFunc(name, func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsPrint(c) }):
		return "holds a space or a control character"
	}
	return ""
}

// names checks that whatever a client asks for means one model.
func (r *report) names(c *Config) {
	owner := map[string]string{} // name: the path that took it
	take := func(name, path, what string) {
		if why := badName(name); why != "" {
			r.problem(path, "choose a name without it", "the %s %q %s", what, name, why)
		}
		if first, twice := owner[name]; twice {
			r.problem(path, "one name must mean one model: drop one of the two", "the %s %q is taken by %s", what, name, first)
			return
		}
		owner[name] = path
	}
	listed := map[string]bool{}
	for i, m := range c.Models {
		p := fmt.Sprintf("models[%d]", i)
		if m.Name == "" {
			r.missing(p, "name", "name: what clients ask for")
			continue
		}
		listed[m.Name] = true
		take(m.Name, p+".name", "model")
	}
	for i, w := range c.Workers {
		if w.Model != "" && !listed[w.Model] && owner[w.Model] == "" {
			owner[w.Model] = fmt.Sprintf("workers[%d].model", i)
			if why := badName(w.Model); why != "" {
				r.problem(owner[w.Model], "choose a name without it", "the model %q %s", w.Model, why)
			}
			if near := nearest(w.Model, c.listedNames()); near != "" && distance(w.Model, near) <= 2 {
				r.warn(owner[w.Model], "", "models: lists %q but not %q; is it the same one?", near, w.Model)
			}
		}
	}
	for i, m := range c.Models {
		for j, a := range m.Aliases {
			p := fmt.Sprintf("models[%d].aliases[%d]", i, j)
			if a == "" {
				r.problem(p, "fill it in or leave it out", "an empty alias")
				continue
			}
			take(a, p, "alias")
		}
		if m.Name != "" && !c.served(m.Name) {
			r.warn(fmt.Sprintf("models[%d]", i), fmt.Sprintf("add a worker with model: %s, or drop the model", m.Name), "no worker and no provider serves %q", m.Name)
		}
	}
}

// served says whether some worker or provider has the model.
func (c *Config) served(model string) bool {
	return slices.ContainsFunc(c.Workers, func(w Worker) bool { return w.Model == model }) ||
		slices.ContainsFunc(c.Providers, func(p Provider) bool { _, ok := p.Models[model]; return ok })
}

func (c *Config) listedNames() []string {
	var out []string
	for _, m := range c.Models {
		out = append(out, m.Name)
	}
	return out
}

// simulated keeps what is simulated away from what is real: their numbers must never add up.
func (r *report) simulated(c *Config) {
	real := map[string]string{} // model: who serves it really
	for _, p := range c.Providers {
		for model := range p.Models {
			real[model] = "the provider " + p.Name
		}
	}
	for _, w := range c.Workers {
		if w.Sim == nil {
			real[w.Model] = "the worker " + w.Name
		}
	}
	for i, w := range c.Workers {
		if who, ok := real[w.Model]; ok && w.Sim != nil && w.Model != "" {
			r.problem(fmt.Sprintf("workers[%d].sim", i), "give the simulated worker a model of its own, e.g. model: "+w.Model+"-sim",
				"%s is simulated, but %s serves %s too, and simulated is never mixed with real", w.Name, who, w.Model)
		}
	}
}

// baseURL checks a server's address. It gives nil if the value was reported.
func (r *report) baseURL(raw, path string, pathAllowed bool) *url.URL {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		hint := `write it as "http://127.0.0.1:8001"`
		if _, _, err := net.SplitHostPort(raw); err == nil {
			hint = fmt.Sprintf(`write "http://%s"`, raw)
		}
		r.problem(path, hint, "want an http or https URL")
	case u.User != nil:
		r.problem(path, "put the key under api_key (workers) or key (providers) as env:NAME", "a URL with a user or password in it")
	case u.RawQuery != "" || u.Fragment != "":
		r.problem(path, "write the base address alone", "a URL with a query or fragment")
	case u.Hostname() == "" || u.Port() != "" && !validPort(u.Port()):
		r.problem(path, `write it as "http://127.0.0.1:8001"`, "the URL has no valid host and port")
	case !pathAllowed && u.Path != "" && u.Path != "/":
		r.problem(path, fmt.Sprintf("write %s://%s", u.Scheme, u.Host), "the URL has the path %s, but requests bring their own", u.Path)
	default:
		return u
	}
	return nil
}

func validPort(s string) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n > 0 && n < 65536
}
