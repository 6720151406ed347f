package metrics

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	gpuEvery  = time.Second      // nvidia-smi's interval
	gpuFirst  = 30 * time.Second // until its first line: without persistence mode the driver loads first
	gpuSilent = 5 * time.Second  // without a further line: it hangs or the driver is gone
	gpuFresh  = 10 * time.Second // how long a card's last report stands
	gpuBack   = time.Second      // first wait after the tool ended; doubles
	gpuMax    = time.Minute      // longest wait
	amdEvery  = 2 * time.Second  // between two calls of AMD's tools
	amdLimit  = 10 * time.Second // of one call: they are Python programs
)

// GPUs watches the host's cards through the tool of their driver: one long-lived nvidia-smi,
// or amd-smi or rocm-smi every two seconds. No tool is no cards, and no error.
type GPUs struct {
	log           *slog.Logger
	first, silent time.Duration
	back          time.Duration

	stuck <-chan error // a tool that could not be killed: nothing is started beside it
	said  string       // the last complaint, so that it is logged once

	mu    sync.Mutex
	cards map[string]card // by index
}

type card struct {
	api.GPU
	seen time.Time
}

// NewGPUs makes a watcher that has seen nothing yet.
func NewGPUs(log *slog.Logger) *GPUs {
	return &GPUs{log: log, first: gpuFirst, silent: gpuSilent, back: gpuBack, cards: map[string]card{}}
}

// Latest gives the cards by index, as they were at most 10 s ago.
func (g *GPUs) Latest() []api.GPU {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []api.GPU
	for i, c := range g.cards {
		if time.Since(c.seen) > gpuFresh {
			delete(g.cards, i)
			continue
		}
		out = append(out, c.GPU)
	}
	slices.SortFunc(out, func(a, b api.GPU) int {
		x, errX := strconv.Atoi(a.Index)
		y, errY := strconv.Atoi(b.Index)
		if errX != nil || errY != nil {
			return strings.Compare(a.Index, b.Index)
		}
		return x - y
	})
	return out
}

func (g *GPUs) report(cards ...api.GPU) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range cards {
		g.cards[c.Index] = card{c, time.Now()}
	}
}

// tools are what cards are read with, in order of preference.
var tools = []struct {
	name  string
	watch func(g *GPUs, ctx context.Context, path string) error
}{
	{"nvidia-smi", (*GPUs).watchNvidia},
	{"amd-smi", (*GPUs).pollAMD},
	{"rocm-smi", (*GPUs).pollROCm},
}

// Run watches until ctx is done; its error is always nil. A tool that fails is started again,
// ever later; one that appears after the engine is found within a minute.
func (g *GPUs) Run(ctx context.Context) error {
	wait := g.back
	for ctx.Err() == nil {
		began := time.Now()
		name, err := g.watch(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > gpuMax {
			wait = g.back
		}
		switch {
		case name == "":
			wait = gpuMax
		case err != nil && err.Error() != g.said:
			g.said = err.Error()
			g.log.Warn("gpu tool ended", "tool", name, "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, gpuMax)
	}
	return nil //nolint:nilerr // what a tool ended with has been logged
}

// watch runs the first tool there is until it ends. "" is none.
func (g *GPUs) watch(ctx context.Context) (string, error) {
	for _, t := range tools {
		path, err := exec.LookPath(t.name)
		if err != nil {
			continue
		}
		return t.name, t.watch(g, ctx, path)
	}
	return "", nil
}

// watchNvidia follows one nvidia-smi. If that does not know a field it answers nothing at
// all, so it is then asked for the essential ones only.
func (g *GPUs) watchNvidia(ctx context.Context, path string) error {
	err := g.follow(ctx, path, nvidiaFields)
	if errors.Is(err, errField) {
		g.log.Info("nvidia-smi is old: temperature and power are not shown")
		err = g.follow(ctx, path, nvidiaEssential)
	}
	return err
}

var errField = errors.New("nvidia-smi does not know a field that was asked for")

func (g *GPUs) follow(ctx context.Context, path string, fields []string) error {
	if g.stuck != nil {
		select {
		case <-g.stuck: //nolint:errcheck // how it ended was said when it was given up
			g.stuck = nil
		case <-ctx.Done():
			return nil
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--query-gpu="+strings.Join(fields, ","),
		"--format=csv,noheader,nounits", "-lms", strconv.FormatInt(gpuEvery.Milliseconds(), 10))
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	cmd.WaitDelay = time.Second // a grandchild may hold the pipe
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start nvidia-smi: %w", err)
	}
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		in.Close()
		ended <- err
	}()
	// Reading ends with ctx even if the process does not.
	defer context.AfterFunc(ctx, func() { out.Close() })()
	alive := time.AfterFunc(g.first, cancel)
	defer alive.Stop()

	var said string // the last line that is no card: why it ends
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if c, ok := parseNvidia(line, fields); ok {
			alive.Reset(g.silent)
			g.report(c)
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
	case <-time.After(g.silent):
		g.stuck = ended
		return errors.New("nvidia-smi hangs in the driver and cannot be killed")
	}
	switch {
	case strings.Contains(said, "is not a valid field"):
		return errField
	case said != "":
		return errors.New(said)
	case silent:
		return fmt.Errorf("nvidia-smi said nothing for %v", g.silent)
	}
	return err
}

// pollAMD calls amd-smi until it fails.
func (g *GPUs) pollAMD(ctx context.Context, path string) error {
	return g.poll(ctx, parseAMD, path, "metric", "--json")
}

// pollROCm calls rocm-smi until it fails.
func (g *GPUs) pollROCm(ctx context.Context, path string) error {
	return g.poll(ctx, parseROCm, path, "--showuse", "--showmeminfo", "vram", "--showtemp", "--showpower", "--showproductname", "--json")
}

func (g *GPUs) poll(ctx context.Context, parse func([]byte) ([]api.GPU, error), path string, args ...string) error {
	tick := time.NewTicker(amdEvery)
	defer tick.Stop()
	for {
		out, err := output(ctx, path, args...)
		if err != nil {
			return err
		}
		cards, err := parse(out)
		if err != nil {
			return err
		}
		g.report(cards...)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// output runs a tool once.
func output(ctx context.Context, path string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, amdLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.WaitDelay = time.Second
	return cmd.Output()
}
