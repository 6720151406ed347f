package ledger

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if folder := os.Getenv("VLLMDECK_TEST_LEDGER"); folder != "" {
		child(folder)
		return
	}
	goleak.VerifyTestMain(m)
}

var noon = time.Date(2026, 11, 24, 12, 30, 0, 0, time.Local)

func request(id string) api.Request {
	return api.Request{
		ID: id, Started: noon, Route: "chat", Model: "m", Worker: "w0", Class: api.ClassServed, Outcome: api.OutcomeOK,
		Usage: api.Usage{Input: 10, Output: 5}, UsageSource: api.UsageUpstream, Basis: api.BasisGPUTime,
		Actual: new(api.Nanos(100)), Would: new(api.Nanos(1000)), Baseline: "openai/gpt-4o-mini",
		Attempts: []api.Attempt{{Upstream: "w0", Outcome: api.OutcomeOK, Share: api.Span(12345), Actual: new(api.Nanos(100))}},
	}
}

func rowOf(id string) row {
	r := request(id)
	return newRow(&r)
}

// logs collects log lines.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func opened(t testing.TB, folder string, log *slog.Logger) *Ledger {
	t.Helper()
	l, err := open(context.Background(), folder, log, migrations, time.UTC) // see consistent
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// running opens a ledger and runs it until stop.
func running(t testing.TB, folder string, log *slog.Logger) (l *Ledger, stop func() error) {
	t.Helper()
	l = opened(t, folder, log)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	var once sync.Once
	stop = func() (err error) {
		once.Do(func() {
			cancel()
			err = <-done
			if closeErr := l.Close(); err == nil {
				err = closeErr
			}
		})
		return err
	}
	t.Cleanup(func() { stop() })
	return l, stop
}

func wait(t testing.TB, what string, ok func() bool) {
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

func onDisk(t testing.TB, l *Ledger) {
	t.Helper()
	wait(t, "rows to be on disk", func() bool { return l.Status().Queued == 0 })
}

// total gives the requests counted by the sums.
func total(t testing.TB, l *Ledger) int64 {
	t.Helper()
	rows, err := l.Spend(context.Background(), api.Query{})
	if err != nil {
		t.Fatal(err)
	}
	var n int64
	for _, r := range rows {
		n += r.Requests
	}
	return n
}

// consistent fails unless the sums by the hour and by the minute are those of the rows.
func consistent(t interface {
	Helper()
	Fatalf(string, ...any)
}, db *sql.DB,
) {
	t.Helper()
	list := strings.Join(dimensions, ", ") + ", hour"
	sums := "SUM(" + strings.Join(measures, "), SUM(") + ")"
	rows := "(SELECT *, (started / 1000000000) - ((started / 1000000000) % 3600) AS hour FROM entry) AS e"
	for _, q := range []string{
		// In a zone of whole hours a local hour begins where a Unix hour does.
		fmt.Sprintf("SELECT %s, %s FROM rollup GROUP BY %s EXCEPT SELECT %s, %s FROM %s GROUP BY %s", list, sums, list, list, sums, rows, list),
		fmt.Sprintf("SELECT %s, %s FROM %s GROUP BY %s EXCEPT SELECT %s, %s FROM rollup GROUP BY %s", list, sums, rows, list, list, sums, list),
		`SELECT SUM(would), simulated FROM minute GROUP BY simulated EXCEPT SELECT SUM(would), simulated FROM entry GROUP BY simulated`,
	} {
		var n int
		if err := db.QueryRow("SELECT COUNT(*) FROM (" + q + ") AS d").Scan(&n); err != nil {
			t.Fatalf("compare sums: %v", err)
		}
		if n != 0 {
			t.Fatalf("got %d sums that are not those of the rows: %s", n, q)
		}
	}
	var ok string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&ok); err != nil || ok != "ok" {
		t.Fatalf("integrity: got %q, %v", ok, err)
	}
}
