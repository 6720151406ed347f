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
