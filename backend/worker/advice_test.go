package worker

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
	"github.com/vllmdeck/vllmdeck/config"
)

// advised is a worker that is fed readings, a look every five seconds.
type advised struct {
	*worker
	now time.Time
}

func newAdvised(t *testing.T, args ...string) *advised {
	t.Helper()
	cfg := vllmWorker("w0", args...)
	cfg.VLLM.GPUs = []string{"0"}
	o := Options{Launchers: map[string]launch.Launcher{kindVLLM: newHost(t)}, State: t.TempDir()}
	o.fill()
	o.book = openBook(o.State, o.Log)
	p, err := newPlan(cfg, config.Logs{}, &o)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorker(p, &o, &waker{}, nil)
	w.st.MaxSeqs, w.st.MaxLen, w.st.KVTokens = 32, 16384, 43984
	w.st.State = api.Ready
	return &advised{w, time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
}

// feed gives readings for so long; seconds counts from the first.
func (a *advised) feed(d time.Duration, reading func(seconds float64) Reading) []api.Advice {
	for began := a.now; a.now.Sub(began) < d; a.now = a.now.Add(time.Second) {
		a.advise(reading(a.now.Sub(began).Seconds()), a.now)
	}
	return a.advisor.advice
}

func busy(running, waiting, kv float64) func(float64) Reading {
	return func(s float64) Reading {
		return Reading{Running: &running, Waiting: &waiting, KV: &kv, Totals: Totals{
			Preemptions: new(0.0), Finished: new(s), Length: new(0.1 * s), Generated: new(100 * s), Longest: new(3000.0),
		}}
	}
}

func with(base func(float64) Reading, change func(r *Reading, s float64)) func(float64) Reading {
	return func(s float64) Reading {
		r := base(s)
		change(&r, s)
		return r
	}
}

func TestAdvice(t *testing.T) {
	for _, c := range []struct {
		rule    string
		args    []string
		prepare func(a *advised)
		reading func(float64) Reading
		text    []string
		fix     []string // set, then unset with a minus
	}{
		{
			rule:    "preemptions",
			reading: with(busy(20, 3, .99), func(r *Reading, s float64) { r.Totals.Preemptions = new(s / 10) }),
			text:    []string{"30 preemptions in 5 min with 20 requests at once", "KV cache of 43,984 tokens"},
			fix:     []string{"--max-num-seqs=18"},
		},
		{
			rule:    "kv-full",
			reading: busy(20, 6, .97),
			text:    []string{"97 % full", "6 requests wait"},
			fix:     []string{"--kv-cache-dtype=fp8"},
		},
		{
			rule:    "max-num-seqs",
			reading: busy(32, 12, .23),
			text:    []string{"12 requests wait while 32 run, the most it may, with the KV cache only 23 % full"},
			fix:     []string{"--max-num-seqs=64"},
		},
		{
			rule: "prefix-caching",
			args: []string{"--no-enable-prefix-caching"},
			reading: with(busy(4, 0, .2), func(r *Reading, _ float64) {
				r.NoPrefixCache = true
			}),
			prepare: func(a *advised) { a.seen.add(.4) },
			text:    []string{"40 % of the bytes of ", "prefix cache is off"},
			fix:     []string{"--enable-prefix-caching"},
		},
		{
			rule:    "context",
			reading: with(busy(4, 0, .2), func(r *Reading, s float64) { r.Totals.Finished = new(1000 + s) }),
			prepare: func(a *advised) { a.st.MaxLen = 32768 },
			text:    []string{"32768 of the 43984 tokens", "needed more than 3000"},
			fix:     []string{"--max-model-len=8192"},
		},
		{
			rule:    "cut-answers",
			reading: with(busy(4, 0, .2), func(r *Reading, s float64) { r.Totals.Length = new(.4 * s) }),
			text:    []string{"120 of 300 answers in 5 min were cut"},
		},
		{
			rule:    "drafts",
			args:    []string{"--speculative-config={}"},
			reading: with(busy(4, 0, .2), func(r *Reading, s float64) { r.Totals.Drafted, r.Totals.Accepted = new(50*s), new(10*s) }),
			text:    []string{"takes 20 % of the tokens"},
			fix:     []string{"-", "--speculative-config"},
		},
	} {
		t.Run(c.rule, func(t *testing.T) {
			a := newAdvised(t, c.args...)
			reading := c.reading
			if c.prepare != nil {
				reading = func(s float64) Reading {
					c.prepare(a)
					return c.reading(s)
				}
			}
			if got := a.feed(3*time.Minute+50*time.Second, reading); len(got) != 0 {
				t.Errorf("after less than four minutes it says %+v", got)
			}
			a.advisor = advisor{}
			got := a.feed(8*time.Minute, reading)
			if len(got) != 1 || got[0].Rule != c.rule || got[0].Worker != "w0" || got[0].Model != "m" || got[0].Since.IsZero() || got[0].Remedy == "" {
				t.Fatalf("advice = %+v, want %s alone", got, c.rule)
			}
			for _, part := range c.text {
				if !strings.Contains(got[0].Text, part) {
					t.Errorf("text %q, want %q in it", got[0].Text, part)
				}
			}
			var fix []string
			if f := got[0].Fix; f != nil {
				fix = slices.Clone(f.Set)
				if len(f.Unset) > 0 {
					fix = append(append(fix, "-"), f.Unset...)
				}
				if len(f.Command) == 0 {
					t.Error("the fix has no command line")
				}
			}
			if !slices.Equal(fix, c.fix) {
				t.Errorf("fix = %q, want %q", fix, c.fix)
			}
			// It does not flicker, and goes away by itself.
			a.st.MaxLen = 16384
			if got := a.feed(20*time.Second, busy(1, 0, .1)); len(got) != 1 {
				t.Errorf("20 s of quiet took it away: %+v", got)
			}
			if got := a.feed(8*time.Minute, busy(1, 0, .1)); len(got) != 0 {
				t.Errorf("after minutes of quiet it still says %+v", got)
			}
		})
	}
}

func TestNoAdviceForAServerThatIsOnlyBusy(t *testing.T) {
	for name, reading := range map[string]func(float64) Reading{
		"idle":            busy(0, 0, 0),
		"busy":            busy(20, 0, .6),
		"saturated":       busy(32, 20, .85),
		"full, no queue":  busy(20, 0, .97),
		"a few preempted": with(busy(20, 2, .8), func(r *Reading, s float64) { r.Totals.Preemptions = new(s / 200) }),
		"nothing known":   func(float64) Reading { return Reading{} },
		"cut now and then": with(busy(4, 0, .2), func(r *Reading, s float64) {
			r.Totals.Length = new(.2 * s)
		}),
		"few answers, all cut": with(busy(4, 0, .2), func(r *Reading, s float64) {
			r.Totals.Finished, r.Totals.Length = new(s/20), new(s/20)
		}),
		"good drafts": with(busy(4, 0, .2), func(r *Reading, s float64) { r.Totals.Drafted, r.Totals.Accepted = new(50*s), new(35*s) }),
		"a spike": with(busy(4, 0, .2), func(r *Reading, s float64) {
			if s > 300 && s < 400 {
				r.Running, r.Waiting = new(32.0), new(30.0)
			}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			a := newAdvised(t)
			a.feed(12*time.Minute, func(s float64) Reading {
				if got := a.advisor.advice; len(got) != 0 {
					t.Fatalf("after %.0f s it says %+v", s, got)
				}
				return reading(s)
			})
		})
	}
}

func TestEvidenceIsOfOneStretchOfTime(t *testing.T) {
	a := newAdvised(t)
	a.feed(4*time.Minute, busy(32, 12, .23))
	a.now = a.now.Add(2 * time.Minute) // it was away
	if got := a.feed(2*time.Minute, busy(32, 12, .23)); len(got) != 0 {
		t.Errorf("after a gap it says %+v", got)
	}
}

func TestImbalance(t *testing.T) {
	var b balance
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	v := func(name string, busy, pace float64) *view {
		return &view{Worker: api.Worker{Name: name, Model: "m"}, load: load{known: true, busy: busy, pace: pace}}
	}
	feed := func(d time.Duration, views ...*view) (a *api.Advice) {
		for end := now.Add(d); now.Before(end); now = now.Add(time.Second) {
			a = b.look("m", views, now)
		}
		return a
	}
	if a := feed(10*time.Minute, v("w0", 20, 30), v("w1", 14, 30), v("w2", 13, 31)); a != nil {
		t.Errorf("nearly even: %+v", a)
	}
	if a := feed(10*time.Minute, v("w0", 6, 30), v("w1", 1, 30)); a != nil {
		t.Errorf("too few to matter: %+v", a)
	}
	if a := feed(10*time.Minute, v("w0", 60, 30)); a != nil {
		t.Errorf("a single worker: %+v", a)
	}
	if a := feed(30*time.Second, v("w0", 30, 30), v("w1", 4, 31)); a != nil {
		t.Errorf("after half a minute: %+v", a)
	}
	a := feed(time.Minute, v("w0", 30, 30), v("w1", 4, 31))
	if a == nil || a.Rule != "imbalance" || a.Worker != "" || a.Text != "w0 has 30 requests, w1 4" || !strings.Contains(a.Remedy, "begin alike") {
		t.Fatalf("advice = %+v", a)
	}
	if a = feed(2*time.Minute, v("w0", 30, 5), v("w1", 4, 31)); a == nil || !strings.Contains(a.Text, "w0 gives 5.0 tokens/s to a request, w1 31.0") || !strings.HasPrefix(a.Remedy, "w0 is slower") {
		t.Errorf("advice = %+v", a)
	}
	if a = feed(2*time.Minute, v("w0", 10, 30), v("w1", 9, 31)); a != nil {
		t.Errorf("even again: %+v", a)
	}
}
