package ledger

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// groupings are what a Query may group by, and the columns that hold it.
var groupings = map[string]string{
	"model": "model", "worker": "worker", "class": "class", "key": "client_key", "route": "route", "outcome": "outcome",
	"day": "hour", "hour": "hour",
}

// Spend gives sums of requests that have ended, grouped as q asks, in the order of the groups.
// A request belongs to the time that it started in. Days (2006-01-02) and hours (RFC 3339, of
// their start) are those of the host's zone. Simulated requests never share a row with real
// ones. Legs on workers that failed are in rows of class retry, which count no request.
//
// Actual is nil where a request or leg of the group cost something that is not known. Would is
// that of requests that replaced the baseline and whose usage is known; it is nil where the
// group has none, and where one has no price.
func (l *Ledger) Spend(ctx context.Context, q api.Query) ([]api.Row, error) {
	var columns []string
	for _, by := range q.By {
		column, ok := groupings[by]
		if !ok {
			return nil, fmt.Errorf("group spend by %q: want model, worker, class, key, route, outcome, day or hour", by)
		}
		if !slices.Contains(columns, column) {
			columns = append(columns, column)
		}
	}
	groups, err := l.sum(ctx, q.From, q.To, append(columns, "simulated"), "")
	if err != nil {
		return nil, fmt.Errorf("read spend: %w", err)
	}
	type total struct {
		labels []string
		sums
		simulated bool
	}
	totals := map[string]*total{}
	var order []string
	for _, g := range groups {
		t := total{simulated: g.label("simulated") == "1"}
		for _, by := range q.By {
			v := g.label(groupings[by])
			if by == "day" || by == "hour" {
				seconds, err := strconv.ParseInt(v, 10, 64)
				if err != nil {
					return nil, fmt.Errorf("read spend: %w", err)
				}
				layout := time.RFC3339
				if by == "day" {
					layout = time.DateOnly
				}
				v = time.Unix(seconds, 0).In(l.zone).Format(layout)
			}
			t.labels = append(t.labels, v)
		}
		// NUL is in no label, and sorts before all that may be.
		key := strings.Join(append(slices.Clone(t.labels), strconv.FormatBool(t.simulated)), "\x00")
		if totals[key] == nil {
			totals[key] = &t
			order = append(order, key)
		}
		totals[key].add(g.sums)
	}
	slices.Sort(order)
	rows := make([]api.Row, 0, len(order))
	for _, key := range order {
		t := totals[key]
		r := api.Row{
			Requests: t.requests, Interrupted: t.interrupted, Usage: t.usage, Unmetered: t.unmetered,
			Actual: t.actualKnown(), Would: t.wouldKnown(), Simulated: t.simulated,
		}
		for i, by := range q.By {
			if r.Labels == nil {
				r.Labels = map[string]string{}
			}
			r.Labels[by] = t.labels[i]
		}
		rows = append(rows, r)
	}
	if len(rows) == 0 && len(q.By) == 0 {
		rows = append(rows, api.Row{Actual: new(api.Nanos(0))})
	}
	return rows, nil
}

func (s *sums) add(o sums) {
	s.requests += o.requests
	s.legs += o.legs
	s.interrupted += o.interrupted
	s.unmetered += o.unmetered
	s.earning += o.earning
	s.usage = s.usage.Add(o.usage)
	s.actual += o.actual
	s.actualUnknown += o.actualUnknown
	s.would += o.would
	s.wouldUnknown += o.wouldUnknown
}

func (s *sums) actualKnown() *api.Nanos {
	if s.actualUnknown > 0 {
		return nil
	}
	return new(s.actual)
}

func (s *sums) wouldKnown() *api.Nanos {
	if s.wouldUnknown > 0 || s.earning == 0 {
		return nil
	}
	return new(s.would)
}

// group is one line of sum's answer.
type group struct {
	columns []string
	labels  []string
	sums
}

func (g *group) label(column string) string {
	if i := slices.Index(g.columns, column); i >= 0 {
		return g.labels[i]
	}
	return ""
}

// sum adds up requests from one time until another (zero: no bound), grouped by columns of the
// rollup and hour. Whole hours come from the rollup, what sticks out from the rows. where is a
// condition on the rollup's columns, of our own text.
func (l *Ledger) sum(ctx context.Context, from, to time.Time, columns []string, where string) ([]group, error) {
	if where != "" {
		where = " AND " + where
	}
	fields := strings.Join(append(slices.Clone(dimensions), measures...), ", ")
	var parts []string
	var args []any
	arg := func(v int64) string {
		args = append(args, v)
		return "CAST($" + strconv.Itoa(len(args)) + " AS BIGINT)"
	}
	rows := func(from, to time.Time) {
		parts = append(parts, "SELECT "+arg(hour(from, l.zone))+" AS hour, "+fields+" FROM entry WHERE started >= "+arg(from.UnixNano())+" AND started < "+arg(to.UnixNano())+where)
	}
	condition := "1 = 1"
	first, last := from, to // of the whole hours
	if !from.IsZero() {
		if h := time.Unix(hour(from, l.zone), 0); h.Before(from) {
			first = h.Add(time.Hour)
		}
		condition += " AND hour >= " + arg(first.Unix())
	}
	if !to.IsZero() {
		last = time.Unix(hour(to, l.zone), 0)
		condition += " AND hour < " + arg(last.Unix())
	}
	parts = append(parts, "SELECT hour, "+fields+" FROM rollup WHERE "+condition+where)
	switch {
	case !from.IsZero() && !to.IsZero() && last.Before(first): // both in one hour
		if from.Before(to) {
			rows(from, to)
		}
	default:
		if first.After(from) {
			rows(from, first)
		}
		if to.After(last) {
			rows(last, to)
		}
	}
	totals := make([]string, len(measures))
	for i, m := range measures {
		totals[i] = "SUM(" + m + ")"
	}
	list := strings.Join(columns, ", ")
	text := "SELECT " + list + ", " + strings.Join(totals, ", ") + " FROM (" + strings.Join(parts, " UNION ALL ") + ") AS part GROUP BY " + list
	found, err := l.readers.QueryContext(ctx, text, args...)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var groups []group
	for found.Next() {
		g := group{columns: columns, labels: make([]string, len(columns))}
		to := make([]any, 0, len(columns)+len(measures))
		for i := range g.labels {
			to = append(to, &g.labels[i])
		}
		s := &g.sums
		to = append(to, &s.requests, &s.legs, &s.interrupted, &s.unmetered, &s.earning,
			&s.usage.Input, &s.usage.CacheRead, &s.usage.CacheWrite, &s.usage.Output, &s.usage.Reasoning,
			(*int64)(&s.actual), &s.actualUnknown, (*int64)(&s.would), &s.wouldUnknown)
		if err := found.Scan(to...); err != nil {
			return nil, err
		}
		groups = append(groups, g)
	}
	return groups, found.Err()
}
