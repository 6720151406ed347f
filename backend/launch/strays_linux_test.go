package launch_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// named starts a process that calls itself VLLM::EngineCor below a shell whose command line holds parent.
func named(t *testing.T, mode, parent string, env ...string) int {
	t.Helper()
	script := os.Args[0] + ` launchtest ` + mode + ` $NAME & echo $!; wait; : ` + parent
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Env = append(append(os.Environ(), "NAME=VLLM::EngineCor"), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
	r := bufio.NewReader(out)
	var pid int
	for pid == 0 {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Sscanf(line, "%d", &pid)
	}
	if mode != "named" {
		if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "pid=") {
			t.Fatalf("%s says %q, %v", mode, line, err)
		}
		return pid
	}
	eventually(t, "it calls itself VLLM::EngineCor", func() bool { return comm(pid) == "VLLM::EngineCor" })
	return pid
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func strays(t *testing.T, l *launch.Local) map[int]launch.Stray {
	t.Helper()
	c, err := l.Census()
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]launch.Stray{}
	for _, s := range c.Strays {
		found[s.PID] = s
	}
	return found
}

func TestStraysAreThoseNobodyLooksAfter(t *testing.T) {
	l := newLocal().(*launch.Local)
	i, err := l.Launch(t.Context(), launch.Spec{
		Name: "kept", Argv: []string{os.Args[0], "launchtest", "named", "VLLM::EngineCor"}, Folder: filepath.Join(t.TempDir(), "kept"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	orphan := named(t, "named", "nothing")
	offline := named(t, "named", "python user of the LLM class")
	marked := named(t, "named", "python", "VLLMDECK_WORKER_ID=gone/1")
	preload := named(t, "named", "python user", "X=1")

	found := strays(t, l)
	if s, ok := found[orphan]; !ok || s.Worker != "" || s.Name != "VLLM::EngineCor" || s.RSS <= 0 || s.Age < 0 || s.Age > 60 || time.Since(s.Started) > time.Minute {
		t.Errorf("engine without API server: %+v, %v, want it listed", s, ok)
	}
	if s, ok := found[marked]; !ok || s.Worker != "gone/1" {
		t.Errorf("marked without a shim: %+v, %v, want it listed as gone/1", s, ok)
	}
	for what, pid := range map[string]int{"a worker under its shim": i.PID(), "an offline user's engine": offline, "another": preload} {
		if s, ok := found[pid]; ok {
			t.Errorf("%s is listed: %+v", what, s)
		}
	}
	c, err := l.Census()
	if err != nil {
		t.Fatal(err)
	}
	me, _ := c.Who(os.Getpid())
	for what, w := range map[string]struct {
		pid  int
		want launch.Owner
	}{
		"a worker of ours": {i.PID(), launch.Owner{Name: "VLLM::EngineCor", User: me.User, Worker: "kept"}},
		"a stray":          {orphan, launch.Owner{Name: "VLLM::EngineCor", User: me.User, Stray: true}},
		"a stranger":       {offline, launch.Owner{Name: "VLLM::EngineCor", User: me.User}},
	} {
		if got, ok := c.Who(w.pid); !ok || got != w.want || got.User == "" {
			t.Errorf("%s: Who = %+v, %v, want %+v", what, got, ok, w.want)
		}
	}
	if got, ok := c.Who(1 << 30); ok {
		t.Errorf("Who of nobody = %+v", got)
	}
	// Another engine sees the worker, and that somebody looks after it.
	if s, ok := strays(t, new(launch.Local))[i.PID()]; ok {
		t.Errorf("the worker of another engine is listed: %+v", s)
	}
	if err := i.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAStrayIsEndedAndNothingElse(t *testing.T) {
	l := newLocal().(*launch.Local)
	i, err := l.Launch(t.Context(), launch.Spec{
		Name: "kept", Argv: []string{os.Args[0], "launchtest", "serve"}, Folder: filepath.Join(t.TempDir(), "kept"),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	soft := named(t, "named", "nothing")
	deaf := named(t, "deaf", "python", "VLLMDECK_WORKER_ID=gone/1")
	offline := named(t, "named", "python user of the LLM class")
	found := strays(t, l)

	for what, c := range map[string]struct {
		pid     int
		started time.Time
		want    error
		text    string
	}{
		"a worker of ours":        {i.PID(), time.Now(), api.ErrRefused, "vllmdeck worker stop kept"},
		"a stranger":              {offline, time.Now(), api.ErrRefused, "is no stray"},
		"this very process":       {os.Getpid(), time.Now(), api.ErrRefused, "is no stray"},
		"init":                    {1, time.Now(), api.ErrUnknown, ""},
		"nobody":                  {1 << 22, time.Now(), api.ErrUnknown, ""},
		"an earlier one of it":    {soft, found[soft].Started.Add(-time.Hour), api.ErrRefused, "another process by now"},
		"one of unknown start":    {soft, time.Time{}, api.ErrRefused, "another process by now"},
		"a negative pid, a group": {-soft, found[soft].Started, api.ErrUnknown, ""},
	} {
		end, err := l.EndStray(c.pid, c.started)
		if end != nil || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: EndStray = %v, want %v with %q", what, err, c.want, c.text)
		}
	}
	if comm(soft) == "" || comm(offline) == "" || comm(i.PID()) == "" {
		t.Fatal("a process was ended by an order that was refused")
	}

	for what, pid := range map[string]int{"one that heeds SIGTERM": soft, "a deaf one": deaf} {
		end, err := l.EndStray(pid, found[pid].Started)
		if err != nil {
			t.Fatalf("%s: EndStray = %v", what, err)
		}
		began := time.Now()
		if err := end(t.Context()); err != nil {
			t.Errorf("%s: end = %v", what, err)
		}
		if took := time.Since(began); pid == deaf && took < 4*time.Second {
			t.Errorf("%s was killed after %v, want SIGTERM and 5 s first", what, took)
		}
		eventually(t, what+" is gone", func() bool { _, ok := strays(t, l)[pid]; return !ok })
	}
	if err := i.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}

// The shim lives, and no later engine could find it.
func TestAServerWhoseFolderIsRemovedIsToldAndThenAStray(t *testing.T) {
	l := newLocal().(*launch.Local)
	sp := launch.Spec{Name: "w0", Argv: []string{os.Args[0], "launchtest", "serve"}, Folder: filepath.Join(t.TempDir(), "state", "w0")}
	i, err := l.Launch(t.Context(), sp)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := l.Census(); err != nil || len(c.Lost) != 0 {
		t.Errorf("lost = %v, %v, want none", c.Lost, err)
	}
	if err := os.RemoveAll(filepath.Dir(sp.Folder)); err != nil {
		t.Fatal(err)
	}
	c, err := l.Census()
	if err != nil || !slices.Equal(c.Lost, []string{"w0"}) {
		t.Errorf("lost = %v, %v, want w0", c.Lost, err)
	}
	if s, ok := strays(t, l)[i.PID()]; ok {
		t.Errorf("it is a stray while it is looked after: %+v", s)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	next := newLocal().(*launch.Local)
	s, ok := strays(t, next)[i.PID()]
	if !ok || !strings.HasPrefix(s.Worker, "w0/") {
		t.Fatalf("for the next engine: %+v, %v, want a stray of w0", s, ok)
	}
	end, err := next.EndStray(s.PID, s.Started)
	if err == nil {
		err = end(t.Context())
	}
	if err != nil {
		t.Error(err)
	}
	eventually(t, "its shim ends too", func() bool {
		_, err := os.Stat(fmt.Sprintf("/proc/%d", i.PID()))
		return errors.Is(err, os.ErrNotExist)
	})
}

// BenchmarkCensus measures processor time, since a census shares a scan that is less than a second old.
func BenchmarkCensus(b *testing.B) {
	var l launch.Local
	cpu := func() time.Duration {
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	if _, err := l.Census(); err != nil { // what does not change is read once
		b.Fatal(err)
	}
	before, n := cpu(), 0
	for b.Loop() {
		<-time.After(time.Second + 10*time.Millisecond)
		if _, err := l.Census(); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64((cpu()-before).Milliseconds())/float64(n), "cpu-ms/op")
}
