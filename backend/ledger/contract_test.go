package ledger_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/ledger"
	"github.com/vllmdeck/vllmdeck/backend/ledger/ledgertest"
)

func TestSQLiteKeepsTheContract(t *testing.T) {
	ledgertest.Run(t, func(t *testing.T, name string) ledgertest.Ledger {
		t.Helper()
		l, err := ledger.Open(context.Background(), name, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return l
	})
}
