package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// fakeCard puts an nvidia-smi in the rig's PATH that shows one card, with the processes of a file.
func (r *rig) fakeCard() (apps string) {
	r.t.Helper()
	script, err := os.ReadFile("../../metrics/testdata/gpu/nvidia-smi")
	if err != nil {
		r.t.Fatal(err)
	}
	bin := filepath.Join(r.dir, "bin")
	apps = filepath.Join(bin, "apps")
	cards := filepath.Join(bin, "cards")
	if err := os.Mkdir(bin, 0o700); err != nil {
		r.t.Fatal(err)
	}
	text := fmt.Sprintf("#!/bin/sh\nunknown=' clocks_event_reasons.active '\ncards=%s\napps=%s\n%s", cards, apps, script)
	card := "index=0|uuid=GPU-a008e90f|name=NVIDIA L4|memory.used=20000|memory.total=24576|utilization.gpu=28|pci.bus_id=00000000:65:00.0|" +
		"temperature.gpu=84|power.draw=70.00|power.limit=72.00|clocks.sm=1905|ecc.errors.uncorrected.volatile.total=3|clocks_throttle_reasons.active=0x0000000000000024\n"
	for path, text := range map[string]string{filepath.Join(bin, "nvidia-smi"): text, cards: card, apps: ""} {
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil { //nolint:gosec // one of them is a program
			r.t.Fatal(err)
		}
	}
	r.env = append(r.env, "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	return apps
}

func TestGPUsShowsCardsAndWhoseTheirProcessesAre(t *testing.T) {
	t.Parallel()
	r := newRig(t, simConfig(1))
	apps := r.fakeCard()
	r.serve()
	pid := r.allReady().Workers[0].PID
	if err := os.WriteFile(apps, []byte(fmt.Sprintf("GPU-a008e90f, %d, 12288, VLLM::EngineCore\nGPU-a008e90f, %d, 512, /usr/bin/go\nGPU-a008e90f, 4194305, [N/A], [Not Found]\n", pid, os.Getpid())), 0o600); err != nil {
		t.Fatal(err)
	}
	var card api.GPU
	r.until(30*time.Second, "the worker's process has an owner", func() bool {
		s := r.snapshot()
		if len(s.GPUs) != 1 || len(s.GPUs[0].Processes) != 3 {
			return false
		}
		card = s.GPUs[0]
		return card.Processes[0].Worker == "w0" && card.Energy != nil && *card.Energy > 0
	})
	if p := card.Processes[1]; p.PID != os.Getpid() || p.Worker != "" || p.Stray || p.User == "" {
		t.Errorf("a stranger = %+v, want it with its user and no owner", p)
	}
	out := r.run("gpus")
	for _, want := range []string{
		"NVIDIA L4", "28%", "19.5/24.0 GiB", "84 C", "70/72 W", "1905 MHz", "power cap, thermal",
		strconv.Itoa(pid), "12.0 GiB", "worker w0", "other",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("gpus lacks %q:\n%s", want, out)
		}
	}
	var cards []api.GPU
	if err := json.Unmarshal([]byte(r.run("gpus", "--json")), &cards); err != nil || len(cards) != 1 || *cards[0].ECC != 3 {
		t.Errorf("gpus --json = %+v, %v", cards, err)
	}
}

// The server that would start is a stand-in: what is looked at is whether it is started.
func TestAStartWaitsForGPUMemoryUntilItIsOrderedOtherwise(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(state string) string {
		dir := filepath.Dir(state)
		return fmt.Sprintf("listen: 127.0.0.1:0\nstate: %s\nworkers:\n  - {name: w0, model: toy, stop_timeout: 500ms, vllm: {bin: %s/vllm, path: %s/model, gpus: [0]}}\n", state, dir, dir)
	})
	apps := r.fakeCard()
	if err := os.Mkdir(filepath.Join(r.dir, "model"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{
		"vllm": "#!/bin/sh\nexec sleep 600\n", "model/config.json": "{}",
		filepath.Join("bin", filepath.Base(apps)): fmt.Sprintf("GPU-a008e90f, %d, 19000, /usr/bin/go\n", os.Getpid()),
	} {
		if err := os.WriteFile(filepath.Join(r.dir, path), []byte(text), 0o700); err != nil { //nolint:gosec // one of them is a program
			t.Fatal(err)
		}
	}
	r.serve()
	want := fmt.Sprintf("GPU 0: 4.5 of 24.0 GiB free, 22.1 wanted: pid %d /usr/bin/go", os.Getpid())
	r.until(30*time.Second, "it waits and says for what", func() bool { return strings.HasPrefix(r.worker("w0").Blocked, want) })
	if w := r.worker("w0"); w.PID != 0 {
		t.Errorf("it was started as pid %d", w.PID)
	}
	if out := r.run("status"); !strings.Contains(out, "starting: waits") || !strings.Contains(out, "w0 waits: GPU 0: 4.5 of 24.0 GiB free") {
		t.Errorf("status says:\n%s", out)
	}
	r.run("worker", "start", "--no-gate", "--wait", "0", "w0")
	r.until(20*time.Second, "it is started", func() bool { w := r.worker("w0"); return w.PID != 0 && w.Blocked == "" })
}

// A shim that is killed while the engine runs takes its server along, and the worker is started anew.
func TestAKilledShimIsNoticedAndItsServerEnded(t *testing.T) {
	t.Parallel()
	r := newRig(t, simConfig(1))
	r.serve()
	before := r.allReady().Workers[0].PID
	kill(t, r.shim("w0"))
	r.until(30*time.Second, "it runs again under another pid", func() bool {
		w := r.worker("w0")
		return w.State == api.Ready && w.PID != before && w.Restarts == 1
	})
	if processBirth(before) != "" {
		t.Errorf("the server of the dead shim (pid %d) still runs", before)
	}
	if !noticed(r.snapshot(), "its shim died") {
		t.Errorf("notices = %+v, want the cause", r.snapshot().Notices)
	}
}

// One that is killed while no engine runs leaves strays, which the next engine ends before it starts the worker.
func TestAShimThatIsKilledWhileTheEngineIsAwayLeavesStrays(t *testing.T) {
	t.Parallel()
	r := newRig(t, simConfig(1))
	engine := r.serve()
	pid := r.allReady().Workers[0].PID
	shim := r.shim("w0")
	engine.signal(t, syscall.SIGKILL)
	<-engine.done
	kill(t, shim)
	r.until(time.Minute, "its server is listed without an engine", func() bool { return r.strays()[pid].Worker == "w0" })
	r.serve()
	s := r.allReady()
	if s.Workers[0].PID == pid || s.Workers[0].Adopted || processBirth(pid) != "" {
		t.Errorf("worker pid %d, adopted %v; the old server %d lives: %v", s.Workers[0].PID, s.Workers[0].Adopted, pid, processBirth(pid) != "")
	}
	if !noticed(s, "its shim died while no engine looked after it") {
		t.Errorf("notices = %+v, want the cause", s.Notices)
	}
}

// With the state folder gone nothing leads to the worker but its mark.
func TestAWorkerWhoseFolderIsGoneIsAStrayThatCanBeEnded(t *testing.T) {
	t.Parallel()
	r := newRig(t, simConfig(1))
	engine := r.serve()
	pid := r.allReady().Workers[0].PID
	engine.signal(t, syscall.SIGKILL)
	<-engine.done
	if err := os.RemoveAll(filepath.Join(r.dir, "state")); err != nil {
		t.Fatal(err)
	}
	r.serve()
	r.allReady()
	r.until(30*time.Second, "the engine shows and tells of it", func() bool {
		s := r.snapshot()
		for _, x := range s.Strays {
			if x.PID == pid && x.Worker == "w0" {
				return noticed(s, "stray process")
			}
		}
		return false
	})
	if out, _, err := r.output("worker", "end-stray", strconv.Itoa(pid)); err == nil || processBirth(pid) == "" {
		t.Errorf("without --yes and a terminal it was ended: %s", out)
	}
	if _, stderr, err := r.output("worker", "end-stray", "--yes", strconv.Itoa(os.Getpid())); err == nil || !strings.Contains(stderr, "is no stray") {
		t.Errorf("ending a stranger: %v, %q; want it refused", err, stderr)
	}
	if out := r.run("worker", "end-stray", "--yes", strconv.Itoa(pid)); !strings.Contains(out, "ended") {
		t.Errorf("end-stray says %q", out)
	}
	if processBirth(pid) != "" {
		t.Errorf("stray %d still runs", pid)
	}
}

func TestAFolderThatIsRemovedUnderARunningEngineIsTold(t *testing.T) {
	t.Parallel()
	r := newRig(t, simConfig(1))
	r.serve()
	r.allReady()
	if err := os.RemoveAll(filepath.Join(r.dir, "state", "workers")); err != nil {
		t.Fatal(err)
	}
	r.until(30*time.Second, "it is told", func() bool { return noticed(r.snapshot(), "the folder of w0 was removed") })
	r.run("worker", "restart", "w0")
	r.until(30*time.Second, "it is well again", func() bool {
		for _, n := range r.snapshot().Notices {
			if n.Active {
				return false
			}
		}
		return true
	})
}

func noticed(s *api.Snapshot, text string) bool {
	for _, n := range s.Notices {
		if strings.Contains(n.Text, text) {
			return true
		}
	}
	return false
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatalf("kill %d: %v", pid, err)
	}
}

// shim is the pid of a worker's shim, from its record.
func (r *rig) shim(worker string) int {
	r.t.Helper()
	b, err := os.ReadFile(filepath.Join(r.dir, "state", "workers", worker, "shim.json"))
	var rec struct {
		Shim struct {
			PID int `json:"pid"`
		} `json:"shim"`
	}
	if err == nil {
		err = json.Unmarshal(b, &rec)
	}
	if err != nil || rec.Shim.PID == 0 {
		r.t.Fatalf("record of %s: %v", worker, err)
	}
	return rec.Shim.PID
}

// strays is what "worker strays" lists, by pid.
func (r *rig) strays() map[int]api.Stray {
	r.t.Helper()
	var list []api.Stray
	if err := json.Unmarshal([]byte(r.run("worker", "strays", "--json")), &list); err != nil {
		r.t.Fatal(err)
	}
	out := map[int]api.Stray{}
	for _, s := range list {
		out[s.PID] = s
	}
	return out
}
