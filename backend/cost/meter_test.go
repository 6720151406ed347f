package cost

import (
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var origin = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func TestAnInstantIsDividedEquallyAmongThoseInFlight(t *testing.T) {
	at := func(s int) time.Time { return origin.Add(time.Duration(s) * time.Second) }
	m := NewMeter(at(0))
	a := m.Begin(at(10)) // 10 s idle
	b := m.Begin(at(20)) // 10 s alone
	if got := m.End(at(30), a); got != 15*time.Second {
		t.Errorf("first: got %v, want 15s", got)
	}
	if got := m.End(at(40), b); got != 15*time.Second {
		t.Errorf("second: got %v, want 15s", got)
	}
	want := Time{Wall: 50 * time.Second, Ended: 30 * time.Second, Idle: 20 * time.Second, Busy: 30 * time.Second}
	if got := m.Read(at(50)); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestAWorkerThatEndedHasNoMoreTimeToGive(t *testing.T) {
	m := NewMeter(origin)
	a := m.Begin(origin)
	m.Stop(origin.Add(10 * time.Second))
	if got := m.End(origin.Add(40*time.Second), a); got != 10*time.Second {
		t.Errorf("got a share of %v, want the 10s that the worker lived", got)
	}
	if got := m.Read(origin.Add(time.Hour)); got.Wall != 10*time.Second || got.Busy != 10*time.Second {
		t.Errorf("got %+v, want 10s of wall and of busy", got)
	}
}

func TestTimeThatRunsBackwardsIsNoTime(t *testing.T) {
	m := NewMeter(origin)
	a := m.Begin(origin.Add(-time.Hour))
	if got := m.End(origin.Add(-2*time.Hour), a); got != 0 {
		t.Errorf("got a share of %v, want 0", got)
	}
	b := m.Begin(origin.Add(time.Second))
	m.Read(origin.Add(3 * time.Second))
	if got := m.End(origin.Add(2*time.Second), b); got != 2*time.Second {
		t.Errorf("got %v, want the 2s that had passed", got)
	}
	if got := m.Read(origin); got.Wall != 3*time.Second || got.Idle != time.Second {
		t.Errorf("got %+v, want 3s of wall and 1s idle", got)
	}
}

// The model divides with exact fractions; the meter may give each request less than one
// nanosecond too little, and nothing may get lost.
func TestSharesPlusIdleIsTheWallClockExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type open struct {
			mark  Mark
			exact *big.Rat
		}
		now := origin
		m := NewMeter(now)
		var flight []open
		var ended, idle, busy time.Duration
		total := 0
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			dt := time.Duration(rapid.OneOf(rapid.Int64Range(0, 20), rapid.Int64Range(0, int64(90*24*time.Hour))).Draw(t, "dt"))
			now = now.Add(dt)
			if n := len(flight); n > 0 {
				busy += dt
				for _, o := range flight {
					o.exact.Add(o.exact, big.NewRat(int64(dt), int64(n)))
				}
			} else {
				idle += dt
			}
			switch {
			case len(flight) > 0 && rapid.Bool().Draw(t, "end"):
				i := rapid.IntRange(0, len(flight)-1).Draw(t, "which")
				got := m.End(now, flight[i].mark)
				off := new(big.Rat).Sub(flight[i].exact, new(big.Rat).SetInt64(int64(got)))
				if off.Sign() < 0 || off.Cmp(big.NewRat(1, 1)) > 0 {
					t.Fatalf("got a share of %d ns, want %s rounded down", got, flight[i].exact.FloatString(3))
				}
				ended += got
				flight = slices.Delete(flight, i, i+1)
			case len(flight) < 300:
				flight = append(flight, open{m.Begin(now), new(big.Rat)})
				total++
			}
			got := m.Read(now)
			inFlight := new(big.Rat)
			for _, o := range flight {
				inFlight.Add(inFlight, o.exact)
			}
			off := new(big.Rat).Sub(inFlight, new(big.Rat).SetInt64(int64(got.InFlight)))
			if off.Sign() < 0 || off.Cmp(big.NewRat(1, 1)) > 0 {
				t.Fatalf("got %d ns in flight, want %s rounded down", got.InFlight, inFlight.FloatString(3))
			}
			if got.Wall != now.Sub(origin) || got.Ended != ended || got.Busy != busy {
				t.Fatalf("got %+v, want wall %v, ended %v, busy %v", got, now.Sub(origin), ended, busy)
			}
			if got.Ended+got.InFlight+got.Idle != got.Wall {
				t.Fatalf("got %d + %d + %d, want wall %d", got.Ended, got.InFlight, got.Idle, got.Wall)
			}
			if rest := got.Idle - idle; rest < 0 || rest > time.Duration(total+1) {
				t.Fatalf("got %d ns of rest after %d requests, want less than one each", rest, total)
			}
		}
	})
}

func TestAMeterMayBeUsedFromEverywhere(t *testing.T) {
	start := time.Now()
	m := NewMeter(start)
	var mu sync.Mutex
	var sum time.Duration
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 2000 {
				mark := m.Begin(time.Now())
				share := m.End(time.Now(), mark)
				mu.Lock()
				sum += share
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	got := m.Read(time.Now())
	if got.Ended != sum || got.InFlight != 0 || got.Ended+got.Idle != got.Wall {
		t.Errorf("got %+v, want ended %v and nothing in flight", got, sum)
	}
}

func TestTimeIsMoneyAtTheRate(t *testing.T) {
	for _, c := range []struct {
		rate string
		d    time.Duration
		want string
	}{
		{"0.34", time.Hour, "0.34"},
		{"2.5", 4 * time.Minute, "0.166666667"},
		{"0.34", 8760 * time.Hour, "2978.4"},
		{"0.0000000018", time.Hour / 2, "0.000000001"},
		{"3", -time.Second, "0"},
		{"9000000000", 87600 * time.Hour, "9223372036.854775807"},
	} {
		if got := Share(*usd(t, c.rate), c.d); got != *usd(t, c.want) {
			t.Errorf("%v at %s/h: got %s, want %s", c.d, c.rate, got, c.want)
		}
	}
}

func BenchmarkMeter(b *testing.B) {
	m := NewMeter(origin)
	now := origin
	for b.Loop() {
		now = now.Add(1001)
		mark := m.Begin(now)
		m.End(now.Add(500), mark)
	}
}
