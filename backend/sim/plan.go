package sim

import (
	"fmt"
	"strings"
)

// params is what a request says about generation, whichever route it came by.
type params struct {
	temperature float64
	seed        *int64
	maxTokens   int // never over what the context leaves
	minTokens   int
	ignoreEOS   bool
	stop        []string
	keepStop    bool // include_stop_str_in_output
	n           int
	logprobs    int // -1: none; else how many alternatives
	json        *schema
	salt        string
}

// plan is an answer that is settled before its first token is out.
type plan struct {
	ids    []int32
	deltas []string // text that becomes visible with each token
	reason string   // stop or length
	stop   *string  // the stop string that was met
}

// text is all that becomes visible.
func (p *plan) text() string { return strings.Join(p.deltas, "") }

// vary is what beside the conversation may change an answer's wording: without a temperature
// nothing does, else the temperature, the request's seed and the choice.
func (p params) vary(choice int) string {
	if p.temperature == 0 {
		return ""
	}
	seed := int64(0)
	if p.seed != nil {
		seed = *p.seed
	}
	return fmt.Sprintf("%g/%d/%d", p.temperature, seed, choice)
}

// planChat settles the answer to a conversation. If open, the last message is the beginning of
// the answer: what follows is the rest of what would have been said, or, if that is not how it
// would have begun, a fitting end.
func planChat(o Options, ms []message, open bool, p params, choice int, fs faults) *plan {
	begun := ""
	if open {
		begun = ms[len(ms)-1].text
		ms = ms[:len(ms)-1]
	}
	w := newWriter(textKey(o.Seed, ms, p.vary(choice)), ms)
	var text string
	switch {
	case p.json != nil:
		text = p.json.fill(w)
	case fs.get("loop") != nil:
		text = strings.Repeat(w.fact()+" ", 1+p.maxTokens/8)
	default:
		text = w.text()
	}
	if rest, ok := strings.CutPrefix(text, begun); ok {
		text = rest
	} else {
		text = w.carryOn(begun)
	}
	return settle(w, text, p, fs)
}

// planCompletion settles the continuation of a plain prompt.
func planCompletion(o Options, prompt string, p params, choice int, fs faults) *plan {
	ms := []message{{"user", prompt}}
	w := newWriter(textKey(o.Seed, ms, p.vary(choice)), ms)
	var text string
	switch known := w.known(); {
	case fs.get("loop") != nil:
		text = strings.Repeat(" "+w.fact(), 1+p.maxTokens/8)
	case known != "":
		text = " " + known
	default:
		tokens := p.minTokens
		if p.ignoreEOS {
			tokens = p.maxTokens
		}
		text = goOn(textKey(o.Seed, nil, p.vary(choice)), prompt, tokens)
	}
	return settle(w, text, p, fs)
}

// carryOn ends a text that somebody else began: it completes the sentence if it is one of ours,
// else begins a new one.
func (w *writer) carryOn(begun string) string {
	tail := begun
	if i := strings.LastIndexAny(begun, ".!?\n"); i >= 0 {
		tail = begun[i+1:]
	}
	tail = strings.TrimLeft(tail, " ")
	out := ""
	if len(tail) > 3 {
		for _, t := range w.lib.topics {
			for _, f := range t.facts {
				if rest, ok := strings.CutPrefix(f, tail); ok {
					out = rest
				}
			}
		}
	}
	for range 2 + w.r.IntN(3) {
		if out == "" && (begun == "" || strings.HasSuffix(begun, " ") || strings.HasSuffix(begun, "\n")) {
			out = w.fact()
			continue
		}
		out += " " + w.fact()
	}
	return out
}

// settle turns a text into tokens under the request's limits.
func settle(w *writer, text string, p params, fs faults) *plan {
	ids := encode(nil, text)
	for i := 0; len(ids) < p.maxTokens && (p.ignoreEOS || len(ids) < p.minTokens); i++ {
		ids = encode(ids, w.more(i+1))
	}
	pl := &plan{reason: "stop"}
	limit := p.maxTokens
	if fs.get("truncate") != nil {
		limit = max(1, min(limit, len(ids)/2))
	}
	if len(ids) >= limit {
		ids, pl.reason = ids[:limit], "length"
	} else {
		ids = append(ids, tokEnd)
	}
	pl.ids = ids
	pl.reveal(p)
	return pl
}

// reveal says what becomes visible when. With stop strings vLLM holds back as many characters
// as the longest one has, less one, so that no part of a stop string is ever sent.
func (p *plan) reveal(by params) {
	hold := 0
	for _, s := range by.stop {
		hold = max(hold, len(s)-1)
	}
	var all strings.Builder
	shown := 0
	for i, id := range p.ids {
		from := all.Len()
		all.WriteString(piece(id))
		text := all.String()
		end := len(text)
		if at, s := firstStop(text, from-hold, by.stop); at >= 0 && i+1 > by.minTokens {
			if by.keepStop {
				at += len(s)
			}
			p.ids, p.reason, p.stop = p.ids[:i+1], "stop", &s
			p.deltas = append(p.deltas, text[shown:max(shown, at)])
			return
		}
		if i < len(p.ids)-1 {
			end = max(shown, end-hold)
			for end > shown && end < len(text) && text[end]&0xc0 == 0x80 {
				end-- // not within a rune
			}
		}
		p.deltas = append(p.deltas, text[shown:end])
		shown = end
	}
}

// firstStop finds the stop string that ends first in text, looking from a byte on.
func firstStop(text string, from int, stops []string) (int, string) {
	from = max(0, from)
	best, which := -1, ""
	for _, s := range stops {
		if s == "" {
			continue
		}
		if at := strings.Index(text[from:], s); at >= 0 && (best < 0 || from+at+len(s) < best+len(which)) {
			best, which = from+at, s
		}
	}
	return best, which
}

// logprob is an invented but deterministic figure for a token at a place in an answer.
func logprob(id int32, at int) float64 {
	u := float64(mix(uint64(id)<<20^uint64(at))>>11) / (1 << 53)
	return -0.02 - 1.8*u*u
}
