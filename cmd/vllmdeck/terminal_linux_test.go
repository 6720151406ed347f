package main

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// terminal is a vllmdeck on a terminal, with what its user sees.
type terminal struct {
	*proc
	t    *testing.T
	file *os.File // the user's end

	screen *vt.Emulator
	mu     sync.Mutex      // guards the screen but for Read, and all
	all    strings.Builder // every byte that was written
}

// terminal starts vllmdeck in a session of its own, as a login shell would, on 80 columns and 24 rows.
func (r *rig) terminal(args ...string) *terminal { return r.terminalOf(80, 24, args...) }

func (r *rig) terminalOf(cols, rows int, args ...string) *terminal {
	r.t.Helper()
	cmd := exec.Command(r.bin, args...)
	cmd.Env, cmd.Dir = r.env, r.dir
	user, program, err := pty.Open()
	if err != nil {
		r.t.Fatal(err)
	}
	defer program.Close()
	if err := pty.Setsize(user, &pty.Winsize{Rows: uint16(rows), Cols: uint16(cols)}); err != nil {
		r.t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	x := &terminal{t: r.t, file: user, screen: vt.NewEmulator(cols, rows)}
	x.proc = r.begin(cmd)
	go x.show()
	go x.answer()
	r.t.Cleanup(func() {
		_ = user.Close()
		if r.t.Failed() {
			r.t.Logf("the terminal shows:\n%s", x.sees())
		}
	})
	return x
}

func (x *terminal) show() {
	buf := make([]byte, 32<<10)
	for {
		n, err := x.file.Read(buf)
		x.mu.Lock()
		x.all.Write(buf[:n])
		_, _ = x.screen.Write(buf[:n])
		x.mu.Unlock()
		if err != nil {
			_ = x.screen.InputPipe().(io.Closer).Close()
			return
		}
	}
}

// answer sends what the terminal itself says when it is asked for its colours and the like.
func (x *terminal) answer() {
	buf := make([]byte, 1024)
	for {
		n, err := x.screen.Read(buf)
		if err != nil {
			return
		}
		_, _ = x.file.Write(buf[:n])
	}
}

func (x *terminal) sees() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.screen.String()
}

func (x *terminal) wrote() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.all.String()
}

func (x *terminal) await(what string) {
	x.t.Helper()
	until(x.t, 20*time.Second, "the terminal shows "+what, func() bool { return strings.Contains(x.sees(), what) })
}

// asks waits for a question in plain lines, which may break anywhere.
func (x *terminal) asks(what string) {
	x.t.Helper()
	until(x.t, 20*time.Second, "the terminal asks "+what, func() bool { return strings.Contains(x.wrote(), what) })
}

func (x *terminal) press(keys string) {
	x.t.Helper()
	if _, err := x.file.WriteString(keys); err != nil {
		x.t.Fatal(err)
	}
}

// hangUp closes the user's end, as a lost SSH connection does.
func (x *terminal) hangUp() { _ = x.file.Close() }

const stillServing = `"vllmdeck" returns, "vllmdeck stop" ends it`

func TestBareOnATerminalAttaches(t *testing.T) {
	t.Parallel()
	r := newRig(t, simConfig(2))
	r.serve()
	before := r.allReady()
	x := r.terminal()
	x.await("w1")
	x.press("q")
	if code := x.exit(t, 10*time.Second); code != exitDone {
		t.Errorf("exit code = %d, want %d", code, exitDone)
	}
	x.await("still serving on " + before.Engine.URL)
	if !strings.Contains(x.wrote(), stillServing) {
		t.Errorf("leaving does not say %q", stillServing)
	}
	if after := r.snapshot(); after.Engine.PID != before.Engine.PID || after.Workers[0].PID != before.Workers[0].PID {
		t.Error("leaving the console has changed the engine")
	}
	// ctrl+c twice leaves as well.
	x = r.terminal("attach")
	x.await("w1")
	x.press("\x03")
	x.await("again")
	x.press("\x03")
	if code := x.exit(t, 10*time.Second); code != exitDone {
		t.Errorf("exit code = %d, want %d", code, exitDone)
	}
	x.await("still serving on ")
}

func TestBareOnATerminalStartsTheConfigsEngine(t *testing.T) {
	t.Parallel()
	r := newRig(t, simConfig(1))
	x := r.terminal()
	x.await("w0")
	s := r.allReady()
	if s.Engine.PID == x.Process.Pid {
		t.Fatal("the console is the engine: it would die with the terminal")
	}
	x.press("q")
	x.exit(t, 10*time.Second)
	x.await("still serving on " + s.Engine.URL)
	if out := r.run("stop", "--yes"); out != "stopped\n" {
		t.Errorf("stop says %q", out)
	}

	// What keeps it from starting is said in its own words, with its exit code.
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	r.write(strings.Replace(simConfig(1)(filepath.Join(r.dir, "state")), "127.0.0.1:0", ln.Addr().String(), 1))
	x = r.terminal()
	if code := x.exit(t, 20*time.Second); code != exitFailed {
		t.Errorf("exit code = %d, want the engine's own, %d", code, exitFailed)
	}
	x.asks("vllmdeck: listen on " + ln.Addr().String() + ": the port is taken by pid ")
}

// TestTwoConsolesStartOneEngine starts two consoles at once where nothing runs.
func TestTwoConsolesStartOneEngine(t *testing.T) {
	t.Parallel()
	r := newRig(t, simConfig(1))
	first, second := r.terminal(), r.terminal()
	first.await("w0")
	second.await("w0")
	if recs, err := filepath.Glob(filepath.Join(r.dir, "run", "vllmdeck", "engine-*.json")); err != nil || len(recs) != 1 {
		t.Errorf("engines are recorded as %v, want one", recs)
	}
}

// TestTheTerminalDies ends a console in three rude ways while a stream runs: engine, workers and
// the stream go on.
func TestTheTerminalDies(t *testing.T) {
	t.Parallel()
	r := newRig(t, simConfig(1))
	for _, death := range []struct {
		name string
		do   func(x *terminal)
	}{
		{"the connection is lost", (*terminal).hangUp},
		{"SIGHUP", func(x *terminal) { x.signal(t, syscall.SIGHUP) }},
		{"kill -9", func(x *terminal) { x.signal(t, syscall.SIGKILL) }},
	} {
		x := r.terminal() // the first one starts the engine: it must not be a child that dies with it
		x.await("w0")
		before := r.allReady()
		answer := r.stream(before.Engine.URL, 80)
		answer.flows(t)
		death.do(x)
		x.exit(t, 10*time.Second)
		if got := answer.wait(t, 20*time.Second); got != "whole" {
			t.Errorf("%s: the stream got %s, want its whole answer", death.name, got)
		}
		after := r.snapshot()
		if after.Engine.PID != before.Engine.PID || after.Workers[0].PID != before.Workers[0].PID || after.Workers[0].State != api.Ready {
			t.Errorf("%s: engine %d with worker %d is now engine %d with worker %d, %s", death.name,
				before.Engine.PID, before.Workers[0].PID, after.Engine.PID, after.Workers[0].PID, after.Workers[0].State)
		}
		r.until(5*time.Second, "its row is in the ledger", func() bool { return r.rows()[answer.id] == api.OutcomeOK })
	}
}

func TestBareOnATerminalShowsTheDemo(t *testing.T) {
	t.Parallel()
	r := bareRig(t)
	x := r.terminal()
	x.await("SIMULATED")
	x.await("w2")
	x.press("q")
	x.await("Leave the demo?")
	x.press("y")
	if code := x.exit(t, 10*time.Second); code != exitDone {
		t.Errorf("exit code = %d, want %d", code, exitDone)
	}
	x.await("nothing is left")
	for _, want := range []string{"vllmdeck init", "vllmdeck setup cpu"} {
		if !strings.Contains(x.wrote(), want) {
			t.Errorf("leaving the demo does not say how to get the real thing: %q is missing", want)
		}
	}
	r.nothingLeft()

	// A lost connection ends a demo: there is nothing to come back to.
	x = r.terminal()
	x.await("w2")
	x.hangUp()
	x.exit(t, 10*time.Second)
	r.nothingLeft()
}

// TestOfferedConfig answers the question that a found vLLM raises.
func TestOfferedConfig(t *testing.T) {
	t.Run("no shows the demo", func(t *testing.T) {
		t.Parallel()
		r := withVLLM(t, bareRig(t))
		x := r.terminal()
		x.asks("[Y/n]")
		x.press("n\r")
		x.await("w2")
		if exists(r.userConfig()) {
			t.Error("a config was written although the answer was no")
		}
		x.press("qy")
		x.exit(t, 10*time.Second)
		r.nothingLeft()
	})
	t.Run("no answer does nothing", func(t *testing.T) {
		t.Parallel()
		r := withVLLM(t, bareRig(t))
		x := r.terminal()
		x.asks("[Y/n]")
		x.press("\x04")
		if code := x.exit(t, 10*time.Second); code != exitFailed {
			t.Errorf("exit code = %d, want %d", code, exitFailed)
		}
		x.await("nothing was written or started")
		r.nothingLeft()
	})
	t.Run("yes writes it and starts", func(t *testing.T) {
		t.Parallel()
		r := withVLLM(t, bareRig(t))
		x := r.terminal()
		x.asks("[Y/n]")
		x.press("\r")
		x.await("1 Overview")
		text, err := os.ReadFile(r.userConfig())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), filepath.Join(r.dir, "bin", "vllm")) {
			t.Errorf("the config does not start the vllm that was found:\n%s", text)
		}
		x.press("q")
		x.exit(t, 10*time.Second)
		x.await("still serving on ")
		if out := r.run("status"); !strings.Contains(out, "w0") {
			t.Errorf("the engine does not run:\n%s", out)
		}
		r.run("stop", "--yes")
	})
}

// TestDumbTerminal has no cursor to move: the console is lines, and ctrl+c leaves it.
func TestDumbTerminal(t *testing.T) {
	t.Parallel()
	r := newRig(t, simConfig(1))
	r.serve()
	r.allReady()
	r.env = append(r.env, "TERM=dumb")
	x := r.terminal()
	x.await("1/1")
	x.press("\x03")
	if code := x.exit(t, 10*time.Second); code != exitDone {
		t.Errorf("exit code = %d, want %d", code, exitDone)
	}
	x.await("still serving on ")
	if strings.Contains(x.wrote(), "\x1b") {
		t.Errorf("an escape was written to a dumb terminal: %q", x.wrote())
	}
}
