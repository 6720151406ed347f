package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
)

// Totals is what a period cost, and what it would have cost. Real and simulated money are
// never in one Totals. Amounts are nil where a part of them is not known; none is clamped.
type Totals struct {
	Simulated bool

	// What counts for savings: requests that replaced the baseline.
	Requests  int64
	Usage     api.Usage  // of the metered ones
	Unmetered int64      // of Requests, those whose usage is not known: nothing is claimed for them
	Unpriced  int64      // of Requests, metered ones without a would-have cost: nothing is claimed for them
	Would     *api.Nanos // of the others; nil where there are none

	// What was spent.
	Actual  *api.Nanos // Workers + Paid
	Workers *api.Nanos // the wall clock of workers at their rates
	Shares  api.Nanos  // of Workers, what fell to requests that have ended
	Idle    *api.Nanos // Workers - Shares: nobody in flight, start-up, engine away, and those still in flight
	Paid    *api.Nanos // by the token: to providers, and at flat rates

	Wall        time.Duration // of the workers together
	Busy        time.Duration // of WallWhole, with a request in flight
	WallWhole   time.Duration // of the workers in every hour that the period touches
	Utilisation *float64      // Busy / WallWhole, 0..1; nil without workers
	Unrated     []string      // workers whose rate is not known

	Interrupted int64    // requests of any class whose end was lost in a crash
	Classes     []Class  // every class with a row, dearest first
	Earned      []Earned // what counts for savings, by model and baseline
}

// Class is one cost class of a period.
type Class struct {
	Class       string
	Requests    int64
	Legs        int64 // attempts on workers that failed: class retry alone
	Usage       api.Usage
	Unmetered   int64
	Interrupted int64
	Actual      *api.Nanos
	Would       *api.Nanos
}

// Earned is what requests of one model replaced of one baseline.
type Earned struct {
	Model    string
	Baseline string // "" where there was none
	Requests int64
	Usage    api.Usage
	Would    *api.Nanos // nil: not known of at least one request with known usage
}

// Money gives the totals of requests that started, and of worker time that passed, from one
// time until another (zero: no bound). With simulated it gives those of simulated workers,
// else those of real ones.
func (l *Ledger) Money(ctx context.Context, from, to time.Time, simulated bool) (*Totals, error) {
	t := &Totals{Simulated: simulated}
	groups, err := l.sum(ctx, from, to, []string{"class", "model", "baseline", "basis", "outcome"}, fmt.Sprintf("simulated = %d", flag(simulated)))
	if err != nil {
		return nil, fmt.Errorf("read money: %w", err)
	}
	classes := map[string]*sums{}
	type earner struct{ model, baseline string }
	earned := map[earner]*sums{}
	var all, paid sums
	for i := range groups {
		g := &groups[i]
		class := g.label("class")
		if classes[class] == nil {
			classes[class] = &sums{}
		}
		classes[class].add(g.sums)
		t.Interrupted += g.interrupted
		if byToken(g.label("basis")) {
			paid.add(g.sums)
		} else {
			t.Shares += g.actual
		}
		// Requests of one class, outcome and basis earn all or none, but for those that the
		// client left before they were sent: these used nothing.
		if g.earning > 0 {
			k := earner{g.label("model"), g.label("baseline")}
			if earned[k] == nil {
				earned[k] = &sums{}
			}
			earned[k].add(g.sums)
			all.add(g.sums)
		}
	}
	t.Requests, t.Usage, t.Unmetered, t.Unpriced = all.earning, all.usage, all.unmetered, all.wouldUnknown
	if all.earning > all.unmetered+all.wouldUnknown {
		t.Would = new(all.would)
	}
	t.Paid = paid.actualKnown()
	for class, s := range classes {
		t.Classes = append(t.Classes, Class{class, s.requests, s.legs, s.usage, s.unmetered, s.interrupted, s.actualKnown(), s.wouldKnown()})
	}
	slices.SortFunc(t.Classes, func(a, b Class) int {
		if x, y := value(a.Actual), value(b.Actual); x != y {
			if x > y {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Class, b.Class)
	})
	for k, s := range earned {
		t.Earned = append(t.Earned, Earned{k.model, k.baseline, s.earning, s.usage, s.wouldKnown()})
	}
	slices.SortFunc(t.Earned, func(a, b Earned) int {
		if c := strings.Compare(a.Model, b.Model); c != 0 {
			return c
		}
		return strings.Compare(a.Baseline, b.Baseline)
	})
	if err := l.workers(ctx, t, from, to, simulated); err != nil {
		return nil, fmt.Errorf("read money: %w", err)
	}
	t.Actual = api.Sum(t.Workers, t.Paid)
	if t.Workers != nil {
		t.Idle = new(*t.Workers - t.Shares)
	}
	return t, nil
}

// workers fills in what workers cost and how busy they were.
func (l *Ledger) workers(ctx context.Context, t *Totals, from, to time.Time, simulated bool) error {
	segments, err := l.stretches(ctx, from, to, simulated)
	if err != nil {
		return err
	}
	unrated := map[string]bool{}
	var total api.Nanos
	for _, s := range segments {
		t.Wall += s.length()
		switch {
		case s.flat:
		case s.rate == nil:
			unrated[s.worker] = true
		default:
			total += cost.Share(*s.rate, s.length())
		}
	}
	t.Unrated = sorted(unrated)
	if len(unrated) == 0 {
		t.Workers = &total
	}
	a, b := bounds(from, to)
	var wall, busy sql.NullInt64
	err = l.readers.QueryRowContext(ctx, "SELECT SUM(wall), SUM(busy) FROM worker_hour WHERE simulated = $1 AND hour > $2 AND hour < $3",
		flag(simulated), a/1e9-3600, ceil(b, 1e9)).Scan(&wall, &busy)
	if err != nil {
		return err
	}
	t.WallWhole, t.Busy = time.Duration(wall.Int64), time.Duration(busy.Int64)
	if t.WallWhole > 0 {
		t.Utilisation = new(float64(t.Busy) / float64(t.WallWhole))
	}
	return nil
}

// stretch is the part of a worker's segment that lies in a period.
type stretch struct {
	worker      string
	from, until int64
	rate        *api.Nanos
	flat        bool
}

func (s stretch) length() time.Duration { return time.Duration(s.until - s.from) }

// stretches gives the worker time of a period.
func (l *Ledger) stretches(ctx context.Context, from, to time.Time, simulated bool) ([]stretch, error) {
	a, b := bounds(from, to)
	found, err := l.readers.QueryContext(ctx, "SELECT worker, started, until, hour_rate, flat FROM worker_time WHERE until > $1 AND started < $2 AND simulated = $3", a, b, flag(simulated))
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var out []stretch
	for found.Next() {
		var s stretch
		var rate sql.NullInt64
		var flat int64
		if err := found.Scan(&s.worker, &s.from, &s.until, &rate, &flat); err != nil {
			return nil, err
		}
		if rate.Valid {
			s.rate = new(api.Nanos(rate.Int64))
		}
		s.flat = flat != 0
		s.from, s.until = max(s.from, a), min(s.until, b)
		out = append(out, s)
	}
	return out, found.Err()
}

// bounds are a period's ends in Unix nanoseconds, as far out as these go where it has none.
func bounds(from, to time.Time) (a, b int64) {
	a, b = math.MinInt64/2, math.MaxInt64/2
	if !from.IsZero() {
		a = from.UnixNano()
	}
	if !to.IsZero() {
		b = to.UnixNano()
	}
	return a, b
}

func ceil(n, d int64) int64 {
	q := n / d
	if n%d > 0 {
		q++
	}
	return q
}
