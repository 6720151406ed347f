package backend

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func TestOfRequestsThatWentWellAllAreShown(t *testing.T) {
	var all []api.Request
	for range maxRequests {
		all = append(all, api.Request{Attempts: []api.Attempt{{Upstream: "w0"}}})
	}
	if got := len(trimRequests(all, requestsLeast*2)); got != maxRequests {
		t.Errorf("%d of %d are shown", got, maxRequests)
	}
}

func TestAnEmptyListIsNoNull(t *testing.T) {
	text, err := json.Marshal(idleEngine(t, "workers: [{name: w0, model: toy, attach: \"http://127.0.0.1:1\"}]").build(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	var parts map[string]json.RawMessage
	if err := json.Unmarshal(text, &parts); err != nil {
		t.Fatal(err)
	}
	for name, part := range parts {
		if string(part) == "null" {
			t.Errorf("%s is null: a script that loops over it would fail", name)
		}
	}
}

func TestALedgerThatCannotBeWrittenIsANoticeUntilItCan(t *testing.T) {
	var b noticeBoard
	broken := api.Notice{Level: "error", Text: "cannot be written"}
	for i, step := range []struct {
		n    api.Notice
		news bool
		want string
	}{
		{api.Notice{}, false, "[]"},
		{broken, true, "[cannot be written true]"},
		{broken, false, "[cannot be written true]"},
		{api.Notice{Level: "error", Text: "worse"}, true, "[worse true][cannot be written false]"},
		{api.Notice{}, true, "[worse false][cannot be written false]"},
		{api.Notice{}, false, "[worse false][cannot be written false]"},
	} {
		news := b.set("ledger", step.n)
		var notices strings.Builder
		for _, n := range b.list() {
			fmt.Fprintf(&notices, "[%s %v]", n.Text, n.Active)
		}
		got := notices.String()
		if got == "" {
			got = "[]"
		}
		if news != step.news || got != step.want {
			t.Errorf("step %d: news %v, notices %s; want %v, %s", i, news, got, step.news, step.want)
		}
	}
	b.set("ledger", broken)
	for range 2 * maxNotices {
		b.add(api.Notice{Text: "something else"})
	}
	if list := b.list(); len(list) != maxNotices || !list[maxNotices-1].Active {
		t.Errorf("%d notices, the last %+v: want %d, and that what is still true stays", len(list), list[len(list)-1], maxNotices)
	}
}

func TestTheKeysThatWereUsedLastAreShown(t *testing.T) {
	var all []api.Key
	for i := range 1000 {
		all = append(all, api.Key{Name: fmt.Sprintf("k%03d", i), Use: &api.KeyUse{Last: time.Unix(int64(i), 0)}})
	}
	got := trimKeys(all)
	if len(got) < 20 || len(got) == 1000 || got[len(got)-1].Name != "k999" || got[0].Name != fmt.Sprintf("k%03d", 1000-len(got)) {
		t.Errorf("%d are shown, from %s to %s; want the last ones, by name", len(got), got[0].Name, got[len(got)-1].Name)
	}
	if got := trimKeys(all[:10]); len(got) != 10 || got[0].Name != "k000" {
		t.Errorf("of ten %d are shown, from %s", len(got), got[0].Name)
	}
}

// TestAQuietEngineShowsItsWholeCache: where requests leave room, every model of the cache is shown.
func TestAQuietEngineShowsItsWholeCache(t *testing.T) {
	c := &api.Cache{}
	for i := range 80 {
		c.Models = append(c.Models, api.CacheModel{Name: fmt.Sprintf("org/model-%d", i), Size: 1})
	}
	trimCache(c, 200<<10)
	if size := jsonSize(c); len(c.Models) != 80 || size > cacheRoom {
		t.Errorf("%d models in %d bytes, want all 80 in %d", len(c.Models), size, cacheRoom)
	}
	c.Models[7].Workers = []string{"w0"}
	if trimCache(c, 0); len(c.Models) < 12 || !slices.ContainsFunc(c.Models, func(m api.CacheModel) bool { return m.Name == "org/model-7" }) {
		t.Errorf("without room %d models are left, want 12 at least and among them the one that a worker needs", len(c.Models))
	}
	trimCache(nil, 0) // a host without one
}
