package metrics

import (
	"cmp"
	"context"
	"errors"
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

// GPUs watches the host's cards through the tool of their driver: one long-lived nvidia-smi for the
// cards and one for the processes on them, or amd-smi or rocm-smi every two seconds. No tool is no
// cards, and no error.
type GPUs struct {
	// Xid is told of each error that NVIDIA's driver wrote to the kernel's log since NewGPUs; serious
	// ones are the hardware's, the others mostly a program's. At most one of a card and code a minute.
	// Set before Run; nil: nobody is told.
	Xid func(card string, x api.Xid, serious bool)

	log           *slog.Logger
	first, silent time.Duration
	back          time.Duration
	kmsg          string // the kernel's log
	since         time.Time

	stuck     stuck    // a tool that could not be killed: nothing is started beside it
	appsStuck stuck    // the same of the one for processes
	said      string   // the last complaint, so that it is logged once
	fields    []string // that this nvidia-smi knows of those that are asked for

	kernel sync.Once // the kernel's log is read from the first nvidia-smi on
	wg     sync.WaitGroup

	mu      sync.Mutex
	settled bool            // see Settled
	cards   map[string]card // by index
	energy  map[string]*energy
	apps    apps
	xids    xids
}

// card is one report of a card.
type card struct {
	api.GPU
	pci  string // as busID gives it; "" where it is not told
	seen time.Time
}

// key is what a card keeps for as long as it is in the host.
func (c *card) key() string { return cmp.Or(c.UUID, c.Index) }

// NewGPUs makes a watcher that has seen nothing yet.
func NewGPUs(log *slog.Logger) *GPUs {
	return &GPUs{
		log: log, first: gpuFirst, silent: gpuSilent, back: gpuBack, kmsg: "/dev/kmsg", since: time.Now(), fields: nvidiaFields,
		cards: map[string]card{}, energy: map[string]*energy{},
	}
}

// Latest gives the cards by index, as they were at most 10 s ago. Of their processes only pid, name and
// memory are known here.
func (g *GPUs) Latest() []api.GPU {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []api.GPU
	now := time.Now()
	for i, c := range g.cards {
		if now.Sub(c.seen) > gpuFresh {
			delete(g.cards, i)
			continue
		}
		c.Energy = g.energy[c.key()].wattHours()
		c.Processes = g.apps.of(&c, now)
		c.Xids = g.xids.of(c.pci)
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

// Settled says whether Latest tells all there is: a card has been seen, or there is no tool, or the
// tool has failed. Until then, for a second or more after Run began, no cards means nothing.
func (g *GPUs) Settled() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.settled
}

func (g *GPUs) settle() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.settled = true
}

func (g *GPUs) report(cards ...card) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	for _, c := range cards {
		c.seen = now
		g.cards[c.Index] = c
		e := g.energy[c.key()]
		if e == nil {
			e = &energy{}
			g.energy[c.key()] = e
		}
		e.add(now, c.Power)
	}
	g.settled = true
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
	defer g.wg.Wait()
	wait := g.back
	for ctx.Err() == nil {
		began := time.Now()
		name, err := g.watch(ctx)
		if ctx.Err() != nil {
			break
		}
		g.settle()
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
	return nil
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

// watchNvidia follows one nvidia-smi for the cards, and beside it one for the processes.
func (g *GPUs) watchNvidia(ctx context.Context, path string) error {
	g.kernel.Do(func() { g.wg.Go(func() { g.readKernel(ctx) }) })
	apps, end := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.watchApps(apps, path)
	}()
	defer func() { end(); <-done }()
	for {
		err := g.followCards(ctx, path)
		var unknown *fieldError
		if !errors.As(err, &unknown) {
			return err
		}
		fields, ok := without(g.fields, unknown.field)
		if !ok {
			return err
		}
		g.log.Info("nvidia-smi is of another age: a field is left out or has an older name", "field", unknown.field)
		g.fields = fields
	}
}

// followCards reads one nvidia-smi until it ends.
func (g *GPUs) followCards(ctx context.Context, path string) error {
	p := program{name: "nvidia-smi", first: g.first, silent: g.silent, stuck: &g.stuck}
	err := p.run(ctx, path, []string{
		"--query-gpu=" + strings.Join(g.fields, ","), "--format=csv,noheader,nounits",
		"-lms", strconv.FormatInt(gpuEvery.Milliseconds(), 10),
	}, func(line string) bool {
		c, ok := parseNvidia(line, g.fields)
		if ok {
			g.report(c)
		}
		return ok
	})
	if err == nil {
		return nil
	}
	if m := unknownField.FindStringSubmatch(err.Error()); m != nil {
		return &fieldError{m[1]}
	}
	return err
}

// pollAMD calls amd-smi until it fails.
func (g *GPUs) pollAMD(ctx context.Context, path string) error {
	apps, end := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		g.pollAMDApps(apps, path)
	}()
	defer func() { end(); <-done }()
	return g.poll(ctx, parseAMD, path, "metric", "--json")
}

// pollROCm calls rocm-smi until it fails.
func (g *GPUs) pollROCm(ctx context.Context, path string) error {
	return g.poll(ctx, parseROCm, path, "--showuse", "--showmeminfo", "vram", "--showtemp", "--showpower", "--showproductname", "--json")
}

func (g *GPUs) poll(ctx context.Context, parse func([]byte) ([]card, error), path string, args ...string) error {
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
