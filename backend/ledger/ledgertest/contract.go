package ledgertest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/ledger"
)

func once(t *testing.T, l Ledger) {
	r := Request("a", noon)
	l.Opened(r)
	l.Closed(r)
	l.Closed(r)
	Wait(t, l)
	l.Opened(r) // late
	l.Closed(r)
	b := Request("b", noon)
	l.Opened(b)
	Wait(t, l)
	l.Closed(b)
	l.Closed(Request("c", noon)) // never opened
	l.Opened(Request("d", noon)) // not ended
	got := spend(t, l)
	want(t, "sums", lines(got), []string{"3 300 3000"})
	if u := (api.Usage{Input: 30, CacheRead: 12, Output: 15, Reasoning: 3}); got[0].Usage != u {
		t.Errorf("got usage %+v, want %+v", got[0].Usage, u)
	}
	if n := l.Status().Rows; n != 3 {
		t.Errorf("got %d rows, want 3", n)
	}
}

func retry(t *testing.T, l Ledger) {
	r := Request("a", noon)
	r.Attempts = []api.Attempt{
		{Upstream: "w1", Outcome: api.OutcomeError, Share: api.Span(time.Second), Actual: new(api.Nanos(7))},
		{Upstream: "w2", Outcome: api.OutcomeError, Share: api.Span(time.Second), Actual: new(api.Nanos(8))},
		r.Attempts[0],
	}
	l.Closed(r)
	want(t, "by class", lines(spend(t, l, "class", "worker"), "class", "worker"),
		[]string{"retry w1 0 7 unknown", "retry w2 0 8 unknown", "served w0 1 100 1000"})
	want(t, "all", lines(spend(t, l)), []string{"1 115 1000"})
	m := money(t, l, noon.Add(-time.Hour), noon.Add(time.Hour), false)
	if len(m.Classes) != 2 || m.Classes[1].Class != api.ClassRetry || m.Classes[1].Legs != 2 || m.Shares != 115 {
		t.Errorf("got classes %+v and shares %d, want 2 legs of retry and 115", m.Classes, m.Shares)
	}
}

func unknown(t *testing.T, l Ledger) {
	r := Request("a", noon)
	r.Actual = nil
	l.Closed(r)
	r = Request("b", noon)
	r.Would, r.Key = nil, "other"
	l.Closed(r)
	r = Request("c", noon)
	r.UsageSource, r.Would, r.Key = api.UsageUnknown, nil, "third"
	l.Closed(r)
	want(t, "by key", lines(spend(t, l, "key"), "key"), []string{"k 1 unknown 1000", "other 1 100 unknown", "third 1 100 0"})
	all := spend(t, l)
	want(t, "all", lines(all), []string{"3 unknown unknown"})
	if all[0].Unmetered != 1 || all[0].Usage.Input != 20 {
		t.Errorf("got %d unmetered and %d input tokens, want 1 and 20", all[0].Unmetered, all[0].Usage.Input)
	}
	m := money(t, l, time.Time{}, time.Time{}, false)
	if m.Requests != 3 || m.Unmetered != 1 || m.Unpriced != 1 || show(m.Would) != "1000" {
		t.Errorf("got %d requests, %d unmetered, %d unpriced, would %s, want 3, 1, 1, 1000", m.Requests, m.Unmetered, m.Unpriced, show(m.Would))
	}
}

func paid(t *testing.T, l Ledger) {
	leg := func(upstream string, actual, held *api.Nanos) api.Attempt {
		return api.Attempt{Upstream: upstream, Provider: upstream != "w0", Outcome: api.OutcomeError, Actual: actual, Held: held}
	}
	call := func(id string, started time.Time, legs ...api.Attempt) {
		r := Request(id, started)
		last := legs[len(legs)-1]
		r.Attempts, r.Worker, r.Class, r.Basis, r.Actual = legs, last.Upstream, api.ClassFailover, api.BasisProviderPrice, last.Actual
		l.Closed(r)
	}
	n := func(v api.Nanos) *api.Nanos { return &v }
	call("a", noon, leg("openai", n(40), nil))
	call("b", noon.Add(time.Hour), leg("w0", n(5), nil), leg("openai", n(2), nil)) // the worker's part is worker time
	call("c", noon.AddDate(0, 0, 1), leg("openai", nil, n(900)))                   // cut off: at most 900
	call("d", noon, leg("openai", nil, n(30)), leg("other", nil, nil))             // two in vain
	call("e", noon, leg("w0", nil, nil), leg("other", n(1), nil))                  // a worker without a rate
	l.Closed(Request("f", noon))                                                   // no provider
	tester := Request("g", noon)
	tester.Class, tester.Basis, tester.Worker, tester.Attempts = api.ClassTester, api.BasisProviderPrice, "openai", []api.Attempt{leg("openai", n(100), nil)}
	l.Closed(tester)
	Wait(t, l)
	want(t, "paid calls", paidBy(t, l), []string{"openai 2026-11-24 172 0", "openai 2026-11-25 900 0", "other 2026-11-24 1 1"})
	m := money(t, l, noon.Add(-time.Hour), noon.Add(2*time.Hour), false)
	if m.Paid != nil {
		t.Errorf("paid in all: got %s, want unknown while a part is", show(m.Paid))
	}
	if m := money(t, l, noon.Add(time.Hour), noon.Add(2*time.Hour), false); show(m.Paid) != "2" || m.Shares != 5 {
		t.Errorf("in the second hour: got %s paid and %d of workers, want 2 and 5", show(m.Paid), m.Shares)
	}
}

// paidBy writes what providers cost as provider, day, amount, calls of unknown cost.
func paidBy(t *testing.T, l Ledger) []string {
	t.Helper()
	found, err := l.Paid(context.Background(), noon.AddDate(0, 0, -1))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, p := range found {
		out = append(out, fmt.Sprintf("%s %s %d %d", p.Provider, p.Day, p.Amount, p.Unknown))
	}
	return out
}

func refused(t *testing.T, l Ledger) {
	r := api.Request{ID: "a", Started: noon, Route: "chat", Model: "m", Class: api.ClassServed, Outcome: api.OutcomeRejected, Status: 429, UsageSource: api.UsageUnknown}
	l.Closed(r)
	r.ID, r.Outcome = "b", api.OutcomeCancelled // left while it waited
	l.Closed(r)
	got := spend(t, l)
	want(t, "all", lines(got), []string{"2 0 unknown"})
	if got[0].Unmetered != 0 {
		t.Errorf("got %d unmetered, want 0", got[0].Unmetered)
	}
}

func simulated(t *testing.T, l Ledger) {
	r := Request("a", noon)
	r.Class, r.Simulated = api.ClassSimulated, true
	l.Closed(r)
	l.Closed(Request("b", noon))
	l.WorkerTime(ledger.WorkerTime{Worker: "s0", Incarnation: "s0/1", Started: noon, Until: noon.Add(time.Hour), Hour: new(api.Nanos(500)), Simulated: true})
	rows := spend(t, l)
	want(t, "all", lines(rows), []string{"1 100 1000", "1 100 1000"})
	if rows[0].Simulated == rows[1].Simulated {
		t.Errorf("got two rows of the same kind, want one simulated")
	}
	until(t, "worker time", func() bool { return money(t, l, noon, noon.Add(time.Hour), true).Wall > 0 })
	if m := money(t, l, noon, noon.Add(time.Hour), false); m.Requests != 1 || m.Wall != 0 || show(m.Actual) != "0" {
		t.Errorf("real: got %d requests, wall %v, actual %s, want 1, 0s, 0", m.Requests, m.Wall, show(m.Actual))
	}
	if m := money(t, l, noon, noon.Add(time.Hour), true); m.Requests != 1 || show(m.Actual) != "500" || !m.Simulated {
		t.Errorf("simulated: got %d requests, actual %s, want 1, 500", m.Requests, show(m.Actual))
	}
}

func groups(t *testing.T, l Ledger) {
	l.Closed(Request("a", noon))
	l.Closed(Request("b", noon.Add(time.Hour)))
	r := Request("c", noon.AddDate(0, 0, 1))
	r.Model, r.Outcome, r.Route, r.Key = "n", api.OutcomeCancelled, "completions", "\x1b[31mred\x00"
	l.Closed(r)
	want(t, "by day", lines(spend(t, l, "day"), "day"), []string{"2026-11-24 2 200 2000", "2026-11-25 1 100 1000"})
	hour := noon.Truncate(0).Add(-30 * time.Minute)
	want(t, "by hour", lines(spend(t, l, "hour"), "hour"), []string{
		hour.Format(time.RFC3339) + " 1 100 1000", hour.Add(time.Hour).Format(time.RFC3339) + " 1 100 1000", hour.AddDate(0, 0, 1).Format(time.RFC3339) + " 1 100 1000",
	})
	want(t, "by model and day", lines(spend(t, l, "model", "day"), "model", "day"), []string{"m 2026-11-24 2 200 2000", "n 2026-11-25 1 100 1000"})
	want(t, "by outcome", lines(spend(t, l, "outcome"), "outcome"), []string{"client_cancelled 1 100 1000", "ok 2 200 2000"})
	want(t, "by route", lines(spend(t, l, "route"), "route"), []string{"chat 2 200 2000", "completions 1 100 1000"})
	want(t, "by key", lines(spend(t, l, "key"), "key"), []string{"\x1b[31mred 1 100 1000", "k 2 200 2000"})
	if _, err := l.Spend(context.Background(), api.Query{By: []string{"model; DROP TABLE request"}}); err == nil {
		t.Error("an unknown group is accepted")
	}
	rows, err := l.Spend(context.Background(), api.Query{From: noon.AddDate(1, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	want(t, "of no request", lines(rows), []string{"0 0 unknown"})
}

func ends(t *testing.T, l Ledger) {
	for i := range 240 { // one a minute, for four hours
		l.Closed(Request(fmt.Sprintf("%03d", i), noon.Add(time.Duration(i)*time.Minute)))
	}
	Wait(t, l)
	for _, c := range []struct {
		from, to time.Duration
		want     int64
	}{
		{0, 240 * time.Minute, 240},
		{0, time.Nanosecond, 1},
		{time.Nanosecond, time.Minute, 0},
		{5 * time.Minute, 10 * time.Minute, 5},
		{30 * time.Minute, 90 * time.Minute, 60},
		{29 * time.Minute, 91 * time.Minute, 62},
		{-time.Hour, 45 * time.Minute, 45},
		{10 * time.Minute, 5 * time.Minute, 0},
		{231 * time.Minute, 24 * time.Hour, 9},
	} {
		rows, err := l.Spend(context.Background(), api.Query{From: noon.Add(c.from), To: noon.Add(c.to)})
		if err != nil {
			t.Fatal(err)
		}
		if rows[0].Requests != c.want {
			t.Errorf("%v to %v: got %d requests, want %d", c.from, c.to, rows[0].Requests, c.want)
		}
	}
	rows, err := l.Spend(context.Background(), api.Query{From: noon.Add(100 * time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	if rows[0].Requests != 140 {
		t.Errorf("without an end: got %d requests, want 140", rows[0].Requests)
	}
}

func idle(t *testing.T, l Ledger) {
	tell := func(until time.Duration) {
		l.WorkerTime(ledger.WorkerTime{Worker: "w0", Incarnation: "w0/1", Model: "m", Started: noon.Add(-24 * time.Hour), Until: noon.Add(until), Busy: until / 4, Hour: new(api.Nanos(3600))})
	}
	tell(0)
	until(t, "worker time", func() bool { return money(t, l, time.Time{}, noon, false).Wall == 24*time.Hour })
	l.Closed(Request("a", noon.Add(time.Minute)))
	paid := Request("b", noon.Add(time.Minute))
	paid.Class, paid.Basis, paid.Worker = api.ClassFailover, api.BasisProviderPrice, "openai"
	paid.Attempts[0].Share = 0
	l.Closed(paid)
	tell(time.Hour)
	until(t, "worker time", func() bool { return money(t, l, noon, noon.Add(2*time.Hour), false).Wall == time.Hour })
	m := money(t, l, noon, noon.Add(2*time.Hour), false)
	got := []string{show(m.Workers), show(new(m.Shares)), show(m.Idle), show(m.Paid), show(m.Actual), show(m.Would)}
	want(t, "workers, shares, idle, paid, actual, would", got, []string{"3600", "100", "3500", "100", "3700", "1000"})
	// An hour a quarter busy touches two hours of the clock, of one of which half passed before.
	if m.WallWhole != 90*time.Minute || m.Utilisation == nil || math.Abs(*m.Utilisation-1./6) > 1e-9 {
		t.Errorf("got utilisation %v of %v, want a sixth of 1h30m", m.Utilisation, m.WallWhole)
	}
	if day := money(t, l, noon.Add(-24*time.Hour), noon, false); show(day.Workers) != "86400" || day.Requests != 0 {
		t.Errorf("the day before: got %s and %d requests, want 86400 and 0", show(day.Workers), day.Requests)
	}
}

func rates(t *testing.T, l Ledger) {
	w := ledger.WorkerTime{Worker: "w0", Incarnation: "w0/1", Started: noon, Until: noon.Add(time.Hour)}
	tell := func(wall time.Duration, workers string) {
		t.Helper()
		l.WorkerTime(w)
		var m *ledger.Totals
		until(t, "worker time", func() bool {
			m = money(t, l, time.Time{}, time.Time{}, false)
			return m.Wall == wall && (show(m.Workers) == workers || m.Workers == nil)
		})
		if show(m.Workers) != workers {
			t.Errorf("after %v: got %s, want %s", wall, show(m.Workers), workers)
		}
	}
	tell(time.Hour, "unknown")
	if m := money(t, l, time.Time{}, time.Time{}, false); m.Actual != nil || m.Idle != nil || !slices.Equal(m.Unrated, []string{"w0"}) {
		t.Errorf("without a rate: got actual %s, idle %s, unrated %v, want unknown and w0", show(m.Actual), show(m.Idle), m.Unrated)
	}
	w.Hour, w.Until = new(api.Nanos(100)), noon.Add(2*time.Hour)
	until(t, "the rate", func() bool {
		l.WorkerTime(w)
		return show(money(t, l, time.Time{}, time.Time{}, false).Workers) == "200"
	}) // once known, it was so from the start
	w.Hour, w.Until = new(api.Nanos(900)), noon.Add(3*time.Hour)
	tell(3*time.Hour, "1100")
	w.Hour, w.Flat, w.Until = nil, true, noon.Add(4*time.Hour)
	tell(4*time.Hour, "1100")
}

func earns(t *testing.T, l Ledger) {
	i := 0
	closed := func(class, outcome string) {
		i++
		r := Request(strconv.Itoa(i), noon)
		r.Class, r.Outcome = class, outcome
		l.Closed(r)
	}
	closed(api.ClassServed, api.OutcomeOK)
	closed(api.ClassServed, api.OutcomeCancelled)
	for _, class := range []string{api.ClassFailover, api.ClassTester, api.ClassLoad} {
		closed(class, api.OutcomeOK)
	}
	for _, outcome := range []string{api.OutcomeError, api.OutcomeLost, api.OutcomeRejected} {
		closed(api.ClassServed, outcome)
	}
	m := money(t, l, noon, noon.Add(time.Second), false)
	if m.Requests != 2 || show(m.Would) != "2000" || m.Usage.Input != 20 {
		t.Errorf("got %d requests, would %s, %d input tokens, want 2, 2000, 20", m.Requests, show(m.Would), m.Usage.Input)
	}
	if len(m.Earned) != 1 || m.Earned[0].Model != "m" || m.Earned[0].Baseline != "openai/gpt-4o-mini" || m.Earned[0].Requests != 2 || m.Earned[0].Usage != m.Usage {
		t.Errorf("got %+v, want the same by model and baseline", m.Earned)
	}
	var total int64
	for _, c := range m.Classes {
		total += c.Requests
	}
	if total != 8 || len(m.Classes) != 4 {
		t.Errorf("got %d requests in %d classes, want 8 in 4", total, len(m.Classes))
	}
}

func savings(t *testing.T, l Ledger) {
	from := noon
	usd := func(n int64) *api.Nanos { return new(api.Nanos(n) * api.Dollar) }
	for i := range 4 {
		r := Request(strconv.Itoa(i), from.Add(time.Duration(i)*10*time.Minute))
		r.Would = usd(5)
		l.Closed(r)
	}
	paid := Request("p", from.Add(15*time.Minute))
	paid.Class, paid.Basis, paid.Actual = api.ClassFailover, api.BasisProviderPrice, usd(2)
	l.Closed(paid)
	l.WorkerTime(ledger.WorkerTime{Worker: "w0", Incarnation: "w0/1", Started: from, Until: from.Add(40 * time.Minute), Hour: usd(6)})
	until(t, "worker time", func() bool { return money(t, l, from, from.Add(time.Hour), false).Wall > 0 })
	series := func(from, to time.Time, buckets int) api.Series {
		s, err := l.Savings(context.Background(), from, to, buckets, false)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if got, want := fmt.Sprint(series(from, from.Add(40*time.Minute), 4)), fmt.Sprint([]float64{4, 6, 10, 14}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	fine := series(from, from.Add(40*time.Minute), 240) // of 10 s, from the rows
	if math.Abs(fine[0]-(5-1./60)) > 1e-9 || math.Abs(fine[239]-14) > 1e-9 {
		t.Errorf("in 10 s: got %v to %v, want 4.983 to 14", fine[0], fine[239])
	}
	m := money(t, l, from, from.Add(40*time.Minute), false)
	if net := *m.Would - *m.Actual; net.USD() != 14 {
		t.Errorf("got %s by Money, want the same 14", net)
	}
	l.WorkerTime(ledger.WorkerTime{Worker: "w1", Incarnation: "w1/1", Started: from.Add(25 * time.Minute), Until: from.Add(40 * time.Minute)})
	until(t, "worker time", func() bool { return money(t, l, from, from.Add(time.Hour), false).Workers == nil })
	if got, want := fmt.Sprint(series(from, from.Add(40*time.Minute), 4)), "[4 6 NaN NaN]"; got != want {
		t.Errorf("with a worker of unknown rate: got %s, want %s", got, want)
	}
	for _, n := range []int{0, -1, 1 << 30} {
		if _, err := l.Savings(context.Background(), from, from.Add(time.Hour), n, false); err == nil {
			t.Errorf("%d buckets are accepted", n)
		}
	}
}

func backwards(t *testing.T, l Ledger) {
	r := Request("a", noon)
	r.Duration, r.TTFT, r.Queue = api.Span(-time.Hour), -1, -1
	l.Closed(r)
	w := ledger.WorkerTime{Worker: "w0", Incarnation: "w0/1", Started: noon, Until: noon.Add(-time.Hour), Busy: -5, Hour: new(api.Nanos(100))}
	l.WorkerTime(w)
	w.Until = noon.Add(time.Hour)
	until(t, "worker time", func() bool {
		l.WorkerTime(w)
		return money(t, l, time.Time{}, time.Time{}, false).Wall == time.Hour
	})
	w.Until = noon.Add(30 * time.Minute)
	l.WorkerTime(w)
	l.Closed(Request("b", noon))
	m := money(t, l, time.Time{}, time.Time{}, false)
	if m.Wall != time.Hour || show(m.Workers) != "100" || m.Busy < 0 {
		t.Errorf("got wall %v, workers %s, busy %v, want 1h, 100 and no less than nothing", m.Wall, show(m.Workers), m.Busy)
	}
}

func interrupted(t *testing.T, open Open) {
	name := t.TempDir()
	l := open(t, name)
	stop := start(t, l)
	l.Opened(Request("a", noon))
	paid := Request("b", noon)
	l.Opened(paid)
	Wait(t, l)
	paid.Worker, paid.Class, paid.Basis, paid.Actual = "openai", api.ClassFailover, api.BasisProviderPrice, new(api.Nanos(7000)) // moved on; so much is reserved
	l.Opened(paid)
	l.Closed(Request("c", noon))
	Wait(t, l)
	stop()

	l = open(t, name)
	stop = start(t, l)
	if n := l.Found().Interrupted; n != 2 {
		t.Errorf("got %d interrupted, want 2", n)
	}
	if n := l.Status().Rows; n != 3 {
		t.Errorf("got %d rows, want 3", n)
	}
	rows := spend(t, l, "class")
	// On a worker its time is in the worker's idle time; on a provider it cost who knows what.
	want(t, "by class", lines(rows, "class"), []string{"failover 1 unknown unknown", "served 2 100 1000"})
	if rows[1].Interrupted != 1 || rows[1].Unmetered != 1 {
		t.Errorf("got %d interrupted and %d unmetered, want 1 and 1", rows[1].Interrupted, rows[1].Unmetered)
	}
	if got := paidBy(t, l); !slices.Equal(got, []string{"openai 2026-11-24 7000 0"}) {
		t.Errorf("paid calls: got %q, want at most what was reserved", got)
	}
	l.Closed(Request("a", noon)) // too late: it has been counted
	want(t, "after a late close", lines(spend(t, l, "outcome"), "outcome"), []string{"interrupted 2 unknown unknown", "ok 1 100 1000"})
	stop()
	l = open(t, name)
	defer start(t, l)()
	if n := l.Found().Interrupted; n != 0 {
		t.Errorf("at the next start: got %d interrupted, want 0", n)
	}
}
