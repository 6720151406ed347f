package main

import (
	"os"
	"testing"
	"time"
)

// TestWhatTheConsoleWrites counts the bytes that the console sends to a terminal of 160 by 50: with the demo's
// traffic, and with none. It takes minutes; VLLMDECK_WIRE is how long each is counted, e.g. 60s.
func TestWhatTheConsoleWrites(t *testing.T) {
	span, err := time.ParseDuration(os.Getenv("VLLMDECK_WIRE"))
	if err != nil {
		t.Skip("counted over minutes: VLLMDECK_WIRE=60s go test -run TestWhatTheConsoleWrites ./cmd/vllmdeck")
	}
	const moving = 4000.0 // bytes a second: what is promised of a screen on which data move
	for _, tc := range []struct {
		name   string
		args   []string
		settle time.Duration // until the first minute fills its charts, or rest begins
		most   float64
	}{
		{"moving", []string{"demo"}, 15 * time.Second, moving},
		{"at rest", []string{"demo", "--no-traffic"}, 30 * time.Second, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := bareRig(t)
			r.env = append(r.env, "COLORTERM=truecolor")
			x := r.terminalOf(160, 50, tc.args...)
			x.await("SIMULATED")
			<-time.After(tc.settle)
			before := len(x.wrote())
			<-time.After(span)
			rate := float64(len(x.wrote())-before) / span.Seconds()
			t.Logf("%s: %.0f B/s over %s, promised %.0f", tc.name, rate, span, tc.most)
			if rate > 3*tc.most {
				t.Errorf("%s: %.0f B/s, want at most %.0f", tc.name, rate, tc.most)
			}
			x.press("q")
			x.await("Leave the demo?")
			x.press("y")
			x.exit(t, 10*time.Second)
			r.nothingLeft()
		})
	}
}
