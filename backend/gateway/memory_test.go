package gateway

import (
	"runtime/debug"
	"testing"
)

func TestTheCollectorRunsEarlyWhileLargeBodiesAreHeld(t *testing.T) {
	usual := debug.SetGCPercent(77)
	defer debug.SetGCPercent(usual)
	pace := func() int {
		now := debug.SetGCPercent(50)
		debug.SetGCPercent(now)
		return now
	}
	g := &Gateway{}
	calls := make([]*call, 10)
	want := func(when string, want int) {
		t.Helper()
		if got := pace(); got != want {
			t.Errorf("%s: GOGC is %d, want %d", when, got, want)
		}
	}
	for i := range calls {
		calls[i] = &call{g: g}
		calls[i].claim(10 << 20)
		if i == 5 {
			want("with 60 MiB", 77)
		}
	}
	want("with 100 MiB", tightGOGC)
	small := &call{g: g}
	small.claim(heavy - 1)
	for i, c := range calls {
		c.unburden()
		if i == 7 {
			want("with 20 MiB left", tightGOGC)
		}
	}
	small.unburden()
	want("with none left", 77)
	if g.pressure.bytes != 0 {
		t.Errorf("%d bytes are left over", g.pressure.bytes)
	}
}

func TestWhatAllAnswersKeepTogetherIsBounded(t *testing.T) {
	usual := debug.SetGCPercent(100)
	defer debug.SetGCPercent(usual)
	g := &Gateway{}
	piece := make([]byte, 1000)
	var calls []*call
	forgot := 0
	for range 2 * maxTexts / maxResume {
		c := &call{g: g, tap: tap{keep: true, resume: true, limit: maxResume}}
		for len(c.tap.text)+len(piece) <= maxResume && c.tap.keep {
			c.tap.add(piece)
			c.hold()
		}
		if c.tap.more {
			forgot++
			if n := cap(c.tap.text); n > 2*maxText || len(c.tap.text) == 0 {
				t.Errorf("%d bytes are kept of an answer that is let go, want what is rated: up to %d", n, maxText)
			}
		}
		calls = append(calls, c)
	}
	if held := g.texts.Load(); held > maxTexts || held < maxTexts*3/4 {
		t.Errorf("%d bytes are kept of all answers, want up to %d", held, maxTexts)
	}
	if forgot == 0 || forgot == len(calls) {
		t.Errorf("%d of %d answers were let go, want some", forgot, len(calls))
	}
	if g.pressure.bytes < maxTexts*3/4 {
		t.Errorf("the pressure knows of %d bytes, want all", g.pressure.bytes)
	}
	for _, c := range calls {
		c.unburden()
		c.unburden() // once is enough
	}
	if g.texts.Load() != 0 || g.pressure.bytes != 0 {
		t.Errorf("%d bytes of text and %d of pressure are left over", g.texts.Load(), g.pressure.bytes)
	}
}
