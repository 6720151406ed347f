package backend

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
	"github.com/vllmdeck/vllmdeck/backend/ledger"
)

// moneyEvery is how often the ledger is asked for the day's totals.
const moneyEvery = time.Second

// money is the day's standing as last asked of the ledger; immutable.
type money struct {
	from   time.Time
	totals *ledger.Totals // nil: not asked yet, or the ledger could not say
}

// countMoney asks the ledger for the day's totals until ctx ends.
func (b *Backend) countMoney(ctx context.Context) error {
	tick := time.NewTicker(moneyEvery)
	defer tick.Stop()
	failing := false
	for {
		now := time.Now()
		if err := b.providers.load(ctx, now); err != nil && !failing && ctx.Err() == nil {
			b.log.Error("what providers have cost is not known yet", "error", err)
		}
		from := midnight(now)
		t, err := b.totals(ctx, from, b.simulated())
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !failing:
			b.log.Error("money not counted", "error", err)
		case err == nil:
			b.money.Store(&money{from: from, totals: t})
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// totals asks the ledger for the money since a time. Workers' time is told to it every few
// seconds, the shares of their requests at once: until it is told, it is no less than they are.
func (b *Backend) totals(ctx context.Context, from time.Time, simulated bool) (*ledger.Totals, error) {
	t, err := b.ledger.Money(ctx, from, time.Time{}, simulated)
	if err != nil {
		return nil, err
	}
	if t.Workers != nil && *t.Workers < t.Shares {
		t.Workers, t.Idle = new(t.Shares), new(api.Nanos(0))
		t.Actual = api.Sum(t.Workers, t.Paid)
	}
	return t, nil
}

// midnight is the start of the local day.
func midnight(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, t.Location())
}

// simulated says whether money here is simulated money: every worker is, and nobody is paid.
func (b *Backend) simulated() bool {
	return len(b.providers.list()) == 0 && allSimulated(b.pool.Statuses())
}

// net is the day's savings; nil where it is not known.
func (m *money) net() *api.Nanos {
	if m.totals == nil {
		return nil
	}
	return cost.Savings(m.totals.Would, m.totals.Actual)
}

func (m *money) netUSD() *float64 {
	if n := m.net(); n != nil {
		return new(n.USD())
	}
	return nil
}

// show makes the Money of a snapshot from the totals and from what s shows of the present.
func (m *money) show(s *api.Snapshot, p *pricing) api.Money {
	zone, _ := s.Time.Zone()
	out := api.Money{
		Period: "today", From: midnight(s.Time), Zone: zone, Basis: api.BasisGPUTime, RateLabel: p.label, Baseline: p.baseline,
		Missing: p.missing, Simulated: len(s.Providers) == 0 && allSimulated(s.Workers), Classes: []api.ClassCost{},
	}
	if p.perToken != nil {
		out.Basis = api.BasisPerToken
	}
	base, priced := p.table.At(p.baseline, time.Now())
	if priced {
		out.Prices, out.PriceDate, out.PriceSource = &base.Prices, base.Date, base.Source
	}
	out.HourRate = hourRate(s.Workers, p.shares)
	if w := s.Windows; len(w) > 0 {
		minute := lastMinute(&w[0])
		out.OutputRate = new(minute.output * 3600)
	}
	t := m.totals
	if t == nil {
		return out
	}
	if out.HourRate == nil && p.perToken == nil && slices.ContainsFunc(s.Workers, runs) {
		// The ledger hears of a worker's time every few seconds; that it has no price is known now.
		unpriced := *t
		unpriced.Workers, unpriced.Actual, unpriced.Idle = nil, nil, nil
		t = &unpriced
	}
	out.From = m.from
	out.Requests, out.Usage, out.Unmetered = t.Requests, t.Usage, t.Unmetered
	out.Actual, out.Idle, out.Would = t.Actual, t.Idle, t.Would
	out.Savings = cost.Savings(t.Would, t.Actual)
	out.Percent = cost.Percent(t.Would, t.Actual)
	out.Utilisation = t.Utilisation
	for _, c := range t.Classes {
		out.Classes = append(out.Classes, api.ClassCost{Class: c.Class, Requests: max(c.Requests, c.Legs), Actual: c.Actual})
	}
	c := p.compare(t)
	out.Low, out.High, out.Hostile = c.low, c.high, c.hostile
	if priced && out.HourRate != nil && p.perToken == nil {
		out.BreakEven = cost.BreakEven(*out.HourRate, base.Prices, t.Usage)
		if out.OutputRate != nil && t.Would != nil && t.Usage.Completion() > 0 {
			// The day's mix of prompt and output at the pace of the last minute.
			per := t.Would.USD() / float64(t.Usage.Completion())
			if n, ok := api.FromUSD(per * *out.OutputRate); ok {
				out.HourWould = &n
			}
		}
	}
	return out
}

// hourRate is what the workers that run cost per hour; nil where one of them has no rate.
func hourRate(workers []api.Worker, shares map[string][]string) *api.Nanos {
	var sum api.Nanos
	running := false
	for i := range workers {
		w := &workers[i]
		if ok, _ := pays(workers, w, shares); !ok {
			continue
		}
		if w.HourCost == nil {
			return nil
		}
		sum += *w.HourCost
		running = true
	}
	if !running {
		return nil
	}
	return &sum
}

// runs says whether a worker has a process that costs something.
func runs(w api.Worker) bool {
	return !w.Started.IsZero() && w.State != api.Stopped && w.State != api.Failed
}

type pace struct{ output float64 }

// lastMinute is the mean rate over the shortest window, without the bucket that still fills.
func lastMinute(w *api.Window) pace {
	if len(w.Output) < 2 {
		return pace{}
	}
	full := w.Output[:len(w.Output)-1]
	sum := 0.0
	for _, v := range full {
		if v == v { // not NaN
			sum += v
		}
	}
	return pace{sum / float64(len(full))}
}

// comparison is what stands beside the one number.
type comparison struct {
	low, high *api.Nanos
	hostile   *api.Hostile
}

// compare works out the band of the savings and the hostile baseline: the same open models
// hosted elsewhere. The hostile baseline is known only if one is known for every model that
// earned.
func (p *pricing) compare(t *ledger.Totals) comparison {
	var c comparison
	low, high := api.Nanos(0), api.Nanos(0)
	banded := len(t.Earned) > 0
	hostile := &api.Hostile{Would: new(api.Nanos(0))}
	for _, e := range t.Earned {
		base, ok := p.table.At(e.Baseline, time.Now())
		host := p.hostileOf(e.Model)
		if !ok {
			banded = false
		} else if l, h := cost.WouldBand(base, host, e.Usage); l == nil || h == nil {
			banded = false
		} else {
			low, high = low+*l, high+*h
		}
		if host == nil {
			hostile = nil
		}
		if hostile == nil {
			continue
		}
		n, ok := host.Cost(e.Usage)
		if !ok {
			hostile = nil
			continue
		}
		*hostile.Would += n
		switch hostile.Name {
		case "", host.Ref:
			hostile.Name = host.Ref
		default:
			hostile.Name = "each model hosted elsewhere"
		}
		hostile.Date = max(hostile.Date, host.Date)
	}
	if banded {
		c.low, c.high = cost.Savings(&low, t.Actual), cost.Savings(&high, t.Actual)
	}
	if hostile != nil && hostile.Name != "" {
		hostile.Savings = cost.Savings(hostile.Would, t.Actual)
		c.hostile = hostile
	}
	return c
}

func (p *pricing) hostileOf(model string) *cost.Price {
	var price cost.Price
	var ok bool
	if p.hostile != "" {
		price, ok = p.table.At(p.hostile, time.Now())
	} else {
		price, ok = p.table.Hosted(model)
	}
	if !ok {
		return nil
	}
	return &price
}

// comparisonView is GET /cost-comparison of the gateway.
type comparisonView struct {
	Period      string               `json:"period"`
	Requests    int64                `json:"requests"`
	Tokens      api.Usage            `json:"tokens"`
	Unmetered   int64                `json:"unmetered_requests"`
	Actual      *api.Nanos           `json:"actual_usd"`
	Idle        *api.Nanos           `json:"idle_usd"`
	Would       *api.Nanos           `json:"would_have_cost_usd"`
	Savings     *api.Nanos           `json:"savings_usd"`
	Low         *api.Nanos           `json:"low"`  // of the savings
	High        *api.Nanos           `json:"high"` // of the savings
	Percent     *float64             `json:"savings_percent"`
	Baseline    string               `json:"baseline"`
	PriceDate   *string              `json:"price_date"`
	Utilisation *float64             `json:"utilisation"`
	Hostile     *api.Hostile         `json:"hostile_baseline"`
	Excluded    map[string]exclusion `json:"excluded"`
	Missing     []string             `json:"missing,omitempty"`
	Simulated   bool                 `json:"simulated,omitempty"`
}

type exclusion struct {
	Requests int64      `json:"requests"`
	Actual   *api.Nanos `json:"actual_usd"`
}

// periods of GET /cost-comparison.
var periods = map[string]func(now time.Time) time.Time{
	"today": midnight,
	"month": func(now time.Time) time.Time {
		y, m, _ := now.Date()
		return time.Date(y, m, 1, 0, 0, 0, 0, now.Location())
	},
	"all": func(time.Time) time.Time { return time.Time{} },
}

// costComparison answers GET /cost-comparison.
func (b *Backend) costComparison(ctx context.Context, period string) (any, error) {
	period = cmp.Or(period, "all")
	from, ok := periods[period]
	if !ok {
		return nil, fmt.Errorf("period %q: want today, month or all", period)
	}
	sim := b.simulated()
	t, err := b.totals(ctx, from(time.Now()), sim)
	if err != nil {
		return nil, err
	}
	p := b.pricing.Load()
	c := p.compare(t)
	v := comparisonView{
		Period: period, Requests: t.Requests, Tokens: t.Usage, Unmetered: t.Unmetered, Actual: t.Actual, Idle: t.Idle, Would: t.Would,
		Savings: cost.Savings(t.Would, t.Actual), Low: c.low, High: c.high, Percent: cost.Percent(t.Would, t.Actual), Baseline: p.baseline,
		Utilisation: t.Utilisation, Hostile: c.hostile, Excluded: map[string]exclusion{}, Missing: p.missing, Simulated: sim,
	}
	if base, ok := p.table.At(p.baseline, time.Now()); ok {
		v.PriceDate = &base.Date
	}
	for _, class := range t.Classes {
		if !cost.Earns(class.Class) {
			v.Excluded[class.Class] = exclusion{max(class.Requests, class.Legs), class.Actual}
		}
	}
	return v, nil
}
