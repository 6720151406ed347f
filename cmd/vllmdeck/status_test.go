package main

import (
	"strings"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func TestStatusShowsWhatIsPaid(t *testing.T) {
	usd := func(n api.Nanos) *api.Nanos { return &n }
	s := &api.Snapshot{Providers: []api.Provider{
		{Name: "openai", State: api.ProviderCapped, SpentDay: usd(5 * api.Dollar), CapDay: usd(5 * api.Dollar), SpentMonth: usd(12 * api.Dollar), CapMonth: usd(50 * api.Dollar), Error: "the spend_cap is \x1b[2Jreached"},
		{Name: "other", State: api.ProviderOK},
	}}
	got := statusText(s)
	for _, want := range []string{"openai    capped  today $5.0000 of $5.0000   month $12.00 of $50.00   the spend_cap is ␛[2Jreached\n", "other     ok  today unknown\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("status:\n%s\nwant in it %q", got, want)
		}
	}
}

func TestStatusShowsAdviceAsACommand(t *testing.T) {
	s := &api.Snapshot{
		Workers: []api.Worker{{Name: "w1", State: api.Failed, Error: "it does not fit", Fix: &api.Fix{Set: []string{"--max-model-len=5"}, Unset: []string{"--x"}}}},
		Advice: []api.Advice{
			{Rule: "max-num-seqs", Worker: "w0", Model: "m", Text: "12 requests wait", Remedy: "let more run", Fix: &api.Fix{Set: []string{"--max-num-seqs=64"}, Env: []string{"A=b"}}},
			{Rule: "imbalance", Model: "m", Text: "w0 has \x1b[2J30", Remedy: "look"},
		},
	}
	got := statusText(s)
	for _, want := range []string{
		"vllmdeck worker fix w1: --max-model-len=5, without --x\n", "w0 could do better: 12 requests wait\n  let more run\n  vllmdeck worker fix w0 --set --max-num-seqs=64 --env A=b\n",
		"m could do better: w0 has ␛[2J30\n  look\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("status:\n%s\nwant in it %q", got, want)
		}
	}
}
