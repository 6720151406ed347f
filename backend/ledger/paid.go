package ledger

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// Paid is what one provider cost on one day of the host's zone. Unlike other sums it is an upper
// bound: where the cost of a call is not known, what it was at most counts.
type Paid struct {
	Provider string
	Day      string // 2006-01-02
	Amount   api.Nanos
	Unknown  int64 // calls of which not even that is known
}

// Paid gives what providers cost for requests that started since from, by provider and day.
func (l *Ledger) Paid(ctx context.Context, from time.Time) ([]Paid, error) {
	type key struct{ provider, day string }
	days := map[key]*Paid{}
	at := func(provider string, started time.Time) *Paid {
		k := key{provider, started.In(l.zone).Format(time.DateOnly)}
		if days[k] == nil {
			days[k] = &Paid{Provider: k.provider, Day: k.day}
		}
		return days[k]
	}
	groups, err := l.sum(ctx, from, time.Time{}, []string{"worker", "hour"}, "basis = 'provider_price' AND simulated = 0")
	if err != nil {
		return nil, fmt.Errorf("read paid calls: %w", err)
	}
	for i := range groups {
		g := &groups[i]
		seconds, err := strconv.ParseInt(g.label("hour"), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("read paid calls: %w", err)
		}
		p := at(g.label("worker"), time.Unix(seconds, 0))
		p.Amount += g.actual
		p.Unknown += g.actualUnknown
	}
	since, _ := bounds(from, time.Time{})
	found, err := l.readers.QueryContext(ctx, `SELECT a.upstream, r.started, a.held FROM attempt a JOIN request r ON r.id = a.request_id
		WHERE a.held IS NOT NULL AND r.started >= $1 AND r.simulated = 0`, since)
	if err != nil {
		return nil, fmt.Errorf("read paid calls: %w", err)
	}
	defer found.Close()
	for found.Next() {
		var provider string
		var started, held int64
		if err := found.Scan(&provider, &started, &held); err != nil {
			return nil, fmt.Errorf("read paid calls: %w", err)
		}
		p := at(provider, time.Unix(0, started))
		p.Amount += api.Nanos(held)
		p.Unknown-- // it is among those
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("read paid calls: %w", err)
	}
	out := make([]Paid, 0, len(days))
	for _, p := range days {
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b Paid) int {
		return cmp.Or(strings.Compare(a.Provider, b.Provider), strings.Compare(a.Day, b.Day))
	})
	return out, nil
}
