package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// crashLog is the whole log of a crash.
func crashLog(t *testing.T, p *Pool, id string) string {
	t.Helper()
	lines, err := p.CrashLog(id, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, l := range lines {
		out = append(out, l.Text)
	}
	return strings.Join(out, "\n")
}

func TestCrashBookKeepsFailedStartsAndEnds(t *testing.T) {
	failed := false
	run(t, conf(vllmWorker("w0", "--api-key", "s3cret", "--max-model-len=10")), func(h *host) {
		h.play = func(p *proc) {
			if !failed {
				failed = true
				failsWith("Traceback (most recent call last):\nRuntimeError: bad luck\n", 1)(p)
				return
			}
			p.say("(APIServer pid=1) INFO 11-23 15:00:04 [api_utils.py:347] vLLM server version 0.32.0, serving model /models/m\n")
			p.serve()
		}
	}, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Minute, "ready at the second try", is(p, "w0", api.Ready))
		got := p.Crashes()
		if len(got) != 1 {
			t.Fatalf("crashes = %+v, want the failed start", got)
		}
		c := got[0]
		if c.Cause != "RuntimeError: bad luck" || c.Exit != "exit 1" || c.Phase != api.PhaseImports || c.Worker != "w0" || c.Model != "m" || time.Duration(c.Up) != 14*time.Second {
			t.Errorf("crash = %+v", c)
		}
		if got := crashLog(t, p, c.ID); got != "Traceback (most recent call last):\nRuntimeError: bad luck" || c.Lines != 2 {
			t.Errorf("its log, of %d lines: %q", c.Lines, got)
		}

		time.Sleep(10 * time.Minute)
		h.last().say("(EngineCore pid=2) ERROR 11-23 15:00:04 [x.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n")
		h.last().die(launch.Exit{Code: 0, Known: true, At: time.Now()})
		until(t, time.Minute, "a second crash", func() bool { return len(p.Crashes()) == 2 })
		c = p.Crashes()[0]
		if c.Cause != "out of GPU memory: 2.00 GiB more were wanted" || c.Exit != "exit 0" || c.Phase != "" || c.Version != "0.32.0" {
			t.Errorf("newest crash = %+v", c)
		}
		if up := time.Duration(c.Up); up < 10*time.Minute || up > 11*time.Minute {
			t.Errorf("it was up %v, want 10m", up)
		}
		if s := mustStatus(t, p, "w0"); s.Crashes != 2 {
			t.Errorf("Worker.Crashes = %d, want 2", s.Crashes)
		}
	})
}

func TestWhatWasOrderedIsNoCrash(t *testing.T) {
	run(t, conf(vllmWorker("w0"), attachWorker("a0", "http://127.0.0.1:1")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		must(t, p.Restart("w0"))
		until(t, 10*time.Second, "ready again", func() bool { return is(p, "w0", api.Ready)() && h.launches() == 2 })
		must(t, p.Stop("w0"))
		until(t, 10*time.Second, "stopped", is(p, "w0", api.Stopped))
		until(t, 10*time.Second, "the attached one is away", is(p, "a0", api.Failed))
		if got := p.Crashes(); len(got) != 0 {
			t.Errorf("crashes = %+v, want none", got)
		}
	})
}

func TestACommandThatCannotBeRunIsInTheCrashBook(t *testing.T) {
	run(t, conf(vllmWorker("w0")), func(h *host) { h.check = errors.New("no vllm here") }, func(t *testing.T, _ *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "a crash", func() bool { return len(p.Crashes()) == 1 })
		c := p.Crashes()[0]
		if c.Cause != "no vllm here" || c.Exit != "not started" || len(c.Command) == 0 || c.Command[0] != "vllm" {
			t.Errorf("crash = %+v", c)
		}
		if got := crashLog(t, p, c.ID); got != "" {
			t.Errorf("its log = %q", got)
		}
	})
}

func TestAHungServerIsInTheCrashBookOnce(t *testing.T) {
	w := vllmWorker("w0")
	w.StartTimeout = 5 * time.Minute
	run(t, conf(w), func(h *host) {
		h.play = func(p *proc) { p.say("loading\n") }
	}, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, 6*time.Minute, "a second try", func() bool { return h.launches() == 2 })
		got := p.Crashes()
		if len(got) != 1 || !strings.Contains(got[0].Cause, "not ready after 5m") || got[0].Exit != "ended by vllmdeck" || got[0].Lines != 1 {
			t.Errorf("crashes = %+v", got)
		}
	})
}

// An engine that is away sees nothing; the next one finds what became of its workers.
func TestACrashWhileNoEngineWasThereIsFound(t *testing.T) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.play = func(p *proc) {
			p.say("(APIServer pid=1) INFO 11-23 15:00:04 [api_utils.py:347] vLLM server version 0.32.0, serving model /models/m\n")
			p.serve()
		}
		c := conf(vllmWorker("w0"), vllmWorker("w1"))
		p, stop := h.pool(state, c)
		until(t, time.Second, "ready", func() bool { return is(p, "w0", api.Ready)() && is(p, "w1", api.Ready)() })
		stop()

		time.Sleep(time.Hour)
		died := time.Now()
		dead := h.alive[filepath.Join(state, "workers", "w0")]
		dead.say("(EngineCore pid=2) ERROR 11-23 15:00:04 [x.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.\n")
		dead.die(launch.Exit{Code: 0, Known: true, At: died})
		exit := fmt.Sprintf(`{"marker":"x","code":0,"at":%q,"known":true}`, died.Format(time.RFC3339Nano))
		must(t, os.WriteFile(filepath.Join(dead.spec.Folder, "exit.json"), []byte(exit), 0o600))
		time.Sleep(time.Hour)

		p, stop = h.pool(state, c)
		until(t, time.Minute, "ready", func() bool { return is(p, "w0", api.Ready)() && is(p, "w1", api.Ready)() })
		got := p.Crashes()
		if len(got) != 1 {
			t.Fatalf("crashes = %+v, want one", got)
		}
		x := got[0]
		if x.Worker != "w0" || !x.Time.Equal(died) || time.Duration(x.Up) < time.Hour || time.Duration(x.Up) > time.Hour+time.Second ||
			x.Cause != "out of GPU memory: 2.00 GiB more were wanted" || x.Version != "0.32.0" || x.Phase != "" || len(x.Command) == 0 {
			t.Errorf("crash = %+v, want what happened at %v", x, died)
		}
		if !h.noticed("while no engine was there to see it") {
			t.Error("nobody was told")
		}
		// It is not found a second time.
		stop()
		p, stop = h.pool(state, c)
		defer stop()
		until(t, time.Minute, "ready", is(p, "w0", api.Ready))
		if n := len(p.Crashes()); n != 1 {
			t.Errorf("%d crashes after one more engine, want 1", n)
		}
		if s := mustStatus(t, p, "w0"); s.Crashes != 1 {
			t.Errorf("Worker.Crashes = %d, want 1", s.Crashes)
		}
	})
}

func TestAnOrderedStopIsNoCrashForTheNextEngine(t *testing.T) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		c := conf(vllmWorker("w0"))
		p, stop := h.pool(state, c)
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		must(t, p.Stop("w0"))
		stop() // the engine is gone before the server is
		for _, x := range h.procs {
			x.die(launch.Exit{})
		}
		p, stop = h.pool(state, c)
		defer stop()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		if got := p.Crashes(); len(got) != 0 {
			t.Errorf("crashes = %+v, want none", got)
		}
	})
}

func TestARebootIsNamed(t *testing.T) {
	dir := t.TempDir()
	w := &worker{name: "w0", log: slog.New(slog.DiscardHandler)}
	pl := plan{kind: kindVLLM, cfg: vllmWorker("w0")}
	pl.spec.Folder = dir
	r := running{PID: 1, Started: time.Now().Add(-time.Hour), Boot: "another", Model: "m", Log: filepath.Join(dir, "log")}
	w.writeRunning(dir, r)
	if bootID() == "" {
		t.Skip("this system does not tell its boots apart")
	}
	if c := w.autopsy(pl); c == nil || c.Cause != "the host was restarted while it ran" || c.Phase != api.PhaseImports {
		t.Errorf("autopsy = %+v", c)
	}
	w.forgetRunning(dir)
	if c := w.autopsy(pl); c != nil {
		t.Errorf("autopsy of nothing = %+v", c)
	}
}

func TestCrashBookIsBoundedPerEntryAndReadsItselfBack(t *testing.T) {
	dir := t.TempDir()
	b := openBook(dir, slog.New(slog.DiscardHandler))
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	var lines []api.Line
	for i := range 1000 {
		lines = append(lines, api.Line{Time: at, Text: fmt.Sprintf("%d %s", i, strings.Repeat("ü", 400))})
	}
	long := strings.Split(strings.Repeat("--flag=with-a-long-value ", 2000), " ")
	for i := range shownCrashes + 10 {
		b.add(api.Crash{Worker: fmt.Sprintf("w-%d", i%3), Time: at, Cause: fmt.Sprint("cause ", i), Command: long}, lines)
	}
	again := openBook(dir, slog.New(slog.DiscardHandler))
	for _, x := range []*book{b, again} {
		list := x.list()
		if len(list) != shownCrashes || list[0].Cause != "cause 49" || list[39].Cause != "cause 10" {
			t.Fatalf("%d entries, from %q to %q", len(list), list[0].Cause, list[len(list)-1].Cause)
		}
		if got := x.count("w-0"); got != 17 {
			t.Errorf("count = %d, want 17", got)
		}
		if all := x.entries(0, 1000); len(all) != 50 || !strings.Contains(all[0].Text, `"cause 0"`) {
			t.Errorf("%d entries in the whole book", len(all))
		}
		if page := x.entries(30, 5); len(page) != 5 || page[0].Seq != 31 || x.entries(1, 5)[0].Seq != 2 {
			t.Errorf("a page of %d begins with %+v", len(page), page[0])
		}
		if newest := x.entries(0, 2); len(newest) != 2 || newest[1].Seq != 51 {
			t.Errorf("the newest: %+v", newest)
		}
	}
	c := again.list()[0]
	got, err := again.lines(c.ID, 0, 1000)
	if err != nil || len(got) != c.Lines || len(got) < 60 || len(got) > crashLines || got[len(got)-1].Text != lines[999].Text || !got[0].Time.Equal(at) {
		t.Errorf("%d lines, %d promised, %v", len(got), c.Lines, err)
	}
	rest, err := again.lines(c.ID, got[len(got)-3].Seq, 1000)
	if err != nil || len(rest) != 2 {
		t.Errorf("after a cursor: %d lines, %v; want 2", len(rest), err)
	}
	for _, kind := range []string{".json", ".log"} {
		info, err := os.Stat(again.path(c.ID, kind))
		if err != nil || info.Size() > crashBytes+crashCommand || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", kind, info, err)
		}
	}
	for _, id := range []string{"", "nope", "../../etc/passwd", "20261124-120000.000000-../w", strings.Repeat("x", 300)} {
		if _, err := again.lines(id, 0, 10); !errors.Is(err, api.ErrUnknown) {
			t.Errorf("lines(%q) = %v, want ErrUnknown", id, err)
		}
	}
	var back api.Crash
	if err := json.Unmarshal([]byte(again.entries(50, 1)[0].Text), &back); err != nil || back.ID != c.ID {
		t.Errorf("entry = %+v, %v", back, err)
	}
}

func TestACrashBookThatCannotBeWrittenDoesNotStopTheWorker(t *testing.T) {
	state := t.TempDir()
	must(t, os.WriteFile(filepath.Join(state, crashFolder), []byte("a file is in the way"), 0o600))
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		p, stop := h.pool(state, conf(vllmWorker("w0")))
		defer stop()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		h.last().die(launch.Exit{Code: 1, Known: true})
		until(t, time.Minute, "ready again", func() bool { return is(p, "w0", api.Ready)() && h.launches() == 2 })
		if got := p.Crashes(); len(got) != 1 || got[0].Lines != 0 {
			t.Errorf("crashes = %+v, want it at least in sight", got)
		}
	})
}
