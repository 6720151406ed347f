package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
)

// console is a vllmdeck on a terminal of its own, with what its user sees.
type console struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	file *os.File      // the user's end
	tty  *os.File      // the program's end: it outlives the program, so that its modes can be read
	was  *term.State   // the modes before

	mu     sync.Mutex // guards the following, but for the screen's Read
	screen *vt.Emulator
	all    strings.Builder // every byte that was written
}

// console starts vllmdeck beside an engine, in a session of its own, as a login shell would.
func (t *trial) console(e *engine, rows, cols int, args ...string) (*console, error) {
	user, program, err := pty.Open()
	if err != nil {
		return nil, err
	}
	size := &pty.Winsize{Rows: uint16(rows), Cols: uint16(cols)} //nolint:gosec // small
	if err := pty.Setsize(user, size); err != nil {
		return nil, err
	}
	was, err := term.GetState(program.Fd())
	if err != nil {
		return nil, err
	}
	x := &console{file: user, tty: program, was: was, done: make(chan struct{}), screen: vt.NewEmulator(cols, rows)}
	x.cmd = exec.Command(t.bin, args...) //nolint:noctx // it ends with its trial
	x.cmd.Env, x.cmd.Dir = append(e.env, "TERM=xterm-256color"), e.dir
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = program, program, program
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = x.cmd.Wait()
		close(x.done)
	}()
	go x.show()
	go x.answer()
	t.cleanup(func() {
		_ = x.cmd.Process.Kill()
		<-x.done
		x.hangUp()
	})
	return x, nil
}

func (x *console) show() {
	buf := make([]byte, 32<<10)
	for {
		n, err := x.file.Read(buf)
		x.mu.Lock()
		x.all.Write(buf[:n])
		_, _ = x.screen.Write(buf[:n])
		x.mu.Unlock()
		if err != nil {
			if in, ok := x.screen.InputPipe().(io.Closer); ok {
				_ = in.Close()
			}
			return
		}
	}
}

// answer sends what a terminal says when it is asked for its colours and the like.
func (x *console) answer() {
	buf := make([]byte, 1024)
	for {
		n, err := x.screen.Read(buf)
		if err != nil {
			return
		}
		_, _ = x.file.Write(buf[:n])
	}
}

// sees is the screen as text.
func (x *console) sees() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.screen.String()
}

// wrote is every byte that came.
func (x *console) wrote() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.all.String()
}

// await waits until the screen shows a text.
func (x *console) await(ctx context.Context, what string) error {
	if err := until(ctx, 20*time.Second, "the console shows "+what, func() bool { return strings.Contains(x.sees(), what) }); err != nil {
		return fmt.Errorf("%w; it shows:\n%s", err, x.sees())
	}
	return nil
}

// press types keys.
func (x *console) press(keys string) { _, _ = x.file.WriteString(keys) }

// resize changes the terminal's size, which sends SIGWINCH.
func (x *console) resize(rows, cols int) error {
	x.mu.Lock()
	x.screen.Resize(cols, rows)
	x.mu.Unlock()
	return pty.Setsize(x.file, &pty.Winsize{Rows: uint16(rows), Cols: uint16(cols)}) //nolint:gosec // small
}

// hangUp closes both ends, as a lost SSH connection does.
func (x *console) hangUp() {
	_ = x.tty.Close()
	_ = x.file.Close()
}

// ended waits for the end of the process.
func (x *console) ended(ctx context.Context, limit time.Duration) error {
	select {
	case <-x.done:
		return nil
	case <-time.After(limit):
		return fmt.Errorf("the console still runs after %s", limit)
	case <-ctx.Done():
		return ctx.Err()
	}
}
