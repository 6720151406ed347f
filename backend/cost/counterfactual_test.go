package cost

import (
	"fmt"
	"math"
	"strconv"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func baseline(t testing.TB, ref string) Price {
	t.Helper()
	p, ok := Embedded().Lookup(ref)
	if !ok {
		t.Fatalf("%s has no price", ref)
	}
	return p
}

func TestACacheCountsForTheBaselineOnlyInLongPrompts(t *testing.T) {
	p := baseline(t, "openai/gpt-4o-mini")
	for _, c := range []struct {
		name string
		u    api.Usage
		want string
	}{
		{"short: all at the input price", api.Usage{Input: 23, CacheRead: 1000}, "0.00015345"},
		{"long: read at half", api.Usage{Input: 24, CacheRead: 1000}, "0.0000786"},
	} {
		if got := show(Would(p, c.u)); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	if got := Would(Price{}, api.Usage{Output: 1}); got != nil {
		t.Errorf("without a price: got %s, want unknown", got)
	}
}

func TestTheBandHoldsTheEstimate(t *testing.T) {
	u := api.Usage{Input: 400_000, CacheRead: 600_000, Output: 500_000, Reasoning: 500_000}
	hosted := baseline(t, "deepinfra/meta-llama/Meta-Llama-3.1-8B-Instruct")
	for _, c := range []struct {
		ref       string
		hosted    *Price
		low, high string
	}{
		// .15×.4 + .075×.6 = .105 in, .6 out: ×.941 and ×.941×.98; .75 × 1.022
		{"openai/gpt-4o-mini", nil, "0.652113", "0.7665"},
		// No price of a cache: .5 in, 1.5 out; answers may be 0.419 as long.
		{"openai/gpt-3.5-turbo", nil, "1.0619185", "2.044"},
		{"openai/gpt-4o-mini", &hosted, "0.08", "0.7665"},
	} {
		p := baseline(t, c.ref)
		low, high := WouldBand(p, c.hosted, u)
		would := Would(p, u)
		if show(low) != c.low || show(high) != c.high {
			t.Errorf("%s: got %s to %s, want %s to %s", c.ref, show(low), show(high), c.low, c.high)
		}
		if *low > *would || *would > *high {
			t.Errorf("%s: got %s outside of %s to %s", c.ref, would, low, high)
		}
	}
	if low, high := WouldBand(Price{}, nil, u); low != nil || high != nil {
		t.Errorf("without a price: got %s to %s, want unknown", show(low), show(high))
	}
}

func TestALossIsNotClamped(t *testing.T) {
	would, actual := usd(t, "1"), usd(t, "4")
	if got := Savings(would, actual); show(got) != "-3" {
		t.Errorf("got %s, want -3", show(got))
	}
	if got := Percent(would, actual); got == nil || *got != -300 {
		t.Errorf("got %v, want -300 %%", got)
	}
	if Percent(new(api.Nanos(0)), actual) != nil || Percent(nil, actual) != nil || Savings(would, nil) != nil {
		t.Error("got a figure from what is not known or nothing")
	}
}

// Output tokens a day at which a rented GPU costs as much as the baseline, one prompt token to
// each completion token.
func TestBreakEvenIsWhereTheCostsMeet(t *testing.T) {
	prices := func(both string) api.Prices {
		return api.Prices{Input: new(api.Nanos(0)), Output: usd(t, both)} // in and out together
	}
	for _, c := range []struct{ hour, both, million string }{
		{"2.50", "2.00", "30"},
		{"2.50", "0.75", "80"},
		{"2.50", "0.45", "133.3"},
		{"0.34", "2.00", "4.1"},
		{"0.34", "0.75", "10.9"},
		{"0.34", "0.45", "18.1"},
		{"1.30", "0.75", "41.6"},
		{"5.00", "2.00", "60"},
	} {
		n := BreakEven(*usd(t, c.hour), prices(c.both), api.Usage{Input: 1000, Output: 1000})
		if n == nil {
			t.Fatalf("%s against %s: got unknown", c.hour, c.both)
		}
		if got := fmt.Sprintf("%.4g", *n*24/1e6); math.Abs(*n*24/1e6-number64(t, c.million)) > 0.06 {
			t.Errorf("%s/h against $%s: got %s M a day, want %s", c.hour, c.both, got, c.million)
		}
	}
	p := baseline(t, "openai/gpt-4o-mini")
	if n := BreakEven(api.Dollar, p.Prices, api.Usage{Input: 5}); n != nil {
		t.Errorf("without completions: got %v, want unknown", *n)
	}
	if n := BreakEven(api.Dollar, prices("0"), api.Usage{Output: 5}); n != nil {
		t.Errorf("against what is free: got %v, want none", *n)
	}
	huge := api.Usage{Input: 1 << 50, Output: 1 << 50}
	if n := BreakEven(*usd(t, "0.75"), p.Prices, huge); n == nil || math.Abs(*n-1e6) > 1 {
		t.Errorf("of very many tokens: got %v, want a million", n)
	}
}

func number64(t *testing.T, s string) float64 {
	t.Helper()
	return usd(t, s).USD()
}

// A typical report on savings from self-hosting, and what its figures should have been. The
// report prices gpt-3.5-turbo at $1.50 and vLLM at $0.10 per million tokens of any kind, and
// reads those as per thousand in its text.
func TestAuditOfASavingsReport(t *testing.T) {
	const requests = 2551
	report := api.Prices{Input: usd(t, "1.50"), Output: usd(t, "1.50")}
	list := baseline(t, "openai/gpt-3.5-turbo")
	bill := func(p api.Prices, u api.Usage) api.Nanos {
		n, ok := Cost(p, u)
		if !ok {
			t.Fatalf("no cost for %+v", u)
		}
		return n
	}
	usual := api.Usage{Input: 20, Output: 52}
	perRequest := *usd(t, "0.000114") - *usd(t, "0.000007") // its own two figures

	annual := perRequest * 1_000_000 * 12
	effort := 800 * api.Dollar
	gpu := Share(*usd(t, "0.34"), 8760*time.Hour)
	roi := func(gain, cost api.Nanos) string { return fmt.Sprintf("%.1f%%", *Percent(&cost, &gain)*-1) }

	for _, c := range []struct{ row, what, got, want string }{
		{"1", "76 tokens at $1.50 per thousand", bill(api.Prices{Output: usd(t, "1500")}, api.Usage{Output: 76}).String(), "0.114"},
		{"1", "such a price is refused", strconv.FormatBool(Credible(Price{Prices: api.Prices{Output: usd(t, "1500")}}) != ""), "true"},
		{"2", "20 in and 52 out at the list price", bill(list.Prices, usual).String(), "0.000088"},
		{"2", "the same as the report bills it", bill(report, usual).String(), "0.000108"},
		{"2", "overstated", fmt.Sprintf("%.0f%%", *Percent(new(bill(list.Prices, usual)), new(bill(report, usual)))*-1), "23%"},
		{"2", "overstated on input alone", fmt.Sprintf("%.0f%%", *Percent(new(bill(list.Prices, api.Usage{Input: 1000})), new(bill(report, api.Usage{Input: 1000})))*-1), "200%"},
		{"4", "savings, whatever is served", fmt.Sprintf("%.2f%%", *Percent(usd(t, "0.0015"), usd(t, "0.0001"))), "93.33%"},
		{"4", "from rounded figures", fmt.Sprintf("%.2f%%", *Percent(usd(t, "0.000114"), usd(t, "0.000007"))), "93.86%"},
		{"5", "saved on 2,551 requests at $0.000107", fmt.Sprintf("%.4f", (perRequest * requests).USD()), "0.2730"},
		{"5", "per request of the stated total", fmt.Sprintf("%.7f", usd(t, "0.1526").USD()/requests), "0.0000598"},
		{"5", "tokens in that", fmt.Sprintf("%.1f", usd(t, "0.1526").USD()/requests/(1.40/million)), "42.7"},
		{"6", "100,000 requests at the API", (*usd(t, "0.000114") * 100_000).String(), "11.4"},
		{"6", "100,000 requests at vLLM", (*usd(t, "0.000007") * 100_000).String(), "0.7"},
		{"6", "saved on 100,000", (perRequest * 100_000).String(), "10.7"},
		{"6", "saved on a million", (perRequest * 1_000_000).String(), "107"},
		{"6", "saved on 100 million", (perRequest * 100_000_000).String(), "10700"},
		{"8", "a million a month for a year", annual.String(), "1284"},
		{"8", "million a month for $100,000 a year", fmt.Sprintf("%.1f", 100_000/perRequest.USD()/12/1e6), "77.9"},
		{"10", "return on its own gain", roi(12_840*api.Dollar, effort), "1505.0%"},
		{"10", "return on the right gain", roi(annual, effort), "60.5%"},
		{"10", "a rented RTX 4090, a year", gpu.String(), "2978.4"},
		{"10", "gain after that GPU", Savings(&annual, new(effort+gpu)).String(), "-2494.4"},
	} {
		if c.got != c.want {
			t.Errorf("row %s, %s: got %s, want %s", c.row, c.what, c.got, c.want)
		}
	}

	// Done honestly: a rented GPU for the four minutes of the test against the API's bill.
	api4min := bill(report, api.Usage{Output: 76}) * requests
	for _, g := range []struct {
		name, hour string
		percent    float64
	}{{"H100", "2.5", 43}, {"A100", "1.3", 70}, {"RTX 4090", "0.34", 92}} {
		got := *Percent(&api4min, new(Share(*usd(t, g.hour), 4*time.Minute)))
		if math.Round(got) != g.percent {
			t.Errorf("%s: got %.1f %% saved, want %.0f", g.name, got, g.percent)
		}
	}
}

func TestCostInfoSaysNothingThatIsNotKnown(t *testing.T) {
	served := api.Request{
		Class: api.ClassServed, UsageSource: api.UsageUpstream, Usage: api.Usage{Input: 3, CacheRead: 16, Output: 5},
		Actual: usd(t, "0.2"), Would: usd(t, "0.1"), Baseline: "openai/gpt-4o-mini", PriceDate: "2026-08-21", Basis: api.BasisGPUTime,
	}
	got := CostInfo(&served)
	if *got.PromptTokens != 19 || *got.CachedTokens != 16 || *got.CompletionTokens != 5 || show(got.Savings) != "-0.1" || *got.SavingsPercent != -100 || got.UsageSource != "" {
		t.Errorf("served: got %+v", got)
	}
	unknown := served
	unknown.UsageSource, unknown.Would = api.UsageUnknown, nil
	if got := CostInfo(&unknown); got.PromptTokens != nil || got.CachedTokens != nil || got.CompletionTokens != nil || got.Savings != nil || got.SavingsPercent != nil || got.UsageSource != api.UsageUnknown {
		t.Errorf("unknown: got %+v, want no figure", got)
	}
	counted := served
	counted.UsageSource = api.UsageCounted
	if got := CostInfo(&counted); got.UsageSource != api.UsageCounted || got.PromptTokens == nil {
		t.Errorf("counted: got %+v, want it marked", got)
	}
	for _, class := range []string{api.ClassFailover, api.ClassRetry, api.ClassTester, api.ClassLoad} {
		r := served
		r.Class = class
		if got := CostInfo(&r); got.Savings != nil || got.SavingsPercent != nil || got.Actual == nil {
			t.Errorf("%s: got savings %s, want none beside the cost", class, show(got.Savings))
		}
	}
}
