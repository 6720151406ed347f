package provider_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/vllmdeck/vllmdeck/backend/cost"
	"github.com/vllmdeck/vllmdeck/backend/provider"
	"github.com/vllmdeck/vllmdeck/backend/provider/providertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProviderKeepsTheContract(t *testing.T) {
	providertest.Run(t, func(t *testing.T, s provider.Spec, table *cost.Table) *provider.Provider {
		t.Helper()
		p, err := provider.New(s, table)
		if err != nil {
			t.Fatal(err)
		}
		return p
	})
}

func TestANonsenseAddressIsRefused(t *testing.T) {
	for _, url := range []string{"", "api.openai.com", "ftp://x", "https://", "http://[::1"} {
		if _, err := provider.New(providertest.Spec(url, 0), providertest.Table()); err == nil {
			t.Errorf("New(%q) accepts it, want an error", url)
		}
	}
}
