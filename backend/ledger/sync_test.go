package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func TestSyncReturnsOnceTheRowIsOnDisk(t *testing.T) {
	t.Parallel()
	l, _ := running(t, t.TempDir(), quiet())
	ctx := context.Background()
	if err := l.Sync(ctx); err != nil {
		t.Errorf("with nothing recorded: %v, want nil", err)
	}
	var all sync.WaitGroup
	for lane := range 8 {
		all.Go(func() {
			for i := range 40 {
				id := fmt.Sprintf("%d-%d", lane, i)
				l.Opened(request(id))
				if err := l.Sync(ctx); err != nil {
					t.Errorf("Sync = %v", err)
				}
				var outcome string
				if err := l.readers.QueryRowContext(ctx, "SELECT outcome FROM request WHERE id = $1", id).Scan(&outcome); err != nil || outcome != api.OutcomeOpen {
					t.Errorf("behind Sync, row %s is %q (%v), want open", id, outcome, err)
				}
			}
		})
	}
	all.Wait()
}

func TestSyncTakesTheSpoolForADiskAndMemoryForNone(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	l, _ := running(t, folder, quiet())
	release := hold(t, l)
	l.Opened(request("spooled"))
	if err := l.Sync(context.Background()); err != nil || l.Status().Spooled != 1 {
		t.Errorf("Sync = %v with %+v, want nil with one row in the spool", err, l.Status())
	}
	if err := os.Rename(filepath.Join(folder, spoolName), filepath.Join(folder, "aside")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(folder, spoolName), 0o700); err != nil {
		t.Fatal(err)
	}
	l.Opened(request("remembered"))
	ctx, stop := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer stop()
	if err := l.Sync(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Sync = %v with the row in memory alone, want the deadline", err)
	}
	if err := os.Remove(filepath.Join(folder, spoolName)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(folder, "aside"), filepath.Join(folder, spoolName)); err != nil {
		t.Fatal(err)
	}
	release()
	if err := l.Sync(context.Background()); err != nil {
		t.Errorf("Sync = %v, want nil: the database takes rows again", err)
	}
	wait(t, "both rows to be in the database", func() bool { return l.Status().Queued == 0 && l.Status().Spooled == 0 })
}
