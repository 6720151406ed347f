package ledger

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// hold keeps the database locked, as a foreign program may, until release.
func hold(t *testing.T, l *Ledger) (release func()) {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(l.path, "rwc", "immediate", "busy_timeout(5000)"))
	if err != nil {
		t.Fatal(err)
	}
	tx, err := db.BeginTx(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		tx.Rollback()
		db.Close()
	}
}

func TestRowsGoToTheSpoolWhileTheDatabaseIsLockedAndComeBackOnce(t *testing.T) {
	t.Parallel()
	var seen logs
	l, stop := running(t, t.TempDir(), slog.New(slog.NewTextHandler(&seen, nil)))
	l.Opened(request("before"))
	onDisk(t, l)
	release := hold(t, l)
	for i := range 1000 {
		l.Opened(request(strconv.Itoa(i)))
		l.Closed(request(strconv.Itoa(i)))
	}
	l.Closed(request("before"))
	wait(t, "rows to be spooled", func() bool { return l.Status().Spooled > 0 && l.Status().Queued == 0 })
	s := l.Status()
	if s.Spooled < 1001 || !strings.Contains(s.Error, "spool") { // more where an open row went before its end
		t.Errorf("got %+v, want 1001 spooled and an error", s)
	}
	l.Closed(request("while spooling"))
	wait(t, "another", func() bool { return l.Status().Spooled == s.Spooled+1 })
	release()
	wait(t, "the spool to be brought in", func() bool { return l.Status().Spooled == 0 && l.Status().Error == "" })
	if n := total(t, l); n != 1002 {
		t.Errorf("got %d requests, want 1002", n)
	}
	consistent(t, l.readers)
	if _, err := os.Stat(l.spool.path); !os.IsNotExist(err) {
		t.Errorf("the spool is still there: %v", err)
	}
	for _, c := range []struct {
		text string
		want int
	}{{"ledger cannot be written", 1}, {"ledger can be written again", 1}} {
		if n := seen.count(c.text); n != c.want {
			t.Errorf("logged %q %d times, want %d", c.text, n, c.want)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestAFullDiskLosesNothing(t *testing.T) {
	t.Parallel()
	l, _ := running(t, t.TempDir(), quiet())
	l.Closed(request("first"))
	onDisk(t, l)
	var pages int
	limit := func(n int) {
		l.flushing.Lock()
		defer l.flushing.Unlock()
		if err := l.db.QueryRow(fmt.Sprintf("PRAGMA max_page_count = %d", n)).Scan(&pages); err != nil {
			t.Fatal(err)
		}
	}
	limit(1) // SQLite takes the size it has: not one page more
	for i := range 2000 {
		l.Closed(request(strconv.Itoa(i)))
	}
	wait(t, "rows to be spooled", func() bool { return l.Status().Spooled > 0 && l.Status().Queued == 0 })
	if s := l.Status(); !strings.Contains(s.Error, "full") {
		t.Errorf("got error %q, want it to say full", s.Error)
	}
	limit(1 << 30)
	wait(t, "the spool to be brought in", func() bool { return l.Status().Spooled == 0 })
	if n := total(t, l); n != 2001 {
		t.Errorf("got %d requests, want 2001", n)
	}
	consistent(t, l.readers)
}

func TestRowsWaitInMemoryWhenTheSpoolFailsToo(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	var seen logs
	l, stop := running(t, folder, slog.New(slog.NewTextHandler(&seen, nil)))
	if err := os.Mkdir(filepath.Join(folder, spoolName), 0o700); err != nil {
		t.Fatal(err)
	}
	release := hold(t, l)
	for i := range 500 {
		l.Closed(request(strconv.Itoa(i)))
	}
	wait(t, "the error", func() bool { return strings.Contains(l.Status().Error, "memory") })
	if l.Durable() {
		t.Error("the ledger says that it keeps what it is told, but it is in memory alone")
	}
	l.Closed(request("one more"))
	if s := l.Status(); s.Queued != 501 || s.Spooled != 0 {
		t.Errorf("got %+v, want 501 queued", s)
	}
	release()
	onDisk(t, l)
	wait(t, "the error to go", func() bool { return l.Status().Error == "" })
	if !l.Durable() {
		t.Error("the ledger still says that it does not keep what it is told")
	}
	if n := total(t, l); n != 501 {
		t.Errorf("got %d requests, want 501", n)
	}
	if n := seen.count("wait in memory"); n != 1 {
		t.Errorf("logged %d times, want once", n)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeWrittenAtTheEndIsSaid(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	l, stop := running(t, folder, quiet())
	if err := os.Mkdir(filepath.Join(folder, spoolName), 0o700); err != nil {
		t.Fatal(err)
	}
	defer hold(t, l)()
	l.Closed(request("a"))
	if err := stop(); err == nil || !strings.Contains(err.Error(), "1 rows are lost") {
		t.Errorf("got %v, want an error that says 1 row is lost", err)
	}
}

func TestASpoolOfADeadEngineIsBroughtInBeforeRowsAreCalledInterrupted(t *testing.T) {
	folder := t.TempDir()
	l, stop := running(t, folder, quiet())
	l.Opened(request("a"))
	l.Opened(request("b"))
	onDisk(t, l)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	s := spool{path: filepath.Join(folder, spoolName)}
	if err := s.append([]row{rowOf("a"), rowOf("c")}); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(s.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	// A line that nobody can read, and half a line of a write that a crash cut off.
	if _, err := f.WriteString("{\"id\":\n{\"id\":\"torn\",\"outco"); err != nil {
		t.Fatal(err)
	}
	f.Close()
	l = opened(t, folder, quiet())
	defer l.Close()
	if f := l.Found(); f.Replayed != 2 || f.Interrupted != 1 || len(f.Notices) != 3 {
		t.Errorf("got %+v, want 2 replayed, 1 interrupted and three notices", f)
	}
	rows, err := l.Spend(context.Background(), api.Query{By: []string{"outcome"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2 || rows[0].Requests != 1 || rows[1].Requests != 2 {
		t.Errorf("got %+v, want 1 interrupted and 2 ok", rows)
	}
	bad, err := os.ReadFile(filepath.Join(folder, badName))
	if err != nil || string(bad) != "{\"id\":\n" {
		t.Errorf("got %q, %v put aside, want the line that cannot be read", bad, err)
	}
	consistent(t, l.readers)
}

func TestASpoolReplayedTwiceCountsOnce(t *testing.T) {
	folder := t.TempDir()
	s := spool{path: filepath.Join(folder, spoolName)}
	if err := s.append([]row{rowOf("a"), rowOf("b"), rowOf("a")}); err != nil {
		t.Fatal(err)
	}
	saved, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 { // as if the engine died each time before the file was removed
		if err := os.WriteFile(s.path, saved, 0o600); err != nil {
			t.Fatal(err)
		}
		l := opened(t, folder, quiet())
		if n := total(t, l); n != 2 || l.Status().Rows != 2 {
			t.Errorf("got %d requests and %d rows, want 2", n, l.Status().Rows)
		}
		consistent(t, l.readers)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAHalfWrittenSpoolLineIsOverwritten(t *testing.T) {
	s := spool{path: filepath.Join(t.TempDir(), spoolName)}
	if err := s.append([]row{rowOf("a")}); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(s.path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"id":"half`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := s.append([]row{rowOf("b")}); err != nil {
		t.Fatal(err)
	}
	var got []string
	n, bad, err := s.replay(func(rows []row) error {
		for _, r := range rows {
			got = append(got, r.ID)
		}
		return nil
	})
	if err != nil || n != 2 || bad != 0 || strings.Join(got, " ") != "a b" {
		t.Errorf("got %v, %d bad, %v, want a b", got, bad, err)
	}
}

func FuzzSpool(f *testing.F) {
	f.Add([]byte("{\"id\":\"a\",\"outcome\":\"ok\",\"legs\":[{}]}\nnull\n[]\n\n{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		folder := t.TempDir()
		s := spool{path: filepath.Join(folder, spoolName)}
		if err := os.WriteFile(s.path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		rows, bad, err := s.replay(func([]row) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(b), "\n") + 1; rows+bad > lines {
			t.Errorf("got %d rows and %d bad of %d lines", rows, bad, lines)
		}
	})
}
