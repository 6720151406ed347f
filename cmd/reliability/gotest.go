package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// virtual runs one test of a package in virtual time (testing/synctest) and notes its figures, which it gives by
// t.Attr(name, value), with _ for a space. A test that fails, or does not exist, fails the trial.
func (t *trial) virtual(ctx context.Context, pkg, test string) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-run", "^"+test+"$", pkg)
	cmd.Env = append(os.Environ(), "VLLMDECK_RELIABILITY=1") // at full length
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	passed := false
	var said []string
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var ev struct{ Action, Test, Key, Value, Output string }
		if json.Unmarshal(lines.Bytes(), &ev) != nil || ev.Test == "" {
			continue
		}
		switch ev.Action {
		case "attr":
			t.note(strings.ReplaceAll(ev.Key, "_", " "), ev.Value)
		case "pass":
			passed = passed || ev.Test == test
		case "output":
			if text := strings.TrimSpace(ev.Output); text != "" && !strings.HasPrefix(text, "=== ") && !strings.HasPrefix(text, "--- ") {
				said = append(said, text)
			}
		}
	}
	if err := errors.Join(lines.Err(), cmd.Wait()); err != nil {
		t.failf("%s of %s: %v: %s", test, pkg, err, strings.Join(said, "; "))
	} else if !passed {
		return fmt.Errorf("%s has no test %s: %s", pkg, test, errs.String())
	}
	return nil
}

// fuzz lets a fuzz target run for so long and notes how many inputs it tried. One that fails is kept by the go
// tool in the package's testdata.
func (t *trial) fuzz(ctx context.Context, pkg, target string, span time.Duration) error {
	// Coverage that comes and goes would keep it shortening inputs for a minute each.
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-fuzz", "^"+target+"$", "-fuzztime", span.String(), "-fuzzminimizetime", "1x", pkg)
	out, err := cmd.CombinedOutput()
	execs := 0
	for line := range strings.Lines(string(out)) {
		if _, rest, ok := strings.Cut(line, "execs: "); ok {
			n, _, _ := strings.Cut(rest, " ")
			execs, _ = strconv.Atoi(n)
		}
	}
	if err != nil {
		t.failf("%s of %s: %v: %s", target, pkg, err, out[max(0, len(out)-2000):])
	}
	t.note("seconds of "+target, span.Seconds())
	t.atLeast("inputs tried by "+target, execs, 1)
	return ctx.Err()
}
