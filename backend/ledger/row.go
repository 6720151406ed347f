package ledger

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
)

// row is a request as it is stored, in the database and in the spool.
type row struct {
	ID      string `json:"id"`
	Client  string `json:"client_id"`
	Started int64  `json:"started"`
	shape
	Usage    api.Usage `json:"usage"`
	Queue    int64     `json:"queue"`
	TTFT     int64     `json:"ttft"`
	Duration int64     `json:"duration"`
	ITL      int64     `json:"itl"`
	MaxGap   int64     `json:"max_gap"`
	Share    int64     `json:"share"` // of the last leg
	Actual   amount    `json:"actual"`
	Would    amount    `json:"would"`
	Health   *float64  `json:"health"`
	Legs     []leg     `json:"legs"` // those that say more than the row does
}

// shape is what many rows of a busy engine have in common: it is bound once for all that a
// statement writes.
type shape struct {
	Route       string `json:"route"`
	Model       string `json:"model"`
	Worker      string `json:"worker"`
	Key         string `json:"client_key"`
	Class       string `json:"class"`
	Stream      bool   `json:"stream"`
	Outcome     string `json:"outcome"`
	Status      int    `json:"status"`
	Error       string `json:"error"`
	Finish      string `json:"finish"`
	UsageSource string `json:"usage_source"`
	Basis       string `json:"basis"`
	Baseline    string `json:"baseline"`
	PriceDate   string `json:"price_date"`
	PriceVer    string `json:"price_version"`
	Prices      prices `json:"prices"`
	Simulated   bool   `json:"simulated"`
	account
}

// prices are the unit prices of the baseline.
type prices struct {
	Input      amount `json:"input"`
	CacheRead  amount `json:"cache_read"`
	CacheWrite amount `json:"cache_write"`
	Output     amount `json:"output"`
}

// leg is one attempt of a request as it is stored.
type leg struct {
	N        int    `json:"n"` // its place among the request's attempts, from 0
	Upstream string `json:"upstream"`
	Outcome  string `json:"outcome"`
	Error    string `json:"error"`
	Class    string `json:"class"`
	Basis    string `json:"basis"`
	Share    int64  `json:"share"`
	Actual   amount `json:"actual"`
	Unknown  bool   `json:"actual_unknown"`
	Held     amount `json:"held"` // of a provider: what it was at most, where Actual is not known
}

// account says how a row counts in sums.
type account struct {
	Unmetered     bool `json:"unmetered"`      // it used tokens, nobody knows how many
	Earning       bool `json:"earning"`        // it replaced a call of the baseline
	ActualUnknown bool `json:"actual_unknown"` // it cost something, nobody knows how much
	WouldUnknown  bool `json:"would_unknown"`  // it earns, nobody knows how much
}

// opening is the row of a request that was dispatched: what is known of it by then. With a provider
// this includes what is reserved for it, in place of the actual cost.
func opening(r *api.Request) row {
	w := row{
		ID: clean(r.ID), Client: clean(r.Client), Started: r.Started.UnixNano(), Queue: span(r.Queue),
		shape: shape{
			Route: clean(r.Route), Model: clean(r.Model), Worker: clean(r.Worker), Key: clean(r.Key), Class: clean(r.Class), Stream: r.Stream,
			Outcome: api.OutcomeOpen, UsageSource: api.UsageUnknown, Basis: clean(r.Basis), Baseline: clean(r.Baseline), Simulated: r.Simulated,
		},
	}
	if r.Basis == api.BasisProviderPrice {
		w.Actual = amountOf(r.Actual)
	}
	return w
}

// newRow is the row of a request that has ended.
func newRow(r *api.Request) row {
	w := row{
		ID: clean(r.ID), Client: clean(r.Client), Started: r.Started.UnixNano(), Usage: r.Usage,
		Queue: span(r.Queue), TTFT: span(r.TTFT), Duration: span(r.Duration), ITL: span(r.ITL), MaxGap: span(r.MaxGap),
		Actual: amountOf(r.Actual), Would: amountOf(r.Would), Health: rating(r.Health),
		shape: shape{
			Route: clean(r.Route), Model: clean(r.Model), Worker: clean(r.Worker), Key: clean(r.Key), Class: clean(r.Class), Stream: r.Stream,
			Outcome: clean(r.Outcome), Status: r.Status, Error: clean(r.Error), Finish: clean(r.Finish), UsageSource: clean(r.UsageSource),
			Basis: clean(r.Basis), Baseline: clean(r.Baseline), PriceDate: clean(r.PriceDate), PriceVer: clean(r.PriceVersion), Simulated: r.Simulated,
		},
	}
	if p := r.Prices; p != nil {
		w.Prices = prices{amountOf(p.Input), amountOf(p.CacheRead), amountOf(p.CacheWrite), amountOf(p.Output)}
	}
	if w.UsageSource == "" {
		w.UsageSource = api.UsageUnknown
	}
	if w.UsageSource == api.UsageUnknown {
		w.Usage = api.Usage{}
	}
	w.account = w.count(len(r.Attempts) > 0)
	for i := range r.Attempts {
		a := &r.Attempts[i]
		l := leg{N: i, Upstream: clean(a.Upstream), Outcome: clean(a.Outcome), Error: clean(a.Error), Class: w.Class, Basis: w.Basis, Share: span(a.Share), Actual: amountOf(a.Actual)}
		last := i == len(r.Attempts)-1
		if last {
			w.Share = l.Share
		} else {
			l.Class = api.ClassRetry
			l.Unknown = !l.Actual.known
		}
		switch {
		case a.Provider:
			l.Basis, l.Held = api.BasisProviderPrice, amountOf(a.Held)
		case l.Basis == api.BasisProviderPrice: // a worker failed before the provider served
			l.Basis = api.BasisGPUTime
		}
		if !last || l.Held.known || l.Upstream != w.Worker || l.Outcome != w.Outcome || l.Error != w.Error || l.Basis != w.Basis || l.Actual != w.Actual {
			w.Legs = append(w.Legs, l)
		}
	}
	return w
}

// count decides how a row counts.
//
//   - What was never sent to anybody, and what was refused, used and cost nothing.
//   - An interrupted request on a worker cost time that is nobody's share: it is in the
//     worker's idle time, and so its own cost is not missing from any sum. On a provider it is.
//   - Only complete answers and those that the client broke off would have been billed
//     elsewhere for sure; only classes that replace the baseline count.
func (r *row) count(tried bool) account {
	if r.Outcome == api.OutcomeOpen {
		return account{}
	}
	sent := r.Outcome == api.OutcomeInterrupted || r.Outcome != api.OutcomeRejected && (r.Worker != "" || tried)
	metered := r.UsageSource != api.UsageUnknown
	a := account{
		Unmetered:     sent && !metered,
		Earning:       cost.Earns(r.Class) && (r.Outcome == api.OutcomeOK || r.Outcome == api.OutcomeCancelled && sent),
		ActualUnknown: sent && !r.Actual.known,
	}
	if r.Outcome == api.OutcomeInterrupted {
		a.ActualUnknown = r.Basis == api.BasisProviderPrice || r.Class == api.ClassFailover
	}
	a.WouldUnknown = a.Earning && metered && !r.Would.known
	return a
}

func (r *row) open() bool { return r.Outcome == api.OutcomeOpen }

// args appends what is bound for all rows of a shape, in the order of shapeColumns.
func (s *shape) args(to []any) []any {
	return append(to, s.Route, s.Model, s.Worker, s.Key, s.Class, flag(s.Stream),
		s.Outcome, int64(s.Status), s.Error, s.Finish, s.UsageSource, s.Basis, s.Baseline, s.PriceDate, s.PriceVer,
		s.Prices.Input.arg(), s.Prices.CacheRead.arg(), s.Prices.CacheWrite.arg(), s.Prices.Output.arg(),
		flag(s.Simulated), flag(s.Unmetered), flag(s.Earning), flag(s.ActualUnknown), flag(s.WouldUnknown))
}

// args appends what is bound for each row, in the order of ownColumns; without the rare ones if common is set.
func (r *row) args(to []any, common bool) []any {
	to = append(to, r.ID, r.Started, r.Usage.Input, r.Usage.CacheRead, r.Usage.Output, r.TTFT, r.Duration, r.Share, r.Actual.arg(), r.Would.arg())
	if common {
		return to
	}
	return append(to, r.Client, r.Usage.CacheWrite, r.Usage.Reasoning, r.Queue, r.ITL, r.MaxGap, float(r.Health))
}

// common reports whether the rare columns of the row all have their usual values.
func (r *row) common() bool {
	return r.Usage.CacheWrite|r.Usage.Reasoning|r.Queue|r.ITL|r.MaxGap == 0 && r.Client == "" && r.Health == nil
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

// amount is money that may not be known. Unlike a pointer it can be compared.
type amount struct {
	n     api.Nanos // 0 where it is not known
	known bool
}

func amountOf(n *api.Nanos) amount {
	if n == nil {
		return amount{}
	}
	return amount{*n, true}
}

func (a amount) arg() any {
	if !a.known {
		return nil
	}
	return int64(a.n)
}

// MarshalJSON writes it as api.Nanos does, or null.
func (a amount) MarshalJSON() ([]byte, error) {
	if !a.known {
		return []byte("null"), nil
	}
	return a.n.MarshalJSON()
}

// UnmarshalJSON reads what MarshalJSON writes.
func (a *amount) UnmarshalJSON(b []byte) error {
	var n *api.Nanos
	if err := json.Unmarshal(b, &n); err != nil {
		return err
	}
	*a = amountOf(n)
	return nil
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
