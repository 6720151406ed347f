package gateway

import (
	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// openaiUsage reads the usage object of chat, completions, embeddings and rerank. There, prompt_tokens
// includes the cached ones and completion_tokens the reasoning ones.
func openaiUsage(v gjson.Result) api.Usage {
	var prompt, cached, completion, reasoning int64
	v.ForEach(func(key, n gjson.Result) bool {
		switch key.Str {
		case "prompt_tokens":
			prompt = n.Int()
		case "prompt_tokens_details":
			cached = n.Get("cached_tokens").Int()
		case "completion_tokens":
			completion = n.Int()
		case "completion_tokens_details":
			reasoning = n.Get("reasoning_tokens").Int()
		}
		return true
	})
	return disjoint(prompt, cached, completion, reasoning)
}

// responsesUsage reads the usage object of /v1/responses: the same with other names.
func responsesUsage(v gjson.Result) api.Usage {
	return disjoint(v.Get("input_tokens").Int(), v.Get("input_tokens_details.cached_tokens").Int(),
		v.Get("output_tokens").Int(), v.Get("output_tokens_details.reasoning_tokens").Int())
}

// rerankUsage reads usage where only the total may be given: nothing is generated there.
func rerankUsage(v gjson.Result) api.Usage {
	if p := v.Get("prompt_tokens"); p.Exists() {
		return openaiUsage(v)
	}
	return disjoint(v.Get("total_tokens").Int(), 0, 0, 0)
}

// disjoint takes the part out of the whole. A server that reports a part greater than its whole is
// believed about the whole.
func disjoint(prompt, cached, completion, reasoning int64) api.Usage {
	prompt, completion = max(prompt, 0), max(completion, 0)
	cached, reasoning = min(max(cached, 0), prompt), min(max(reasoning, 0), completion)
	return api.Usage{Input: prompt - cached, CacheRead: cached, Output: completion - reasoning, Reasoning: reasoning}
}

// costInfo is the cost_info of a priced request.
func costInfo(r *api.Request) api.CostInfo {
	info := api.CostInfo{
		Actual: r.Actual, Would: r.Would, Baseline: r.Baseline, PriceDate: r.PriceDate, Basis: r.Basis, Simulated: r.Simulated,
	}
	if r.UsageSource != api.UsageUnknown {
		info.PromptTokens, info.CachedTokens, info.CompletionTokens = new(r.Usage.Prompt()), new(r.Usage.CacheRead), new(r.Usage.Completion())
	}
	if r.UsageSource != api.UsageUpstream {
		info.UsageSource = r.UsageSource
	}
	if n := len(r.Attempts); n > 0 && r.Attempts[n-1].Provider {
		info.Provider = r.Attempts[n-1].Upstream
	}
	// What a provider served replaced nothing: it was the paid call.
	if info.Provider == "" && r.Actual != nil && r.Would != nil {
		info.Savings = new(*r.Would - *r.Actual)
		if *r.Would > 0 {
			info.SavingsPercent = new(float64(int64(1e4*float64(*info.Savings)/float64(*r.Would))) / 100)
		}
	}
	return info
}

// costMember is cost_info as a JSON member, costValue alone.
func costMember(r *api.Request) []byte {
	info := costInfo(r)
	return info.Append(append(make([]byte, 0, 320), `"cost_info":`...))
}

func costValue(r *api.Request) []byte {
	info := costInfo(r)
	return info.Append(nil)
}
