package tui

import (
	"testing"
)

func TestLayoutTilesEverySize(t *testing.T) {
	needs := []need{{}, {workers: 1, requests: 0, noHealth: true}, {workers: 4, requests: 40}, {workers: 64, requests: 200}, {noCharts: true, noHealth: true}, {workers: 3, noCharts: true}, {workers: 2, requests: 3, noHealth: true}}
	for _, v := range views {
		for w := 1; w <= 240; w += 1 + w/24 {
			for h := 1; h <= 80; h += 1 + h/26 {
				for _, n := range needs {
					for _, zoom := range []paneID{paneNone, paneLatency} {
						tiles(t, layout(v.id, w, h, n, panesOf(v.id)[0], zoom), v.name, w, h, n)
					}
				}
				if t.Failed() {
					return
				}
			}
		}
	}
}

func tiles(t *testing.T, rects []Rect, v Text, w, h int, n need) {
	t.Helper()
	covered := make([]bool, w*h)
	last := -1
	seen := map[paneID]bool{}
	for _, r := range rects {
		if r.W <= 0 || r.H <= 0 || r.X < 0 || r.Y < 0 || r.X+r.W > w || r.Y+r.H > h {
			t.Errorf("%s at %dx%d %+v: %+v lies outside", v, w, h, n, r)
			return
		}
		if seen[r.Pane] {
			t.Errorf("%s at %dx%d: pane %d twice", v, w, h, r.Pane)
		}
		seen[r.Pane] = true
		for y := r.Y; y < r.Y+r.H; y++ {
			for x := r.X; x < r.X+r.W; x++ {
				if covered[y*w+x] {
					t.Errorf("%s at %dx%d %+v: %+v overlaps at %d,%d", v, w, h, n, r, x, y)
					return
				}
				covered[y*w+x] = true
			}
		}
	}
	for i, c := range covered {
		if !c {
			last = i
		}
	}
	if last >= 0 {
		t.Errorf("%s at %dx%d %+v: nothing at %d,%d", v, w, h, n, last%w, last/w)
	}
	for y := range h { // what draw relies on: rectangles of one row come in order of X
		x := 0
		for _, r := range rects {
			if y >= r.Y && y < r.Y+r.H {
				if r.X < x {
					t.Errorf("%s at %dx%d: %+v comes out of order", v, w, h, r)
				}
				x = r.X + r.W
			}
		}
	}
}
