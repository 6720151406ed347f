package tui

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// exported presses ctrl+s and reads the files that come of it.
func exported(t *testing.T, c *Console) map[string]string {
	t.Helper()
	t.Chdir(t.TempDir())
	cmd := c.export()
	if cmd == nil {
		t.Fatal("nothing is exported")
	}
	c.Update(cmd())
	out := map[string]string{}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", f.Name(), info.Mode())
		}
		out[filepath.Ext(f.Name())] = string(b)
		if !strings.HasPrefix(f.Name(), "vllmdeck-") {
			t.Errorf("file %q", f.Name())
		}
	}
	return out
}

func TestExportWritesThePaneAndItsData(t *testing.T) {
	s := fixture("real", fixedNow)
	s.Requests[3].Key = "=HYPERLINK(\"x\")"
	c := at(120, 40, s, Options{View: int(viewRequests)})
	got := exported(t, c)
	if !strings.Contains(got[".txt"], "TTFT") || strings.Contains(got[".txt"], "\x1b") {
		t.Errorf("text of the pane:\n%s", got[".txt"])
	}
	rows, err := csv.NewReader(strings.NewReader(got[".csv"])).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != len(s.Requests)+1 {
		t.Fatalf("%d rows, want %d", len(rows), len(s.Requests)+1)
	}
	col := func(name string) int {
		for i, h := range rows[0] {
			if h == name {
				return i
			}
		}
		t.Fatalf("no column %s in %q", name, rows[0])
		return 0
	}
	if first := rows[1]; first[col("prompt_tokens")] != "" || first[col("actual_usd")] != "" || first[col("ttft_s")] != "" {
		t.Errorf("what is not known of a queued request is not empty: %q", first)
	}
	if r, want := rows[3], s.Requests[2].Actual.USD(); r[col("actual_usd")] != strconv.FormatFloat(want, 'f', -1, 64) {
		t.Errorf("actual_usd = %s, want %v", r[col("actual_usd")], want)
	}
	if key := rows[4][col("key")]; !strings.HasPrefix(key, "'=") {
		t.Errorf("key %q is a formula to a spreadsheet", key)
	}
	if !strings.Contains(string(c.toast), ".csv and .txt") && !strings.Contains(string(c.toast), ".txt and .csv") {
		t.Errorf("toast %q does not name the files", c.toast)
	}
}

func TestExportOfEveryPaneHasOneWidth(t *testing.T) {
	c := at(120, 40, fixture("sim", fixedNow), Options{Demo: true})
	for _, v := range views {
		for _, id := range panesOf(v.id) {
			rows := c.paneData(id)
			for _, r := range rows {
				if len(r) != len(rows[0]) {
					t.Errorf("pane %s: a row of %d cells under %d titles", spec(id).name, len(r), len(rows[0]))
				}
			}
			if len(c.paneText(id)) == 0 && id != paneLogs {
				t.Errorf("pane %s has no text", spec(id).name)
			}
		}
	}
	t.Chdir(t.TempDir())
	msg, ok := c.export()().(savedMsg)
	if !ok || msg.err != nil || !strings.Contains(msg.paths[0], "SIMULATED") {
		t.Errorf("export of a demo = %+v, want files that say SIMULATED", msg)
	}
}

func TestExportDoesNotOverwrite(t *testing.T) {
	dir := t.TempDir()
	if _, err := save(dir, "x", map[string][]byte{".txt": []byte("a")}); err != nil {
		t.Fatal(err)
	}
	if _, err := save(dir, "x", map[string][]byte{".txt": []byte("b")}); err == nil {
		t.Error("a file that was there is written over")
	}
}

func TestExportOfALogIsTheWholeLog(t *testing.T) {
	c := at(120, 40, fixture("real", fixedNow), Options{View: int(viewWorkers)})
	press(c, "v")
	var lines []api.Line
	for i := range 300 {
		lines = append(lines, api.Line{Seq: uint64(i + 1), Text: "line \x1b[31m" + strconv.Itoa(i)})
	}
	c.logs.lines, c.logs.after = nil, 0
	c.logs.refilter()
	c.logs.add(lines)
	if got := string(c.paneText(c.focused())); strings.Count(got, "\n") != 300 || strings.Contains(got, "\x1b") {
		t.Errorf("%d lines, want 300 without an escape", strings.Count(got, "\n"))
	}
}
