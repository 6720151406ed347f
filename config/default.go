package config

import (
	"cmp"
	"net/url"
	"strings"
	"time"
)

// DefaultBaseline is what would-have-cost is compared with unless something else is asked for.
const DefaultBaseline = "openai/gpt-4o-mini"

// Default gives a config with everything set that has a default, and nothing that serves:
// whoever makes a config in code starts here.
func Default() *Config {
	c := &Config{}
	c.setDefaults()
	return c
}

// DefaultWorker gives a worker with everything set that has a default.
func DefaultWorker() Worker {
	var w Worker
	w.setDefaults()
	return w
}

// DefaultSim gives the settings of "sim: {}".
func DefaultSim() *Sim {
	s := &Sim{}
	s.setDefaults()
	return s
}

func (c *Config) setDefaults() {
	c.Listen = "127.0.0.1:8090"
	c.Grace = 30 * time.Second
	c.Gateway = Gateway{
		CostInfo:      new(true),
		Continue:      new(true),
		MaxBody:       32 << 20,
		Queue:         256,
		QueueWait:     30 * time.Second,
		TTFTTimeout:   120 * time.Second,
		IdleTimeout:   60 * time.Second,
		AnswerTimeout: 10 * time.Minute,
		StreamTimeout: 4 * time.Hour,
	}
	c.Cost.Baseline = DefaultBaseline
	c.Health.Target = 0.8
	c.Capture = Capture{Keep: 7 * 24 * time.Hour, Size: 256 << 20}
	c.Logs = Logs{Size: 20 << 20, Keep: 5}
	c.State = defaultState()
}

func (w *Worker) setDefaults() {
	w.Start = new(true)
	w.StartTimeout = 30 * time.Minute
	w.GPUWait = 2 * time.Minute
	w.StopTimeout = 30 * time.Second
	w.Restart.setDefaults()
}

func (v *VLLM) setDefaults() { v.Bin = "vllm" }

func (s *Sim) setDefaults() {
	*s = Sim{Seed: 1, Start: time.Second, TTFT: 60 * time.Millisecond, ITL: 12 * time.Millisecond, MaxSeqs: 32, MaxLen: 8192}
}

func (s *Sleep) setDefaults() { *s = Sleep{Level: 1, Stay: 5 * time.Second} }

func (r *Restart) setDefaults() {
	*r = Restart{Policy: OnFailure, Base: time.Second, Max: time.Minute, Tries: 3, Window: 30 * time.Minute}
}

// Values of Restart.Policy.
const (
	OnFailure = "on-failure"
	Never     = "never"
)

// Values of Model.Failover.
const (
	FailoverNever    = "never"    // no provider serves the model
	FailoverDown     = "down"     // one does when no worker can, and none will within queue_wait
	FailoverOverload = "overload" // also when workers have too much to do: the line is full, or the wait is over
)

// Values of Provider.OutputLimit.
const (
	LimitCompletion = "max_completion_tokens" // all that OpenAI's newer models take
	LimitTokens     = "max_tokens"            // all that some older servers know
	LimitAsSent     = "as-sent"               // whichever the client writes
)

// defaultLimit is OutputLimit where the config does not say. OpenAI's reasoning models refuse max_tokens, and
// all of its models take max_completion_tokens.
func defaultLimit(address string) string {
	if u, err := url.Parse(address); err == nil && (u.Hostname() == "api.openai.com" || strings.HasSuffix(u.Hostname(), ".api.openai.com")) {
		return LimitCompletion
	}
	return LimitAsSent
}

// fill sets the defaults that depend on other keys.
func (c *Config) fill() {
	for i := range c.Models {
		if c.Models[i].Baseline == "" {
			c.Models[i].Baseline = c.Cost.Baseline
		}
		c.Models[i].Failover = cmp.Or(c.Models[i].Failover, FailoverDown)
	}
	for i := range c.Providers {
		c.Providers[i].OutputLimit = cmp.Or(c.Providers[i].OutputLimit, defaultLimit(c.Providers[i].URL))
	}
	if p := c.Cost.PerToken; p != nil && p.Cached == nil {
		p.Cached = new(p.Input)
	}
}
