package tui

import (
	"strings"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func TestAFilterThatFindsNothingSaysHowFarItLooked(t *testing.T) {
	c := at(100, 30, fixture("real", fixedNow), Options{})
	press(c, "2", "v")
	c.logs.lines = make([]api.Line, 120)
	c.logs.refilter()
	press(c, "/", "z", "z", "z", "enter")
	if s := screen(t, c); !strings.Contains(s, "no line of the newest 120 passes the filter; k reads older ones") {
		t.Errorf("the log does not say how far the filter looked:\n%s", s)
	}
	c.logs.start = true
	c.logs.rev++
	press(c, "k")
	if s := screen(t, c); strings.Contains(s, "reads older") {
		t.Errorf("older lines are promised where there are none:\n%s", s)
	}
}
