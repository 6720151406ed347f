package backend

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/ledger"
	"github.com/vllmdeck/vllmdeck/config"
)

func TestStatus(t *testing.T) {
	for _, tt := range []struct {
		models []api.Model
		want   string
	}{
		{nil, "ok"},
		{[]api.Model{{Ready: 2, Workers: 2}, {Ready: 1, Workers: 1}}, "ok"},
		{[]api.Model{{Ready: 2, Workers: 2}, {Ready: 1, Workers: 2}}, "degraded"},
		{[]api.Model{{Ready: 1, Workers: 2}, {Ready: 0, Workers: 1}}, "down"},
		{[]api.Model{{Ready: 0, Workers: 0}}, "down"},
		{[]api.Model{{Ready: 0, Workers: 2, Backed: true}}, "degraded"},
		{[]api.Model{{Ready: 0, Workers: 0, Backed: true}}, "ok"},
		{[]api.Model{{Ready: 0, Workers: 2, Providers: []string{"p"}}}, "down"},
	} {
		if got := status(tt.models); got != tt.want {
			t.Errorf("status(%+v) = %q, want %q", tt.models, got, tt.want)
		}
	}
}

type health struct {
	Status  string
	Version string
	Uptime  float64 `json:"uptime_seconds"`
	Memory  int64   `json:"memory_bytes"`
	Models  []struct {
		Name    string
		Ready   int `json:"ready_workers"`
		Workers int
	}
	Workers []struct {
		Name, Model, State string
		Simulated          *bool
	}
}

func (r *rig) health() (int, health) {
	r.t.Helper()
	resp, err := http.Get(r.URL() + "/health")
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	var h health
	if err := json.NewDecoder(resp.Body).Decode(&h); err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, h
}

func TestHealthFollowsTheWorkers(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.allReady()
	code, h := r.health()
	if code != 200 || h.Status != "ok" || h.Version != "1.2.3" || h.Uptime <= 0 || h.Memory <= 0 || len(h.Workers) != 2 || h.Workers[0].Simulated == nil || h.Models[0].Ready != 2 {
		t.Errorf("with all workers: HTTP %d %+v", code, h)
	}
	for i, want := range []struct {
		status string
		code   int
	}{{"degraded", 200}, {"down", 503}} {
		if err := r.Do(t.Context(), api.Action{Verb: api.WorkerDrain, Target: []string{"w0", "w1"}[i]}); err != nil {
			t.Fatal(err)
		}
		// At once, not with the next snapshot: a balancer must not be told of what is gone.
		if code, h := r.health(); code != want.code || h.Status != want.status {
			t.Errorf("with %d drained: HTTP %d %s, want %d %s", i+1, code, h.Status, want.code, want.status)
		}
	}
}

// TestMoneyIsTraceable compares what an answer, the snapshot, /cost-comparison and the ledger say
// of the same requests.
func TestMoneyIsTraceable(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.allReady()
	var info struct {
		Usage struct {
			Prompt     int64 `json:"prompt_tokens"`
			Completion int64 `json:"completion_tokens"`
		}
		Info struct {
			Prompt     int64      `json:"prompt_tokens"`
			Completion int64      `json:"completion_tokens"`
			Actual     *api.Nanos `json:"actual_usd"`
			Would      *api.Nanos `json:"would_have_cost_usd"`
			Savings    *api.Nanos `json:"savings_usd"`
			Baseline   string
			Basis      string
			Date       string `json:"price_date"`
			Simulated  bool
		} `json:"cost_info"`
	}
	var would, actual api.Nanos
	var prompt, output int64
	const n = 5
	for range n {
		status, text := r.chat(20)
		if err := json.Unmarshal([]byte(text), &info); err != nil || status != 200 {
			t.Fatalf("HTTP %d, %v: %s", status, err, text)
		}
		i := info.Info
		if i.Actual == nil || i.Would == nil || i.Savings == nil || *i.Savings != *i.Would-*i.Actual || i.Basis != api.BasisGPUTime || i.Baseline != "openai/gpt-4o-mini" || i.Date == "" {
			t.Fatalf("cost_info = %s", text)
		}
		if i.Prompt != info.Usage.Prompt || i.Completion != info.Usage.Completion || i.Completion != 20 {
			t.Errorf("cost_info counts %d + %d tokens, usage %d + %d", i.Prompt, i.Completion, info.Usage.Prompt, info.Usage.Completion)
		}
		would, actual, prompt, output = would+*i.Would, actual+*i.Actual, prompt+i.Prompt, output+i.Completion
	}
	var rows []api.Row
	until(t, "the rows are in the ledger", func() bool {
		var err error
		if rows, err = r.Spend(t.Context(), api.Query{By: []string{"class"}}); err != nil {
			t.Fatal(err)
		}
		return len(rows) == 1 && rows[0].Requests == n
	})
	row := rows[0]
	if row.Labels["class"] != api.ClassServed || *row.Actual != actual || *row.Would != would || row.Usage.Prompt() != prompt || row.Usage.Completion() != output {
		t.Errorf("ledger: %+v, actual %v, would %v; the answers said actual %v, would %v, %d + %d tokens", row, row.Actual, row.Would, actual, would, prompt, output)
	}
	var s *api.Snapshot
	until(t, "the snapshot has them", func() bool { s = r.snapshot(); return s.Money.Requests == n })
	m := s.Money
	if m.Would == nil || *m.Would != would || m.Actual == nil || *m.Actual < actual || m.Idle == nil || *m.Idle < 0 || *m.Savings != *m.Would-*m.Actual {
		t.Errorf("snapshot: actual %v, idle %v, would %v, savings %v; requests cost %v of it", m.Actual, m.Idle, m.Would, m.Savings, actual)
	}
	if m.Simulated || m.HourRate == nil || m.HourRate.String() != "3.6" || len(m.Missing) > 0 {
		t.Errorf("snapshot: simulated %v, hour %v, missing %v", m.Simulated, m.HourRate, m.Missing)
	}
	resp, err := http.Get(r.URL() + "/cost-comparison?period=today")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var v comparisonView
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		t.Fatal(err)
	}
	if v.Period != "today" || v.Requests != n || v.Would == nil || *v.Would != would || *v.Savings != *v.Would-*v.Actual || v.PriceDate == nil || v.Simulated {
		t.Errorf("/cost-comparison = %+v", v)
	}
}

// TestUnknownIsNeverZero takes away what money figures need.
func TestUnknownIsNeverZero(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.allReady()
	// A reload without rates: what an hour costs is not known any more.
	r.load = func() (*config.Config, error) {
		c := r.config(1)
		c.Cost.GPUHour = nil
		return c, nil
	}
	if err := r.reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, text := r.chat(5)
	if !strings.Contains(text, `"actual_usd":null`) || !strings.Contains(text, `"savings_usd":null`) || strings.Contains(text, `"would_have_cost_usd":null`) {
		t.Errorf("without a rate cost_info is %s; want actual and savings null, would-have-cost known", text)
	}
	until(t, "the snapshot says so", func() bool {
		m := r.snapshot().Money
		return m.Requests == 1 && m.HourRate == nil && len(m.Missing) == 1 && strings.Contains(m.Missing[0], "gpu_hour")
	})
}

func TestTotalsNeverShowLessTimeThanRequestsTook(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.allReady()
	for range 10 {
		r.chat(30)
		until(t, "it is counted", func() bool {
			m, err := r.totals(t.Context(), time.Time{}, false)
			if err != nil {
				t.Fatal(err)
			}
			if m.Idle != nil && *m.Idle < 0 || m.Workers != nil && *m.Workers < m.Shares || *m.Actual < m.Shares {
				t.Fatalf("workers %v, shares %v, idle %v, actual %v", m.Workers, m.Shares, m.Idle, m.Actual)
			}
			return m.Requests > 0
		})
	}
}

func TestPriceKnowsWhatItDoesNotKnow(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	p := r.pricing.Load()
	q := api.Request{Model: "toy", Class: api.ClassServed, Usage: api.Usage{Input: 1_000_000}, UsageSource: api.UsageUpstream}
	p.price(&q)
	if q.Would == nil || q.Would.String() != "0.15" || q.Actual == nil || *q.Actual != 0 || q.Prices == nil || q.PriceVersion == "" {
		t.Errorf("a million tokens that never reached a worker: would %v, actual %v; want 0.15 and 0", q.Would, q.Actual)
	}
	q = api.Request{Model: "toy", Class: api.ClassServed, UsageSource: api.UsageUnknown, Attempts: []api.Attempt{{Upstream: "w0", Share: api.Span(time.Second)}}}
	p.price(&q)
	if q.Would != nil || q.Actual == nil || q.Actual.String() != "0.001" {
		t.Errorf("a second of a worker at 3.60 an hour, usage unknown: would %v, actual %v; want unknown and 0.001", q.Would, q.Actual)
	}
	q = api.Request{Model: "toy", Attempts: []api.Attempt{{Upstream: "gone", Share: api.Span(time.Second)}}}
	p.price(&q)
	if q.Actual != nil {
		t.Errorf("time of a worker without a rate costs %v, want unknown", q.Actual)
	}
	q = api.Request{Model: "toy", Simulated: true, Class: api.ClassServed}
	if p.price(&q); q.Class != api.ClassSimulated {
		t.Errorf("a simulated request has class %q", q.Class)
	}
	if net := (&money{}).net(); net != nil {
		t.Errorf("net before anything was asked = %v, want unknown", net)
	}
	if got := (&money{totals: &ledger.Totals{}}).show(r.snapshot(), p); got.Savings != nil || got.Would != nil {
		t.Errorf("savings of nothing = %v of %v, want unknown", got.Savings, got.Would)
	}
}

func TestReloadIsAllOrNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.allReady()
	reload := func() error { return r.Do(t.Context(), api.Action{Verb: api.EngineReload}) }
	for name, tt := range map[string]struct {
		load func() (*config.Config, error)
		want string
	}{
		"a bad config": {func() (*config.Config, error) { return nil, errors.New("x.yaml:3:5: nonsense") }, "x.yaml:3:5: nonsense"},
		"another state": {func() (*config.Config, error) {
			c := r.config(1)
			c.State += "2"
			return c, nil
		}, "vllmdeck stop"},
		"another port": {func() (*config.Config, error) {
			c := r.config(1)
			c.Listen = "127.0.0.1:1"
			return c, nil
		}, "vllmdeck restart"},
	} {
		r.load = tt.load
		if err := reload(); !errors.Is(err, api.ErrRefused) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want ErrRefused with %q", name, err, tt.want)
		}
		if n := len(r.snapshot().Workers); n != 2 {
			t.Errorf("%s: %d workers are left of 2", name, n)
		}
	}
	r.load = func() (*config.Config, error) { return r.config(1), nil }
	if err := reload(); err != nil {
		t.Fatal(err)
	}
	until(t, "w1 is gone", func() bool { s := r.snapshot(); return len(s.Workers) == 1 && s.Workers[0].Name == "w0" })
	if status, text := r.chat(1); status != 200 {
		t.Errorf("after the reload: HTTP %d %s", status, text)
	}
	r.load = func() (*config.Config, error) {
		c := r.config(1)
		c.Gateway.Queue, c.Warnings = 7, []string{"x.yaml:3:5: vLLM 0.32 has no flag --no-such-flag"}
		return c, nil
	}
	if err := reload(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`what changed in gateway: takes effect with "vllmdeck restart"`, "has no flag --no-such-flag"} {
		if list := r.notices.list(); !slices.ContainsFunc(list, func(n api.Notice) bool { return strings.Contains(n.Text, want) }) {
			t.Errorf("notices = %+v, want one with %q", list, want)
		}
	}
}

func TestRestartAndStop(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.allReady()
	r.load = func() (*config.Config, error) { return nil, errors.New("x.yaml:3:5: nonsense") }
	if err := r.Do(t.Context(), api.Action{Verb: api.EngineRestart}); !errors.Is(err, api.ErrRefused) || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("a restart into a bad config = %v, want ErrRefused with the reason", err)
	}
	if r.snapshot().Engine.Stopping || r.Restarting() {
		t.Fatal("the refused restart has begun")
	}
	if err := r.Do(t.Context(), api.Action{Verb: api.EngineStop, Args: map[string]string{"workers": "some"}}); !errors.Is(err, api.ErrRefused) {
		t.Errorf("stop with workers=some = %v, want ErrRefused", err)
	}
	r.load = func() (*config.Config, error) { return r.config(1), nil }
	if err := r.Do(t.Context(), api.Action{Verb: api.EngineRestart}); err != nil {
		t.Fatal(err)
	}
	if err := r.Do(t.Context(), api.Action{Verb: api.EngineRestart}); !errors.Is(err, api.ErrRefused) {
		t.Errorf("a second restart = %v, want ErrRefused", err)
	}
	r.ended(10 * time.Second)
	if !r.Restarting() || r.err != nil {
		t.Errorf("restarting %v, %v; want true and no error", r.Restarting(), r.err)
	}
	if _, err := http.Get(r.URL() + "/health"); err == nil {
		t.Error("the gateway answers although the engine has ended")
	}
	r.Stop(true)
	if r.Restarting() {
		t.Error("a stop has not taken back the restart")
	}
}

// TestAPromptIsDrained begins a prompt test and ends the engine: it has its grace, as every
// other client has.
func TestAPromptIsDrained(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1, "grace: 20s")
	r.allReady()
	a := api.Action{Verb: api.PromptSend, ID: "p1", Target: "default", Text: "Count to a hundred.", Args: map[string]string{"max_tokens": "150"}}
	if err := r.Do(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	until(t, "it streams", func() bool { return stateOf(t, r.tester, "p1").State == "streaming" })
	r.Stop(false)
	r.ended(20 * time.Second)
	s := stateOf(t, r.tester, "p1")
	if s.State != "done" || s.Actual == nil || s.Would == nil || s.UsageSource != api.UsageUpstream {
		t.Errorf("state = %+v, want done with figures", s)
	}
	l, err := ledger.Open(t.Context(), r.config(1).State, r.log)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	rows, err := l.Spend(t.Context(), api.Query{By: []string{"class", "key", "outcome"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 1 || rows[0].Labels["class"] != api.ClassTester || rows[0].Labels["key"] != "console" || rows[0].Labels["outcome"] != api.OutcomeOK {
		t.Errorf("ledger = %+v, want one row of class tester, key console", rows)
	}
}

func TestCostComparisonWantsAPeriod(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	resp, err := http.Get(r.URL() + "/cost-comparison?period=year")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), "today, month or all") {
		t.Errorf("HTTP %d %s, want 400 that names the periods", resp.StatusCode, text)
	}
}
