package ledger

import (
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestAFileThatIsRemovedUnderTheLedgerComesBackWhole(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	l, stop := running(t, folder, slog.New(slog.DiscardHandler))
	for i := range 100 {
		l.Closed(request("before " + strconv.Itoa(i)))
	}
	onDisk(t, l)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(l.path + suffix); err != nil {
			t.Fatal(err)
		}
	}
	l.Closed(request("after"))
	wait(t, "the state to say so", func() bool { return strings.Contains(l.Status().Error, "removed") })
	wait(t, "it to be there again", func() bool { return l.Status().Error == "" && l.Status().Spooled == 0 && l.Status().Queued == 0 })
	l.Closed(request("later"))
	onDisk(t, l)
	if n := total(t, l); n != 102 {
		t.Errorf("got %d requests, want 102", n)
	}
	consistent(t, l.readers)
	stop()
	l, stop = running(t, folder, slog.New(slog.DiscardHandler))
	defer stop()
	if n := total(t, l); n != 102 {
		t.Errorf("after a restart: got %d requests, want 102", n)
	}
	if f := l.Found(); f.Damaged != "" || f.Interrupted != 0 {
		t.Errorf("after a restart: found %+v", f)
	}
}

func TestAFileThatIsRemovedJustBeforeTheEndComesBackToo(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	l, stop := running(t, folder, slog.New(slog.DiscardHandler))
	l.Closed(request("before"))
	onDisk(t, l)
	if err := os.Remove(l.path); err != nil {
		t.Fatal(err)
	}
	l.Closed(request("after"))
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	l, stop = running(t, folder, slog.New(slog.DiscardHandler))
	defer stop()
	if n := total(t, l); n != 2 {
		t.Errorf("got %d requests, want 2", n)
	}
}

func TestAnotherFileInTheLedgersPlaceIsNotWrittenBeside(t *testing.T) {
	t.Parallel()
	l, stop := running(t, t.TempDir(), slog.New(slog.DiscardHandler))
	defer stop()
	l.Closed(request("before"))
	onDisk(t, l)
	if err := os.WriteFile(l.path+".new", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(l.path+".new", l.path); err != nil {
		t.Fatal(err)
	}
	l.Closed(request("after"))
	wait(t, "the row to be spooled", func() bool { return l.Status().Spooled == 1 })
	if err := l.Status().Error; !strings.Contains(err, "another file") {
		t.Errorf("the state says %q", err)
	}
}
