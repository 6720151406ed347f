package api

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Usage counts tokens in disjoint classes: no token is in two of them.
type Usage struct {
	Input      int64 `json:"input"`       // prompt tokens that were computed (not read from a cache)
	CacheRead  int64 `json:"cache_read"`  // prompt tokens served from a prefix cache
	CacheWrite int64 `json:"cache_write"` // prompt tokens billed for writing a cache (paid APIs; 0 for vLLM)
	Output     int64 `json:"output"`      // visible completion tokens
	Reasoning  int64 `json:"reasoning"`   // completion tokens the client did not see as content
}

// Prompt is all prompt tokens.
func (u Usage) Prompt() int64 { return u.Input + u.CacheRead + u.CacheWrite }

// Completion is all completion tokens.
func (u Usage) Completion() int64 { return u.Output + u.Reasoning }

// Add gives the class-wise sum.
func (u Usage) Add(v Usage) Usage {
	return Usage{u.Input + v.Input, u.CacheRead + v.CacheRead, u.CacheWrite + v.CacheWrite, u.Output + v.Output, u.Reasoning + v.Reasoning}
}

// Where a row's usage comes from. Everything but UsageUpstream is marked on screen.
const (
	UsageUpstream  = "upstream"  // the server said so: exact
	UsageCounted   = "counted"   // content events counted as they passed
	UsageTokenized = "tokenized" // counted by /tokenize on a worker of the same model
	UsageUnknown   = "unknown"   // not known; Usage is meaningless
)

// How a request ended.
const (
	OutcomeOpen        = "open"             // not ended yet
	OutcomeOK          = "ok"               // complete, as the worker meant it
	OutcomeCancelled   = "client_cancelled" // the client went away
	OutcomeRejected    = "rejected"         // refused by the gateway or as a 4xx by the worker
	OutcomeError       = "error"            // the worker failed before any content and nobody else could serve it
	OutcomeLost        = "upstream_lost"    // cut after content had been sent
	OutcomeInterrupted = "interrupted"      // the engine died meanwhile; written at the next start
)

// Cost classes. Only ClassServed earns savings.
const (
	ClassServed    = "served"
	ClassFailover  = "failover" // served by a paid provider
	ClassRetry     = "retry"    // a leg on a worker that failed
	ClassTester    = "tester"
	ClassLoad      = "load"
	ClassSimulated = "simulated"
)

// Cost bases.
const (
	BasisGPUTime       = "gpu_time"       // share of the worker's wall clock
	BasisPerToken      = "per_token"      // flat rates from the config: an assumption
	BasisProviderPrice = "provider_price" // what a paid API charges
)

// Span is a duration whose JSON is a number of seconds, and null where it is 0: not known.
type Span time.Duration

// MarshalJSON writes seconds with microsecond precision, or null.
func (s Span) MarshalJSON() ([]byte, error) {
	if s == 0 {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, math.Round(time.Duration(s).Seconds()*1e6)/1e6, 'f', -1, 64), nil
}

// UnmarshalJSON reads a number of seconds or null.
func (s *Span) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*s = 0
		return nil
	}
	f, err := strconv.ParseFloat(string(b), 64) // b is JSON: encoding/json has seen to that
	if err != nil {
		return fmt.Errorf("read %s as seconds: %w", b, err)
	}
	*s = Span(math.Round(f * float64(time.Second)))
	return nil
}

// Request is one client request, in flight or ended: a row of the ledger, a line on screen.
type Request struct {
	ID      string    `json:"id"`                  // ours; unique for ever, sorts by time
	Client  string    `json:"client_id,omitempty"` // the client's own X-Request-Id, as its log has it: at most 128 printable ASCII characters; foreign text
	Started time.Time `json:"started"`
	Route   string    `json:"route"`            // "chat", "completions", ...
	Model   string    `json:"model"`            // the name in the config that it resolved to
	Worker  string    `json:"worker,omitempty"` // who served it, or tried last
	Key     string    `json:"key,omitempty"`    // name of the client key
	Class   string    `json:"class"`
	Stream  bool      `json:"stream,omitempty"`

	Outcome string `json:"outcome"`
	Status  int    `json:"status,omitempty"` // HTTP status sent to the client
	Error   string `json:"error,omitempty"`  // why, in our words or the worker's
	Finish  string `json:"finish,omitempty"` // the worker's finish_reason

	Usage       Usage  `json:"usage"`
	UsageSource string `json:"usage_source"` // one of the Usage… constants

	Queue    Span `json:"queue_seconds"`    // waited in the gateway, so far if it still does
	TTFT     Span `json:"ttft_seconds"`     // arrival to first content
	Duration Span `json:"duration_seconds"` // arrival to end; 0 while open
	ITL      Span `json:"itl_seconds"`      // mean gap between content events
	MaxGap   Span `json:"max_gap_seconds"`  // longest gap between content events

	Attempts []Attempt `json:"attempts,omitempty"` // every worker tried, in order

	Basis        string  `json:"basis,omitempty"`
	Actual       *Nanos  `json:"actual_usd"`
	Would        *Nanos  `json:"would_have_usd"`
	Baseline     string  `json:"baseline,omitempty"`
	PriceDate    string  `json:"price_date,omitempty"`    // of the baseline's price, YYYY-MM-DD
	PriceVersion string  `json:"price_version,omitempty"` // of the price table used
	Prices       *Prices `json:"prices,omitempty"`        // the baseline's unit prices used

	Position int  `json:"position,omitempty"`     // in line for a worker, from 1; 0: it does not wait
	Wait     Span `json:"wait_seconds,omitempty"` // how long it is likely to wait on; 0: not known, or it does not wait

	Health    *float64 `json:"health"` // 0..1, nil: not rated
	Simulated bool     `json:"simulated,omitempty"`
}

// Attempt is one leg of a request: one worker or provider that it was sent to.
type Attempt struct {
	Upstream string `json:"upstream"`
	Outcome  string `json:"outcome"`
	Error    string `json:"error,omitempty"`
	Provider bool   `json:"provider,omitempty"` // Upstream is a paid API, not a worker
	Share    Span   `json:"share_seconds"`      // worker time charged to this leg (wall clock divided among those in flight)
	Actual   *Nanos `json:"actual_usd"`
	Held     *Nanos `json:"held_usd,omitempty"` // of a paid API: what it cost at most, where Actual is not known
}

// Prices are unit prices in nano-dollars per million tokens. A nil class is not offered or not known.
type Prices struct {
	Input      *Nanos `json:"input"`
	CacheRead  *Nanos `json:"cache_read"`
	CacheWrite *Nanos `json:"cache_write"`
	Output     *Nanos `json:"output"`
}

// CostInfo is the cost_info object in an answer. Amounts that are not known are null.
type CostInfo struct {
	PromptTokens     *int64   `json:"prompt_tokens"`
	CachedTokens     *int64   `json:"cached_tokens"`
	CompletionTokens *int64   `json:"completion_tokens"`
	Actual           *Nanos   `json:"actual_usd"`
	Would            *Nanos   `json:"would_have_cost_usd"`
	Savings          *Nanos   `json:"savings_usd"`
	SavingsPercent   *float64 `json:"savings_percent"`
	Baseline         string   `json:"baseline,omitempty"`
	PriceDate        string   `json:"price_date,omitempty"`
	Basis            string   `json:"basis,omitempty"`
	UsageSource      string   `json:"usage_source,omitempty"` // present unless "upstream"
	Provider         string   `json:"provider,omitempty"`     // the paid API that served it; none: a worker did
	Simulated        bool     `json:"simulated,omitempty"`
}

// Append appends the JSON of c to b, the same bytes as encoding/json gives: it is written into
// every answer. Null is what it gives where the percentage is no number.
func (c *CostInfo) Append(b []byte) []byte {
	if p := c.SavingsPercent; p != nil && (math.IsNaN(*p) || math.IsInf(*p, 0)) {
		return append(b, "null"...)
	}
	count := func(key string, n *int64) {
		b = append(b, key...)
		if n == nil {
			b = append(b, "null"...)
		} else {
			b = strconv.AppendInt(b, *n, 10)
		}
	}
	money := func(key string, n *Nanos) {
		b = append(b, key...)
		if n == nil {
			b = append(b, "null"...)
		} else {
			b = n.Append(b)
		}
	}
	text := func(key, s string) {
		if s != "" {
			b = appendString(append(b, key...), s)
		}
	}
	count(`{"prompt_tokens":`, c.PromptTokens)
	count(`,"cached_tokens":`, c.CachedTokens)
	count(`,"completion_tokens":`, c.CompletionTokens)
	money(`,"actual_usd":`, c.Actual)
	money(`,"would_have_cost_usd":`, c.Would)
	money(`,"savings_usd":`, c.Savings)
	b = append(b, `,"savings_percent":`...)
	if p := c.SavingsPercent; p == nil {
		b = append(b, "null"...)
	} else {
		b = appendFloat(b, *p)
	}
	text(`,"baseline":`, c.Baseline)
	text(`,"price_date":`, c.PriceDate)
	text(`,"basis":`, c.Basis)
	text(`,"usage_source":`, c.UsageSource)
	text(`,"provider":`, c.Provider)
	if c.Simulated {
		b = append(b, `,"simulated":true`...)
	}
	return append(b, '}')
}

// appendString appends s as encoding/json writes it.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			if err != nil { // there is no string that cannot be written
				return append(b, `""`...)
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// appendFloat appends f as encoding/json writes it.
func appendFloat(b []byte, f float64) []byte {
	if abs := math.Abs(f); abs != 0 && (abs < 1e-6 || abs >= 1e21) {
		text, err := json.Marshal(f)
		if err != nil { // not a number: see Append
			return append(b, "null"...)
		}
		return append(b, text...)
	}
	return strconv.AppendFloat(b, f, 'f', -1, 64)
}
