package launchtest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// modeArg begins the command line of this test binary as something else than a test.
const modeArg = "launchtest"

// Main plays the server or engine that the command line asks for and exits; if it asks for
// none, it returns. New builds the launcher under test.
func Main(newLauncher func() launch.Launcher) {
	if len(os.Args) < 3 || os.Args[1] != modeArg {
		return
	}
	args := os.Args[3:]
	switch os.Args[2] {
	case "serve": // ends on SIGTERM with 0
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
		say("ready pid=%d", os.Getpid())
		<-term
		say("bye")
	case "exit":
		code, _ := strconv.Atoi(args[0])
		say("leaving with %d", code)
		os.Exit(code)
	case "env":
		for _, kv := range os.Environ() {
			say("env %s", kv)
		}
		wd, _ := os.Getwd()
		say("dir %s", wd)
		say("printed")
	case "family": // a leader with children of all sorts, all deaf to SIGTERM
		signal.Ignore(syscall.SIGTERM)
		start(false, "deaf")
		start(true, "deaf")
		start(true, "leaver") // its child is an orphan in yet another session
		say("ready pid=%d", os.Getpid())
		hang()
	case "named": // calls itself so, as vLLM's processes do
		_ = os.WriteFile("/proc/self/comm", []byte(args[0]), 0)
		say("ready pid=%d", os.Getpid())
		wait()
	case "leaver":
		start(true, "deaf")
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		say("deaf pid=%d", os.Getpid())
		hang()
	case "spew": // numbered lines; then it waits, or ends if told so, with 9 if a write failed
		n, _ := strconv.Atoi(args[0])
		w := bufio.NewWriterSize(os.Stdout, 4096)
		for i := range n {
			fmt.Fprintf(w, "line %08d %s\n", i, strings.Repeat("x", i%100))
		}
		if w.Flush() != nil {
			os.Exit(9)
		}
		say("spewed")
		if len(args) == 1 {
			wait()
		}
	case "engine": // launches a server and waits to be killed
		s := launch.Spec{Name: "w0", Kind: "sim", Argv: argv("family"), Folder: args[0], Labels: map[string]string{"by": "engine"}}
		if _, err := newLauncher().Launch(context.Background(), s); err != nil {
			say("launch: %v", err)
			os.Exit(1)
		}
		say("launched")
		wait()
	case "owner": // holds a lease with two servers under it and waits to be killed
		own(newLauncher(), args[0])
	default:
		say("unknown mode %s", os.Args[2])
		os.Exit(2)
	}
	os.Exit(0)
}

func own(l launch.Launcher, dir string) {
	lease := filepath.Join(dir, "lease")
	f, err := os.OpenFile(lease, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	for _, name := range []string{"w0", "w1"} {
		if err != nil {
			break
		}
		_, err = l.Launch(context.Background(), launch.Spec{
			Name: name, Argv: argv("family"), Folder: filepath.Join(dir, "workers", name), Lease: lease, Cleanup: dir,
		})
	}
	if err != nil {
		say("launch: %v", err)
		os.Exit(1)
	}
	say("launched")
	wait()
}

func say(format string, args ...any) { fmt.Fprintf(os.Stdout, format+"\n", args...) }

func wait() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	<-term
}

// hang blocks for good. An empty select would not: without cgo the runtime sees that nothing can
// go on and ends the process. Nor is it for ever, should a test leave it behind.
func hang() { <-time.After(time.Hour) }

// start runs this binary again, in a session of its own if escape.
func start(escape bool, mode string) {
	a := argv(mode)
	cmd := exec.Command(a[0], a[1:]...) //nolint:noctx // it is to outlive this process
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: escape}
	if err := cmd.Start(); err != nil {
		say("start: %v", err)
		os.Exit(1)
	}
	if mode == "leaver" {
		_ = cmd.Wait()
	}
}

// argv is the command line of a server of the given mode.
func argv(mode string, args ...string) []string {
	exe, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return append([]string{exe, modeArg, mode}, args...)
}

// limit is how long the tests wait for what happens at once on an idle machine.
const limit = 30 * time.Second

// until waits for what must come true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("after %v: not %s", limit, what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// output is all that the server has written to its log so far.
func output(path string) string {
	b, _ := os.ReadFile(path)
	return string(b)
}

// logged waits for a line in the server's log.
func logged(t *testing.T, i launch.Instance, line string) {
	t.Helper()
	until(t, "in the log: "+line, func() bool { return strings.Contains(output(i.LogPath()), line) })
}

// family waits until a server of that mode has all its processes and returns their pids, the
// leader's first.
func family(t *testing.T, log string) []int {
	t.Helper()
	var pids []int
	until(t, "a leader and three deaf children", func() bool {
		pids = nil
		for line := range strings.Lines(output(log)) {
			kind, pid, ok := strings.Cut(strings.TrimSpace(line), " pid=")
			n, err := strconv.Atoi(pid)
			switch {
			case !ok || err != nil:
			case kind == "ready":
				pids = append([]int{n}, pids...)
			default:
				pids = append(pids, n)
			}
		}
		return len(pids) == 4
	})
	return pids
}

// living is which of the pids still run.
func living(pids []int) []int {
	var out []int
	for _, pid := range pids {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			continue
		}
		if _, rest, ok := strings.Cut(string(b), ") "); ok && !strings.HasPrefix(rest, "Z") {
			out = append(out, pid)
		}
	}
	return out
}

func done(t *testing.T, i launch.Instance) launch.Exit {
	t.Helper()
	select {
	case <-i.Done():
	case <-time.After(limit):
		t.Fatalf("after %v: server has not ended, processes %v", limit, i.Tree())
	}
	return i.Exit()
}

func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}
