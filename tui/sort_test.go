package tui

import (
	"strings"
	"testing"
)

func names(c *Console) string {
	var out []string
	for _, w := range c.workerRows() {
		out = append(out, w.Name)
	}
	return strings.Join(out, " ")
}

func TestTablesSortByAColumnAndTheUnknownComesLast(t *testing.T) {
	s := fixture("real", fixedNow)
	s.Workers[0].TTFT95, s.Workers[1].TTFT95 = new(0.4), new(1.3) // the others have none
	c := at(120, 40, s, Options{View: int(viewWorkers)})
	if got, want := names(c), "w0 w1 w2 long-context-w3"; got != want {
		t.Fatalf("unsorted: %s, want the engine's order %s", got, want)
	}
	press(c, ">", ">", ">", ">", ">", ">", ">")
	if got, want := names(c), "w1 w0 w2 long-context-w3"; got != want {
		t.Errorf("by TTFT95: %s, want the slowest first, %s", got, want)
	}
	if got := screen(t, c); !strings.Contains(got, "by TTFT95 ▼") {
		t.Errorf("the table does not say how it is sorted:\n%s", got)
	}
	press(c, "O")
	if got, want := names(c), "w0 w1 w2 long-context-w3"; got != want {
		t.Errorf("flipped: %s, want the fastest first and the unknown last, %s", got, want)
	}
	press(c, "<", "<", "<", "<", "<", "<", "<")
	if got := c.orderText(paneWorkers); got != "" {
		t.Errorf("back at the start it is still sorted %q", got)
	}
	press(c, "<", ">", ">")
	if got, want := names(c), "long-context-w3 w0 w1 w2"; got != want {
		t.Errorf("by name: %s, want %s", got, want)
	}
}

func TestTheSelectionStaysOnItsWorkerWhenSorted(t *testing.T) {
	c := at(120, 40, fixture("real", fixedNow), Options{View: int(viewWorkers)})
	press(c, "j", ">", "O")
	if w := c.worker(); w == nil || w.Name != "w1" {
		t.Errorf("selected is %v, want w1 still", w)
	}
}

// The overview's few rows show what has ended too, not only what is in flight.
func TestTheOverviewShowsWhatHasEnded(t *testing.T) {
	s := fixture("real", fixedNow)
	open := s.Requests[1]
	for range 30 {
		s.Requests = append(s.Requests[:1:1], s.Requests...)
		s.Requests[1] = open
	}
	c := at(120, 40, s, Options{})
	frame(t, c)
	c.sync()
	rows := c.requestRows()
	if len(rows) != len(s.Requests) {
		t.Fatalf("%d rows of %d", len(rows), len(s.Requests))
	}
	ended := 0
	for i := range 5 {
		if rows[i].Outcome != "open" {
			ended++
		}
	}
	if ended < 2 {
		t.Errorf("of the first five rows %d have ended, want two at least", ended)
	}
}

func TestAFilterKnowsNoCase(t *testing.T) {
	for _, tc := range []struct {
		text, term string
		want       bool
	}{{"CUDA out of Memory", "cuda", true}, {"CUDA out of Memory", "memory", true}, {"abc", "abcd", false}, {"aab", "ab", true}, {"ÄRGER", "ärger", true}, {"", "x", false}, {"x", "", true}} {
		if got := holds(tc.text, tc.term); got != tc.want {
			t.Errorf("holds(%q, %q) = %v, want %v", tc.text, tc.term, got, tc.want)
		}
	}
}
