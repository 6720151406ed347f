package tui

import (
	"strings"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func TestTheSelectedKeyTellsWhatItMayDoAndWhatIsKeptOfIt(t *testing.T) {
	c := at(80, 24, operated(fixedNow), Options{})
	press(c, "4", "]")
	if s := screen(t, c); !strings.Contains(s, "off: no prompt and no answer of it is kept") {
		t.Errorf("the key that keeps nothing does not say so:\n%s", s)
	}
	press(c, "j")
	for _, want := range []string{"models    llama-3.1-8b, small", "priority  low", "failover  never to paid APIs", "vllmdeck keys captured batch"} {
		if s := screen(t, c); !strings.Contains(s, want) {
			t.Errorf("the detail of the key lacks %q:\n%s", want, s)
		}
	}
}

func TestABudgetOfMicrodollarsStaysInItsColumn(t *testing.T) {
	s := operated(fixedNow)
	s.Keys[0].Limits.Day, s.Keys[0].Use.Day, s.Keys[0].Use.Month = new(api.Nanos(100_000)), 16_600, 16_600
	for _, size := range [][2]int{{80, 24}, {100, 30}, {120, 40}, {160, 50}} {
		c := at(size[0], size[1], s, Options{})
		press(c, "4", "]")
		for line := range strings.SplitSeq(screen(t, c), "\n") {
			if strings.Contains(line, "$0.000100$") || strings.Contains(line, "batch ") && strings.Contains(line, "$0.0…") {
				t.Errorf("at %d columns budget and month run into each other, or the budget is cut: %s", size[0], line)
			}
		}
	}
}

func TestTheClientsOwnIDStandsInARequestAndFindsIt(t *testing.T) {
	s := fixture("real", fixedNow)
	s.Requests[3].Client = "job-77\x1b[31m-red"
	s.Requests = s.Requests[:6]
	c := at(100, 30, s, Options{})
	press(c, "3", "/", "j", "o", "b", "-", "7", "7", "enter")
	got := screen(t, c)
	if !strings.Contains(got, "client's id  job-77") || strings.Contains(got, "\x1b[31m-red") {
		t.Errorf("the detail lacks the client's id, or has it unclean:\n%s", got)
	}
	if n := c.requests.n; n != 1 {
		t.Errorf("the filter finds %d requests, want the one of the client's id", n)
	}
}
