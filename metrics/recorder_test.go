package metrics

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// noon is on a boundary of every bucket up to 30 s.
var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

func ended(outcome string, ttft, e2e, itl time.Duration) *api.Request {
	return &api.Request{
		Outcome: outcome, TTFT: api.Span(ttft), Duration: api.Span(e2e), ITL: api.Span(itl),
		Usage: api.Usage{Input: 80, CacheRead: 20}, UsageSource: api.UsageUpstream,
	}
}

func near(got, want float64) bool {
	return math.Abs(got-want) <= 0.02*math.Abs(want)+1e-9
}

func TestWindowsAreSevenSpansOf120Buckets(t *testing.T) {
	r := NewRecorder(noon)
	ws := r.Windows(noon.Add(8 * 24 * time.Hour))
	want := []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 6 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour}
	if len(ws) != len(want) {
		t.Fatalf("%d windows, want %d", len(ws), len(want))
	}
	for i, w := range ws {
		if time.Duration(w.Span) != want[i] || time.Duration(w.Bucket) != want[i]/120 {
			t.Errorf("window %d is %v in buckets of %v, want %v in 120", i, time.Duration(w.Span), time.Duration(w.Bucket), want[i])
		}
		for name, s := range map[string]api.Series{
			"requests": w.Requests, "errors": w.Errors, "output": w.Output, "prompt": w.Prompt, "in_flight": w.InFlight,
			"ttft_p50": w.TTFT50, "ttft_p95": w.TTFT95, "e2e_p95": w.E2E95, "itl_p95": w.ITL95, "savings": w.Savings,
		} {
			if len(s) != 120 {
				t.Errorf("%v: %s has %d points, want 120", want[i], name, len(s))
			}
		}
	}
}

func TestBucketsAreFixedToTheWallClockAndTrimmedToTheStart(t *testing.T) {
	r := NewRecorder(noon.Add(700 * time.Millisecond))
	w := r.Windows(noon.Add(3*time.Second + 100*time.Millisecond))[0]
	// Buckets of 0.5 s from the one that 0.7 s lies in to the one that 3.1 s lies in.
	if len(w.Output) != 6 {
		t.Errorf("%d buckets, want 6", len(w.Output))
	}
	if want := noon.Add(3500 * time.Millisecond); !w.End.Equal(want) {
		t.Errorf("End = %v, want %v", w.End, want)
	}
	if !near(w.Partial, 0.2) {
		t.Errorf("Partial = %v, want 0.2", w.Partial)
	}
}

func TestTokensCountInTheBucketTheyCameIn(t *testing.T) {
	r := NewRecorder(noon)
	for i := range 20 { // 2 s at 100 ms, 5 tokens each: 50 tokens/s
		r.Tokens(noon.Add(time.Duration(i)*100*time.Millisecond), 5)
	}
	r.Tokens(noon.Add(2*time.Second), 100)
	ws := r.Windows(noon.Add(2*time.Second + 250*time.Millisecond))
	w := ws[0]
	want := []float64{50, 50, 50, 50, 100 / 0.25}
	for i, v := range want {
		if !near(w.Output[i], v) {
			t.Errorf("output[%d] = %v, want %v (all: %v)", i, w.Output[i], v, w.Output)
		}
	}
	if w.PeakOutput != 50 {
		t.Errorf("PeakOutput = %v, want 50: the bucket that still fills does not count", w.PeakOutput)
	}
	if got := ws[1].Output.Last(); !near(got, 200/2.25) {
		t.Errorf("5m output = %v, want %v", got, 200/2.25)
	}
}

func TestTokensAreNeverLostHoweverLateTheyAreCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder(time.Now())
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for range 300 {
					time.Sleep(97 * time.Millisecond)
					r.Tokens(time.Now(), 1)
				}
			})
		}
		wg.Wait() // half a minute, four times what the slots hold
		var sum float64
		w := r.Windows(time.Now())[3]
		for _, v := range w.Output[:len(w.Output)-1] {
			sum += v * 30
		}
		sum += w.Output.Last() * 30 * max(w.Partial, leastElapsed)
		if !near(sum, 6000) {
			t.Errorf("%v tokens in the hour, want 6000", sum)
		}
	})
}

func TestEndedCountsByOutcome(t *testing.T) {
	r := NewRecorder(noon)
	for _, o := range []string{
		api.OutcomeOK, api.OutcomeOK, api.OutcomeError, api.OutcomeLost, api.OutcomeRejected,
		api.OutcomeCancelled, api.OutcomeCancelled, api.OutcomeCancelled, api.OutcomeOpen,
	} {
		r.Ended(noon.Add(time.Second), ended(o, 0, 0, 0))
	}
	w := r.Windows(noon.Add(time.Second + 500*time.Millisecond))[0]
	if w.Count != 8 || w.Failed != 2 || w.Rejected != 1 || w.Cancelled != 3 {
		t.Errorf("count %d failed %d rejected %d cancelled %d, want 8 2 1 3", w.Count, w.Failed, w.Rejected, w.Cancelled)
	}
	if got := w.Requests[2]; got != 16 {
		t.Errorf("requests/s = %v, want 16: 8 in half a second", got)
	}
	if got := w.Errors[2]; got != 4 {
		t.Errorf("errors/s = %v, want 4", got)
	}
	if got := w.Prompt[2]; got != 1600 {
		t.Errorf("prompt tokens/s = %v, want 1600", got)
	}
}

func TestWindowQuantilesMergeBucketsAndNeverAverageThem(t *testing.T) {
	r := NewRecorder(noon)
	// A quiet bucket with one slow request, then a busy one with 999 fast ones: the mean of
	// the two p95s is 5 s, the p95 of the minute 100 ms.
	r.Ended(noon, ended(api.OutcomeOK, 10*time.Second, 20*time.Second, time.Second))
	for range 999 {
		r.Ended(noon.Add(time.Second), ended(api.OutcomeOK, 100*time.Millisecond, time.Second, 10*time.Millisecond))
	}
	w := r.Windows(noon.Add(2 * time.Second))[0]
	if !near(*w.TTFT.P95, 0.1) || !near(*w.E2E.P95, 1) || !near(*w.ITL.P95, 0.01) {
		t.Errorf("p95 ttft %v e2e %v itl %v, want 0.1 1 0.01", *w.TTFT.P95, *w.E2E.P95, *w.ITL.P95)
	}
	if *w.TTFT.Max != 10 || w.TTFT.Count != 1000 {
		t.Errorf("ttft max %v of %d, want 10 of 1000", *w.TTFT.Max, w.TTFT.Count)
	}
	if !near(w.TTFT95[0], 10) || !near(w.TTFT95[2], 0.1) || !math.IsNaN(w.TTFT95[1]) {
		t.Errorf("ttft_p95 = %v, want 10, unknown, 0.1", w.TTFT95[:3])
	}
}

func TestFailuresDoNotFlatterLatency(t *testing.T) {
	r := NewRecorder(noon)
	r.Ended(noon, ended(api.OutcomeRejected, 0, time.Millisecond, 0))
	r.Ended(noon, ended(api.OutcomeCancelled, 50*time.Millisecond, 60*time.Millisecond, 0))
	r.Ended(noon, ended(api.OutcomeOK, time.Second, 2*time.Second, 0))
	w := r.Windows(noon)[0]
	if w.E2E.Count != 1 || *w.E2E.P50 != 2 {
		t.Errorf("e2e: %d observations, p50 %v, want the one that ended well, 2 s", w.E2E.Count, *w.E2E.P50)
	}
	if w.TTFT.Count != 2 {
		t.Errorf("ttft: %d observations, want 2: a cancelled request had a first token too", w.TTFT.Count)
	}
	if w.ITL.P95 != nil {
		t.Errorf("itl p95 = %v without any, want unknown", *w.ITL.P95)
	}
}

func TestWhatFallsOutOfTheWindowIsForgotten(t *testing.T) {
	r := NewRecorder(noon)
	for i := range 600 { // ten minutes, one a second, ever faster
		at := noon.Add(time.Duration(i) * time.Second)
		r.Ended(at, ended(api.OutcomeOK, time.Duration(601-i)*10*time.Millisecond, time.Second, time.Millisecond))
	}
	now := noon.Add(599*time.Second + 400*time.Millisecond)
	ws := r.Windows(now)
	if w := ws[0]; w.Count != 60 || w.TTFT.Count != 60 || !near(*w.TTFT.Max, 0.61) {
		t.Errorf("1m: count %d, %d ttft, max %v, want 60, 60, 0.61", w.Count, w.TTFT.Count, *w.TTFT.Max)
	}
	if w := ws[1]; w.Count != 300 || w.TTFT.Count != 300 || !near(*w.TTFT.P50, 1.51) {
		t.Errorf("5m: count %d, %d ttft, p50 %v, want 300, 300, 1.51", w.Count, w.TTFT.Count, *w.TTFT.P50)
	}
	if w := ws[2]; w.Count != 600 || !near(*w.TTFT.Max, 6.01) {
		t.Errorf("15m: count %d max %v, want 600 and 6.01", w.Count, *w.TTFT.Max)
	}
	if w := r.Windows(now.Add(time.Hour))[0]; w.Count != 0 || w.TTFT.P50 != nil || w.TTFT.Max != nil {
		t.Errorf("1m an hour later: %+v, want nothing", w.TTFT)
	}
}

func TestInFlightIsAMeanOverTime(t *testing.T) {
	r := NewRecorder(noon)
	r.InFlight(noon, 4)
	r.InFlight(noon.Add(400*time.Millisecond), 10) // 4 for 0.4 s
	r.InFlight(noon.Add(time.Second), 10)          // 10 for 0.6 s
	w := r.Windows(noon.Add(time.Second))[0]
	if !near(w.InFlight[0], (4*0.4+10*0.1)/0.5) || !near(w.InFlight[1], 10) || w.InFlight[2] != 10 {
		t.Errorf("in flight = %v, want 5.2, 10, 10", w.InFlight)
	}
	// A publisher that was away for an hour does not stretch its last sample over it.
	r.InFlight(noon.Add(time.Hour), 0)
	w = r.Windows(noon.Add(time.Hour))[3]
	if got := w.InFlight[60]; !math.IsNaN(got) {
		t.Errorf("in flight half an hour into the silence = %v, want unknown", got)
	}
}

func TestSavingsRunOnAndMayBeUnknown(t *testing.T) {
	r := NewRecorder(noon)
	r.Savings(noon, new(1.5))
	r.Savings(noon.Add(2*time.Second), new(-2.0))
	r.Savings(noon.Add(3*time.Second), nil)
	w := r.Windows(noon.Add(3 * time.Second))[0]
	want := []float64{1.5, 1.5, 1.5, 1.5, -2, -2}
	for i, v := range want {
		if w.Savings[i] != v {
			t.Errorf("savings = %v, want %v then unknown", w.Savings, want)
			break
		}
	}
	if !math.IsNaN(w.Savings[6]) {
		t.Errorf("savings[6] = %v, want unknown", w.Savings[6])
	}
}

func TestClockSetBackDropsTheFutureAndKeepsTheRest(t *testing.T) {
	r := NewRecorder(noon)
	for i := range 40 {
		r.Ended(noon.Add(time.Duration(i)*time.Second), ended(api.OutcomeOK, time.Duration(i+1)*100*time.Millisecond, time.Second, 0))
	}
	back := noon.Add(19*time.Second + 100*time.Millisecond)
	w := r.Windows(back)[0]
	if w.Count != 20 || w.TTFT.Count != 20 || !near(*w.TTFT.Max, 2) {
		t.Errorf("count %d, %d ttft, max %v, want what lay before: 20, 20, 2", w.Count, w.TTFT.Count, *w.TTFT.Max)
	}
	r.Ended(back, ended(api.OutcomeOK, time.Second, time.Second, 0))
	if w := r.Windows(back)[0]; w.Count != 21 || w.TTFT.Count != 21 {
		t.Errorf("count %d after one more, want 21", w.Count)
	}
	// Before the start: nothing is left, and recording goes on.
	early := noon.Add(-time.Hour)
	r.Ended(early, ended(api.OutcomeOK, time.Second, time.Second, 0))
	w = r.Windows(early)[0]
	if len(w.Requests) != 1 || w.Count != 0 {
		t.Errorf("before the start: %d buckets with %d requests, want 1 empty one", len(w.Requests), w.Count)
	}
	r.Ended(early, ended(api.OutcomeOK, time.Second, time.Second, 0))
	if w = r.Windows(early)[0]; w.Count != 1 {
		t.Errorf("count = %d after the clock settled, want 1", w.Count)
	}
}

func TestClockSetForwardLeavesAGap(t *testing.T) {
	r := NewRecorder(noon)
	r.Ended(noon, ended(api.OutcomeOK, time.Second, time.Second, 0))
	ws := r.Windows(noon.Add(30 * time.Minute))
	if ws[2].Count != 0 || ws[3].Count != 1 {
		t.Errorf("half an hour later: 15m has %d and 1h has %d, want 0 and 1", ws[2].Count, ws[3].Count)
	}
	if got := len(ws[3].Requests); got != 61 {
		t.Errorf("1h has %d buckets, want 61", got)
	}
}

func TestWindowsSurviveJSON(t *testing.T) {
	r := NewRecorder(noon)
	b, err := json.Marshal(r.Windows(noon))
	if err != nil {
		t.Fatalf("marshal windows: %v", err)
	}
	var back []api.Window
	if err := json.Unmarshal(b, &back); err != nil || !math.IsNaN(back[0].TTFT95[0]) {
		t.Errorf("unmarshal: %v, ttft %v, want unknown as null", err, back)
	}
}

// week fills a recorder with a week of a busy gateway, latencies spread over five decades.
func week(perBucket int) (*Recorder, time.Time) {
	r := NewRecorder(noon)
	rnd := rand.New(rand.NewPCG(5, 6))
	now := noon
	q := ended(api.OutcomeOK, 0, 0, 0)
	for _, l := range []int{6, 5, 4, 3, 2, 1, 0} { // ever finer towards the end
		size := r.levels[l].size
		for range points {
			now = now.Add(size)
			for range perBucket {
				q.TTFT = api.Span(time.Millisecond * time.Duration(math.Exp(rnd.Float64()*11)))
				q.Duration = 2 * q.TTFT
				q.ITL = q.TTFT / 10
				q.Queue = q.TTFT / 3
				r.Ended(now, q)
			}
		}
	}
	return r, now
}

func TestAWeekOfTrafficStaysUnderTenMegabytes(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	r, now := week(500)
	runtime.GC()
	runtime.ReadMemStats(&after)
	got := float64(after.HeapAlloc-before.HeapAlloc) / (1 << 20)
	t.Logf("a week of log-uniform latencies in 840 full buckets: %.1f MB", got)
	if got > 10 {
		t.Errorf("recorder holds %.1f MB, want under 10", got)
	}
	runtime.KeepAlive(r)
	runtime.KeepAlive(now)
}

func TestRecorderMayBeUsedFromManyGoroutines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := NewRecorder(time.Now())
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for i := range 200 {
					time.Sleep(10 * time.Millisecond)
					r.Tokens(time.Now(), 1)
					r.Ended(time.Now(), ended(api.OutcomeOK, time.Millisecond, time.Second, time.Millisecond))
					if i%50 == 0 {
						r.InFlight(time.Now(), i)
						r.Savings(time.Now(), nil)
						r.Windows(time.Now())
					}
				}
			})
		}
		wg.Wait()
		if w := r.Windows(time.Now())[0]; w.Count != 1600 {
			t.Errorf("count = %d, want 1600", w.Count)
		}
	})
}

func BenchmarkTokens(b *testing.B) {
	r := NewRecorder(time.Now())
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r.Tokens(time.Now(), 1)
		}
	})
}

func BenchmarkEnded(b *testing.B) {
	r := NewRecorder(noon)
	q := ended(api.OutcomeOK, time.Second, 2*time.Second, 10*time.Millisecond)
	for b.Loop() {
		r.Ended(noon, q)
	}
}

func BenchmarkWindows(b *testing.B) {
	r, now := week(100)
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(api.Tick)
		r.Windows(now)
	}
}
