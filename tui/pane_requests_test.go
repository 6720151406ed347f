package tui

import (
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func TestARequestInLineShowsItsPlace(t *testing.T) {
	for n, want := range map[int]Text{1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 11: "11th", 12: "12th", 13: "13th", 21: "21st", 102: "102nd", 111: "111th", 256: "256th"} {
		r := api.Request{Outcome: api.OutcomeOpen, Position: n, Worker: "w0"} // of a worker that died
		if _, got := (&Console{}).ending(&r); got != "waits "+want {
			t.Errorf("number %d in line: %q, want %q", n, got, "waits "+want)
		}
	}
}
