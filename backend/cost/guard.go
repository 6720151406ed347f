package cost

import (
	"fmt"
	"slices"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// Price lists carry unit errors: a price per thousand or per million tokens in a field that is
// per token. Between 2025-02 and 2026-07 LiteLLM's list had 114 models corrected by a factor
// of 300 or more. So a price is believed only within these limits and near its peers.
const (
	// MaxInput and MaxOutput are the dearest prices believed, per million tokens. The dearest
	// real model of the lists, o1-pro, is at 150 and 600.
	MaxInput  = 200 * api.Dollar
	MaxOutput = 1000 * api.Dollar

	outlier  = 30 // times the median of the same model elsewhere
	minPeers = 3  // other sellers of the same model that are needed to say so
)

// Rejected is a price that the guards turned down.
type Rejected struct {
	Price
	Reason string
}

// Credible says why p cannot be right by itself; "" where it can.
func Credible(p Price) string {
	if p.Input != nil && *p.Input > MaxInput {
		return fmt.Sprintf("input $%s per million tokens is past the limit of $%s", *p.Input, MaxInput)
	}
	if p.Output != nil && *p.Output > MaxOutput {
		return fmt.Sprintf("output $%s per million tokens is past the limit of $%s", *p.Output, MaxOutput)
	}
	return ""
}

// Outliers says, by index, which prices are off in all that they charge for: more than 30
// times above or below the median of the same model at three or more others. One class alone
// may be, since sellers split a price between input and output as they like.
func Outliers(prices []Price) map[int]string {
	models := map[string][]Price{}
	for _, p := range prices {
		name := Model(p.Ref)
		models[name] = append(models[name], p)
	}
	out := map[int]string{}
	for i, p := range prices {
		group := models[Model(p.Ref)]
		in := off(p, group, func(p Price) *api.Nanos { return p.Input })
		ex := off(p, group, func(p Price) *api.Nanos { return p.Output })
		if in == "" || ex == "" {
			continue
		}
		out[i] = "input " + in + ", output " + ex
	}
	return out
}

// off says how one class of p is off; "" where it is not or cannot be told.
func off(p Price, group []Price, class func(Price) *api.Nanos) string {
	n := class(p)
	if n == nil {
		return ""
	}
	var peers []api.Nanos
	for _, q := range group {
		if m := class(q); m != nil && q.Ref != p.Ref {
			peers = append(peers, *m)
		}
	}
	if len(peers) < minPeers {
		return ""
	}
	slices.Sort(peers)
	median := peers[len(peers)/2]
	if *n/outlier <= median && median/outlier <= *n {
		return ""
	}
	return fmt.Sprintf("$%s is over %d times off the median $%s of %d others", *n, outlier, median, len(peers))
}

// Guard parts prices into those that are believed and those that are not.
func Guard(prices []Price) (good []Price, bad []Rejected) {
	outliers := Outliers(prices)
	for i, p := range prices {
		reason := Credible(p)
		if reason == "" {
			reason = outliers[i]
		}
		if reason != "" {
			bad = append(bad, Rejected{p, reason})
			continue
		}
		good = append(good, p)
	}
	return good, bad
}
