package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
)

// virtual runs one test of a package in virtual time (testing/synctest) and notes its figures, which it gives by
// t.Attr(name, value), with _ for a space. A test that fails, or does not exist, fails the trial.
func (t *trial) virtual(ctx context.Context, pkg, test string) error {
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-count=1", "-run", "^"+test+"$", pkg)
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
