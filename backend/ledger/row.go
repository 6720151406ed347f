package ledger

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
)

// row is a request as it is stored, in the database and in the spool.
type row struct {
	ID          string     `json:"id"`
	Started     int64      `json:"started"`
	Route       string     `json:"route"`
	Model       string     `json:"model"`
	Worker      string     `json:"worker"`
	Key         string     `json:"client_key"`
	Class       string     `json:"class"`
	Stream      bool       `json:"stream"`
	Outcome     string     `json:"outcome"`
	Status      int        `json:"status"`
	Error       string     `json:"error"`
	Finish      string     `json:"finish"`
	Usage       api.Usage  `json:"usage"`
	UsageSource string     `json:"usage_source"`
	Queue       int64      `json:"queue"`
	TTFT        int64      `json:"ttft"`
	Duration    int64      `json:"duration"`
	ITL         int64      `json:"itl"`
	MaxGap      int64      `json:"max_gap"`
	Basis       string     `json:"basis"`
	Actual      *api.Nanos `json:"actual"`
	Would       *api.Nanos `json:"would"`
	Baseline    string     `json:"baseline"`
	PriceDate   string     `json:"price_date"`
	PriceVer    string     `json:"price_version"`
	Prices      api.Prices `json:"prices"`
	Health      *float64   `json:"health"`
	Simulated   bool       `json:"simulated"`
	Legs        []leg      `json:"legs"`
	account
}

// leg is one attempt of a request as it is stored.
type leg struct {
	Upstream string     `json:"upstream"`
	Outcome  string     `json:"outcome"`
	Error    string     `json:"error"`
	Class    string     `json:"class"`
	Basis    string     `json:"basis"`
	Share    int64      `json:"share"`
	Actual   *api.Nanos `json:"actual"`
	Unknown  bool       `json:"actual_unknown"`
	Held     *api.Nanos `json:"held,omitempty"`
}

// account says how a row counts in sums.
type account struct {
	Unmetered     bool `json:"unmetered"`      // it used tokens, nobody knows how many
	Earning       bool `json:"earning"`        // it replaced a call of the baseline
	ActualUnknown bool `json:"actual_unknown"` // it cost something, nobody knows how much
	WouldUnknown  bool `json:"would_unknown"`  // it earns, nobody knows how much
}

func newRow(r api.Request) row {
	w := row{
		ID: clean(r.ID), Started: r.Started.UnixNano(), Route: clean(r.Route), Model: clean(r.Model),
		Worker: clean(r.Worker), Key: clean(r.Key), Class: clean(r.Class), Stream: r.Stream,
		Outcome: clean(r.Outcome), Status: r.Status, Error: clean(r.Error), Finish: clean(r.Finish),
		Usage: r.Usage, UsageSource: clean(r.UsageSource),
		Queue: span(r.Queue), TTFT: span(r.TTFT), Duration: span(r.Duration), ITL: span(r.ITL), MaxGap: span(r.MaxGap),
		Basis: clean(r.Basis), Actual: dup(r.Actual), Would: dup(r.Would), Baseline: clean(r.Baseline),
		PriceDate: clean(r.PriceDate), PriceVer: clean(r.PriceVersion), Health: rating(r.Health), Simulated: r.Simulated,
	}
	if r.Prices != nil {
		w.Prices = api.Prices{Input: dup(r.Prices.Input), CacheRead: dup(r.Prices.CacheRead), CacheWrite: dup(r.Prices.CacheWrite), Output: dup(r.Prices.Output)}
	}
	if w.UsageSource == "" {
		w.UsageSource = api.UsageUnknown
	}
	if w.UsageSource == api.UsageUnknown {
		w.Usage = api.Usage{}
	}
	for i, a := range r.Attempts {
		l := leg{Upstream: clean(a.Upstream), Outcome: clean(a.Outcome), Error: clean(a.Error), Class: w.Class, Basis: w.Basis, Share: span(a.Share), Actual: dup(a.Actual)}
		switch {
		case a.Provider:
			l.Basis, l.Held = api.BasisProviderPrice, dup(a.Held)
		case l.Basis == api.BasisProviderPrice: // a worker failed before the provider served
			l.Basis = api.BasisGPUTime
		}
		if i < len(r.Attempts)-1 {
			l.Class = api.ClassRetry
		}
		l.Unknown = l.Actual == nil && (a.Provider || l.Class == api.ClassRetry)
		w.Legs = append(w.Legs, l)
	}
	w.account = w.count()
	return w
}

// count decides how a row counts.
//
//   - What was never sent to anybody, and what was refused, used and cost nothing.
//   - An interrupted request on a worker cost time that is nobody's share: it is in the
//     worker's idle time, and so its own cost is not missing from any sum. On a provider it is.
//   - Only complete answers and those that the client broke off would have been billed
//     elsewhere for sure; only classes that replace the baseline count.
func (r *row) count() account {
	if r.Outcome == api.OutcomeOpen {
		return account{}
	}
	sent := r.Outcome == api.OutcomeInterrupted || r.Outcome != api.OutcomeRejected && (r.Worker != "" || len(r.Legs) > 0)
	metered := r.UsageSource != api.UsageUnknown
	a := account{
		Unmetered:     sent && !metered,
		Earning:       cost.Earns(r.Class) && (r.Outcome == api.OutcomeOK || r.Outcome == api.OutcomeCancelled && sent),
		ActualUnknown: sent && r.Actual == nil,
	}
	if r.Outcome == api.OutcomeInterrupted {
		a.ActualUnknown = r.Basis == api.BasisProviderPrice || r.Class == api.ClassFailover
	}
	a.WouldUnknown = a.Earning && metered && r.Would == nil
	return a
}

func (r *row) open() bool { return r.Outcome == api.OutcomeOpen }

func (r *row) args() []any {
	return []any{r.ID, r.Started, r.Route, r.Model, r.Worker, r.Key, r.Class, flag(r.Stream),
		r.Outcome, r.Status, r.Error, r.Finish,
		r.Usage.Input, r.Usage.CacheRead, r.Usage.CacheWrite, r.Usage.Output, r.Usage.Reasoning, r.UsageSource,
		r.Queue, r.TTFT, r.Duration, r.ITL, r.MaxGap,
		r.Basis, amount(r.Actual), amount(r.Would), r.Baseline, r.PriceDate, r.PriceVer,
		amount(r.Prices.Input), amount(r.Prices.CacheRead), amount(r.Prices.CacheWrite), amount(r.Prices.Output),
		float(r.Health), flag(r.Simulated), flag(r.Unmetered), flag(r.Earning), flag(r.ActualUnknown), flag(r.WouldUnknown)}
}

// span keeps a duration from being negative: a clock that was set back must not take away time.
func span(s api.Span) int64 { return max(0, int64(s)) }

func dup[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func amount(n *api.Nanos) any {
	if n == nil {
		return nil
	}
	return int64(*n)
}

func float(f *float64) any {
	if f == nil {
		return nil
	}
	return *f
}

// rating is a health that JSON can hold: the spool is JSON, and one bad row must not stop it.
func rating(f *float64) *float64 {
	if f == nil || math.IsNaN(*f) || math.IsInf(*f, 0) {
		return nil
	}
	return dup(f)
}

// maxText is the longest text kept of any one field.
const maxText = 2000

// clean makes foreign text fit for any database: valid UTF-8 without NUL, of bounded length.
func clean(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	// ToValidUTF8 gives the same string back where there is nothing to do.
	s = strings.ToValidUTF8(s, "")
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "")
	}
	return s
}

// hour is the start of the hour in zone that t lies in, in Unix seconds. Hours begin where the
// zone's clock says so, which is at half past elsewhere.
func hour(t time.Time, zone *time.Location) int64 {
	t = t.In(zone)
	return t.Unix() - int64(t.Minute()*60+t.Second())
}

func sorted(set map[string]bool) []string {
	var out []string
	for s := range set {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}
