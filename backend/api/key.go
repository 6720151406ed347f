package api

import (
	"strings"
	"time"
)

// Key is a client key of the gateway and what was used with it. Its secret is in no Key.
type Key struct {
	ID      string    `json:"id,omitempty"` // part of the key's text; "" for one of the config
	Name    string    `json:"name"`
	Source  string    `json:"source"` // one of the KeyFrom… constants
	Created time.Time `json:"created,omitzero"`
	Expires time.Time `json:"expires,omitzero"` // zero: never
	Revoked time.Time `json:"revoked,omitzero"` // zero: it is not
	Limits  KeyLimits `json:"limits"`
	Capture bool      `json:"capture,omitempty"` // its prompts and answers are kept for a while: see package capture
	Use     *KeyUse   `json:"use"`               // nil: not known here
}

// Where a key is kept.
const (
	KeyFromConfig   = "config"   // keys: in the config; read-only
	KeyFromDatabase = "database" // made by "vllmdeck keys"
)

// State is active, expired or revoked.
func (k *Key) State(now time.Time) string {
	switch {
	case !k.Revoked.IsZero():
		return "revoked"
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return "expired"
	}
	return "active"
}

// KeyLimits bound what a key may do. The zero value bounds nothing.
type KeyLimits struct {
	Models   []string `json:"models,omitempty"`              // that it may ask for, names or aliases; none: all
	Requests int64    `json:"requests_per_minute,omitempty"` // 0: no limit
	Tokens   int64    `json:"tokens_per_minute,omitempty"`   // prompt and completion; 0: no limit
	Parallel int      `json:"parallel,omitempty"`            // requests at once, waiting ones too; 0: no limit
	Day      *Nanos   `json:"budget_day_usd,omitempty"`      // of actual cost, in the host's days; nil: no limit
	Month    *Nanos   `json:"budget_month_usd,omitempty"`
	Priority string   `json:"priority,omitempty"` // one of the Priority… constants; "": normal
	Failover string   `json:"failover,omitempty"` // when a paid API may serve it: one of the Failover… constants; "": as its model says
}

// When a paid API may serve the requests of a key. Of this and what the config says of the model, the stricter one holds.
const (
	FailoverNever    = "never"
	FailoverDown     = "down"     // when no worker can, and none will soon
	FailoverOverload = "overload" // also when workers have too much to do
)

// Priority classes of keys: their shares of the places that become free while requests wait are
// as 16 to 4 to 1.
const (
	PriorityHigh   = "high"
	PriorityNormal = "normal"
	PriorityLow    = "low"
)

// KeyUse is what was used with a key.
type KeyUse struct {
	InFlight int       `json:"in_flight"`
	Requests int64     `json:"requests_last_minute"`
	Tokens   int64     `json:"tokens_last_minute"` // of requests that have ended
	Day      Nanos     `json:"spent_day_usd"`      // of requests that have ended and whose cost is known
	Month    Nanos     `json:"spent_month_usd"`
	Unpriced int64     `json:"unpriced_month"` // requests of the month whose cost is not known
	Last     time.Time `json:"last_used,omitzero"`
}

// keyPrefix begins every key that we make, so that scanners for leaked secrets can know it.
const keyPrefix = "vd_"

// KeyText is a key as its owner gets it: vd_ID_SECRET.
func KeyText(id, secret string) string { return keyPrefix + id + "_" + secret }

// KeyID gives the ID in a key's text; "" if the text is not in our form.
func KeyID(text string) string {
	rest, ok := strings.CutPrefix(text, keyPrefix)
	if !ok {
		return ""
	}
	id, _, ok := strings.Cut(rest, "_")
	if !ok {
		return ""
	}
	return id
}
