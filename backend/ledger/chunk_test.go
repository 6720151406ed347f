package ledger

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// What few rows have is written, whatever rows it comes among and whether these are opened first.
func TestRareValuesAreWritten(t *testing.T) {
	changes := []func(r *api.Request){
		func(r *api.Request) {},
		func(r *api.Request) { r.Client = "app-1" },
		func(r *api.Request) { r.Usage.CacheWrite = 3 },
		func(r *api.Request) { r.Usage.Reasoning = 4 },
		func(r *api.Request) { r.Queue = 5 },
		func(r *api.Request) { r.ITL = 6 },
		func(r *api.Request) { r.MaxGap = 7 },
		func(r *api.Request) { r.Health = new(0.5) },
	}
	want := []string{"|0|0|0|0|0|<nil>", "app-1|0|0|0|0|0|<nil>", "|3|0|0|0|0|<nil>", "|0|4|0|0|0|<nil>", "|0|0|5|0|0|<nil>", "|0|0|0|6|0|<nil>", "|0|0|0|0|7|<nil>", "|0|0|0|0|0|0.5"}
	l := opened(t, t.TempDir(), quiet())
	defer l.Close()
	for _, first := range []bool{false, true} {
		var rows, openings []row
		for i := range 200 {
			r := request(fmt.Sprint(first, i))
			r.Queue, r.ITL, r.MaxGap, r.Health, r.Usage.CacheWrite, r.Usage.Reasoning = 0, 0, 0, nil, 0, 0
			openings = append(openings, opening(&r))
			if i >= 100 { // a chunk of common rows, then some of all kinds
				changes[i%len(changes)](&r)
			}
			rows = append(rows, newRow(&r))
		}
		if first {
			if err := l.writer.write(context.Background(), openings, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.writer.write(context.Background(), rows, nil); err != nil {
			t.Fatal(err)
		}
		for i := range rows {
			kind := 0
			if i >= 100 {
				kind = i % len(changes)
			}
			v := make([]any, len(rareColumns))
			to := make([]any, len(v))
			for j := range v {
				to[j] = &v[j]
			}
			if err := l.readers.QueryRow("SELECT "+strings.Join(rareColumns, ", ")+" FROM request WHERE id = ?", rows[i].ID).Scan(to...); err != nil {
				t.Fatal(err)
			}
			got := strings.ReplaceAll(strings.TrimSuffix(fmt.Sprintf(strings.Repeat("%v|", len(v)), v...), "|"), " ", "")
			if got != want[kind] {
				t.Errorf("row %d, opened first %v: %s are %s, want %s", i, first, rareColumns, got, want[kind])
			}
		}
	}
}
