package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// KeySpend is what requests of one client key have cost.
type KeySpend struct {
	Known    api.Nanos // of those whose cost is known
	Unpriced int64     // requests whose cost is not
}

// SpendByKey gives, by the name of the client key, what requests cost that started since a time.
// Legs on workers that failed are left out: they are charged to nobody. Requests of simulated workers
// count only with simulated.
func (l *Ledger) SpendByKey(ctx context.Context, since time.Time, simulated bool) (map[string]KeySpend, error) {
	groups, err := l.sum(ctx, since, time.Time{}, []string{"client_key"}, fmt.Sprintf("class <> '%s' AND simulated <= %d", api.ClassRetry, flag(simulated)))
	if err != nil {
		return nil, fmt.Errorf("read spend by key: %w", err)
	}
	out := make(map[string]KeySpend, len(groups))
	for i := range groups {
		if g := &groups[i]; g.label("client_key") != "" {
			out[g.label("client_key")] = KeySpend{Known: g.actual, Unpriced: g.actualUnknown}
		}
	}
	return out, nil
}
