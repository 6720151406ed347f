package backend

import (
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func TestEachChangeIsToldOnce(t *testing.T) {
	var f failovers
	at := func(s float64) time.Time {
		return time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC).Add(time.Duration(s * 1e9))
	}
	down := []api.Model{{Name: "m", Workers: 2}}
	up := []api.Model{{Name: "m", Workers: 2, Ready: 1}}
	look := func(now float64, models []api.Model, state, err string) string {
		var text strings.Builder
		for _, n := range f.look(models, []api.Provider{{Name: "p", State: state, Error: err}}, at(now)) {
			text.WriteString(n.Level + ": " + n.Text + "\n")
		}
		return text.String()
	}
	want := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s:\ngot  %q\nwant %q", what, got, want)
		}
	}
	want("nothing has happened", look(0, down, api.ProviderOK, ""), "")
	f.paid("m", "p", at(1))
	want("it begins", look(1.5, down, api.ProviderOK, ""), "warning: m: no worker can serve: requests go to p, for money\n")
	f.paid("m", "p", at(2))
	want("it goes on", look(100, down, api.ProviderOK, ""), "")
	want("a worker is back, and nothing went to the provider for a while", look(101, up, api.ProviderOK, ""), "info: m: workers serve again: 2 requests went to p\n")
	want("it is over", look(102, up, api.ProviderOK, ""), "")
	f.paid("m", "p", at(103))
	want("overload", look(103.5, up, api.ProviderOK, ""), "warning: m: its workers have too much to do: requests go to p, for money\n")
	want("not yet calm", look(120, up, api.ProviderOK, ""), "")
	want("calm", look(133, up, api.ProviderOK, ""), "info: m: workers serve again: 1 request went to p\n")
	f.paid("m", "p", at(134))
	want("a provider alone has not failed over", look(135, []api.Model{{Name: "m"}}, api.ProviderOK, ""), "")

	want("it fails", look(200, up, api.ProviderOpen, "HTTP 500"), "warning: provider p does not serve (HTTP 500): it is tried again by itself\n")
	want("it may be tried again", look(201, up, api.ProviderOK, "HTTP 500"), "")
	want("it fails again", look(202, up, api.ProviderOpen, "HTTP 500"), "")
	want("it answers", look(203, up, api.ProviderOK, ""), "info: provider p can serve again\n")
	want("its money is spent", look(204, up, api.ProviderCapped, "the cap is reached"),
		"warning: provider p: the cap is reached; nothing goes there before the next period: to go on now raise spend_cap, then \"vllmdeck reload\"\n")
	want("it stays so", look(205, up, api.ProviderCapped, "the cap is reached"), "")
	want("the ledger fails", look(206, up, api.ProviderUnaccountable, "the ledger cannot be written"), "error: provider p: the ledger cannot be written\n")
	want("a new day", look(207, up, api.ProviderOK, ""), "info: provider p can serve again\n")
}

func TestAWorkerIsExpectedWhenItsLastStartSaysSo(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	const wait = 30 * time.Second
	last := func(s float64) []api.PhaseTime {
		return []api.PhaseTime{{Name: api.PhaseWeights, Seconds: s - 1, Done: true}, {Name: api.PhaseServer, Seconds: 1, Done: true}}
	}
	ago := func(s float64) time.Time { return now.Add(-time.Duration(s * 1e9)) }
	for _, tt := range []struct {
		what string
		w    api.Worker
		want bool
	}{
		{"a quick one", api.Worker{State: api.Starting, Since: ago(1), LastStart: last(20)}, true},
		{"a slow one", api.Worker{State: api.Starting, Since: ago(1), LastStart: last(180)}, false},
		{"a slow one that is nearly there", api.Worker{State: api.Starting, Since: ago(160), LastStart: last(180)}, true},
		{"one that is a little late", api.Worker{State: api.Starting, Since: ago(200), LastStart: last(180)}, true},
		{"one that is very late", api.Worker{State: api.Starting, Since: ago(300), LastStart: last(180)}, false},
		{"one that never started, just begun", api.Worker{State: api.Starting, Since: ago(5)}, true},
		{"one that never started, long under way", api.Worker{State: api.Starting, Since: ago(45)}, false},
		{"one that crashed and starts again soon", api.Worker{State: api.Failed, NextStart: now.Add(2 * time.Second), LastStart: last(20), Phases: last(20)}, true},
		{"one that crashed and takes long", api.Worker{State: api.Failed, NextStart: now.Add(2 * time.Second), LastStart: last(40), Phases: last(40)}, false},
		{"one that starts again much later", api.Worker{State: api.Failed, NextStart: now.Add(40 * time.Second), LastStart: last(2)}, false},
		{"one whose start failed", api.Worker{State: api.Failed, NextStart: now.Add(time.Second), Phases: []api.PhaseTime{{Name: api.PhaseWeights, Seconds: 3}}}, false},
		{"one that stalls", api.Worker{State: api.Ready, Stalled: true}, false},
	} {
		if got := comesWithin(&tt.w, wait, now); got != tt.want {
			t.Errorf("%s: comesWithin = %v, want %v", tt.what, got, tt.want)
		}
	}
}
