package metrics

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// program is a tool that runs on and writes a line now and then.
type program struct {
	name   string
	first  time.Duration // how long until its first line
	silent time.Duration // … and until each further one
	stuck  *stuck
}

// stuck is a process that hangs in the driver, where SIGKILL does not reach it; nil: none.
type stuck struct{ ended <-chan error }

// run starts the program and gives each line to take, which says whether it was one of those that are
// expected. It returns when the program has ended or ctx is done. The error is the last line that
// was not expected, for that is where tools say why they end.
func (p program) run(ctx context.Context, path string, args []string, take func(line string) bool) error {
	if p.stuck.ended != nil {
		select {
		case <-p.stuck.ended: //nolint:errcheck // how it ended was said when it was given up
			p.stuck.ended = nil
		case <-ctx.Done():
			return nil
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	cmd.WaitDelay = time.Second // a grandchild may hold the pipe
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		in.Close()
		ended <- err
	}()
	// Reading ends with ctx even if the process does not.
	defer context.AfterFunc(ctx, func() { out.Close() })()
	alive := time.AfterFunc(p.first, cancel)
	defer alive.Stop()

	var said string
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if take(line) {
			alive.Reset(p.silent)
		} else if line != "" {
			said = line
		}
	}
	silent := ctx.Err() != nil
	cancel()
	// A process that hangs in the driver cannot be killed; the engine does not wait for it.
	var err error
	select {
	case err = <-ended:
	case <-time.After(min(p.silent, gpuSilent)):
		p.stuck.ended = ended
		return fmt.Errorf("%s hangs in the driver and cannot be killed", p.name)
	}
	switch {
	case said != "":
		return errors.New(said)
	case silent:
		return fmt.Errorf("%s said nothing for %v", p.name, p.silent)
	}
	return err
}
