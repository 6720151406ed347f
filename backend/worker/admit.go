package worker

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	admitEvery = time.Second      // between two looks at the cards
	firstLook  = 30 * time.Second // for the first reading of the cards: without persistence mode the driver loads first

	// defaultUtilisation is vLLM's --gpu-memory-utilization since 0.21.
	defaultUtilisation = 0.92
)

// gateError says that a start was not tried because the memory it needs is taken.
type gateError struct {
	cause, remedy string
	fits          float64 // share of the card that is free; 0: not known
}

func (e *gateError) Error() string { return e.cause }

// admit waits until l's server may start on its GPUs: nobody else is starting there, and the memory
// that it will take is free. Without readings of the cards only the first counts.
func (w *worker) admit(ctx context.Context, l *life) (err error) {
	if l.plan.kind != kindVLLM || l.plan.cpu {
		return nil
	}
	defer func() {
		if err != nil {
			w.opts.turns.give(l)
		}
	}()
	tick := time.NewTicker(admitEvery)
	defer tick.Stop()
	var since time.Time // it has its turn, and waits for memory
	for began := time.Now(); ; {
		cards, settled := w.cards()
		var again <-chan struct{}
		var why string
		switch gpus := l.plan.on(cards); {
		case isDone(l.open):
			return nil
		case !settled && time.Since(began) < firstLook:
			why = "the first reading of the GPUs"
		case len(gpus) == 0:
			return nil
		default:
			var by, gpu string
			if by, gpu, again = w.opts.turns.take(l, w.name, gpus); by != "" {
				why = fmt.Sprintf("%s is starting on GPU %s", by, gpu)
				break
			}
			fault := l.plan.room(w.name, cards, gpus)
			if fault == nil {
				return nil
			}
			why = fault.cause
			if since.IsZero() {
				since = time.Now()
			}
			if time.Since(since) >= l.plan.cfg.GPUWait {
				return fault
			}
		}
		if !w.post(func(context.Context) { w.block(l, why) }) {
			return errGone
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.open:
		case <-again:
		case <-tick.C:
		}
	}
}

// block shows what a start waits for.
func (w *worker) block(l *life, why string) {
	if w.life != l || w.st.State != api.Starting || w.st.Blocked == why {
		return
	}
	if w.st.Blocked == "" {
		w.log.Info("start waits", "for", why)
	}
	w.st.Blocked = why
	w.showPhases(time.Now())
}

// admitted begins the start proper: what it waited for is no part of it.
func (w *worker) admitted(l *life) {
	if w.life != l {
		w.opts.turns.give(l) // it was taken after the life had ended
		return
	}
	if w.st.Blocked == "" {
		return
	}
	w.st.Blocked = ""
	l.began = time.Now()
	l.phases = newTracker(api.PhaseImports, l.began)
	w.showPhases(l.began)
}

func (w *worker) cards() (cards []api.GPU, settled bool) {
	if w.opts.GPUs == nil {
		return nil, true
	}
	return w.opts.GPUs()
}

// on gives the GPUs that the server will run on: their indexes where the cards are known, else as the config or
// the environment names them.
func (p *plan) on(cards []api.GPU) []string {
	ids := p.gpus
	if len(ids) == 0 && len(cards) == 1 {
		return []string{cards[0].Index} // there is no other
	}
	var out []string
	for _, id := range ids {
		if i := slices.IndexFunc(cards, func(c api.GPU) bool {
			return c.Index == id || strings.HasPrefix(id, "GPU-") && strings.HasPrefix(c.UUID, id)
		}); i >= 0 {
			id = cards[i].Index
		}
		out = append(out, id)
	}
	return out
}

// devices are the GPUs that a vLLM is told to use: by gpus:, by --device-ids, by its environment, by ours.
func devices(gpus, args []string, env map[string]string) []string {
	if len(gpus) > 0 {
		return gpus
	}
	visible := func(text string) []string {
		var out []string
		for id := range strings.SplitSeq(text, ",") {
			if id = strings.TrimSpace(id); id != "" {
				out = append(out, id)
			}
		}
		return out
	}
	named, ok := env["CUDA_VISIBLE_DEVICES"]
	if !ok {
		named = os.Getenv("CUDA_VISIBLE_DEVICES")
	}
	all := visible(named)
	ids := visible(strings.Trim(flagValue(args, "device-ids"), `"'`))
	if len(ids) == 0 {
		return all
	}
	for i, id := range ids { // numbers are indexes into what is visible
		if n, err := strconv.Atoi(id); err == nil && n >= 0 && n < len(all) {
			ids[i] = all[n]
		}
	}
	return ids
}

// share is how much of each GPU's memory the server wants free when it starts; 0: that is not known
// beforehand, as with --kv-cache-memory-bytes.
func share(args []string) float64 {
	if hasFlag(args, "kv-cache-memory-bytes") || hasFlag(args, "kv-cache-memory") {
		return 0
	}
	text := flagValue(args, "gpu-memory-utilization")
	if text == "" {
		return defaultUtilisation
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(v) || v <= 0 || v > 1 {
		return 0 // vLLM will say so
	}
	return v
}

// room says what is in the way of a start on these GPUs; nil: nothing, as far as is known. It counts
// as vLLM does, with what the card holds free for itself left out: who is refused here would fail there.
func (p *plan) room(worker string, cards []api.GPU, gpus []string) *gateError {
	if p.cfg.GPUWait <= 0 || p.share <= 0 {
		return nil
	}
	for _, c := range cards {
		if !slices.Contains(gpus, c.Index) || c.MemoryTotal == nil || c.MemoryUsed == nil {
			continue
		}
		total, used := float64(*c.MemoryTotal), float64(*c.MemoryUsed)
		wanted := p.share * total
		for _, h := range c.Processes {
			if h.Preload && h.Memory != nil { // the weights that vLLM would load lie there already
				wanted -= float64(*h.Memory)
			}
		}
		free := total - used
		if free >= wanted {
			continue
		}
		e := &gateError{cause: fmt.Sprintf("GPU %s: %.1f of %.1f GiB free, %.1f wanted", c.Index, gib(free), gib(total), gib(wanted))}
		who, remedy := holders(c.Processes)
		if who != "" {
			e.cause += ": " + who
		}
		if fits := math.Floor(free/total*100) / 100; fits >= 0.05 {
			e.fits = fits
			remedy += fmt.Sprintf(", or set --gpu-memory-utilization=%.2f or less under args:", fits)
		}
		e.remedy = fmt.Sprintf("%s; \"vllmdeck worker start %s --no-gate\" starts it all the same", remedy, worker)
		return e
	}
	return nil
}

// holders says who holds a card's memory, the biggest two, and what ends the first of them.
func holders(ps []api.GPUProcess) (who, remedy string) {
	remedy = "end what else holds its memory (nvidia-smi), which cannot be seen from here"
	var parts []string
	for i, p := range ps {
		if i == 2 {
			parts = append(parts, fmt.Sprintf("%d more", len(ps)-i))
			break
		}
		name := fmt.Sprintf("pid %d %s", p.PID, p.Name)
		switch {
		case p.Worker != "":
			name = fmt.Sprintf("worker %s (pid %d)", p.Worker, p.PID)
		case p.Stray:
			name = fmt.Sprintf("stray %d %s", p.PID, p.Name)
		case p.User != "":
			name += " (" + p.User + ")"
		}
		if p.Memory != nil {
			name += fmt.Sprintf(" holds %.1f GiB", gib(float64(*p.Memory)))
		}
		parts = append(parts, name)
		if i > 0 {
			continue
		}
		switch {
		case p.Worker != "":
			remedy = "stop worker " + p.Worker
		case p.Stray:
			remedy = fmt.Sprintf("end the stray: \"vllmdeck worker end-stray %d\"", p.PID)
		default:
			remedy = fmt.Sprintf("end pid %d", p.PID)
		}
	}
	return strings.Join(parts, ", "), remedy
}

func gib(bytes float64) float64 { return bytes / (1 << 30) }
