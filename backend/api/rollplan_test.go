package api

import (
	"strings"
	"testing"
)

func TestARollTakesThoseFirstThatDoNotServe(t *testing.T) {
	names := func(ws []*Worker) string {
		var out []string
		for _, w := range ws {
			out = append(out, w.Name)
		}
		return strings.Join(out, " ")
	}
	for _, test := range []struct {
		name        string
		workers     []Worker
		order, stay string
		serving     int
		alone       bool
	}{
		{"the failed one is first", []Worker{{Name: "a", State: Ready}, {Name: "b", State: Failed}, {Name: "c", State: Ready}}, "b a c", "", 2, false},
		{"what somebody wants so stays", []Worker{{Name: "a", State: Ready}, {Name: "b", State: Stopped}, {Name: "c", State: Asleep}, {Name: "d", State: Draining}}, "a", "b c d", 1, true},
		{"one that waits for its GPU starts with the config anyway", []Worker{{Name: "a", State: Starting, Blocked: "GPU 0"}, {Name: "b", State: Starting}}, "b", "a", 0, false},
		{"an attached one is not ours, and goes on", []Worker{{Name: "a", Kind: "attach", State: Ready}, {Name: "b", State: Ready}}, "b", "a", 2, false},
		{"a stalled one does not serve", []Worker{{Name: "a", State: Ready, Stalled: true}, {Name: "b", State: Ready}}, "a b", "", 1, false},
		{"other models are none of it", []Worker{{Name: "a", Model: "x", State: Ready}}, "", "", 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := (&Snapshot{Workers: test.workers}).RollPlan("")
			if names(p.Workers) != test.order || names(p.Stay) != test.stay || p.Serving != test.serving || p.Alone != test.alone {
				t.Errorf("plan %q, %q stay, %d serve, alone %v; want %q, %q, %d, %v", names(p.Workers), names(p.Stay), p.Serving, p.Alone, test.order, test.stay, test.serving, test.alone)
			}
		})
	}
}
