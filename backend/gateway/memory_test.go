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
