package metrics

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// exporter has seen one model with a worker, and one request of each kind.
func exporter() *Exporter {
	e := NewExporter("1.2.3")
	e.State(&api.Snapshot{
		Engine:  api.Engine{Memory: 50 << 20, Ledger: api.Ledger{Queued: 3}},
		Models:  []api.Model{{Name: "toy"}},
		Traffic: api.Traffic{InFlight: 4, Queued: 2},
		Money:   api.Money{Actual: new(2 * api.Dollar), Savings: new(-api.Dollar / 2)},
		Providers: []api.Provider{{
			Name: "openai", State: api.ProviderCapped, SpentDay: new(5 * api.Dollar), CapDay: new(5 * api.Dollar), SpentMonth: new(7 * api.Dollar),
		}},
		Workers: []api.Worker{{
			Name: "w0", Model: "toy", State: api.Ready, Restarts: 2, InFlight: 4, KV: new(0.25),
			Phases: []api.PhaseTime{{Name: api.PhaseWeights, Seconds: 12.5, Done: true}},
		}},
	})
	e.Observe(&api.Request{
		ID: "req-secret", Key: "key-secret", Model: "toy", Worker: "w0", Route: "chat", Outcome: api.OutcomeOK, Class: api.ClassServed,
		Usage: api.Usage{Input: 70, CacheRead: 30, Output: 12}, UsageSource: api.UsageUpstream,
		TTFT: api.Span(80 * time.Millisecond), ITL: api.Span(12 * time.Millisecond), Duration: api.Span(2 * time.Second),
		Actual: new(api.Dollar / 4),
	})
	return e
}

func exposed(t *testing.T, e *Exporter) string {
	t.Helper()
	w := httptest.NewRecorder()
	e.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	b, _ := io.ReadAll(w.Result().Body)
	if w.Code != 200 {
		t.Fatalf("page: %d %s", w.Code, b)
	}
	return string(b)
}

func has(t *testing.T, page, line string) {
	t.Helper()
	if !strings.Contains("\n"+page, "\n"+line+"\n") {
		name, _, _ := strings.Cut(line, "{")
		var got []string
		for l := range strings.Lines(page) {
			if strings.HasPrefix(l, name) {
				got = append(got, l)
			}
		}
		t.Errorf("page lacks %s; of that name it has:\n%s", line, strings.Join(got, ""))
	}
}

func TestPageHasTheFixedNames(t *testing.T) {
	p := exposed(t, exporter())
	for _, line := range []string{
		`vllmdeck_requests_total{model="toy",outcome="ok",route="chat",simulated="false",worker="w0"} 1`,
		`vllmdeck_ttft_seconds_bucket{model="toy",simulated="false",le="0.1"} 1`,
		`vllmdeck_inter_token_seconds_count{model="toy",simulated="false"} 1`,
		`vllmdeck_request_duration_seconds_sum{model="toy",simulated="false"} 2`,
		`vllmdeck_tokens_total{class="input",model="toy",simulated="false"} 70`,
		`vllmdeck_tokens_total{class="cache_read",model="toy",simulated="false"} 30`,
		`vllmdeck_cost_usd_total{class="served",simulated="false"} 0.25`,
		`vllmdeck_worker_state{model="toy",simulated="false",state="ready",worker="w0"} 1`,
		`vllmdeck_worker_state{model="toy",simulated="false",state="failed",worker="w0"} 0`,
		`vllmdeck_worker_start_seconds{phase="weights",worker="w0"} 12.5`,
		`vllmdeck_worker_restarts_total{worker="w0"} 2`,
		`vllmdeck_worker_kv_cache_ratio{worker="w0"} 0.25`,
		`vllmdeck_requests_in_flight 4`,
		`vllmdeck_requests_queued 2`,
		`vllmdeck_engine_memory_bytes 5.24288e+07`,
		`vllmdeck_ledger_queued_rows 3`,
		`vllmdeck_period_usd{kind="savings",simulated="false"} -0.5`,
	} {
		has(t, p, line)
	}
	if !strings.Contains(p, `vllmdeck_build_info{goversion="go`) || !strings.Contains(p, `version="1.2.3"} 1`) {
		t.Error("page lacks vllmdeck_build_info of version 1.2.3")
	}
	if strings.Contains(p, `kind="would_have_cost"`) {
		t.Error("page shows a would-have cost that is not known")
	}
}

func TestPageShowsWhatIsPaid(t *testing.T) {
	page := exposed(t, exporter())
	has(t, page, `vllmdeck_provider_state{provider="openai",state="capped"} 1`)
	has(t, page, `vllmdeck_provider_state{provider="openai",state="ok"} 0`)
	has(t, page, `vllmdeck_provider_spent_usd{period="day",provider="openai"} 5`)
	has(t, page, `vllmdeck_provider_spent_usd{period="month",provider="openai"} 7`)
	has(t, page, `vllmdeck_provider_cap_usd{period="day",provider="openai"} 5`)
	if strings.Contains(page, `vllmdeck_provider_cap_usd{period="month"`) {
		t.Error("a cap is shown where there is none")
	}
}

func TestPageShowsTheCards(t *testing.T) {
	e := exporter()
	e.State(&api.Snapshot{
		Strays: []api.Stray{{PID: 1}, {PID: 2}},
		GPUs: []api.GPU{
			{
				Index: "0", UUID: "GPU-a", Utilisation: new(0.5), MemoryUsed: new(int64(1 << 30)), MemoryTotal: new(int64(4 << 30)), Temperature: new(84.0),
				Power: new(320.0), PowerLimit: new(350.0), Clock: new(1905.0), Energy: new(0.5), ECC: new(int64(3)), Throttle: []string{"power cap", "thermal"},
				Xids:      []api.Xid{{Code: 79, Time: time.Unix(200, 0)}, {Code: 79, Time: time.Unix(100, 0)}},
				Processes: []api.GPUProcess{{PID: 1, Worker: "w0"}, {PID: 2, Stray: true}, {PID: 3}, {PID: 4}},
			},
			{Index: "1", UUID: "GPU-b"},
			{Index: "1", UUID: "GPU-b"}, // two series of one name would fail the page
		},
	})
	page := exposed(t, e)
	for _, line := range []string{
		`vllmdeck_gpu_utilisation_ratio{gpu="0",uuid="GPU-a"} 0.5`,
		`vllmdeck_gpu_memory_used_bytes{gpu="0",uuid="GPU-a"} 1.073741824e+09`,
		`vllmdeck_gpu_memory_total_bytes{gpu="0",uuid="GPU-a"} 4.294967296e+09`,
		`vllmdeck_gpu_temperature_celsius{gpu="0",uuid="GPU-a"} 84`,
		`vllmdeck_gpu_power_watts{gpu="0",uuid="GPU-a"} 320`,
		`vllmdeck_gpu_power_limit_watts{gpu="0",uuid="GPU-a"} 350`,
		`vllmdeck_gpu_clock_hertz{gpu="0",uuid="GPU-a"} 1.905e+09`,
		`vllmdeck_gpu_energy_joules_total{gpu="0",uuid="GPU-a"} 1800`,
		`vllmdeck_gpu_ecc_uncorrected_errors_total{gpu="0",uuid="GPU-a"} 3`,
		`vllmdeck_gpu_throttled{gpu="0",reason="power cap",uuid="GPU-a"} 1`,
		`vllmdeck_gpu_xid_timestamp_seconds{code="79",gpu="0",uuid="GPU-a"} 200`,
		`vllmdeck_gpu_processes{gpu="0",owner="worker",uuid="GPU-a"} 1`,
		`vllmdeck_gpu_processes{gpu="0",owner="stray",uuid="GPU-a"} 1`,
		`vllmdeck_gpu_processes{gpu="0",owner="other",uuid="GPU-a"} 2`,
		`vllmdeck_strays 2`,
	} {
		has(t, page, line)
	}
	if strings.Contains(page, `vllmdeck_gpu_energy_joules_total{gpu="1"`) || strings.Contains(page, `vllmdeck_gpu_power_watts{gpu="1"`) {
		t.Error("a card that reports nothing has figures")
	}
	problems, err := testutil.GatherAndLint(e.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "vllmdeck_gpu") {
			t.Errorf("promlint: %s: %s", p.Metric, p.Text)
		}
	}
}

func TestPageHoldsNoKeyAndNoRequestID(t *testing.T) {
	if p := exposed(t, exporter()); strings.Contains(p, "secret") {
		t.Error("the page holds a client key or a request id")
	}
}

func TestPageIsLintFree(t *testing.T) {
	problems, err := testutil.GatherAndLint(exporter().registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "vllmdeck_") {
			t.Errorf("promlint: %s: %s", p.Metric, p.Text)
		}
	}
}

func TestNamesThatClientsMakeUpBecomeNoSeries(t *testing.T) {
	e := exporter()
	for i := range 2000 {
		e.Observe(&api.Request{
			Model: fmt.Sprint("made-up-", i), Route: fmt.Sprint("/r", i), Worker: fmt.Sprint("w\xff", i),
			Outcome: "outcome " + strconv.Itoa(i), Class: fmt.Sprint("class", i), Actual: new(api.Dollar),
		})
	}
	has(t, exposed(t, e), `vllmdeck_cost_usd_total{class="other",simulated="false"} 2000`)
	if n := testutil.CollectAndCount(e.requests); n > maxValues+2 {
		t.Errorf("%d series of requests after 2000 made-up names, want at most %d", n, maxValues+2)
	}
	if p := exposed(t, e); strings.Contains(p, "made-up") || strings.Contains(p, "outcome 1") {
		t.Error("a made-up name is a label")
	}
}

func TestModelsStayKnownAfterTheyLeft(t *testing.T) {
	e := exporter()
	e.State(&api.Snapshot{Models: []api.Model{{Name: "new"}}})
	for _, m := range []string{"toy", "new"} {
		e.Observe(&api.Request{Model: m, Outcome: api.OutcomeRejected, Route: "chat"})
		has(t, exposed(t, e), `vllmdeck_requests_total{model="`+m+`",outcome="rejected",route="chat",simulated="false",worker="none"} 1`)
	}
	if p := exposed(t, e); strings.Contains(p, "vllmdeck_worker_state") {
		t.Error("a worker that is gone still has a state")
	}
}

func TestLegsThatFailedAreClassRetry(t *testing.T) {
	e := exporter()
	e.Observe(&api.Request{
		Model: "toy", Outcome: api.OutcomeOK, Class: api.ClassFailover, Actual: new(3 * api.Dollar),
		Attempts: []api.Attempt{{Upstream: "w0", Actual: new(api.Dollar)}, {Upstream: "openai", Actual: new(2 * api.Dollar)}},
	})
	p := exposed(t, e)
	has(t, p, `vllmdeck_cost_usd_total{class="retry",simulated="false"} 1`)
	has(t, p, `vllmdeck_cost_usd_total{class="failover",simulated="false"} 2`)
}

func TestAnUnknownCostAddsNothing(t *testing.T) {
	e := NewExporter("x")
	e.Observe(&api.Request{Outcome: api.OutcomeOK, Class: api.ClassServed, UsageSource: api.UsageUnknown, Usage: api.Usage{Input: 9}})
	if p := exposed(t, e); strings.Contains(p, "vllmdeck_cost_usd_total{") || strings.Contains(p, "vllmdeck_tokens_total{") {
		t.Error("a request of unknown cost and usage made series of them")
	}
}
