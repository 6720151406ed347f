package capture

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func entry(id, key string, age time.Duration) Entry {
	return Entry{ID: id, Client: "app-" + id, Key: key, Started: time.Now().Add(-age), Route: "chat", Model: "m", Outcome: "ok", Prompt: `[{"role":"user","content":"question ` + id + `"}]`, Answer: "answer " + id}
}

// kept runs a store that is offered entries, and ends it.
func kept(t *testing.T, folder string, keep time.Duration, size int64, list ...Entry) {
	t.Helper()
	s := New(folder, slog.New(slog.DiscardHandler))
	s.Limit(keep, size)
	for _, e := range list {
		s.Offer(e)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// ids of the entries of a key.
func ids(t *testing.T, folder, key string, limit int) string {
	t.Helper()
	list, err := Read(t.Context(), folder, key, limit)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.ID)
	}
	return strings.Join(out, " ")
}

func TestTextsAreKeptByKey(t *testing.T) {
	dir := t.TempDir()
	if got := ids(t, dir, "ci", 10); got != "" {
		t.Errorf("of nothing: %q", got)
	}
	if _, err := os.Stat(filepath.Join(dir, fileName)); err == nil {
		t.Error("reading made a file")
	}
	want := entry("a", "ci", 3*time.Minute)
	want.Cut = true
	kept(t, dir, time.Hour, 1<<20, want, entry("b", "other", 2*time.Minute), entry("c", "ci", time.Minute))
	list, err := Read(t.Context(), dir, "ci", 10)
	if err != nil || len(list) != 2 || !list[0].Started.Equal(want.Started) {
		t.Fatalf("entries = %+v (%v), want a and c", list, err)
	}
	list[0].Started = want.Started
	if list[0] != want {
		t.Errorf("entry = %+v, want %+v", list[0], want)
	}
	if got := ids(t, dir, "ci", 1); got != "c" {
		t.Errorf("the newest is %q, want c", got)
	}
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("mode %v (%v), want the file closed to others", info.Mode(), err)
	}
}

func TestTextsEnd(t *testing.T) {
	dir := t.TempDir()
	kept(t, dir, time.Hour, 1<<20, entry("old", "ci", 2*time.Hour), entry("new", "ci", 30*time.Minute))
	if got := ids(t, dir, "ci", 10); got != "new" {
		t.Errorf("with an hour: %q, want new alone", got)
	}
	kept(t, dir, time.Minute, 1<<20) // an engine that keeps nothing more: what is there ends all the same
	if got := ids(t, dir, "ci", 10); got != "" {
		t.Errorf("with a minute: %q, want none", got)
	}
	var list []Entry
	for i := range 20 {
		e := entry(fmt.Sprintf("e%02d", i), "ci", time.Duration(20-i)*time.Minute)
		e.Prompt = strings.Repeat("é", 5000)
		list = append(list, e)
	}
	kept(t, dir, time.Hour, 45_000, list...)
	if got := ids(t, dir, "ci", 100); got != "e16 e17 e18 e19" {
		t.Errorf("with room for 45 kB: %q, want the four newest", got)
	}
}

// TestWhatIsForgottenIsGone looks for the words in the file itself.
func TestWhatIsForgottenIsGone(t *testing.T) {
	dir := t.TempDir()
	kept(t, dir, time.Hour, 1<<20, entry("secretword", "ci", time.Minute), entry("b", "other", time.Minute))
	if n, err := Forget(t.Context(), dir, "ci"); n != 1 || err != nil {
		t.Errorf("Forget = %d, %v; want 1", n, err)
	}
	if a, b := ids(t, dir, "ci", 9), ids(t, dir, "other", 9); a != "" || b != "b" {
		t.Errorf("left are %q of ci and %q of the other, want the other's alone", a, b)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, path := range files {
		if b, err := os.ReadFile(path); err != nil || bytes.Contains(b, []byte("secretword")) {
			t.Errorf("%s holds the forgotten text (%v)", path, err)
		}
	}
}

func TestADamagedFileStopsNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), bytes.Repeat([]byte("not a database "), 300), 0o600); err != nil {
		t.Fatal(err)
	}
	kept(t, dir, time.Hour, 1<<20, entry("a", "ci", 0)) // Run gives no error
	if _, err := Read(t.Context(), dir, "ci", 9); err == nil || !strings.Contains(err.Error(), "move the file away") {
		t.Errorf("Read = %v, want an error with the way out", err)
	}
}

func TestHead(t *testing.T) {
	long := strings.Repeat("x", MaxText-1)
	for in, want := range map[string]string{"": "", "é": "é", long + "é": long, long + "x": long + "x", "a\xffb": "a\uFFFDb"} {
		if got := Head(in); got != want {
			t.Errorf("Head of %d bytes = %d bytes, want %d", len(in), len(got), len(want))
		}
	}
}

func TestOfferNeverBlocks(t *testing.T) {
	s := New(t.TempDir(), slog.New(slog.DiscardHandler))
	for i := range waiting + 10 {
		s.Offer(entry(strconv.Itoa(i), "ci", 0))
	}
	if n := s.lost.Load(); n != 10 {
		t.Errorf("%d are lost, want the 10 for which there was no room", n)
	}
}
