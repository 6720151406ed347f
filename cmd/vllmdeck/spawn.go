package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend"
	"github.com/vllmdeck/vllmdeck/config"
)

// spawnLimit is how long an engine may take until it answers: it opens its ledger first.
const spawnLimit = 60 * time.Second

// spawnEngine starts "vllmdeck serve" in a session of its own, so that it outlives this
// terminal, and waits until it answers.
func spawnEngine(ctx context.Context, cfg *config.Config) (engineRecord, error) {
	self, err := ownPath()
	if err != nil {
		return engineRecord{}, err
	}
	out, err := engineOut(cfg.State)
	if err != nil {
		return engineRecord{}, err
	}
	defer out.Close()
	child := exec.Command(self, "serve", "--quiet", "--config", cfg.Path) //nolint:noctx // the engine outlives this command on purpose
	child.Stdout, child.Stderr = out, out
	child.Dir = "/" // whatever folder we are in can be unmounted and removed
	detach(child)
	if err := child.Start(); err != nil {
		return engineRecord{}, fmt.Errorf("start engine: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(spawnLimit)
	for {
		if rec, ok := engineOfState(cfg.State); ok {
			return rec, nil
		}
		select {
		case <-ctx.Done():
			return engineRecord{}, ctx.Err()
		case err := <-ended:
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() == exitRunning {
				ended = nil // somebody else was faster: theirs is as good
				limit = time.After(10 * time.Second)
				continue
			}
			return engineRecord{}, endedAtOnce(err, out.Name())
		case <-limit:
			return engineRecord{}, fmt.Errorf("the engine does not answer: see %s", out.Name())
		case <-tick.C:
		}
	}
}

// engineOut opens the file for what an engine without a terminal has to say beside its log:
// errors of its start, and panics. What the engine before said is kept once.
func engineOut(state string) (*os.File, error) {
	if err := backend.MakeState(state); err != nil {
		return nil, err
	}
	logs := filepath.Join(state, "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return nil, fmt.Errorf("make state folder: %w: set state: in the config to a folder of yours", err)
	}
	path := filepath.Join(logs, "engine.out")
	if st, err := os.Stat(path); err == nil && st.Size() > 0 {
		_ = os.Rename(path, path+".1")
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open engine output: %w", err)
	}
	return out, nil
}

// endedAtOnce is the error of an engine that ended before it answered: its own words, and its
// exit code.
func endedAtOnce(err error, path string) error {
	code := exitFailed
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		code = exit.ExitCode()
	}
	text, _ := os.ReadFile(path)
	words := strings.TrimPrefix(strings.TrimSpace(string(text)), "vllmdeck: ")
	if words == "" {
		words = fmt.Sprintf("the engine ended at once (%v): its log is beside %s", err, path)
	}
	return &exitError{code: code, err: errors.New(words)}
}
