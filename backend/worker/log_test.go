package worker

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func TestSplitterCutsAtNewlinesAndReturns(t *testing.T) {
	in := "one\r\ntwo\n\n\rbar 1%\rbar 2%\n\x1b[32mgreen\x1b[0m\n" + strings.Repeat("é", lineLimit) + "\nlast"
	want := []string{"one", "two", "bar 1%", "bar 2%", "green", strings.Repeat("é", lineLimit/2) + "…", "last"}
	for _, step := range []int{1, 7, len(in)} {
		var s splitter
		var got []string
		for i := 0; i < len(in); i += step {
			s.feed([]byte(in[i:min(i+step, len(in))]), func(l string) { got = append(got, l) })
		}
		got = append(got, s.take())
		if !slices.Equal(got, want) {
			t.Errorf("in steps of %d: %q", step, got)
		}
	}
}

func TestParseReadsLevelStampAndText(t *testing.T) {
	for _, c := range []struct{ line, level, stamp, text string }{
		{"(EngineCore pid=5428) INFO 11-23 15:06:34 [core.py:402] init engine", "info", "11-23 15:06:34", "init engine"},
		{"(Worker_TP0 pid=1) ERROR 11-23 15:06:34 [x.py:1]   File \"a\"", "error", "11-23 15:06:34", "  File \"a\""},
		{"WARNING 11-23 15:06:34 [x.py:1] careful", "warning", "11-23 15:06:34", "careful"},
		{"INFO:     Application startup complete.", "info", "", "Application startup complete."},
		{"(APIServer pid=1) INFO:     10.0.0.1:5 - \"GET /\" 200 OK", "info", "", "10.0.0.1:5 - \"GET /\" 200 OK"},
		{"Traceback (most recent call last):", "", "", "Traceback (most recent call last):"},
		{"INFORMATION is no level", "", "", "INFORMATION is no level"},
		{`{"asctime":"2026-11-23 15:00:00,123","levelname":"ERROR","name":"vllm","message":"boom"}`, "error", "", "boom"},
	} {
		if p := parse(c.line); p.level != c.level || p.stamp != c.stamp || p.text != c.text {
			t.Errorf("parse(%q) = %q %q %q", c.line, p.level, p.stamp, p.text)
		}
	}
	now := time.Date(2027, 1, 1, 0, 5, 0, 0, time.Local)
	if got, want := (parts{stamp: "12-31 23:59:00"}).at(now), time.Date(2026, 12, 31, 23, 59, 0, 0, time.Local); !got.Equal(want) {
		t.Errorf("at = %v, want %v: last year's", got, want)
	}
}

func TestLogGivesLinesAfterACursor(t *testing.T) {
	var l Log
	for i := range 3 * keptLines {
		l.add(api.Line{Text: fmt.Sprint("line ", i)})
	}
	all := l.After(0, 1e9)
	if len(all) != keptLines || all[0].Seq != 2*keptLines+1 || all[len(all)-1].Seq != l.Last() {
		t.Errorf("%d lines, %d to %d", len(all), all[0].Seq, all[len(all)-1].Seq)
	}
	if got := l.After(0, 2); len(got) != 2 || got[1].Seq != l.Last() {
		t.Errorf("After(0, 2) = %v, want the newest two", got)
	}
	if got := l.After(l.Last()-5, 2); len(got) != 2 || got[0].Seq != l.Last()-4 {
		t.Errorf("After(last-5, 2) = %v, want the next two", got)
	}
	if got := l.After(l.Last(), 2); len(got) != 0 {
		t.Errorf("After(last) = %v", got)
	}
}

func TestProgressBarReplacesItself(t *testing.T) {
	var l Log
	l.add(api.Line{Text: "before"})
	for i := range 100 {
		l.add(api.Line{Text: fmt.Sprintf("Capturing CUDA graphs (FULL): %3d%%|██ | %d/100", i, i)})
	}
	seen := l.Last() - 1
	l.add(api.Line{Text: "Capturing CUDA graphs (PIECEWISE):   1%|  | 1/67"})
	l.add(api.Line{Text: "after"})
	got := l.After(0, 10)
	if len(got) != 4 || !strings.Contains(got[1].Text, " 99%") || got[3].Text != "after" {
		t.Errorf("log = %v", got)
	}
	if next := l.After(seen, 10); len(next) != 3 {
		t.Errorf("a reader who saw 98%% gets %d lines, want 3", len(next))
	}
}

func TestFollowerGoesThroughRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f := &follower{path: path}
	defer f.close()
	var got []string
	read := func() {
		t.Helper()
		must(t, f.read(func(l string) { got = append(got, l) }))
	}
	write := func(s string) {
		t.Helper()
		o, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		must(t, err)
		_, err = o.WriteString(s)
		must(t, err)
		must(t, o.Close())
	}
	read() // not there yet
	write("a\nhal")
	read()
	write("f\nunseen before the rename\n")
	must(t, os.Rename(path, path+".1"))
	read()
	write("new file\n")
	read()
	must(t, os.Truncate(path, 0))
	write("x\n")
	read()
	write("no newline")
	read()
	if want := []string{"a", "half", "unseen before the rename", "new file", "x"}; !slices.Equal(got, want) {
		t.Errorf("lines = %q, want %q", got, want)
	}
	if f.partial() != "no newline" || f.rest() != "no newline" || f.rest() != "" {
		t.Error("the unfinished line is lost")
	}
}

func TestFollowerOfAnAdoptedLogReadsItsTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	must(t, os.WriteFile(path, []byte(strings.Repeat("0123456789abcde\n", 100_000)), 0o600))
	f := &follower{path: path, tail: true}
	defer f.close()
	n := 0
	must(t, f.read(func(string) { n++ }))
	if n != tailBytes/16 {
		t.Errorf("%d lines, want %d", n, tailBytes/16)
	}
}

func TestGateIsExact(t *testing.T) {
	g := newGate(func() {})
	g.open()
	var wg sync.WaitGroup
	var in int
	var mu sync.Mutex
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				release, ok := g.acquire()
				if !ok {
					return
				}
				mu.Lock()
				in++
				mu.Unlock()
				release()
				release()
			}
		})
	}
	g.shut()
	n := g.count()
	if _, ok := g.acquire(); ok || g.count() > n {
		t.Errorf("a closed gate let somebody in: %d, then %d", n, g.count())
	}
	wg.Wait()
	if g.count() != 0 || g.isOpen() {
		t.Errorf("count = %d, open = %v", g.count(), g.isOpen())
	}
	if in < 1 {
		t.Log("the gate was closed before anybody came")
	}
}

func TestGateSaysWhenItIsEmpty(t *testing.T) {
	g := newGate(func() {})
	g.open()
	a, _ := g.acquire()
	b, _ := g.acquire()
	a()
	g.shut()
	if isDone(g.idle) {
		t.Error("idle with one inside")
	}
	b()
	if !isDone(g.idle) {
		t.Error("not idle, though empty")
	}
}

func TestReleaseWakesWaiters(t *testing.T) {
	var w waker
	g := newGate(w.wake)
	g.open()
	release, _ := g.acquire()
	changed := w.changed()
	if isDone(changed) {
		t.Fatal("changed before anything did")
	}
	release()
	if !isDone(changed) || isDone(w.changed()) {
		t.Error("a release wakes those who wait, and only them")
	}
}

func BenchmarkAcquire(b *testing.B) {
	h := &host{alive: map[string]*proc{}}
	p := NewPool(h.options(b.TempDir()))
	if err := p.Apply(conf(vllmWorker("w0"), vllmWorker("w1"))); err != nil {
		b.Fatal(err)
	}
	p.set.Load().byName["w1"].gate.open()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			release, ok := p.Acquire("w1")
			if !ok {
				b.Error("not acquired")
				return
			}
			release()
		}
	})
}
