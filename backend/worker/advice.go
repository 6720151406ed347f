package worker

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// adviceMost is how much advice is given at once.
const adviceMost = 32

// adviceRule is one row: when is true of a server that could do better, say words it with its figures. Each looks at the
// last three to five minutes.
type adviceRule struct {
	name string
	when func(e *evidence) bool
	say  func(e *evidence) (text, remedy string, c change)
}

// adviceRules are silent of a server that is only busy: each needs something that a setting of it makes worse than it
// must be.
var adviceRules = []adviceRule{
	{
		// A steady rise of vLLM's preemption counter means that the KV cache is too small for the load; each request that is
		// preempted is computed anew. One a minute is steady, and two of a hundred requests are felt.
		"preemptions",
		func(e *evidence) bool {
			n := e.gained(preemptions)
			return n >= e.minutes() && n >= 0.02*e.gained(finished)
		},
		func(e *evidence) (string, string, change) {
			run := e.mean(runs)
			text := fmt.Sprintf("%.0f preemptions in %.0f min with %.0f requests at once: the KV cache%s is too small for them, and what is preempted is computed anew", e.gained(preemptions), e.minutes(), run, ofTokens(e.tokens))
			remedy := "run fewer at once (--max-num-seqs), or give the KV cache more room: --gpu-memory-utilization, --kv-cache-dtype=fp8, more GPUs"
			if run < 2 {
				return text, remedy, change{}
			}
			return text, remedy, change{Set: []string{fmt.Sprintf("--max-num-seqs=%d", int(run*0.9))}}
		},
	},
	{
		// A gateway scorer of llm-d calls a server saturated at 80 % of its KV cache; that alone is good use of it. With
		// requests that wait for room it is a limit.
		"kv-full",
		func(e *evidence) bool {
			return e.share(func(l look) bool { return l.kv >= 0.9 && l.waiting > 0 }) >= 0.8 && e.gained(preemptions) < e.minutes()
		},
		func(e *evidence) (string, string, change) {
			text := fmt.Sprintf("the KV cache%s is %.0f %% full and %.0f requests wait for room in it", ofTokens(e.tokens), 100*e.mean(kvUsed), e.mean(waits))
			remedy := "give it more room: --kv-cache-dtype=fp8 doubles it for a little accuracy, --gpu-memory-utilization, more GPUs; or add a worker"
			if !e.gpu {
				return text, "give it more room (VLLM_CPU_KVCACHE_SPACE under env:), or add a worker", change{}
			}
			return text, remedy, change{Set: []string{"--kv-cache-dtype=fp8"}}
		},
	},
	{
		// A batch that stays at max_num_seqs is held by that, not by the GPU's memory, while the KV cache has room.
		"max-num-seqs",
		func(e *evidence) bool {
			return e.maxSeqs > 0 && e.mean(kvUsed) <= 0.7 &&
				e.share(func(l look) bool { return l.waiting > 0 && l.running >= 0.95*float64(e.maxSeqs) }) >= 0.8
		},
		func(e *evidence) (string, string, change) {
			kv := e.mean(kvUsed)
			text := fmt.Sprintf("%.0f requests wait while %d run, the most it may, with the KV cache only %.0f %% full", e.mean(waits), e.maxSeqs, 100*kv)
			more := 2 * e.maxSeqs
			if kv > 0 { // as many as would fill 85 % of it
				more = min(more, int(float64(e.maxSeqs)*0.85/kv))
			}
			if more <= e.maxSeqs {
				return text, "add a worker", change{}
			}
			return text, "let more run at once: a larger --max-num-seqs", change{Set: []string{fmt.Sprintf("--max-num-seqs=%d", more)}}
		},
	},
	{
		// What the gateway sees of repeated beginnings is an estimate in bytes: three tenths is well above what a short
		// system prompt gives.
		"prefix-caching",
		func(e *evidence) bool {
			n, share := e.repeated()
			return e.noCache && n >= 50 && share >= 0.3
		},
		func(e *evidence) (string, string, change) {
			n, share := e.repeated()
			return fmt.Sprintf("%.0f %% of the bytes of %.0f prompts were sent to it before, and its prefix cache is off: they are computed each time", 100*share, n),
				"switch it on: --enable-prefix-caching", change{Set: []string{"--enable-prefix-caching"}}
		},
	},
	{
		// A long context costs nothing until somebody uses it. It is too long where a single request may take half of the
		// KV cache while nobody has ever needed a quarter of it.
		"context",
		func(e *evidence) bool {
			long := e.longest()
			return long > 0 && e.total(finished) >= 500 && e.tokens > 0 && int64(e.maxLen) >= e.tokens/2 && float64(e.maxLen) >= 4*long
		},
		func(e *evidence) (string, string, change) {
			long := e.longest()
			fit := 1 << bits.Len(uint(2*long-1))
			return fmt.Sprintf("a single request may take %d of the %d tokens of the KV cache, and none of %.0f needed more than %.0f", e.maxLen, e.tokens, e.total(finished), long),
				fmt.Sprintf("bound it (--max-model-len=%d), so that one request cannot push out all others", fit), change{Set: []string{fmt.Sprintf("--max-model-len=%d", fit)}}
		},
	},
	{
		// finished_reason=length is an answer that was cut: by the client's max_tokens, or by the end of the context.
		"cut-answers",
		func(e *evidence) bool {
			return e.gained(finished) >= 50 && e.gained(atLength) >= 0.3*e.gained(finished)
		},
		func(e *evidence) (string, string, change) {
			text := fmt.Sprintf("%.0f of %.0f answers in %.0f min were cut at their limit of length", e.gained(atLength), e.gained(finished), e.minutes())
			if long := e.longest(); long > 0 && e.maxLen > 0 && long >= 0.9*float64(e.maxLen) {
				return text, fmt.Sprintf("requests use up the context of %d tokens: raise --max-model-len, as far as the model and the KV cache allow", e.maxLen), change{}
			}
			return text, "clients ask for too few tokens: raise their max_tokens", change{}
		},
	},
	{
		// acceptance = accepted / drafted. Below three tenths most of what is drafted is thrown away, and the batch pays for it.
		"drafts",
		func(e *evidence) bool { return e.gained(drafted) >= 1000 && e.gained(accepted) < 0.3*e.gained(drafted) },
		func(e *evidence) (string, string, change) {
			text := fmt.Sprintf("the model takes %.0f %% of the tokens that speculative decoding drafts: the rest is computed for nothing", 100*e.gained(accepted)/e.gained(drafted))
			c := change{}
			for _, flag := range []string{"speculative-config", "spec-model", "spec-method", "spec-tokens"} {
				if e.known.has(flag) {
					c.Unset = append(c.Unset, "--"+flag)
				}
			}
			return text, "draft fewer tokens (num_speculative_tokens), or leave out --speculative-config", c
		},
	},
}

func ofTokens(n int64) string {
	if n == 0 {
		return ""
	}
	return " of " + thousands(n) + " tokens"
}

func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// repeated is how many prompts there were, and how much of them was sent before.
func (e *evidence) repeated() (n, share float64) {
	a, b := e.looks[0], e.looks[len(e.looks)-1]
	if n = b.repeats - a.repeats; n <= 0 {
		return 0, 0
	}
	return n, (b.repeated - a.repeated) / n
}

func (e *evidence) total(of func(Totals) *float64) float64 {
	if v := of(e.looks[len(e.looks)-1].totals); v != nil {
		return *v
	}
	return 0
}

// longest is what no request went over, in tokens; 0: not known.
func (e *evidence) longest() float64 { return e.total(func(t Totals) *float64 { return t.Longest }) }

// Imbalance: the busiest worker of a model has so many times the requests of the idlest, and so many more. The gateway
// sends each request to the one with the least to do, unless another has its beginning in the prefix cache.
const (
	imbalanceRatio = 3
	imbalanceLeast = 8
)

// balance remembers how long models have been out of balance.
type balance struct {
	mu   sync.Mutex
	held map[string]*standing // by model
}

// Advice gives what could be done better, in the order of the workers; none if nothing is wrong. Each needs minutes of
// evidence, and goes away by itself.
func (p *Pool) Advice(now time.Time) []api.Advice {
	var out []api.Advice
	byModel := map[string][]*view{}
	var models []string
	for _, w := range p.set.Load().order {
		v := w.view.Load()
		if !serves(v) {
			continue
		}
		out = append(out, v.advice...)
		if v.load.known {
			if byModel[v.Model] == nil {
				models = append(models, v.Model)
			}
			byModel[v.Model] = append(byModel[v.Model], v)
		}
	}
	for _, m := range models {
		if a := p.balance.look(m, byModel[m], now); a != nil {
			out = append(out, *a)
		}
	}
	return out[:min(len(out), adviceMost)]
}

// look compares the workers of a model.
func (b *balance) look(model string, views []*view, now time.Time) *api.Advice {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held == nil {
		b.held = map[string]*standing{}
	}
	s := b.held[model]
	if s == nil {
		s = &standing{}
		b.held[model] = s
	}
	var most, least *view
	if len(views) > 1 {
		byLoad := func(x, y *view) int { return cmp.Compare(x.load.busy, y.load.busy) }
		most, least = slices.MaxFunc(views, byLoad), slices.MinFunc(views, byLoad)
	}
	uneven := most != nil && most.load.busy >= least.load.busy*imbalanceRatio && most.load.busy-least.load.busy >= imbalanceLeast
	if !s.stands(uneven, now) {
		if s.since.IsZero() {
			s.said = nil
		}
		return nil
	}
	if uneven && (s.said == nil || now.Sub(s.at) >= time.Minute) {
		a := &api.Advice{Rule: "imbalance", Model: model, Since: s.since}
		a.Text = fmt.Sprintf("%s has %.0f requests, %s %.0f", most.Name, most.load.busy, least.Name, least.load.busy)
		a.Remedy = "their prompts begin alike and are kept where the prefix cache has them; if that is not meant, see whether the busy one is healthy"
		if slow, fast := most.load.pace, least.load.pace; slow > 0 && fast > 2*slow {
			a.Text += fmt.Sprintf("; %s gives %.1f tokens/s to a request, %s %.1f", most.Name, slow, least.Name, fast)
			a.Remedy = most.Name + " is slower than its peer: look at its GPU (throttled, shared with somebody, another type), and restart it if it stays so"
		}
		s.said, s.at = a, now
	}
	return s.said
}
