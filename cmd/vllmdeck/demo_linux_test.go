package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// demos finds the engines of a rig's demos.
func (r *rig) demos() []engineRecord {
	var out []engineRecord
	found, err := filepath.Glob(filepath.Join(r.dir, "tmp", demoPrefix+"*", demoRecord))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, path := range found {
		var rec engineRecord
		if text, err := os.ReadFile(path); err == nil && json.Unmarshal(text, &rec) == nil {
			out = append(out, rec)
		}
	}
	return out
}

func snapshotOf(rec engineRecord) (*api.Snapshot, error) {
	c, err := api.Dial("unix:" + rec.Socket)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return fetch(context.Background(), c)
}

// nothingLeft waits until no process, folder or record of a rig's demos is there.
func (r *rig) nothingLeft() {
	r.t.Helper()
	var left []string
	began := time.Now()
	for {
		left = nil
		for _, pid := range r.processes() {
			text, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
			left = append(left, strings.ReplaceAll(string(text), "\x00", " "))
		}
		for _, pattern := range []string{"tmp/*", "run/*/*", "home/*/*"} {
			found, err := filepath.Glob(filepath.Join(r.dir, pattern))
			if err != nil {
				r.t.Fatal(err)
			}
			left = append(left, found...)
		}
		if len(left) == 0 {
			return
		}
		if time.Since(began) > 5*time.Second {
			r.t.Fatalf("5 s after the demo ended there is still:\n%s", strings.Join(left, "\n"))
		}
		<-time.After(50 * time.Millisecond)
	}
}

// TestDemo runs the demo without a console and ends it in every way there is: within 5 s nothing
// is left of it.
func TestDemo(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGKILL} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, nil)
			began := time.Now()
			demo := r.start("demo", "--headless")
			var s *api.Snapshot
			r.until(20*time.Second, "traffic flows", func() bool {
				recs := r.demos()
				if len(recs) != 1 {
					return false
				}
				var err error
				s, err = snapshotOf(recs[0])
				return err == nil && s.Traffic.InFlight+int(s.Traffic.Total) > 0
			})
			took := time.Since(began)
			t.Logf("first traffic after %s (limit 3 s)", took)
			if took > 9*time.Second && !raceDetector {
				t.Errorf("first traffic after %s, want within 3 s", took)
			}
			demo.signal(t, sig)
			code := demo.exit(t, 10*time.Second)
			if want := map[bool]int{true: -1, false: exitDone}[sig == syscall.SIGKILL]; code != want {
				t.Errorf("exit code = %d, want %d", code, want)
			}
			r.nothingLeft()
		})
	}
}

// TestDemoSeedFixesTheRequests draws them twice.
func TestDemoSeedFixesTheRequests(t *testing.T) {
	a, b, other := newDemoClients("", 7, nil), newDemoClients("", 7, nil), newDemoClients("", 8, nil)
	differs := false
	for i := range 200 {
		x, y := a.request(), b.request()
		if string(x.body) != string(y.body) || x.leave != y.leave {
			t.Fatalf("request %d of the same seed: %s and %s", i, x.body, y.body)
		}
		differs = differs || string(x.body) != string(other.request().body)
	}
	if !differs {
		t.Error("another seed draws the same requests")
	}
}

// TestDemoToldToEndWhileItStarts ends demos at every moment of their start.
func TestDemoToldToEndWhileItStarts(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	var demos []*proc
	for i := range 8 {
		demo := r.start("demo", "--headless")
		demos = append(demos, demo)
		time.AfterFunc(time.Duration(i)*30*time.Millisecond, func() { _ = demo.Process.Signal(syscall.SIGTERM) })
	}
	for _, demo := range demos {
		demo.exit(t, 20*time.Second)
	}
	// One that was ended before its first instruction has no say in its exit code; what counts is
	// what is left.
	r.nothingLeft()
}

func TestDemoSweepsWhatAnEarlierOneLeft(t *testing.T) {
	t.Parallel()
	r := newRig(t, nil)
	dead := filepath.Join(r.dir, "tmp", demoPrefix+"1")
	young := filepath.Join(r.dir, "tmp", demoPrefix+"2")
	for _, dir := range []string{dead, young} {
		if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dead, leaseName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	demo := r.start("demo", "--headless", "--no-traffic")
	r.until(20*time.Second, "the demo runs", func() bool { return len(r.demos()) == 1 })
	if exists(dead) {
		t.Error("the folder of a demo that is dead is still there")
	}
	if !exists(young) {
		t.Error("the folder of a demo that is only starting is gone")
	}
	demo.signal(t, syscall.SIGTERM)
	demo.exit(t, 10*time.Second)
}

// TestDemosBesideEachOther runs two demos beside a real engine: none is in the other's way, and
// commands mean the real one.
func TestDemosBesideEachOther(t *testing.T) {
	t.Parallel()
	r := newRig(t, simConfig(1))
	engine := r.serve()
	before := r.allReady()
	first, second := r.start("demo", "--headless"), r.start("demo", "--headless", "--seed", "2")
	var recs []engineRecord
	r.until(30*time.Second, "both demos serve", func() bool {
		recs = r.demos()
		for _, rec := range recs {
			if s, err := snapshotOf(rec); err != nil || s.Traffic.Total == 0 {
				return false
			}
		}
		return len(recs) == 2
	})
	if out := r.run("status", "--json"); !strings.Contains(out, `"url": "`+before.Engine.URL+`"`) {
		t.Errorf("status means another engine than the real one:\n%.300s", out)
	}
	everythingSaysSimulated(t, r, recs[0])

	first.signal(t, syscall.SIGKILL)
	first.exit(t, 5*time.Second)
	r.until(5*time.Second, "the killed demo's folder is gone", func() bool { return len(r.demos()) == 1 })
	left := r.demos()[0]
	if s, err := snapshotOf(left); err != nil || s.Engine.Status != "ok" {
		t.Errorf("the other demo does not serve any more: %v", err)
	}
	second.signal(t, syscall.SIGTERM)
	if code := second.exit(t, 10*time.Second); code != exitDone {
		t.Errorf("exit code = %d, want %d", code, exitDone)
	}
	if s := r.snapshot(); s.Workers[0].PID != before.Workers[0].PID || s.Workers[0].State != api.Ready {
		t.Errorf("the real engine's worker is %s with pid %d", s.Workers[0].State, s.Workers[0].PID)
	}
	engine.signal(t, syscall.SIGTERM)
	engine.exit(t, 10*time.Second)
}

// everythingSaysSimulated looks at every JSON that leaves a demo.
func everythingSaysSimulated(t *testing.T, r *rig, rec engineRecord) {
	t.Helper()
	var health struct {
		Workers []struct {
			Name      string
			Simulated bool
		}
	}
	if code := getJSON(t, rec.URL+"/health", &health); code != 200 || len(health.Workers) != 3 {
		t.Errorf("GET /health = %d with %d workers", code, len(health.Workers))
	}
	for _, w := range health.Workers {
		if !w.Simulated {
			t.Errorf("GET /health: %s does not say that it is simulated", w.Name)
		}
	}
	var comparison struct{ Simulated bool }
	if getJSON(t, rec.URL+"/cost-comparison", &comparison); !comparison.Simulated {
		t.Error("GET /cost-comparison does not say that it is simulated")
	}
	var answer struct {
		Info *struct {
			Simulated bool
			Baseline  string
			Actual    json.Number `json:"actual_usd"`
		} `json:"cost_info"`
	}
	body := `{"model":"default","messages":[{"role":"user","content":"Hello"}],"max_tokens":8}`
	if postJSON(t, rec.URL+"/v1/chat/completions", body, &answer); answer.Info == nil || !answer.Info.Simulated || answer.Info.Actual == "" {
		t.Errorf("cost_info = %+v, want one that says simulated", answer.Info)
	}
	s, err := snapshotOf(rec)
	if err != nil {
		t.Fatal(err)
	}
	if !s.Engine.Simulated || !s.Engine.Demo || !s.Money.Simulated || !strings.Contains(s.Money.RateLabel, "SIMULATED") {
		t.Errorf("status --json: simulated %v, demo %v, money %v, label %q", s.Engine.Simulated, s.Engine.Demo, s.Money.Simulated, s.Money.RateLabel)
	}
	for _, w := range s.Workers {
		if !w.Simulated {
			t.Errorf("status --json: %s does not say that it is simulated", w.Name)
		}
	}
	for _, q := range s.Requests {
		if !q.Simulated && q.Worker != "" {
			t.Errorf("status --json: request %s on %s does not say that it is simulated", q.ID, q.Worker)
		}
	}
	out := r.run("--engine", "unix:"+rec.Socket, "status")
	for line := range strings.SplitSeq(out, "\n") {
		if (strings.HasPrefix(line, "vllmdeck") || strings.HasPrefix(line, "w") || strings.HasPrefix(line, "today")) && !strings.Contains(line, "SIMULATED") {
			t.Errorf("status does not say SIMULATED in %q", line)
		}
	}
}
