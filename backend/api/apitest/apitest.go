package apitest

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// Source checks that src keeps the contract of api.Source. worker names one worker that it has.
func Source(t *testing.T, src api.Source, worker string) {
	t.Helper()
	ctx := t.Context()

	t.Run("snapshots are whole and rise", func(t *testing.T) {
		first, err := src.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if first.Schema != api.Schema {
			t.Errorf("Schema = %d, want %d", first.Schema, api.Schema)
		}
		if !has(first, worker) {
			t.Errorf("worker %q is not in the snapshot", worker)
		}
		was, err := json.Marshal(first)
		if err != nil {
			t.Fatal(err)
		}
		last := first
		for deadline := time.Now().Add(10 * time.Second); last.Seq == first.Seq; {
			if time.Now().After(deadline) {
				t.Fatalf("Seq stays at %d", first.Seq)
			}
			if last, err = src.Snapshot(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if last.Seq < first.Seq {
			t.Errorf("Seq went from %d to %d", first.Seq, last.Seq)
		}
		if now, _ := json.Marshal(first); string(now) != string(was) {
			t.Error("a snapshot changed after it was handed out")
		}
	})

	t.Run("a cancelled call ends", func(t *testing.T) {
		dead, cancel := context.WithCancel(ctx)
		cancel()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = src.Snapshot(dead)
			_, _ = src.Log(dead, "engine", 0)
		}()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Error("still waiting after 10 s")
		}
	})

	t.Run("log lines have rising cursors", func(t *testing.T) {
		for _, name := range []string{"engine", worker, "crashes"} {
			lines, err := src.Log(ctx, name, 0)
			if err != nil {
				t.Fatalf("Log(%q): %v", name, err)
			}
			for i := 1; i < len(lines); i++ {
				if lines[i].Seq <= lines[i-1].Seq {
					t.Errorf("Log(%q): Seq %d after %d", name, lines[i].Seq, lines[i-1].Seq)
				}
			}
			if len(lines) == 0 {
				continue
			}
			mid := lines[len(lines)/2].Seq
			rest, err := src.Log(ctx, name, mid)
			if err != nil {
				t.Fatal(err)
			}
			if len(rest) > 0 && rest[0].Seq <= mid {
				t.Errorf("Log(%q, %d) begins with Seq %d", name, mid, rest[0].Seq)
			}
		}
	})

	t.Run("what is not there is unknown", func(t *testing.T) {
		if _, err := src.Log(ctx, "no-such-worker", 0); !errors.Is(err, api.ErrUnknown) {
			t.Errorf("Log of an unknown worker = %v, want ErrUnknown", err)
		}
		if _, err := src.Log(ctx, "prompt/no-such", 0); !errors.Is(err, api.ErrUnknown) {
			t.Errorf("Log of an unknown prompt = %v, want ErrUnknown", err)
		}
		for _, name := range []string{"crash/no-such", "crash/../w0", "crash/20260102-030405.000006-no-such"} {
			if _, err := src.Log(ctx, name, 0); !errors.Is(err, api.ErrUnknown) {
				t.Errorf("Log(%q) = %v, want ErrUnknown", name, err)
			}
		}
		for _, a := range []api.Action{
			{Verb: "no.such"},
			{Verb: api.WorkerStop, Target: "no-such-worker"},
			{Verb: api.WorkerFix, Target: "no-such-worker", Args: map[string]string{"set": "--seed=1"}},
			{Verb: api.WorkerUnfix, Target: "no-such-worker"},
			{Verb: api.ModelRoll, Target: "no-such-model"},
			{Verb: api.ModelUnroll, Target: "no-such-model"},
			{Verb: api.PromptCancel, Target: "no-such"},
			{Verb: api.PromptSend, ID: "contract-1", Target: "no-such-model", Text: "hello"},
		} {
			if err := src.Do(ctx, a); !errors.Is(err, api.ErrUnknown) {
				t.Errorf("Do(%+v) = %v, want ErrUnknown", a, err)
			}
		}
	})

	t.Run("nonsense is refused", func(t *testing.T) {
		s, err := src.Snapshot(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"", "a b", "../x", "\x1b[31m"} {
			err := src.Do(ctx, api.Action{Verb: api.PromptSend, ID: id, Target: s.Models[0].Name, Text: "hello"})
			if !errors.Is(err, api.ErrRefused) {
				t.Errorf("prompt with id %q = %v, want ErrRefused", id, err)
			}
		}
		if err := src.Do(ctx, api.Action{Verb: api.WorkerResume, Target: worker}); !errors.Is(err, api.ErrRefused) {
			t.Errorf("resuming a worker that is not drained = %v, want ErrRefused", err)
		}
		for _, a := range []api.Action{
			{Verb: api.WorkerFix, Target: worker, Args: map[string]string{"set": "--port=1"}},
			{Verb: api.WorkerUnfix, Target: worker},
			{Verb: api.ModelUnroll, Target: s.Models[0].Name},
		} {
			if err := src.Do(ctx, a); !errors.Is(err, api.ErrRefused) {
				t.Errorf("Do(%+v) = %v, want ErrRefused", a, err)
			}
		}
		if _, err := src.Spend(ctx, api.Query{By: []string{"password"}}); err == nil {
			t.Error("Spend by an unknown column gives no error")
		}
	})

	t.Run("history is grouped as asked", func(t *testing.T) {
		for _, by := range [][]string{nil, {"model"}, {"class", "worker"}, {"day"}, {"hour", "model", "outcome"}} {
			rows, err := src.Spend(ctx, api.Query{By: by})
			if err != nil {
				t.Fatalf("Spend by %v: %v", by, err)
			}
			for _, r := range rows {
				if len(r.Labels) != len(by) {
					t.Errorf("Spend by %v: labels %v", by, r.Labels)
				}
			}
		}
	})
}

func has(s *api.Snapshot, worker string) bool {
	for _, w := range s.Workers {
		if w.Name == worker {
			return true
		}
	}
	return false
}
