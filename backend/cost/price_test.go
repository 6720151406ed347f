package cost

import (
	"math"
	"math/big"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"pgregory.net/rapid"
)

// usd reads an amount or a price per million tokens.
func usd(t testing.TB, s string) *api.Nanos {
	t.Helper()
	n, err := api.ParseUSD(s)
	if err != nil {
		t.Fatal(err)
	}
	return &n
}

func show(n *api.Nanos) string {
	if n == nil {
		return "unknown"
	}
	return n.String()
}

func TestACostIsRoundedOnceHalfAwayFromZero(t *testing.T) {
	for _, c := range []struct {
		name          string
		input, output api.Nanos // per million
		u             api.Usage
		want          api.Nanos
	}{
		{"nothing used costs nothing", 500, 500, api.Usage{}, 0},
		{"half a nano-dollar rounds up", 500_000, 0, api.Usage{Input: 1}, 1},
		{"less than half rounds down", 499_999, 0, api.Usage{Input: 1}, 0},
		{"two classes are added before they are rounded", 400_000, 400_000, api.Usage{Input: 1, Output: 1}, 1},
		{"reasoning is billed as output", 0, 1_000_000, api.Usage{Output: 2, Reasoning: 3}, 5},
	} {
		got, ok := Cost(api.Prices{Input: &c.input, Output: &c.output}, c.u)
		if !ok || got != c.want {
			t.Errorf("%s: got %d, %v, want %d", c.name, got, ok, c.want)
		}
	}
}

func TestACachedTokenWithoutACachePriceIsBilledAsInput(t *testing.T) {
	u := api.Usage{CacheRead: 1_000_000, CacheWrite: 1_000_000}
	p := api.Prices{Input: usd(t, "3")}
	if got, ok := Cost(p, u); !ok || got != 6*api.Dollar {
		t.Errorf("got %s, %v, want 6", got, ok)
	}
	p.CacheRead, p.CacheWrite = usd(t, "0.3"), usd(t, "3.75")
	if got, ok := Cost(p, u); !ok || got != *usd(t, "4.05") {
		t.Errorf("got %s, %v, want 4.05", got, ok)
	}
}

func TestACostIsUnknownRatherThanWrong(t *testing.T) {
	one, minus, most := api.Nanos(1), api.Nanos(-1), api.Nanos(math.MaxInt64)
	for _, c := range []struct {
		name string
		p    api.Prices
		u    api.Usage
	}{
		{"no output price", api.Prices{Input: &one}, api.Usage{Output: 1}},
		{"no price at all", api.Prices{}, api.Usage{Input: 1}},
		{"a negative count", api.Prices{Input: &one}, api.Usage{Input: -1}},
		{"a negative price", api.Prices{Input: &minus}, api.Usage{Input: 1}},
		{"past what Nanos holds", api.Prices{Input: &most}, api.Usage{Input: 1_000_001}},
		{"past 128 bits", api.Prices{Input: &most, Output: &most}, api.Usage{Input: math.MaxInt64, CacheRead: math.MaxInt64, CacheWrite: math.MaxInt64, Output: math.MaxInt64, Reasoning: math.MaxInt64}},
	} {
		if got, ok := Cost(c.p, c.u); ok {
			t.Errorf("%s: got %s, want unknown", c.name, got)
		}
	}
	if got, ok := Cost(api.Prices{Input: &most}, api.Usage{Input: million}); !ok || got != most {
		t.Errorf("the greatest amount: got %s, %v, want %s", got, ok, most)
	}
}

func TestACostIsThatOfExactArithmetic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		price := rapid.Int64Range(0, int64(MaxOutput))
		tokens := rapid.Int64Range(0, 1<<40)
		p := api.Prices{}
		for _, to := range []**api.Nanos{&p.Input, &p.CacheRead, &p.CacheWrite, &p.Output} {
			*to = new(api.Nanos(price.Draw(t, "price")))
		}
		u := api.Usage{
			Input: tokens.Draw(t, "input"), CacheRead: tokens.Draw(t, "read"), CacheWrite: tokens.Draw(t, "write"),
			Output: tokens.Draw(t, "output"), Reasoning: tokens.Draw(t, "reasoning"),
		}
		sum := new(big.Int)
		for _, x := range [][2]int64{
			{int64(*p.Input), u.Input},
			{int64(*p.CacheRead), u.CacheRead},
			{int64(*p.CacheWrite), u.CacheWrite},
			{int64(*p.Output), u.Output},
			{int64(*p.Output), u.Reasoning},
		} {
			sum.Add(sum, new(big.Int).Mul(big.NewInt(x[0]), big.NewInt(x[1])))
		}
		want := sum.Quo(sum.Add(sum, big.NewInt(million/2)), big.NewInt(million))
		got, ok := Cost(p, u)
		if ok != want.IsInt64() || ok && int64(got) != want.Int64() {
			t.Fatalf("got %d, %v, want %s", got, ok, want)
		}
	})
}
