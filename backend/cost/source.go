package cost

import (
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// Who publishes prices.
const (
	SourceLiteLLM = "litellm"      // BerriAI/litellm model_prices_and_context_window.json
	SourceGenAI   = "genai-prices" // pydantic/genai-prices data_slim.json
)

// modes of LiteLLM's rows that are priced by the token and can stand in for vLLM.
var modes = []string{"chat", "completion", "responses"}

// ReadLiteLLM reads LiteLLM's price file, in USD per token, as it was on date (YYYY-MM-DD).
// Prices are read from the text of the numbers, never through a float. Rows of other modes are
// left out, and so are rows without any price: LiteLLM writes 0 for free and for unknown alike.
// Prices for long contexts, priority, batches, audio and reasoning apart from output are not
// read: the standard price is what is compared with.
func ReadLiteLLM(r io.Reader, date string) ([]Price, error) {
	var file map[string]json.RawMessage
	if err := json.NewDecoder(r).Decode(&file); err != nil {
		return nil, fmt.Errorf("read LiteLLM prices: %w", err)
	}
	var prices []Price
	from := map[string]string{} // ref: the key it was read from
	for _, key := range sortedKeys(file) {
		var row struct {
			Provider string      `json:"litellm_provider"`
			Mode     string      `json:"mode"`
			Input    json.Number `json:"input_cost_per_token"`
			Read     json.Number `json:"cache_read_input_token_cost"`
			Write    json.Number `json:"cache_creation_input_token_cost"`
			Output   json.Number `json:"output_cost_per_token"`
		}
		// The file has keys that are no models (sample_spec, last_updated), and rows that
		// write prose where others write numbers.
		if json.Unmarshal(file[key], &row) != nil || !slices.Contains(modes, row.Mode) {
			continue
		}
		p := Price{Ref: litellmRef(row.Provider, key), Date: date, Source: SourceLiteLLM}
		ok := true
		for _, c := range []struct {
			to   **api.Nanos
			text json.Number
		}{{&p.Input, row.Input}, {&p.CacheRead, row.Read}, {&p.CacheWrite, row.Write}, {&p.Output, row.Output}} {
			n, err := unitPrice(string(c.text), million)
			if err != nil {
				ok = false
			}
			*c.to = n
		}
		if !ok || p.Input == nil && p.Output == nil {
			continue
		}
		// Two rows may mean the same model, e.g. in two modes; the one spelled as the ref is
		// the plainer one, else the first.
		if _, twice := from[p.Ref]; twice {
			if key == p.Ref || strings.TrimPrefix(p.Ref, row.Provider+"/") == key {
				i := slices.IndexFunc(prices, func(q Price) bool { return q.Ref == p.Ref })
				prices[i], from[p.Ref] = p, key
			}
			continue
		}
		from[p.Ref] = key
		prices = append(prices, p)
	}
	return prices, nil
}

// litellmRef makes provider/model of a LiteLLM row. Its provider tags name API flavours
// (vertex_ai-llama_models, bedrock_converse) where an operator names the seller.
func litellmRef(provider, key string) string {
	switch {
	case strings.HasPrefix(provider, "vertex_ai-"):
		provider = "vertex_ai"
	case strings.HasPrefix(provider, "text-completion-"):
		provider = strings.TrimPrefix(provider, "text-completion-")
	case provider == "bedrock_converse":
		provider = "bedrock"
	case provider == "cohere_chat":
		provider = "cohere"
	case provider == "azure_text":
		provider = "azure"
	}
	for _, prefix := range []string{provider, "text-completion-" + provider} {
		if model, ok := strings.CutPrefix(key, prefix+"/"); ok {
			return provider + "/" + model
		}
	}
	return provider + "/" + key
}

// genaiProviders spells genai-prices' providers as LiteLLM does, so that both name one model
// with one ref.
var genaiProviders = map[string]string{
	"aws":        "bedrock",
	"fireworks":  "fireworks_ai",
	"google":     "gemini",
	"moonshotai": "moonshot",
	"together":   "together_ai",
	"x-ai":       "xai",
}

// ReadGenAI reads genai-prices' file, in USD per million tokens, as it was on date
// (YYYY-MM-DD). Of a model's dated prices it gives the one in force on that date and those
// announced for later, each from its first day. A price with tiers is its base price. Prices
// that change with the hour of the day are left out.
func ReadGenAI(r io.Reader, date string) ([]Price, error) {
	var file []struct {
		ID     string `json:"id"`
		Models []struct {
			ID     string          `json:"id"`
			Prices json.RawMessage `json:"prices"`
		} `json:"models"`
	}
	if err := json.NewDecoder(r).Decode(&file); err != nil {
		return nil, fmt.Errorf("read genai prices: %w", err)
	}
	var prices []Price
	for _, provider := range file {
		name := provider.ID
		if other, ok := genaiProviders[name]; ok {
			name = other
		}
		for _, m := range provider.Models {
			periods, err := genaiPeriods(m.Prices, date)
			if err != nil {
				return nil, fmt.Errorf("read genai prices of %s/%s: %w", provider.ID, m.ID, err)
			}
			for _, p := range periods {
				p.Ref = name + "/" + m.ID
				prices = append(prices, p)
			}
		}
	}
	return prices, nil
}

func genaiPeriods(raw json.RawMessage, date string) ([]Price, error) {
	type classes map[string]json.RawMessage
	type period struct {
		Constraint struct {
			StartDate string `json:"start_date"`
			StartTime string `json:"start_time"`
		} `json:"constraint"`
		Prices classes `json:"prices"`
	}
	var periods []period
	if len(raw) > 0 && raw[0] == '{' {
		var only classes
		if err := json.Unmarshal(raw, &only); err != nil {
			return nil, err
		}
		periods = []period{{Prices: only}}
	} else if err := json.Unmarshal(raw, &periods); err != nil {
		return nil, err
	}

	var current *Price
	var later []Price
	for _, in := range periods {
		if in.Constraint.StartTime != "" {
			return nil, nil
		}
		p := Price{Date: date, Source: SourceGenAI}
		for _, c := range []struct {
			to  **api.Nanos
			key string
		}{{&p.Input, "input_mtok"}, {&p.CacheRead, "cache_read_mtok"}, {&p.CacheWrite, "cache_write_mtok"}, {&p.Output, "output_mtok"}} {
			n, err := genaiPrice(in.Prices[c.key])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.key, err)
			}
			*c.to = n
		}
		if p.Input == nil && p.Output == nil {
			continue
		}
		if in.Constraint.StartDate > date {
			p.Date = in.Constraint.StartDate
			later = append(later, p)
		} else {
			current = &p // they are in the order of their dates
		}
	}
	if current != nil {
		later = append(later, *current)
	}
	return later, nil
}

func genaiPrice(raw json.RawMessage) (*api.Nanos, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	if raw[0] == '{' {
		var tiers struct {
			Base json.RawMessage `json:"base"`
		}
		if err := json.Unmarshal(raw, &tiers); err != nil {
			return nil, err
		}
		raw = tiers.Base
	}
	return unitPrice(string(raw), 1)
}

// unitPrice makes nano-dollars per million tokens of a decimal number of dollars per so many
// millionths of a million tokens. An absent price and 0 are nil: the sources write 0 for free
// and for unknown alike.
func unitPrice(text string, factor int64) (*api.Nanos, error) {
	if text == "" {
		return nil, nil
	}
	// An exact number with an exponent of a million digits is as long as that: ask a float
	// first whether it can be a price at all.
	if f, err := strconv.ParseFloat(text, 64); err != nil || len(text) > 64 || f < 0 || f > 1e9 || f != 0 && f < 1e-18 {
		return nil, fmt.Errorf("read %.64q as a price", text)
	}
	r, ok := new(big.Rat).SetString(text)
	if !ok {
		return nil, fmt.Errorf("read %q as a price", text)
	}
	n, err := api.ParseUSD(r.Mul(r, new(big.Rat).SetInt64(factor)).RatString())
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, nil
	}
	return &n, nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
