package cost

import (
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// CacheMinimum is the shortest prompt, in tokens, for which a paid API is taken to have read
// what vLLM read from its prefix cache. It is OpenAI's documented minimum and the one that the
// price data gives for Anthropic's models. vLLM caches from the first block of 16 tokens on.
const CacheMinimum = 1024

// Would is what u would have been billed at the baseline p, with the token counts of the model
// that really served it; nil: not known. Prompts shorter than CacheMinimum get no cache price.
func Would(p Price, u api.Usage) *api.Nanos {
	if u.Prompt() < CacheMinimum {
		u = uncached(u)
	}
	return known(p.Cost(u))
}

// uncached books the prompt as if there were no cache.
func uncached(u api.Usage) api.Usage {
	u.Input, u.CacheRead, u.CacheWrite = u.Prompt(), 0, 0
	return u
}

func known(n api.Nanos, ok bool) *api.Nanos {
	if !ok {
		return nil
	}
	return &n
}

// Band is how far the counterfactual may be off: the baseline has another tokenizer and
// another way to talk. All are thousandths of the tokens that were really counted.
type Band struct {
	TokensLow, TokensHigh       uint64 // tokens the baseline's tokenizer makes of the same text
	VerbosityLow, VerbosityHigh uint64 // length of the baseline's answer to the same prompt
}

// BandOf gives the band for a baseline.
//
// Tokens: on English, Go, Python and JSON the vocabularies of Llama-3 and Qwen3 make 0.978 to
// 1.063 tokens for each one of o200k, measured on 246,000 characters of MT-Bench and on source
// files; the band is the inverse of that. Other languages lie further out (German 1.28).
//
// Verbosity: mean characters of the answers to the 805 prompts of AlpacaEval 2, relative to
// Llama-3-8B-Instruct's 1,899: gpt-4o-mini 1,861 (0.98), gpt-3.5-turbo-0613 1,331 and -1106
// 796 (0.42). A baseline that was not measured gets the widest. Nothing above 1 is claimed:
// the high end is the list price of the answer as it was.
func BandOf(baseline string) Band {
	b := Band{TokensLow: 941, TokensHigh: 1022, VerbosityLow: 419, VerbosityHigh: 1000}
	if _, model, _ := strings.Cut(baseline, "/"); strings.HasPrefix(model, "gpt-4o-mini") {
		b.VerbosityLow = 980
	}
	return b
}

// WouldBand is the lowest and the highest credible amount that u would have been billed
// elsewhere; nil: not known. Both are linear in u, so that they may be taken of sums.
//
// High is the baseline's list price with no cache discount and the band's high end. Low is the
// cheaper of two: the baseline with every cached token at its cache price and the band's low
// end, and the same open model hosted elsewhere (nil: none is known), whose tokenizer and
// answers are the same.
func WouldBand(p Price, hosted *Price, u api.Usage) (low, high *api.Nanos) {
	b := BandOf(p.Ref)
	low = known(bill(p.Prices, u, b.TokensLow*1000, b.TokensLow*b.VerbosityLow, million*million))
	high = known(bill(p.Prices, uncached(u), b.TokensHigh*1000, b.TokensHigh*b.VerbosityHigh, million*million))
	if hosted != nil {
		if h, ok := hosted.Cost(u); ok && low != nil && h < *low {
			low = &h
		}
	}
	return low, high
}

// Savings is would less actual, negative where self-hosting loses; nil where one is not known.
func Savings(would, actual *api.Nanos) *api.Nanos {
	if would == nil || actual == nil {
		return nil
	}
	return new(*would - *actual)
}

// Percent is the savings in percent of what it would have cost, not clamped; nil where one is
// not known or nothing would have been paid.
func Percent(would, actual *api.Nanos) *float64 {
	s := Savings(would, actual)
	if s == nil || *would == 0 {
		return nil
	}
	return new(100 * float64(*s) / float64(*would))
}

// BreakEven is how many completion tokens an hour must yield for self-hosting at hour (nano-
// dollars per hour) to cost as much as p, at u's mix of prompt and completion:
// N* = H/(p_out + ρ p_in). It is nil where u has no completion, and where p charges nothing or
// lacks a price: then no number of tokens breaks even.
func BreakEven(hour api.Nanos, p api.Prices, u api.Usage) *float64 {
	if u.Completion() <= 0 {
		return nil
	}
	total, ok := bill(p, u, million, million, million) // nano-dollars of u, a million-fold
	if !ok {
		// Too many tokens for the finer unit; whole nano-dollars are exact enough then.
		if total, ok = Cost(p, u); !ok || total == 0 {
			return nil
		}
		return new(float64(hour) * float64(u.Completion()) / float64(total))
	}
	if total == 0 {
		return nil
	}
	return new(float64(hour) * million * float64(u.Completion()) / float64(total))
}
