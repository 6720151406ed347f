package metrics

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	appsEvery  = 5 * time.Second  // nvidia-smi's interval for processes
	appsRound  = appsEvery / 2    // lines that come this close together are of one round
	appsQuery  = appsEvery / 20   // … and whose times are this close are of one process
	appsFresh  = 12 * time.Second // how long a round stands: an empty one says nothing at all
	appsSilent = 5 * time.Minute  // without a line nvidia-smi is started again: nobody may be on the cards, or it may hang
	amdApps    = 10 * time.Second // between two calls of amd-smi for processes
	maxApps    = 32               // of a card
)

// app is a process that holds memory of a card.
type app struct {
	card   string // UUID, or index where the tool has no UUIDs
	pid    int    // as the driver sees it: inside a container it may be the host's
	name   string
	memory *int64    // bytes; nil: not reported, as under WSL
	asked  time.Time // by the tool's clock, of the query that it comes from
}

// apps are the processes on all cards. The zero value has none.
type apps struct {
	list []seenApp
	last time.Time // of the newest line
}

type seenApp struct {
	app
	at time.Time
}

// add takes one line of a tool that goes on and on.
func (a *apps) add(now time.Time, p app) {
	a.last = now
	for i := range a.list {
		s := &a.list[i]
		if s.card != p.card || s.pid != p.pid {
			continue
		}
		if p.asked.Sub(s.asked).Abs() < appsQuery { // another context of the process
			p.memory = sum(s.memory, p.memory)
		}
		s.app = p
		s.at = now
		return
	}
	a.list = slices.DeleteFunc(a.list, func(s seenApp) bool { return now.Sub(s.at) > appsFresh })
	a.list = append(a.list, seenApp{p, now})
}

// set takes a whole round.
func (a *apps) set(now time.Time, ps []app) {
	a.list = nil
	for _, p := range ps {
		p.asked = now
		a.add(now, p)
	}
	a.last = now
}

// of gives the processes on a card, biggest first.
func (a *apps) of(c *card, now time.Time) []api.GPUProcess {
	if now.Sub(a.last) > appsFresh {
		return nil
	}
	var out []api.GPUProcess
	for _, s := range a.list {
		if (s.card == c.UUID && c.UUID != "" || s.card == c.Index) && a.last.Sub(s.at) < appsRound {
			out = append(out, api.GPUProcess{PID: s.pid, Name: s.name, Memory: s.memory})
		}
	}
	slices.SortFunc(out, func(x, y api.GPUProcess) int {
		return cmp.Or(cmp.Compare(or0(y.Memory), or0(x.Memory)), cmp.Compare(x.PID, y.PID))
	})
	return out[:min(len(out), maxApps)]
}

func sum(a, b *int64) *int64 {
	if a == nil || b == nil {
		return nil
	}
	return new(*a + *b)
}

func or0(v *int64) int64 {
	if v == nil {
		return 0
	}
	return *v
}

// watchApps follows one nvidia-smi that lists processes, until ctx is done. What it complains of is what the one
// for the cards complains of too.
func (g *GPUs) watchApps(ctx context.Context, path string) {
	p := program{name: "nvidia-smi", first: appsSilent, silent: appsSilent, stuck: &g.appsStuck}
	for wait := appsEvery; ctx.Err() == nil; wait = min(2*wait, gpuMax) {
		began := time.Now()
		_ = p.run(ctx, path, []string{
			"--query-compute-apps=timestamp,gpu_uuid,pid,used_memory,process_name", "--format=csv,noheader,nounits",
			"-l", strconv.Itoa(int(appsEvery / time.Second)),
		}, func(line string) bool {
			a, ok := parseApp(line)
			if ok {
				g.mu.Lock()
				g.apps.add(time.Now(), a)
				g.mu.Unlock()
			}
			return ok
		})
		if time.Since(began) > gpuMax {
			wait = appsEvery
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// parseApp reads a line of timestamp, gpu_uuid, pid, used_memory, process_name. Text such as "No running processes
// found" is no process. A process_name of [Not Found] is one in another pid namespace.
func parseApp(line string) (app, bool) {
	v := strings.SplitN(line, ",", 5)
	if len(v) != 5 {
		return app{}, false
	}
	for i := range v {
		v[i] = strings.TrimSpace(v[i])
	}
	asked, err := time.Parse("2006/01/02 15:04:05.000", v[0])
	pid, err2 := strconv.Atoi(v[2])
	if err != nil || err2 != nil || pid <= 0 || text(v[1]) == "" {
		return app{}, false
	}
	return app{asked: asked, card: v[1], pid: pid, memory: mebibytes(v[3]), name: text(v[4])}, true
}

// pollAMDApps calls amd-smi for processes until ctx is done. An amd-smi that cannot list them has none.
func (g *GPUs) pollAMDApps(ctx context.Context, path string) {
	tick := time.NewTicker(amdApps)
	defer tick.Stop()
	for {
		if out, err := output(ctx, path, "process", "--json"); err == nil {
			if ps, err := parseAMDApps(out); err == nil {
				g.mu.Lock()
				g.apps.set(time.Now(), ps)
				g.mu.Unlock()
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// parseAMDApps reads "amd-smi process --json": of each card a process_list of process_info, which is a
// text where there is none. Its memory has been seen under three names.
func parseAMDApps(out []byte) ([]app, error) {
	cards, err := amdCards(out)
	if err != nil {
		return nil, err
	}
	var ps []app
	for _, c := range cards {
		index := amdNumber(c["gpu"])
		list, _ := c["process_list"].([]any)
		if index == nil {
			continue
		}
		for _, p := range list {
			info := dig(p, "process_info")
			pid := amdNumber(dig(info, "pid"))
			if pid == nil || *pid < 1 || *pid > 1<<31 {
				continue
			}
			a := app{card: strconv.Itoa(int(*index)), pid: int(*pid)}
			name, _ := dig(info, "name").(string)
			a.name = text(name)
			for _, keys := range [][]string{{"memory_usage", "vram_mem"}, {"vram_mem"}, {"mem_usage"}} {
				if a.memory = vram(dig(info, keys...)); a.memory != nil {
					break
				}
			}
			ps = append(ps, a)
		}
	}
	return ps, nil
}

// vram reads the memory of a process, which is in bytes where no unit says otherwise.
func vram(v any) *int64 {
	if _, plain := v.(float64); plain {
		v = map[string]any{"value": v, "unit": "B"}
	}
	return amdBytes(v)
}
