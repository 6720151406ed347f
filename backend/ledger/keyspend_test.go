package ledger

import (
	"reflect"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func TestSpendByKey(t *testing.T) {
	l, stop := running(t, t.TempDir(), quiet())
	add := func(id, key string, change func(r *api.Request)) {
		r := request(id)
		r.Key = key
		if change != nil {
			change(&r)
		}
		l.Closed(r)
	}
	add("1", "ci", nil)
	add("2", "ci", func(r *api.Request) { r.Started = noon.Add(-48 * time.Hour) })
	add("3", "ci", func(r *api.Request) { r.Actual = nil })
	add("4", "ci", func(r *api.Request) { // a leg on a worker that failed is charged to nobody
		r.Attempts = append([]api.Attempt{{Upstream: "w1", Outcome: api.OutcomeError, Actual: new(api.Nanos(5000))}}, r.Attempts...)
	})
	add("5", "ci", func(r *api.Request) { r.Simulated, r.Class = true, api.ClassSimulated })
	add("6", "other", func(r *api.Request) { r.Class = api.ClassFailover })
	add("7", "", nil)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	l = opened(t, l.path[:len(l.path)-len("/"+fileName)], quiet())
	defer l.Close()
	for _, tt := range []struct {
		since     time.Time
		simulated bool
		want      map[string]KeySpend
	}{
		{noon.Add(-time.Hour), false, map[string]KeySpend{"ci": {200, 1}, "other": {100, 0}}},
		{noon.Add(-time.Hour), true, map[string]KeySpend{"ci": {300, 1}, "other": {100, 0}}},
		{noon.Add(-72 * time.Hour), false, map[string]KeySpend{"ci": {300, 1}, "other": {100, 0}}},
		{noon.Add(time.Hour), false, map[string]KeySpend{}},
	} {
		got, err := l.SpendByKey(t.Context(), tt.since, tt.simulated)
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("since %v, simulated %v: %v, %v; want %v", tt.since, tt.simulated, got, err, tt.want)
		}
	}
}
