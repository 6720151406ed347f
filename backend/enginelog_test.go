package backend

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

func TestLogKeepsTheNewestLines(t *testing.T) {
	out := &syncBuffer{}
	l := NewLog(full{}, out) // a full disk keeps no line from the others
	log := slog.New(l)
	if got := l.After(0, 10); len(got) != 0 {
		t.Errorf("an empty log gives %v", got)
	}
	const n = logLines + 10
	for i := 1; i <= n; i++ {
		log.Info("line", "i", i)
	}
	newest := l.After(0, 3)
	if len(newest) != 3 || newest[0].Seq != n-2 || newest[2].Seq != n || !strings.HasSuffix(newest[2].Text, fmt.Sprintf("msg=line i=%d", n)) {
		t.Errorf("After(0, 3) = %+v, want the newest three of %d", newest, n)
	}
	oldest := l.After(1, 3)
	if len(oldest) != 3 || oldest[0].Seq != 11 {
		t.Errorf("After(1, 3) = %+v, want the oldest that are kept, from 11 on", oldest)
	}
	if got := l.After(n, 3); len(got) != 0 {
		t.Errorf("After(the last) = %+v, want nothing", got)
	}
	if got := l.After(n+1000, 3); len(got) != 0 {
		t.Errorf("After a cursor of another engine = %+v, want nothing", got)
	}
	if all := l.After(1, 1<<20); len(all) != logLines {
		t.Errorf("%d lines are kept, want %d", len(all), logLines)
	}
	if got := strings.Count(out.String(), "\n"); got != n {
		t.Errorf("%d lines were written, want %d", got, n)
	}
}

func TestLogLevelsAndAttributes(t *testing.T) {
	l := NewLog()
	log := slog.New(l).With("worker", "w0").WithGroup("g")
	log.Debug("never")
	log.Info("a", "k", 1)
	log.Warn("b\n\x1b[31m")
	log.Error("c")
	lines := l.After(0, 10)
	var got []string
	for _, line := range lines {
		got = append(got, line.Level)
		if strings.ContainsAny(line.Text, "\n\x1b") {
			t.Errorf("a line has control characters: %q", line.Text)
		}
	}
	if want := "info warning error"; strings.Join(got, " ") != want {
		t.Errorf("levels = %v, want %s", got, want)
	}
	if want := "level=INFO msg=a worker=w0 g.k=1"; !strings.HasSuffix(lines[0].Text, want) {
		t.Errorf("line = %q, want it to end with %q", lines[0].Text, want)
	}
}

func TestLogIsWrittenByMany(t *testing.T) {
	l := NewLog(&syncBuffer{})
	var wg sync.WaitGroup
	for i := range 8 {
		log := slog.New(l).With("writer", i)
		wg.Go(func() {
			for range 100 {
				log.Info("line")
			}
		})
		wg.Go(func() {
			for range 100 {
				l.After(0, 5)
			}
		})
	}
	wg.Wait()
	for i, line := range l.After(1, 1<<20) {
		if line.Seq != uint64(i+2) || strings.Count(line.Text, "msg=") != 1 {
			t.Fatalf("line %d has Seq %d: %q", i, line.Seq, line.Text)
		}
	}
}

func TestNoticesAreKeptNewestFirst(t *testing.T) {
	b := &noticeBoard{}
	for i := range maxNotices + 5 {
		b.add(notice(i))
	}
	list := b.list()
	if len(list) != maxNotices || list[0].Text != notice(maxNotices+4).Text || list[0].Time.IsZero() {
		t.Errorf("%d notices, the first %+v; want %d and the newest with a time", len(list), list[0], maxNotices)
	}
}
