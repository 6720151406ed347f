package main

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// trial is what an experiment works with: engines, workers and clients are started through it
// and end with it, and what is found is written into it. Its methods may be called from many goroutines.
type trial struct {
	id    string
	bin   string // of vllmdeck
	began time.Time

	mu     sync.Mutex
	result result
	more   int // failures that were not kept
	ends   []func()
}

// maxFailures is how many failures are kept in full.
const maxFailures = 20

// logf tells who watches how it goes.
func (t *trial) logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s %6.1fs  %s\n", t.id, time.Since(t.began).Seconds(), fmt.Sprintf(format, args...))
}

// failf is something that must not be.
func (t *trial) failf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.result.Failures) >= maxFailures {
		t.more++
		return
	}
	text := fmt.Sprintf(format, args...)
	t.result.Failures = append(t.result.Failures, text)
	fmt.Fprintf(os.Stderr, "%s FAIL     %s\n", t.id, text)
}

// note is a figure without a limit.
func (t *trial) note(name string, value any) { t.put(name, value, nil) }

// put writes a figure and its limit down. Times are written as seconds.
func (t *trial) put(name string, value, limit any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.result.names = append(t.result.names, name)
	t.result.Measured[name] = plain(value)
	if limit != nil {
		t.result.Limits[name] = plain(limit)
	}
}

func plain(v any) any {
	if d, ok := v.(time.Duration); ok {
		return d.Round(10 * time.Microsecond).Seconds()
	}
	return v
}

// exactly is a count that must be this.
func (t *trial) exactly(name string, got, want int) {
	t.put(name, got, "= "+strconv.Itoa(want))
	if got != want {
		t.failf("%s: got %d, want %d", name, got, want)
	}
}

// atLeast is a count that must not be less.
func (t *trial) atLeast(name string, got, want int) {
	t.put(name, got, ">= "+strconv.Itoa(want))
	if got < want {
		t.failf("%s: got %d, want %d at least", name, got, want)
	}
}

// atMost is a count or size that must not be more.
func (t *trial) atMost(name string, got, want int64) {
	t.put(name, got, "<= "+strconv.FormatInt(want, 10))
	if got > want {
		t.failf("%s: got %d, want %d at most", name, got, want)
	}
}

// slack is how far beyond its limit a time may be before it fails a trial.
const slack = 3

// within is a time that should not be longer.
func (t *trial) within(name string, got, limit time.Duration) {
	t.put(name, got, "<= "+limit.String())
	switch {
	case got > slack*limit:
		t.failf("%s: took %s, which is over %d times the limit of %s", name, got.Round(time.Millisecond), slack, limit)
	case got > limit:
		t.late(fmt.Sprintf("%s: took %s, limit %s", name, got.Round(time.Millisecond), limit))
	}
}

// near is a time that should be want, give or take a tenth of it.
func (t *trial) near(name string, got, want time.Duration) {
	t.put(name, got, want.String()+" ±10 %")
	off := (got - want).Abs()
	switch allowed := want / 10; {
	case off > slack*allowed:
		t.failf("%s: took %s, want %s ±10 %%", name, got.Round(time.Millisecond), want)
	case off > allowed:
		t.late(fmt.Sprintf("%s: took %s, limit %s ±10 %%", name, got.Round(time.Millisecond), want))
	}
}

// late is a time beyond its limit that fails nothing.
func (t *trial) late(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.result.Late = append(t.result.Late, text)
}

// cleanup is done at the end, what came last first.
func (t *trial) cleanup(do func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ends = append(t.ends, do)
}

// end cleans up and counts the failures that were not kept.
func (t *trial) end() {
	for {
		t.mu.Lock()
		n := len(t.ends)
		if n == 0 {
			if t.more > 0 {
				t.result.Failures = append(t.result.Failures, fmt.Sprintf("and %d more", t.more))
			}
			t.mu.Unlock()
			return
		}
		do := t.ends[n-1]
		t.ends = t.ends[:n-1]
		t.mu.Unlock()
		do()
	}
}
