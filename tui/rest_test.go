package tui

import (
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// quiet is a host without traffic some seconds after fixedNow: what time alone changes has changed.
func quiet(after time.Duration) *api.Snapshot {
	now := fixedNow.Add(after)
	s := fixture("cpu", now)
	s.Traffic, s.Requests, s.Prompts = api.Traffic{Total: 4}, nil, nil
	for i := range s.Windows {
		w := &s.Windows[i]
		*w = api.Window{Span: w.Span, Bucket: w.Bucket, End: w.End, Partial: w.Partial, Output: api.Series{0, 0}}
	}
	w := &s.Workers[0]
	w.InFlight, w.Since, w.Trend, w.KV, w.OutRate = 0, fixedNow.Add(-time.Minute), nil, new(0.0), new(0.0)
	w.CPU, w.RSS = new(0.02+float64(after%3)/100), 2<<30+int64(after)/1e4
	s.Engine.Started, s.Engine.Memory = fixedNow.Add(-time.Hour), 41<<20+int64(after)/1e3
	cost := api.Nanos(1_000_000 + int64(after)/1e4)
	s.Money.Actual, s.Money.Idle = &cost, &cost
	s.Notices = nil
	s.Host.CPU = new(float64(int64(after/time.Second)%4) + 0.3)
	return s
}

func TestAtRestThePictureIsHeld(t *testing.T) {
	c := at(160, 50, quiet(0), Options{})
	upTo := func(from, to time.Duration) (changes int) {
		last, step := frame(t, c), api.Tick
		if to-from > time.Minute {
			step = 5 * time.Second
		}
		for d := from; d < to; d += step {
			c.Update(snapshotMsg{snap: quiet(d)})
			if next := frame(t, c); next != last {
				changes++
				last = next
			}
		}
		return changes
	}
	if n := upTo(api.Tick, restAfter); n == 0 {
		t.Error("the picture is held before there is rest")
	}
	upTo(restAfter, restAfter+3*time.Second) // panes take turns
	if got := screen(t, c); !strings.Contains(got, "at rest since 12:04") {
		t.Errorf("the header does not say that there is rest:\n%s", got)
	}
	if n := upTo(restAfter+3*time.Second, 9*time.Minute); n != 0 {
		t.Errorf("%d changes in nine minutes of rest, want none", n)
	}
	if n := upTo(9*time.Minute, 12*time.Minute); n == 0 {
		t.Error("what idling costs is older than ten minutes")
	}
	c.Update(snapshotMsg{snap: quiet(13 * time.Minute)})
	old := c.snap
	press(c, "tab")
	if c.snap == old || c.snap != c.live {
		t.Error("a key does not bring the newest figures")
	}
}

// Rest ends with whatever happens.
func TestWhatHappensEndsRest(t *testing.T) {
	for name, change := range map[string]func(*api.Snapshot){
		"a request":       func(s *api.Snapshot) { s.Traffic.InFlight = 1 },
		"a failed worker": func(s *api.Snapshot) { s.Workers[0].State = api.Failed },
		"a notice":        func(s *api.Snapshot) { s.Notices = []api.Notice{{Text: "x"}} },
		"a stray":         func(s *api.Snapshot) { s.Strays = []api.Stray{{PID: 4}} },
		"a download":      func(s *api.Snapshot) { s.Cache = &api.Cache{Downloads: []api.Download{{State: "running"}}} },
		"advice":          func(s *api.Snapshot) { s.Advice = []api.Advice{{Rule: "x"}} },
		"a hot card":      func(s *api.Snapshot) { s.GPUs = []api.GPU{{Temperature: new(90.0)}} },
	} {
		c := at(120, 40, quiet(0), Options{})
		for d := api.Tick; d < restAfter+2*time.Second; d += api.Tick {
			c.Update(snapshotMsg{snap: quiet(d)})
		}
		held := c.snap
		if c.Update(snapshotMsg{snap: quiet(restAfter + 3*time.Second)}); c.snap != held {
			t.Fatal("there is no rest")
		}
		next := quiet(restAfter + 4*time.Second)
		change(next)
		if c.Update(snapshotMsg{snap: next}); c.snap != next {
			t.Errorf("%s does not end rest", name)
		}
	}
}
