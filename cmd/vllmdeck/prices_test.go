package main

import (
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/cost"
)

// What "vllmdeck prices" lists is what the config takes, and all of it.
func TestPricesListsWhatABaselineMayName(t *testing.T) {
	table, now := cost.Embedded(), time.Now()
	if all := pricesOf(table, nil, now); len(all) < table.Len()*9/10 {
		t.Errorf("%d of %d prices are listed", len(all), table.Len())
	}
	found := pricesOf(table, []string{"OpenAI/", "4o-mini"}, now)
	if len(found) == 0 {
		t.Fatal("no price of openai/gpt-4o-mini")
	}
	for _, p := range found {
		if known, _ := table.Known(p.Ref); !known || !strings.Contains(p.Ref, "openai/") || !strings.Contains(p.Ref, "4o-mini") {
			t.Errorf("%q is listed for openai/ 4o-mini, known to the config: %v", p.Ref, known)
		}
	}
	if text := priceTable(found); !strings.Contains(text, "openai/gpt-4o-mini") || !strings.Contains(text, "$0.15") {
		t.Errorf("the table:\n%s", text)
	}
}
