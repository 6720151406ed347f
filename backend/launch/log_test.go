package launch

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLogRotatesAtLineEndsAndKeepsSoMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	l := NewLogFile(path, 15, 2)
	for _, p := range []string{"one 1\nanother 1\n", "two", " 2\nthree 3\n", "four 4\n", "five 5 is longer than fits\nfive 5\nsix 6\n", "7\n"} {
		if n, err := l.Write([]byte(p)); n != len(p) || err != nil {
			t.Errorf("Write(%q) = %d, %v", p, n, err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"": "five 5\nsix 6\n7\n", ".1": "five 5 is longer than fits\n", ".2": "three 3\nfour 4\n"} {
		if got := read(t, path+file); got != want {
			t.Errorf("log%s = %q, want %q", file, got, want)
		}
	}
	l = NewLogFile(path, 10, 1) // a new start, and fewer to keep
	l.Close()
	if got := read(t, path+".1"); !strings.HasSuffix(got, "7\n") {
		t.Errorf("log.1 after a new start = %q", got)
	}
	if _, err := os.Stat(path + ".2"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("log.2 is kept: %v", err)
	}
}

func TestLogWithoutLineEndsRotatesAllTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	l := NewLogFile(path, 10, 1000)
	total := 0
	for range 100 {
		n, _ := l.Write([]byte("1234567"))
		total += n
	}
	l.Close()
	logs, _ := filepath.Glob(path + "*")
	got := 0
	for _, p := range logs {
		got += len(read(t, p))
	}
	if got != total || len(logs) < 20 {
		t.Errorf("%d bytes in %d logs, want %d in many", got, len(logs), total)
	}
}

func TestLogSaysWhatItLost(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	path := filepath.Join(dir, "output.log")
	l := NewLogFile(path, 1000, 1)
	if n, err := l.Write([]byte("unseen\n")); n != 7 || err != nil {
		t.Errorf("Write to a missing folder = %d, %v, want as if all were well", n, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l.Write([]byte("seen\n"))
	l.Close()
	if got := read(t, path); !strings.Contains(got, "7 bytes of log lost") || !strings.HasSuffix(got, "seen\n") {
		t.Errorf("log = %q, want to hear of 7 bytes", got)
	}
}

func TestPumpCopiesAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	want := bytes.Repeat([]byte("some line of a log\n"), 50000)
	r, w := io.Pipe()
	go func() {
		for b := want; len(b) > 0; {
			n := min(len(b), 1000)
			_, _ = w.Write(b[:n])
			b = b[n:]
		}
		w.Close()
	}()
	l := NewLogFile(path, 1<<30, 1)
	pump(r, l)
	l.Close()
	if got := read(t, path); got != string(want) {
		t.Errorf("%d bytes in the log, want %d", len(got), len(want))
	}
}

// stuck is a disk that hangs until it is freed.
type stuck struct {
	free chan struct{}
	got  bytes.Buffer
	lost int64
}

func (s *stuck) Write(p []byte) (int, error) { <-s.free; return s.got.Write(p) }
func (s *stuck) lose(n int64)                { s.lost += n }

func TestPumpDoesNotBlockTheServerForAHangingDisk(t *testing.T) {
	const total = 3 * pumpRoom
	disk := &stuck{free: make(chan struct{})}
	r, w := io.Pipe()
	pumped := make(chan struct{})
	go func() { defer close(pumped); pump(r, disk) }()
	began := time.Now()
	chunk := make([]byte, 4096)
	for n := 0; n < total; n += len(chunk) {
		for i := range chunk {
			chunk[i] = byte((n + i) >> 12)
		}
		if _, err := w.Write(chunk); err != nil {
			t.Fatal(err)
		}
	}
	// A read of nothing says that the pump has put away what it read before.
	if _, err := w.Write(nil); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("the server was blocked for %v, want about %v", d, pumpPatience)
	}
	close(disk.free)
	w.Close()
	<-pumped
	got := disk.got.Bytes()
	if len(got) < pumpRoom-4096 || int64(len(got))+disk.lost != total {
		t.Errorf("%d bytes written and %d lost, want %d together and %d written at least", len(got), disk.lost, total, pumpRoom-4096)
	}
	for i, b := range got {
		if b != byte(i>>12) {
			t.Fatalf("byte %d is %d, want %d: what is written has a hole", i, b, byte(i>>12))
		}
	}
}

func TestLogThatCannotBeRenamedGrowsOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	if err := os.MkdirAll(filepath.Join(path+".1", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	l := NewLogFile(path, 10, 1)
	want := strings.Repeat("some line\n", 10)
	for range 2 {
		l.Write([]byte(want))
	}
	l.Close()
	if got := read(t, path); got != want+want {
		t.Errorf("log = %q, want all 20 lines", got)
	}
}
