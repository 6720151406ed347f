package ledger

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func TestASecondOpenNamesTheFirst(t *testing.T) {
	folder := t.TempDir()
	l := opened(t, folder, quiet())
	_, err := Open(context.Background(), folder, quiet())
	var inUse *InUseError
	if !errors.Is(err, ErrInUse) || !errors.As(err, &inUse) || inUse.PID != os.Getpid() {
		t.Errorf("got %v, want an ErrInUse with pid %d", err, os.Getpid())
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("closed twice: got %v, want nil", err)
	}
	if err := opened(t, folder, quiet()).Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTheFilesAreTheUsersAlone(t *testing.T) {
	folder := t.TempDir()
	l := opened(t, folder, quiet())
	files, err := filepath.Glob(filepath.Join(folder, "ledger.*"))
	if err != nil || len(files) < 3 {
		t.Fatalf("files = %q, %v; want the database, its log and its lock", files, err)
	}
	for _, path := range files {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", path, info.Mode(), err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestADamagedFileIsMovedAsideAndANewOneBegun(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(b []byte) []byte
	}{
		{"header overwritten", func(b []byte) []byte { copy(b, "not a database at all"); return b }},
		{"pages overwritten", func(b []byte) []byte {
			for i := 4096; i < len(b); i++ {
				b[i] ^= 0x5a
			}
			return b
		}},
		{"half of it gone", func(b []byte) []byte { return b[:len(b)/2] }},
	} {
		t.Run(c.name, func(t *testing.T) {
			folder := t.TempDir()
			l, stop := running(t, folder, quiet())
			for i := range 300 {
				r := request(strings.Repeat("x", i))
				r.ID = "id" + r.ID
				l.Closed(r)
			}
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(folder, fileName)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, c.damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			// What was spooled is not lost with the file.
			s := spool{path: filepath.Join(folder, spoolName)}
			if err := s.append([]row{rowOf("spooled")}); err != nil {
				t.Fatal(err)
			}
			l, _ = running(t, folder, quiet())
			found := l.Found()
			if found.Damaged == "" || len(found.Notices) == 0 || !strings.Contains(found.Notices[0], found.Damaged) {
				t.Fatalf("got %+v, want a notice that names the damaged file", found)
			}
			if _, err := os.Stat(found.Damaged); err != nil {
				t.Errorf("the damaged file is gone: %v", err)
			}
			l.Closed(request("new"))
			onDisk(t, l)
			if n := total(t, l); n != 2 {
				t.Errorf("got %d requests in the new file, want the spooled and the new one", n)
			}
		})
	}
}

func TestANewerSchemaIsRefusedAndLeftAlone(t *testing.T) {
	folder := t.TempDir()
	l, err := open(context.Background(), folder, quiet(), append(slices.Clip(migrations), "CREATE TABLE later (x TEXT)"), time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(context.Background(), folder, quiet())
	if err == nil || !strings.Contains(err.Error(), fmt.Sprint("schema ", len(migrations)+1)) || !strings.Contains(err.Error(), "newer vllmdeck") {
		t.Errorf("got %v, want a refusal that says what to do", err)
	}
	if old, _ := filepath.Glob(filepath.Join(folder, "*.corrupt-*")); len(old) != 0 {
		t.Errorf("got %v moved aside, want nothing", old)
	}
}

func TestAnOlderSchemaIsBackedUpThenBroughtForward(t *testing.T) {
	folder := t.TempDir()
	l, stop := running(t, folder, quiet())
	l.Closed(request("a"))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	steps := append(slices.Clip(migrations), "CREATE TABLE later (x TEXT)")
	l, err := open(context.Background(), folder, quiet(), steps, time.UTC)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if n := total(t, l); n != 1 {
		t.Errorf("got %d requests after the migration, want 1", n)
	}
	backup := l.Found().Backup
	db, err := openReaders(backup)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var version, rows int
	if err := db.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
		t.Fatal(err)
	}
	if err := db.QueryRow("SELECT COUNT(*) FROM request").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	if version != len(migrations) || rows != 1 {
		t.Errorf("the backup %s has schema %d and %d rows, want %d and 1", backup, version, rows, len(migrations))
	}
}

func TestAFailedMigrationChangesNothing(t *testing.T) {
	folder := t.TempDir()
	if err := opened(t, folder, quiet()).Close(); err != nil {
		t.Fatal(err)
	}
	steps := append(slices.Clip(migrations), "CREATE TABLE half (x TEXT); CREATE TABLE broken (")
	if _, err := open(context.Background(), folder, quiet(), steps, time.UTC); err == nil {
		t.Fatal("a broken migration is accepted")
	}
	l := opened(t, folder, quiet())
	defer l.Close()
	var n int
	if err := l.db.QueryRow("SELECT COUNT(*) FROM sqlite_master WHERE name = 'half'").Scan(&n); err != nil || n != 0 {
		t.Errorf("got %d tables of the broken migration, %v, want 0", n, err)
	}
}

func TestAFolderNameMayHoldAnything(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "a b?c#d%20e&mode=ro")
	l, stop := running(t, folder, quiet())
	l.Closed(request("a"))
	onDisk(t, l)
	if n := total(t, l); n != 1 {
		t.Errorf("got %d, want 1", n)
	}
	if _, err := os.Stat(filepath.Join(folder, fileName)); err != nil {
		t.Error(err)
	}
	if l.Size() == 0 {
		t.Error("got a size of 0")
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestARowIsKeptWhole(t *testing.T) {
	l, _ := running(t, t.TempDir(), quiet())
	r := request("a")
	r.Stream, r.Status, r.Error, r.Finish, r.Key = true, 200, "bad \xff byte", "stop", "k"
	r.Queue, r.TTFT, r.Duration, r.ITL, r.MaxGap = 1, 2, 3, 4, 5
	r.Prices = &api.Prices{Input: new(api.Nanos(6)), CacheRead: new(api.Nanos(7)), Output: new(api.Nanos(8))}
	r.PriceDate, r.PriceVersion, r.Health = "2026-08-21", "v", new(0.5)
	l.Closed(r)
	onDisk(t, l)
	var text, date, version string
	var queue, ttft, duration, itl, gap, input, read, output, share, started int64
	var write *int64
	var health float64
	if err := l.readers.QueryRow(`SELECT r.error, price_date, price_version, queue, ttft, duration, itl, max_gap, price_input, price_cache_read, price_cache_write, price_output, health, share, started
		FROM request r WHERE id = $1`, "a").
		Scan(&text, &date, &version, &queue, &ttft, &duration, &itl, &gap, &input, &read, &write, &output, &health, &share, &started); err != nil {
		t.Fatal(err)
	}
	if text != "bad  byte" || date != "2026-08-21" || version != "v" || queue != 1 || ttft != 2 || duration != 3 || itl != 4 || gap != 5 ||
		input != 6 || read != 7 || write != nil || output != 8 || health != 0.5 || share != 12345 || started != noon.UnixNano() {
		t.Errorf("got %q %s %s %d %d %d %d %d %d %d %v %d %v %d", text, date, version, queue, ttft, duration, itl, gap, input, read, write, output, health, share)
	}
}

func TestAnHourBeginsWhereTheHostsClockSaysSo(t *testing.T) {
	kolkata := time.FixedZone("IST", 5*3600+1800)
	l, _ := running(t, t.TempDir(), quiet())
	l.flushing.Lock()
	l.zone, l.writer.zone = kolkata, kolkata
	l.flushing.Unlock()
	for i, at := range []string{"2026-11-24T23:59:59+05:30", "2026-11-25T00:00:00+05:30"} {
		r := request(string(rune('a' + i)))
		var err error
		if r.Started, err = time.Parse(time.RFC3339, at); err != nil {
			t.Fatal(err)
		}
		l.Closed(r)
	}
	onDisk(t, l)
	rows, err := l.Spend(context.Background(), api.Query{By: []string{"day"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 2 || rows[0].Labels["day"] != "2026-11-24" || rows[1].Labels["day"] != "2026-11-25" {
		t.Errorf("got %+v, want one request on each day", rows)
	}
}

func TestARowThatJSONCannotHoldDoesNotStopTheSpool(t *testing.T) {
	r := request("a")
	r.Health = new(math.NaN())
	s := spool{path: filepath.Join(t.TempDir(), spoolName)}
	if err := s.append([]row{newRow(&r)}); err != nil {
		t.Errorf("got %v, want the row without its health", err)
	}
}

func TestALegIsKeptWhereItSaysMoreThanItsRow(t *testing.T) {
	l, _ := running(t, t.TempDir(), quiet())
	plain := request("plain")
	moved := request("moved")
	moved.Attempts = append([]api.Attempt{{Upstream: "w9", Outcome: api.OutcomeError, Error: "refused", Share: 5}}, moved.Attempts...)
	failed := request("failed")
	failed.Outcome, failed.Error = api.OutcomeError, "model m: worker w0 failed: reset"
	failed.Attempts[0].Outcome, failed.Attempts[0].Error = api.OutcomeError, "reset"
	for _, r := range []api.Request{plain, moved, failed} {
		l.Closed(r)
	}
	onDisk(t, l)
	found, err := l.readers.Query("SELECT request_id, n, upstream, a.error, a.class, a.share, r.share FROM attempt a JOIN request r ON id = request_id ORDER BY request_id")
	if err != nil {
		t.Fatal(err)
	}
	defer found.Close()
	var got []string
	for found.Next() {
		var id, upstream, text, class string
		var n, share, own int
		if err := found.Scan(&id, &n, &upstream, &text, &class, &share, &own); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(id, " ", n, " ", upstream, " ", text, " ", class, " ", share, " ", own))
	}
	if err := found.Err(); err != nil {
		t.Fatal(err)
	}
	want := []string{"failed 0 w0 reset served 12345 12345", "moved 0 w9 refused retry 5 12345"}
	if !slices.Equal(got, want) {
		t.Errorf("got legs %q, want %q", got, want)
	}
}

func TestRowsOfManyShapesAreWrittenAsEachIs(t *testing.T) {
	l, _ := running(t, t.TempDir(), quiet())
	var want int64
	for i := range 1000 { // shapes of 1 to 500 rows, so chunks of every size
		r := request(fmt.Sprintf("%04d", i))
		r.Key, r.Usage.Input = fmt.Sprint("k", bits.Len(uint(i))), int64(i)
		r.Stream, r.Prices = i%3 == 0, &api.Prices{Input: new(api.Nanos(i % 2))}
		want += int64(i)
		l.Closed(r)
		if i%5 == 0 {
			l.Opened(request(fmt.Sprintf("open%04d", i)))
		}
	}
	onDisk(t, l)
	consistent(t, l.readers)
	var wrong, open int
	var sum int64
	if err := l.readers.QueryRow(`SELECT SUM(CASE WHEN CAST(id AS INTEGER) <> input OR stream <> (input % 3 = 0) OR price_input <> input % 2 OR price_output IS NOT NULL THEN 1 ELSE 0 END), SUM(input)
		FROM request WHERE outcome = 'ok'`).Scan(&wrong, &sum); err != nil {
		t.Fatal(err)
	}
	if err := l.readers.QueryRow("SELECT COUNT(*) FROM request WHERE outcome = 'open' AND finish = '' AND actual IS NULL").Scan(&open); err != nil {
		t.Fatal(err)
	}
	if wrong != 0 || sum != want || open != 200 {
		t.Errorf("got %d wrong rows, %d tokens, %d open, want 0, %d, 200", wrong, sum, open, want)
	}
}

func TestRowsClosedBeforeAreFoundInAChunk(t *testing.T) {
	l, _ := running(t, t.TempDir(), quiet())
	for _, ids := range [][2]int{{0, 20}, {10, 80}, {0, 80}} { // one batch each
		for i := ids[0]; i < ids[1]; i++ {
			l.Closed(request(strconv.Itoa(i)))
		}
		onDisk(t, l)
		if n := total(t, l); n != int64(ids[1]) || l.Status().Rows != n {
			t.Errorf("after %d to %d: got %d requests and %d rows, want %d", ids[0], ids[1], n, l.Status().Rows, ids[1])
		}
	}
	consistent(t, l.readers)
}

// TestTheClientsOwnIDIsKept finds a request by the id in its application's log: while it runs, once it has ended, and
// after it came by way of the spool.
func TestTheClientsOwnIDIsKept(t *testing.T) {
	folder := t.TempDir()
	s := spool{path: filepath.Join(folder, spoolName)}
	spooled := request("s")
	spooled.Client = "app-spooled"
	if err := s.append([]row{newRow(&spooled)}); err != nil {
		t.Fatal(err)
	}
	l, _ := running(t, folder, quiet())
	for _, id := range []string{"ended", "open", "none"} {
		r := request(id)
		if id != "none" {
			r.Client = "app-" + id
		}
		l.Opened(r)
		if id != "open" {
			l.Closed(r)
		}
	}
	for client, want := range map[string]string{"app-ended": "ended", "app-open": "open", "app-spooled": "s", "": "none"} {
		var id string
		err := errors.New("not asked")
		for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			err = l.readers.QueryRow("SELECT id FROM request WHERE client_id = ?", client).Scan(&id)
		}
		if err != nil || id != want {
			t.Errorf("the request with the client's id %q is %q (%v), want %q", client, id, err, want)
		}
	}
}
