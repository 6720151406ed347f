package main

import (
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// workerPIDs are the processes of an engine's workers, by name.
func workerPIDs(s *api.Snapshot) map[string]int {
	out := map[string]int{}
	for _, w := range s.Workers {
		out[w.Name] = w.PID
	}
	return out
}

func (r *rig) allReady() *api.Snapshot {
	r.t.Helper()
	var s *api.Snapshot
	r.until(30*time.Second, "every worker is ready", func() bool {
		s = r.snapshot()
		for _, w := range s.Workers {
			if w.State != api.Ready {
				return false
			}
		}
		return len(s.Workers) > 0
	})
	return s
}

// TestServeEndsInOrder ends an engine with a stream in flight: it accepts no more, the stream
// gets its whole answer, its row is in the ledger, the worker keeps its process and the next
// engine takes it up.
func TestServeEndsInOrder(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, simConfig(1, "grace: 20s"))
			engine := r.serve()
			before := r.allReady()
			answer := r.stream(before.Engine.URL, 150)
			answer.flows(t)
			engine.signal(t, sig)
			addr := strings.TrimPrefix(before.Engine.URL, "http://")
			until(t, 10*time.Second, "nobody is accepted any more", func() bool {
				c, err := net.Dial("tcp", addr)
				if err == nil {
					_ = c.Close()
				}
				return err != nil
			})
			if got := answer.wait(t, 15*time.Second); got != "whole" {
				t.Errorf("the stream in flight got %s, want its whole answer", got)
			}
			if code := engine.exit(t, 10*time.Second); code != exitDone {
				t.Errorf("exit code = %d, want %d", code, exitDone)
			}
			if got := r.rows()[answer.id]; got != api.OutcomeOK {
				t.Errorf("outcome in the ledger = %q, want %q", got, api.OutcomeOK)
			}
			r.serve()
			after := r.allReady()
			if got, want := workerPIDs(after)["w0"], workerPIDs(before)["w0"]; got != want || !after.Workers[0].Adopted {
				t.Errorf("worker has pid %d, adopted %v; want pid %d adopted", got, after.Workers[0].Adopted, want)
			}
		})
	}
}

func TestGraceEndsAndIsSaid(t *testing.T) {
	t.Parallel()
	r := newRig(t, simConfig(1, "grace: 300ms"))
	engine := r.serve()
	url := r.allReady().Engine.URL
	answer := r.stream(url, 4000)
	answer.flows(t)
	began := time.Now()
	engine.signal(t, syscall.SIGTERM)
	if got := answer.wait(t, 10*time.Second); got != "told" {
		t.Errorf("the stream that outlived the grace got %s, want an error event and a cut connection", got)
	}
	if code := engine.exit(t, 10*time.Second); code != exitDone {
		t.Errorf("exit code = %d, want %d", code, exitDone)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("with grace: 300ms the end took %s", took)
	}
	if got, ok := r.rows()[answer.id]; !ok || got == api.OutcomeOK || got == api.OutcomeOpen {
		t.Errorf("outcome in the ledger = %q, want one that says it was cut", got)
	}
}

func TestServeWorkersStopEndsThem(t *testing.T) {
	t.Parallel()
	r := newRig(t, simConfig(2, "grace: 5s"))
	engine := r.serve("--workers=stop")
	pids := workerPIDs(r.allReady())
	engine.signal(t, syscall.SIGTERM)
	if code := engine.exit(t, 20*time.Second); code != exitDone {
		t.Errorf("exit code = %d, want %d", code, exitDone)
	}
	for name, pid := range pids {
		if processBirth(pid) != "" {
			t.Errorf("%s (pid %d) runs although the engine has ended", name, pid)
		}
	}
	until(t, 5*time.Second, "no process of it is left", func() bool { return len(r.processes()) == 0 })
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, simConfig(1, "grace: 60s"))
	engine := r.serve()
	s := r.allReady()
	answer := r.stream(s.Engine.URL, 4000)
	answer.flows(t)
	engine.signal(t, syscall.SIGTERM)
	r.until(10*time.Second, "it is stopping", func() bool { return r.snapshot().Engine.Stopping })
	before := answer.seen()
	answer.flows(t) // the first signal lets it go on
	engine.signal(t, syscall.SIGTERM)
	if code := engine.exit(t, 3*time.Second); code != exitFailed {
		t.Errorf("exit code = %d, want %d", code, exitFailed)
	}
	if got := answer.wait(t, 3*time.Second); got == "whole" || before == 0 {
		t.Errorf("the stream got %s from an engine that ended at once", got)
	}
	if pid := workerPIDs(s)["w0"]; processBirth(pid) == "" {
		t.Errorf("the worker (pid %d) went with the engine", pid)
	}
}

// TestStopDuringRestartStops begins a restart, which waits for a stream, and then asks for an
// end: what systemd sends must not be answered with a new engine.
func TestStopDuringRestartStops(t *testing.T) {
	t.Parallel()
	r := newRig(t, simConfig(1, "grace: 20s"))
	engine := r.serve()
	answer := r.stream(r.allReady().Engine.URL, 150)
	answer.flows(t)
	c := r.client()
	defer c.Close()
	if err := c.Do(t.Context(), api.Action{Verb: api.EngineRestart}); err != nil {
		t.Fatal(err)
	}
	engine.signal(t, syscall.SIGTERM)
	if got := answer.wait(t, 15*time.Second); got != "whole" {
		t.Errorf("the stream in flight got %s, want its whole answer", got)
	}
	if code := engine.exit(t, 10*time.Second); code != exitDone {
		t.Errorf("exit code = %d, want %d", code, exitDone)
	}
	if answers(c.Addr()[len("unix:"):]) {
		t.Error("an engine answers after the stop")
	}
}

// TestSIGKILLOfTheSupervisor kills the engine under load. Workers keep their processes, the
// next engine has them within 3 s, what a client saw end more than 100 ms before is in the
// ledger once, and what was in flight is there as interrupted.
func TestSIGKILLOfTheSupervisor(t *testing.T) {
	t.Parallel()
	r := newRig(t, simConfig(2))
	engine := r.serve()
	before := r.allReady()

	const clients = 8
	type ended struct {
		id string
		at time.Time
	}
	done := make(chan []ended, clients)
	stop := make(chan struct{})
	for range clients {
		go func() {
			var seen []ended
			defer func() { done <- seen }()
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				s := r.stream(before.Engine.URL, 3+n%20)
				<-s.ended
				if s.err != nil || !s.done {
					return
				}
				seen = append(seen, ended{s.id, time.Now()})
			}
		}()
	}
	long := r.stream(before.Engine.URL, 4000)
	long.flows(t)
	r.until(20*time.Second, "there is load", func() bool { return r.snapshot().Traffic.Total > 60 })
	killed := time.Now()
	engine.signal(t, syscall.SIGKILL)
	<-engine.done
	close(stop)
	var all []ended
	for range clients {
		all = append(all, <-done...)
	}
	if got := long.wait(t, 5*time.Second); got == "whole" {
		t.Errorf("the long stream ended cleanly, with %d tokens", long.seen())
	}
	for name, pid := range workerPIDs(before) {
		if processBirth(pid) == "" {
			t.Errorf("%s died with its engine", name)
		}
	}

	began := time.Now()
	r.serve()
	after := r.allReady()
	if took := time.Since(began); took > 3*time.Second && !raceDetector {
		t.Errorf("workers were taken up again after %s, want within 3 s", took)
	}
	for name, pid := range workerPIDs(before) {
		if got := workerPIDs(after)[name]; got != pid {
			t.Errorf("%s has pid %d, want %d", name, got, pid)
		}
	}
	if out, err := r.try("status"); err != nil || !strings.Contains(out, after.Engine.URL) {
		t.Errorf("status after the crash: %v\n%s", err, out)
	}
	rows := r.rows() // one per id: it is the primary key
	if got := rows[long.id]; got != api.OutcomeInterrupted {
		t.Errorf("the request in flight has outcome %q, want %q", got, api.OutcomeInterrupted)
	}
	// A time is printed beside its limit and fails above three times of it; on a starved machine
	// 100 ms are not ours alone.
	limit := 300 * time.Millisecond
	if raceDetector {
		limit *= 10
	}
	old, worst := 0, time.Duration(0)
	for _, e := range all {
		before := killed.Sub(e.at)
		if rows[e.id] != api.OutcomeOK {
			worst = max(worst, before)
		}
		if before <= limit {
			continue
		}
		old++
		if got := rows[e.id]; got != api.OutcomeOK {
			t.Errorf("%s ended %s before the kill and has outcome %q", e.id, before, got)
		}
	}
	t.Logf("the oldest end that was lost came %s before the kill (limit 100ms)", max(worst, 0))
	if old < 20 {
		t.Errorf("only %d requests ended early enough to say anything", old)
	}
	for id, outcome := range rows {
		if outcome == api.OutcomeOpen {
			t.Errorf("%s is open for ever", id)
		}
	}
}
