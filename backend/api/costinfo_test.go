package api

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"
)

// plainCostInfo is CostInfo without its own writer.
type plainCostInfo CostInfo

func FuzzCostInfoIsWrittenAsEncodingJSONDoes(f *testing.F) {
	f.Add(int64(310), int64(-1), int64(123), 33.33, "openai/gpt-4o-mini", "gpu_time", uint8(0xff))
	f.Add(int64(0), int64(math.MinInt64), int64(0), -0.01, "", "", uint8(0))
	f.Add(int64(1), int64(1), int64(1), 1e21, "a<b>&\"\\\u2028\xff\x7fé", "\n", uint8(0x5a))
	f.Fuzz(func(t *testing.T, count, money, other int64, percent float64, baseline, basis string, known uint8) {
		c := CostInfo{Baseline: baseline, Basis: basis, PriceDate: basis, UsageSource: baseline, Provider: basis, Simulated: known&128 != 0}
		for i, n := range []**int64{&c.PromptTokens, &c.CachedTokens, &c.CompletionTokens} {
			if known&(1<<i) != 0 {
				*n = new(count + int64(i))
			}
		}
		for i, n := range []**Nanos{&c.Actual, &c.Would, &c.Savings} {
			if known&(8<<i) != 0 {
				*n = new(Nanos(money) + Nanos(i)*Nanos(other))
			}
		}
		if known&64 != 0 {
			c.SavingsPercent = &percent
		}
		want, err := json.Marshal(plainCostInfo(c))
		if err != nil {
			want = []byte("null")
		}
		if got := c.Append([]byte("x")); !bytes.Equal(got[1:], want) || got[0] != 'x' {
			t.Errorf("got %s, want %s", got[1:], want)
		}
	})
}
