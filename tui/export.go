package tui

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// savedMsg says where an export went.
type savedMsg struct {
	paths []string
	err   error
}

// export writes the focused pane to files: what it shows as text, and its data as CSV where it has
// any. They go to the current folder, or, where that cannot be written, to the one for temporary files.
func (c *Console) export() tea.Cmd {
	if c.snap == nil {
		c.say(stWarn, "nothing to export yet")
		return nil
	}
	id := c.focused()
	files := map[string][]byte{".txt": c.paneText(id)}
	if rows := c.paneData(id); len(rows) > 0 {
		var b bytes.Buffer
		w := csv.NewWriter(&b)
		_ = w.WriteAll(rows) // to memory
		files[".csv"] = b.Bytes()
	}
	name := strings.ToLower(strings.ReplaceAll(string(spec(id).name), " ", "-"))
	if simulated(c.snap) {
		name = "SIMULATED-" + name
	}
	name = "vllmdeck-" + name + "-" + c.now().Format("20060102-150405")
	return func() tea.Msg {
		folder, err := os.Getwd()
		if err != nil {
			folder = os.TempDir()
		}
		paths, err := save(folder, name, files)
		if err != nil {
			paths, err = save(os.TempDir(), name, files)
		}
		return savedMsg{paths, err}
	}
}

// save writes files that must not be there yet, in the order of their endings.
func save(folder, name string, files map[string][]byte) ([]string, error) {
	var paths []string
	for _, ext := range slices.Sorted(mapKeys(files)) {
		path := filepath.Join(folder, name+ext)
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return nil, fmt.Errorf("export: %w", err)
		}
		_, err = f.Write(files[ext])
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return nil, fmt.Errorf("export: %w", err)
		}
		paths = append(paths, path)
	}
	return paths, nil
}

func mapKeys(m map[string][]byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func (c *Console) saved(msg savedMsg) {
	if msg.err != nil {
		c.say(stBad, c.g.bad+" "+clean(msg.err.Error()))
		return
	}
	t := clean(msg.paths[0])
	if n := len(msg.paths); n > 1 {
		t = clean(msg.paths[n-1]) + " and " + clean(filepath.Ext(msg.paths[0]))
	}
	c.say(stOK, c.g.ok+" saved "+t)
}

// paneText is a pane as it is drawn, without colours and without what is cut off below; a log whole.
func (c *Console) paneText(id paneID) []byte {
	var b strings.Builder
	if id == paneLogs || id == paneWorker && c.detailLog() != "" {
		for i := range c.logs.count() {
			b.WriteString(string(Sanitize(c.logs.at(i).Text)) + "\n")
		}
		return []byte(b.String())
	}
	r := Rect{Pane: id, W: max(c.w, 60), H: max(c.h, 60), Boxed: true}
	for _, line := range c.drawPane(r, false) {
		b.WriteString(strings.TrimRight(ansi.Strip(line), " ") + "\n")
	}
	return []byte(b.String())
}

// paneData is the data of a pane as rows of a table, the titles first; nil where it has none. What is
// not known is empty, money is in dollars, times are in UTC, durations in seconds.
func (c *Console) paneData(id paneID) [][]string {
	switch id {
	case paneWorkers, paneWorker:
		return c.workersData()
	case paneRequests, paneRequest:
		return c.requestsData()
	case paneThroughput, paneLatency, paneStages:
		return c.chartsData()
	case paneNotices, paneEvents:
		rows := [][]string{{"time", "level", "active", "worker", "text"}}
		for _, n := range c.noticeRows() {
			rows = append(rows, []string{stamp(n.Time), n.Level, strconv.FormatBool(n.Active), cell(n.Worker), cell(n.Text)})
		}
		return rows
	case paneMoney, paneCosts, paneClasses, paneRates:
		return c.moneyData()
	case paneKeys:
		return c.keysData()
	case paneStrays:
		rows := [][]string{{"pid", "name", "worker", "started", "rss_bytes", "gpu_memory_bytes"}}
		for _, s := range c.snap.Strays {
			rows = append(rows, []string{strconv.Itoa(s.PID), cell(s.Name), cell(s.Worker), stamp(s.Started), strconv.FormatInt(s.RSS, 10), strconv.FormatInt(s.GPU, 10)})
		}
		return rows
	case paneCache:
		return c.cacheData()
	}
	return nil
}

func (c *Console) keysData() [][]string {
	rows := [][]string{{"key", "source", "state", "requests_last_minute", "tokens_last_minute", "in_flight", "spent_day_usd", "budget_day_usd", "spent_month_usd", "budget_month_usd", "expires", "models", "priority", "failover", "capture"}}
	for _, k := range c.keysByUse() {
		row := []string{cell(k.Name), k.Source, k.State(c.snap.Time), "", "", "", "", dollarsOf(k.Limits.Day), "", dollarsOf(k.Limits.Month), stamp(k.Expires), cell(strings.Join(k.Limits.Models, " ")), k.Limits.Priority, k.Limits.Failover, strconv.FormatBool(k.Capture)}
		if u := k.Use; u != nil {
			row[3], row[4], row[5], row[6], row[8] = strconv.FormatInt(u.Requests, 10), strconv.FormatInt(u.Tokens, 10), strconv.Itoa(u.InFlight), dollarsOf(&u.Day), dollarsOf(&u.Month)
		}
		rows = append(rows, row)
	}
	return rows
}

func (c *Console) cacheData() [][]string {
	rows := [][]string{{"model", "size_bytes", "last_read", "workers", "missing", "partial_bytes"}}
	if c.snap.Cache == nil {
		return nil
	}
	for _, m := range c.snap.Cache.Models {
		rows = append(rows, []string{cell(m.Name), strconv.FormatInt(m.Size, 10), stamp(m.Used), cell(strings.Join(m.Workers, " ")), cell(strings.Join(m.Missing, " ")), strconv.FormatInt(m.Partial, 10)})
	}
	return rows
}

func (c *Console) workersData() [][]string {
	rows := [][]string{{"worker", "model", "kind", "simulated", "state", "since", "running", "waiting", "kv_cache", "output_tokens_per_s", "prompt_tokens_per_s", "ttft_p95_s", "prefix_hit", "cpu_cores", "rss_bytes", "restarts", "usd_per_hour", "preemptions_per_s", "spec_accept", "crashes", "blocked", "error"}}
	for _, w := range c.workerRows() {
		rows = append(rows, []string{
			cell(w.Name), cell(w.Model), w.Kind, strconv.FormatBool(w.Simulated), string(w.State), stamp(w.Since), figure(val(w.Running)), figure(val(w.Waiting)), figure(val(w.KV)),
			figure(val(w.OutRate)), figure(val(w.InRate)), figure(val(w.TTFT95)), figure(val(w.Prefix)), figure(val(w.CPU)), strconv.FormatInt(w.RSS, 10), strconv.Itoa(w.Restarts), dollarsOf(w.HourCost), figure(val(w.Preempt)), figure(val(w.Accept)), strconv.Itoa(w.Crashes), cell(w.Blocked), cell(w.Error),
		})
	}
	return rows
}

func (c *Console) requestsData() [][]string {
	rows := [][]string{{"id", "started", "model", "worker", "key", "class", "simulated", "outcome", "status", "finish", "usage_source", "prompt_tokens", "cached_tokens", "completion_tokens", "queue_s", "ttft_s", "duration_s", "actual_usd", "would_have_cost_usd", "health", "error"}}
	for _, r := range c.requestRows() {
		count := func(n int64) string {
			if r.UsageSource == api.UsageUnknown || r.UsageSource == "" {
				return ""
			}
			return strconv.FormatInt(n, 10)
		}
		seconds := func(s api.Span) string { return figure(orNaN(time.Duration(s).Seconds())) }
		prompt := count(r.Usage.Prompt())
		if promptTokens(&r) == unknown {
			prompt = ""
		}
		rows = append(rows, []string{
			r.ID, stamp(r.Started), cell(r.Model), cell(r.Worker), cell(r.Key), r.Class, strconv.FormatBool(r.Simulated), r.Outcome, strconv.Itoa(r.Status), cell(r.Finish), r.UsageSource,
			prompt, count(r.Usage.CacheRead), count(r.Usage.Completion()), figure(time.Duration(r.Queue).Seconds()), seconds(r.TTFT), seconds(r.Duration), dollarsOf(r.Actual), dollarsOf(r.Would), figure(val(r.Health)), cell(r.Error),
		})
	}
	return rows
}

func (c *Console) chartsData() [][]string {
	w := c.win()
	if w == nil {
		return nil
	}
	series := []struct {
		name string
		s    api.Series
	}{
		{"requests_per_s", w.Requests},
		{"errors_per_s", w.Errors},
		{"output_tokens_per_s", w.Output},
		{"prompt_tokens_per_s", w.Prompt},
		{"in_flight", w.InFlight},
		{"ttft_p50_s", w.TTFT50},
		{"ttft_p95_s", w.TTFT95},
		{"e2e_p95_s", w.E2E95},
		{"itl_p95_s", w.ITL95},
		{"net_usd", w.Savings},
	}
	head := []string{"bucket_start", "bucket_s"}
	n := 0
	for _, s := range series {
		head = append(head, s.name)
		n = max(n, len(s.s))
	}
	rows := [][]string{head}
	for i := range n {
		row := []string{stamp(w.End.Add(-time.Duration(n-i) * time.Duration(w.Bucket))), figure(time.Duration(w.Bucket).Seconds())}
		for _, s := range series {
			v := math.NaN()
			if j := len(s.s) - n + i; j >= 0 {
				v = s.s[j]
			}
			row = append(row, figure(v))
		}
		rows = append(rows, row)
	}
	return rows
}

func (c *Console) moneyData() [][]string {
	m := &c.snap.Money
	rows := [][]string{{"figure", "usd"}}
	for _, f := range []struct {
		name string
		n    *api.Nanos
	}{
		{"actual", m.Actual}, {"idle", m.Idle}, {"would_have_cost", m.Would}, {"net", m.Savings}, {"net_low", m.Low}, {"net_high", m.High}, {"workers_per_hour", m.HourRate},
	} {
		rows = append(rows, []string{f.name, dollarsOf(f.n)})
	}
	if h := m.Hostile; h != nil {
		rows = append(rows, []string{"hosted_elsewhere", dollarsOf(h.Would)}, []string{"net_against_hosted_elsewhere", dollarsOf(h.Savings)})
	}
	for _, k := range m.Classes {
		rows = append(rows, []string{"class_" + cell(k.Class), dollarsOf(k.Actual)})
	}
	return rows
}

func figure(v float64) string {
	if !known(v) {
		return ""
	}
	return strconv.FormatFloat(v, 'g', 10, 64)
}

func dollarsOf(n *api.Nanos) string {
	if n == nil {
		return ""
	}
	return strconv.FormatFloat(n.USD(), 'f', -1, 64)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// cell is a foreign text for a table: safe to show, and no formula to a spreadsheet.
func cell(s string) string {
	t := string(clean(s))
	if strings.IndexAny(t, "=+-@") == 0 {
		return "'" + t
	}
	return t
}
