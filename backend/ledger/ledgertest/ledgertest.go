package ledgertest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/ledger"
)

// Ledger is what the contract is about.
type Ledger interface {
	Run(ctx context.Context) error
	Close() error
	Opened(r api.Request)
	Closed(r api.Request)
	WorkerTime(w ledger.WorkerTime)
	Status() api.Ledger
	Found() ledger.Found
	Spend(ctx context.Context, q api.Query) ([]api.Row, error)
	Money(ctx context.Context, from, to time.Time, simulated bool) (*ledger.Totals, error)
	Paid(ctx context.Context, from time.Time) ([]ledger.Paid, error)
	Savings(ctx context.Context, from, to time.Time, buckets int, simulated bool) (api.Series, error)
}

// Open opens the ledger kept under a name: the same name is the same ledger.
type Open func(t *testing.T, name string) Ledger

// Run proves the contract. Each part has a ledger of its own.
func Run(t *testing.T, open Open) {
	for _, part := range []struct {
		name string
		test func(t *testing.T, l Ledger)
	}{
		{"a request is counted once however often it is told", once},
		{"a leg on a worker that failed is class retry", retry},
		{"what is not known is nil and not 0", unknown},
		{"what providers cost is told by day, at most", paid},
		{"what was refused costs nothing", refused},
		{"simulated and real are never in one row", simulated},
		{"groups are those asked for", groups},
		{"the ends of a period are exact", ends},
		{"idle is what workers cost beyond the shares", idle},
		{"a rate is that of its time", rates},
		{"only what replaced the baseline earns", earns},
		{"savings add up over the buckets", savings},
		{"a clock that was set back takes nothing away", backwards},
	} {
		t.Run(part.name, func(t *testing.T) {
			name := t.TempDir()
			l := open(t, name)
			stop := start(t, l)
			part.test(t, l)
			stop()
		})
	}
	t.Run("what was open when the engine died is interrupted", func(t *testing.T) { interrupted(t, open) })
}

func start(t *testing.T, l Ledger) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// Wait returns once everything told to l is on disk.
func Wait(t testing.TB, l Ledger) {
	t.Helper()
	until(t, "rows to be on disk", func() bool { return l.Status().Queued == 0 })
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(30 * time.Second)
	defer deadline.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited 30 s for %s", what)
		}
	}
}

// noon is a moment in the middle of an hour and day of the host.
var noon = time.Date(2026, 11, 24, 12, 30, 0, 0, time.Local)

// Request is one that w0 served well, for 100 nano-dollars in place of 1,000.
func Request(id string, started time.Time) api.Request {
	return api.Request{
		ID: id, Started: started, Route: "chat", Model: "m", Worker: "w0", Key: "k", Class: api.ClassServed, Outcome: api.OutcomeOK, Status: 200,
		Usage: api.Usage{Input: 10, CacheRead: 4, Output: 5, Reasoning: 1}, UsageSource: api.UsageUpstream, Duration: api.Span(time.Second),
		Basis: api.BasisGPUTime, Actual: new(api.Nanos(100)), Would: new(api.Nanos(1000)), Baseline: "openai/gpt-4o-mini",
		Prices:   &api.Prices{Input: new(api.Nanos(150_000_000)), Output: new(api.Nanos(600_000_000))},
		Attempts: []api.Attempt{{Upstream: "w0", Outcome: api.OutcomeOK, Share: api.Span(time.Millisecond), Actual: new(api.Nanos(100))}},
	}
}

func spend(t *testing.T, l Ledger, by ...string) []api.Row {
	t.Helper()
	Wait(t, l)
	rows, err := l.Spend(context.Background(), api.Query{By: by})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func money(t *testing.T, l Ledger, from, to time.Time, simulated bool) *ledger.Totals {
	t.Helper()
	Wait(t, l)
	m, err := l.Money(context.Background(), from, to, simulated)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func show(n *api.Nanos) string {
	if n == nil {
		return "unknown"
	}
	return strconv.FormatInt(int64(*n), 10)
}

// line writes a row as labels: requests actual would.
func line(r api.Row, by ...string) string {
	var s strings.Builder
	for _, b := range by {
		s.WriteString(r.Labels[b] + " ")
	}
	fmt.Fprintf(&s, "%d %s %s", r.Requests, show(r.Actual), show(r.Would))
	return s.String()
}

func lines(rows []api.Row, by ...string) []string {
	var out []string
	for _, r := range rows {
		out = append(out, line(r, by...))
	}
	return out
}

func want(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}
