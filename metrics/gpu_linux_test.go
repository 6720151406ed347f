package metrics

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// host is a fake nvidia-smi with its cards and processes in files.
type host struct{ dir string }

// nvidia puts the stand-in of testdata on an otherwise empty PATH.
func nvidia(t *testing.T, unknown string) host {
	t.Helper()
	script, err := os.ReadFile("testdata/gpu/nvidia-smi")
	if err != nil {
		t.Fatal(err)
	}
	h := host{t.TempDir()}
	tool(t, "nvidia-smi", fmt.Sprintf("unknown=' %s '\ncards=%s\napps=%s\n%s", unknown, h.path("cards"), h.path("apps"), script))
	return h
}

func (h host) path(name string) string { return filepath.Join(h.dir, name) }

// write replaces a file in one step.
func (h host) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(h.path(name+".new"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(h.path(name+".new"), h.path(name)); err != nil {
		t.Fatal(err)
	}
}

// twoCards are as two RTX 4080 SUPER showed themselves, one of them too warm.
const twoCards = "index=0|uuid=GPU-a008e90f-259e-df57-7988-63b6831fff68|name=NVIDIA GeForce RTX 4080 SUPER|memory.used=1226|memory.total=32760|utilization.gpu=28|" +
	"pci.bus_id=00000000:65:00.0|temperature.gpu=84|power.draw=320.00|power.limit=320.00|clocks.sm=1905|ecc.errors.uncorrected.volatile.total=3|" +
	"clocks_event_reasons.active=0x0000000000000024|clocks_throttle_reasons.active=0x0000000000000024\n" +
	"index=1|uuid=GPU-a1ea1946-07c0-8ed5-2ba1-d96f82c89cd3|name=NVIDIA GeForce RTX 4080 SUPER|memory.used=18|memory.total=32760|utilization.gpu=0|" +
	"pci.bus_id=00000000:17:00.0|clocks.sm=210|clocks_event_reasons.active=0x0000000000000001|clocks_throttle_reasons.active=0x0000000000000001\n"

func TestReadsWhatACardTells(t *testing.T) {
	h := nvidia(t, "")
	h.write(t, "cards", twoCards)
	g := watchGPUs(t, io.Discard)
	until(t, "both cards are seen", func() bool { return len(g.Latest()) == 2 })
	c := g.Latest()[0]
	if !slices.Equal(c.Throttle, []string{"power cap", "thermal"}) || *c.ECC != 3 || *c.Clock != 1905 || *c.Power != 320 {
		t.Errorf("card 0 = %+v", c)
	}
	if d := g.Latest()[1]; d.Throttle != nil || d.ECC != nil || d.Power != nil || d.Energy != nil || *d.Clock != 210 {
		t.Errorf("card 1 = %+v, want an idle card of unknown power and energy", d)
	}
	until(t, "it uses energy", func() bool { e := g.Latest()[0].Energy; return e != nil && *e > 0 })
}

func TestAsksAnOldNvidiaSMIForLess(t *testing.T) {
	for _, c := range []struct {
		name, unknown string
		check         func(api.GPU) bool
	}{
		{"before 535 the reasons have another name", "clocks_event_reasons.active", func(c api.GPU) bool {
			return len(c.Throttle) == 2 && *c.Power == 320 && *c.ECC == 3
		}},
		{"one that knows neither name", "clocks_event_reasons.active clocks_throttle_reasons.active", func(c api.GPU) bool {
			return c.Throttle == nil && *c.Power == 320
		}},
		{"the essential alone", "clocks_event_reasons.active clocks_throttle_reasons.active power.draw power.limit temperature.gpu pci.bus_id clocks.sm ecc.errors.uncorrected.volatile.total", func(c api.GPU) bool {
			return c.Power == nil && c.Temperature == nil && c.Clock == nil && c.ECC == nil && *c.MemoryUsed == 1226<<20 && c.Name == "NVIDIA GeForce RTX 4080 SUPER"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := nvidia(t, c.unknown)
			h.write(t, "cards", twoCards)
			g := watchGPUs(t, io.Discard)
			until(t, "both cards are seen", func() bool { return len(g.Latest()) == 2 })
			if got := g.Latest()[0]; !c.check(got) {
				t.Errorf("card = %+v", got)
			}
		})
	}
}

func TestListsProcessesOfACard(t *testing.T) {
	h := nvidia(t, "")
	h.write(t, "cards", twoCards)
	h.write(t, "apps", "GPU-a008e90f-259e-df57-7988-63b6831fff68, 5627, 251, /usr/libexec/gnome-remote-desktop-daemon\n"+
		"GPU-a008e90f-259e-df57-7988-63b6831fff68, 6374, 312, /usr/NX/bin/nxnode.bin\n"+
		"GPU-a008e90f-259e-df57-7988-63b6831fff68, 7000, [N/A], [Not Found]\n"+
		"GPU-a1ea1946-07c0-8ed5-2ba1-d96f82c89cd3, 6374, 18, /usr/NX/bin/nxnode.bin\n"+
		"No running processes found\n")
	g := watchGPUs(t, io.Discard)
	until(t, "the processes are seen", func() bool {
		l := g.Latest()
		return len(l) == 2 && len(l[0].Processes) == 3 && len(l[1].Processes) == 1
	})
	ps := g.Latest()[0].Processes
	if ps[0].PID != 6374 || ps[0].Name != "/usr/NX/bin/nxnode.bin" || ps[1].PID != 5627 || ps[2].PID != 7000 || ps[2].Memory != nil || ps[2].Name != "" {
		t.Errorf("processes = %+v, want them by size", ps)
	}
}

// A process that has ended is simply not in the next round, and if it was the last one nothing is said at all.
func TestProcessesAreOfTheLastRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGPUs(slog.New(slog.DiscardHandler))
		take := func(card string, pid int, mib int64) {
			g.apps.add(time.Now(), app{asked: time.Now(), card: card, pid: pid, memory: new(mib << 20)})
		}
		seen := func() []int {
			g.report(card{GPU: api.GPU{Index: "0", UUID: "GPU-a"}})
			var out []int
			for _, p := range g.Latest()[0].Processes {
				out = append(out, p.PID)
			}
			return out
		}
		take("GPU-a", 1, 100)
		take("GPU-a", 2, 200)
		take("GPU-b", 3, 300)
		take("GPU-a", 2, 50) // a second context
		if got := seen(); !slices.Equal(got, []int{2, 1}) || *g.Latest()[0].Processes[0].Memory != 250<<20 {
			t.Errorf("processes = %v, want 2 (250 MiB) and 1", got)
		}
		time.Sleep(appsEvery)
		take("GPU-a", 1, 100)
		if got := seen(); !slices.Equal(got, []int{1}) {
			t.Errorf("after 2 has ended: %v", got)
		}
		time.Sleep(appsFresh + time.Second)
		if got := seen(); got != nil {
			t.Errorf("after rounds without a word: %v, want none", got)
		}
	})
}

func TestReadsAMDProcesses(t *testing.T) {
	out, err := os.ReadFile("testdata/gpu/amd-smi-process.json")
	if err != nil {
		t.Fatal(err)
	}
	ps, err := parseAMDApps(out)
	if err != nil || len(ps) != 2 || ps[0].card != "0" || ps[0].pid != 28389 || ps[0].name != "python3" || *ps[0].memory != 2353860608 ||
		ps[1].name != "" || *ps[1].memory != 512<<20 {
		t.Errorf("parseAMDApps = %+v, %v, want two on card 0", ps, err)
	}
}

func TestEnergyIsThePowerOverTimeThatWasSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGPUs(slog.New(slog.DiscardHandler))
		report := func(watts *float64) { g.report(card{GPU: api.GPU{Index: "0", UUID: "GPU-a", Power: watts}}) }
		used := func() float64 { return *g.Latest()[0].Energy * 3600 }
		report(new(100.0))
		if got := used(); got != 0 {
			t.Errorf("after one reading %v J, want 0", got)
		}
		time.Sleep(2 * time.Second)
		report(new(200.0))
		if got := used(); got != 300 {
			t.Errorf("2 s from 100 to 200 W are %v J, want 300", got)
		}
		time.Sleep(11 * time.Second) // nobody looked
		report(new(200.0))
		time.Sleep(time.Second)
		report(nil)
		time.Sleep(time.Second)
		report(new(200.0))
		if got := used(); got != 300 {
			t.Errorf("a gap and an unknown power count: %v J, want 300", got)
		}
		time.Sleep(10 * time.Second)
		report(new(50.0))
		if got := used(); got != 300+1250 {
			t.Errorf("10 s from 200 to 50 W more are %v J, want 1550", got)
		}
	})
}

// kernelLog feeds a watcher from a pipe, which like /dev/kmsg gives no end of file.
func kernelLog(t *testing.T) (path string, w *os.File) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "kmsg")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	return path, w
}

func TestXidErrorsAreReadFromTheKernelsLog(t *testing.T) {
	h := nvidia(t, "")
	h.write(t, "cards", twoCards)
	records, err := os.ReadFile("testdata/gpu/kmsg")
	if err != nil {
		t.Fatal(err)
	}
	path, w := kernelLog(t)
	var mu sync.Mutex
	var told []string
	g := newGPUs(t, io.Discard)
	g.kmsg, g.since = path, time.Time{}
	g.Xid = func(card string, x api.Xid, serious bool) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, fmt.Sprintf("%s %d %v", card, x.Code, serious))
	}
	runGPUs(t, g)
	until(t, "both cards are seen", func() bool { return len(g.Latest()) == 2 })
	if _, err := w.Write(records); err != nil {
		t.Fatal(err)
	}
	until(t, "card 1 has an error, the last in the log", func() bool { return len(g.Latest()[1].Xids) == 1 })
	xs := g.Latest()[0].Xids
	if len(xs) != 2 || xs[0].Code != 79 || !strings.Contains(xs[0].Text, "fallen off the bus") || xs[0].PID != 0 || xs[1].Code != 31 || xs[1].PID != 4312 {
		t.Errorf("errors of card 0 = %+v, want 79, then 31 of pid 4312 once", xs)
	}
	if d := xs[0].Time.Sub(xs[1].Time); d.Round(time.Second) != time.Minute {
		t.Errorf("they are %v apart, want a minute", d)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"GPU 0 31 false", "GPU 0 79 true", "GPU 1 999 true"}; !slices.Equal(told, want) {
		t.Errorf("told = %q, want %q", told, want)
	}
}

func TestOldXidErrorsAreShownAndNotTold(t *testing.T) {
	g := NewGPUs(slog.New(slog.DiscardHandler))
	g.since = time.Now().Add(time.Hour)
	g.Xid = func(card string, x api.Xid, _ bool) { t.Errorf("told of %s %+v", card, x) }
	const record = "3,7,1000,-;NVRM: Xid (PCI:0000:65:00): 48, pid=1, name=x"
	g.kernelRecord(record)
	g.kernelRecord(record) // read a second time
	if got := g.xids.of("0000:65:00"); len(got) != 1 || got[0].Code != 48 {
		t.Errorf("errors = %+v, want one", got)
	}
}

func TestAKernelLogThatMayNotBeReadIsNoError(t *testing.T) {
	var log lockedBuffer
	g := newGPUs(t, &log)
	g.kmsg = filepath.Join(t.TempDir(), "none")
	g.readKernel(t.Context())
	if log.String() != "" {
		t.Errorf("log = %q, want nothing", log.String())
	}
}
