package tui

import (
	"bytes"
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// later is the same window with k more buckets, as the engine would publish it.
func later(w api.Window, k int) api.Window {
	w.End = w.End.Add(time.Duration(k) * time.Duration(w.Bucket))
	w.Output = append(append(api.Series{}, w.Output[k:]...), make(api.Series, k)...)
	return w
}

func TestColumnsDoNotJitter(t *testing.T) {
	w := windowOf(5*time.Minute, fixedNow, 1)
	for _, n := range []int{60, 68, 104, 120, 146, 300} {
		for _, f := range []fold{foldMax, foldMean} {
			before := points(&w, w.Output, n, f)
			for k := 1; k < 8; k++ {
				next := later(w, k)
				after := points(&next, next.Output, n, f)
				last, _ := newestPoint(&w, n)
				newest, _ := newestPoint(&next, n)
				moved := int(newest - last)
				// The oldest point may have lost buckets that left the window, the newest gained some.
				for i := moved + 4; i < n-4; i++ {
					if got, want := after[i-moved], before[i]; got != want {
						t.Fatalf("n=%d fold=%d after %d buckets: point %d is %v, was %v", n, f, k, i-moved, got, want)
					}
				}
			}
		}
	}
}

// A chart never ends in a hole: when the clock passes into a point in which no bucket begins yet,
// the point is not there.
func TestTheNewestPointIsKnown(t *testing.T) {
	w := windowOf(5*time.Minute, fixedNow, 1)
	for n := 1; n < 300; n++ {
		for k := range 8 {
			next := later(w, k)
			if pts := points(&next, next.Output, n, foldMean); !known(pts[n-1]) {
				t.Fatalf("n=%d after %d buckets: the newest point is unknown", n, k)
			}
			for _, per := range []int{1, 2} {
				pts, hole := cellPoints(&next, next.Output, n, per, foldMean), ahead(&next, n, per)
				if i := n - 1 - hole; i >= 0 && !known(pts[i]) || hole > 0 && known(pts[n-1]) {
					t.Fatalf("n=%d, %d a cell, after %d buckets: of the newest cell, %d are to come: %v", n, per, k, hole, pts[max(n-6, 0):])
				}
				if most := max(n/10, per); hole >= most {
					t.Fatalf("n=%d, %d a cell: %d points are empty, want fewer than %d", n, per, hole, most)
				}
			}
			if d := partialFrom(&next, n); d < -n/10-1 || d >= n {
				t.Fatalf("n=%d after %d buckets: partial from %d", n, k, d)
			}
		}
	}
}

// A chart moves by whole cells, and no more often than every three seconds: in between, only its right
// end grows.
func TestAChartMovesByWholeCells(t *testing.T) {
	w := windowOf(time.Minute, fixedNow, 1)
	const n = 142
	shift := func(a, b []float64) int {
		for by := range 12 {
			same := true
			for i := by + 4; i < n-12; i++ {
				same = same && (a[i] == b[i-by] || !known(a[i]) && !known(b[i-by]))
			}
			if same {
				return by
			}
		}
		return -1
	}
	before, moves := cellPoints(&w, w.Output, n, 2, foldMean), 0
	for k := 1; k <= 24; k++ { // 12 seconds
		next := later(w, k)
		pts := cellPoints(&next, next.Output, n, 2, foldMean)
		by := shift(before, pts)
		if by < 0 || by%2 != 0 {
			t.Errorf("after %d buckets the chart has moved by %d halves of a cell", k, by)
		}
		if by > 0 {
			moves++
		}
		before = pts
	}
	if moves < 2 || moves > 5 {
		t.Errorf("the chart moved %d times in 12 seconds, want 2 to 5", moves)
	}
}

func TestASpikeStaysAndARateIsAMean(t *testing.T) {
	w := api.Window{Span: api.Span(2 * time.Minute), Bucket: api.Span(time.Second), End: time.Unix(1_000_000*120, 0)}
	for range 120 {
		w.Output = append(w.Output, 10)
	}
	w.Output[77] = 900
	if got := peakOf(points(&w, w.Output, 30, foldMax)); got != 900 {
		t.Errorf("greatest of 30 points = %v, want the spike of 900", got)
	}
	if got := peakOf(points(&w, w.Output, 30, foldMean)); got != (900+3*10)/4.0 {
		t.Errorf("mean of the bucket with the spike = %v, want 232.5", got)
	}
	young := w
	young.Output = w.Output[100:]
	pts := points(&young, young.Output, 60, foldMean)
	if !math.IsNaN(pts[0]) || !known(pts[59]) {
		t.Errorf("a young engine's chart begins with %v and ends with %v, want unknown and known", pts[0], pts[59])
	}
}

func TestAxisGrowsAtOnceAndShrinksLate(t *testing.T) {
	var s scale
	now := fixedNow
	if got := s.fit(730, 1, now); got != 800 {
		t.Errorf("top for 730 = %v, want 800", got)
	}
	if got := s.fit(2900, 1, now); got != 3000 {
		t.Errorf("top for 2900 = %v, want 3000 at once", got)
	}
	for range 29 {
		now = now.Add(time.Second)
		if got := s.fit(40, 1, now); got != 3000 {
			t.Fatalf("top fell to %v after %v", got, now.Sub(fixedNow))
		}
	}
	s.fit(500, 1, now)
	if got := s.fit(40, 1, now.Add(31*time.Second)); got != 500 {
		t.Errorf("top after 30 s = %v, want 500, the greatest that was needed meanwhile", got)
	}
}

func TestPlotSurvivesWhatAsciigraphDoesNot(t *testing.T) {
	w := windowOf(time.Minute, fixedNow, 1)
	nan, inf := math.NaN(), math.Inf(1)
	for _, s := range []api.Series{nil, {}, {nan}, {inf}, {-inf, nan}, {0, 0}, {1e308, 1}, {inf, 1, 2}, {-5, 3}} {
		for _, width := range []int{0, 5, 14, 80} {
			plot(bigChart{"x", s, foldMax, seconds, stA}, &w, width, 9)
		}
	}
	if got := plot(bigChart{"x", api.Series{nan, nan}, foldMax, seconds, stA}, &w, 80, 9); len(got) != 1 || got[0] != "no data in this window" {
		t.Errorf("all unknown draws %q", got)
	}
}

func TestNumbersFitAndSayWhatTheyKnow(t *testing.T) {
	f := func(v float64) *api.Nanos { n, _ := api.FromUSD(v); return &n }
	for _, tc := range []struct{ got, want Text }{
		{rate(0), "0"},
		{rate(0.04), "0.04"},
		{rate(2.44), "2.4"},
		{rate(9.96), "10"},
		{rate(310.4), "310"},
		{rate(9999), "9999"},
		{rate(9999.7), "10.0k"},
		{rate(1_120_000), "1.12M"},
		{rate(math.NaN()), "-"},
		{seconds(0), "0ms"},
		{seconds(.0004), "0.4ms"},
		{seconds(.1824), "182ms"},
		{seconds(.9996), "1.00s"},
		{seconds(81), "81.0s"},
		{seconds(723), "12m03s"},
		{seconds(math.NaN()), "-"},
		{seconds(-1), "-"},
		{percent(0), "0%"},
		{percent(.0024), "0.2%"},
		{percent(.00001), "<0.1%"},
		{percent(.61), "61%"},
		{money(nil), "-"},
		{money(f(0)), "$0.00"},
		{money(f(37.5)), "$37.50"},
		{money(f(-2.2)), "-$2.20"},
		{money(f(.000123456)), "$0.000123"},
		{money(f(1234567)), "$1,234,567"},
		{signed(f(1)), "+$1.00"},
		{signed(f(-1)), "-$1.00"},
		{span(0), "-"},
		{age(90 * time.Second), "1m"},
		{age(72 * time.Hour), "3d"},
		{size(71 << 30), "71G"},
		{metered(5, api.UsageUpstream), "5"},
		{metered(5, api.UsageCounted), "≈5"},
		{metered(5, api.UsageUnknown), "-"},
		{metered(5, ""), "-"},
		{quantile(nil, 500, 20), "-"},
		{quantile(new(.5), 500, 20), "500ms"},
		{quantile(new(.5), 19, 20), "~500ms"},
	} {
		if tc.got != tc.want {
			t.Errorf("got %q, want %q", tc.got, tc.want)
		}
	}
	for v := 1e-9; v < 1e14; v *= 1.37 {
		if r := rate(v); r.width() > 5 {
			t.Errorf("rate(%v) = %q, more than 5 cells", v, r)
		}
		if s := seconds(v); s.width() > 6 {
			t.Errorf("seconds(%v) = %q, more than 6 cells", v, s)
		}
	}
}

func TestFilterTerms(t *testing.T) {
	for _, tc := range []struct {
		f, text string
		want    bool
	}{{"", "x", true}, {"FAILED", "state:failed", true}, {"state:failed !w0", "name:w0 state:failed", false}, {"state:failed !w0", "name:w1 state:failed", true}, {"a b", "b only", false}, {"!", "x", true}} {
		if got := newFilter(tc.f).match(tc.text); got != tc.want {
			t.Errorf("filter %q on %q = %v, want %v", tc.f, tc.text, got, tc.want)
		}
	}
}

func TestSelectionFollowsTheRow(t *testing.T) {
	names := []string{"a", "b", "c"}
	var l list
	l.sync(3, func(i int) string { return names[i] })
	l.move(1)
	names = []string{"new", "a", "b", "c"}
	l.sync(4, func(i int) string { return names[i] })
	if l.sel != 2 {
		t.Errorf("selection is at %d after a row came above, want 2", l.sel)
	}
	names = names[:1]
	l.sync(1, func(i int) string { return names[i] })
	if l.sel != 0 {
		t.Errorf("selection is at %d of one row", l.sel)
	}
}

type failing struct{ bytes.Buffer }

func (f *failing) Write(b []byte) (int, error) { return 0, errors.New("gone") }

func TestPlainConsolePrintsLines(t *testing.T) {
	f := &fake{still: fixture("real", fixedNow), now: time.Now}
	ctx, cancel := context.WithCancel(context.Background())
	var out bytes.Buffer
	cancel() // one line is printed before the context is looked at
	res, err := runPlain(ctx, Options{Source: f, Now: func() time.Time { return fixedNow }}, &out)
	if err != nil || res.URL != "http://127.0.0.1:8090" || res.Workers != 2 {
		t.Errorf("result %+v, %v", res, err)
	}
	got := out.String()
	if !strings.Contains(got, "2/4 up") || !strings.Contains(got, "long-context-w3 failed: ValueError") || strings.ContainsRune(got, 0x1b) {
		t.Errorf("printed %q", got)
	}
	if _, err := runPlain(context.Background(), Options{Source: f}, &failing{}); err == nil {
		t.Error("no error when the output is gone")
	}
}
