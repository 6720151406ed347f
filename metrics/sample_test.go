package metrics

import (
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// recorded is a whole page of a live vLLM 0.32.0 after some load.
func recorded(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/vllm-0.32.0.txt")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t *testing.T, text string) *Sample {
	t.Helper()
	s, err := Parse([]byte(text))
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return s
}

func want(t *testing.T, what string, got *float64, want float64) {
	t.Helper()
	if got == nil {
		t.Errorf("%s is unknown, want %v", what, want)
	} else if math.Abs(*got-want) > 1e-9 {
		t.Errorf("%s = %v, want %v", what, *got, want)
	}
}

func TestReadsALivePage(t *testing.T) {
	s := parse(t, string(recorded(t)))
	want(t, "running", s.Running, 0)
	want(t, "waiting", s.Waiting, 0)
	want(t, "capacity", s.Capacity, 0)
	want(t, "kv", s.KV, 0)
	want(t, "generation", s.Generation, 8414)
	want(t, "prompt", s.Prompt, 887)
	want(t, "cached", s.Cached, 96)
	want(t, "preemptions", s.Preemptions, 0)
	want(t, "queries", s.Queries, 866)
	want(t, "hits", s.Hits, 96)
	want(t, "steps", s.Steps, 2114)
	if s.PromptLen.Count() != 51 || s.AnswerLen.Count() != 51 || s.PromptLen.Sum != 859 || s.NoPrefixCache || s.Drafted != nil {
		t.Errorf("lengths of %v prompts with %v tokens and %v answers, no prefix cache: %v, drafted %v; want 51 with 859, 51, false, unknown", s.PromptLen.Count(), s.PromptLen.Sum, s.AnswerLen.Count(), s.NoPrefixCache, s.Drafted)
	}
	if s.Model != "tiny" || s.Engines != 1 || s.Sleep != SleepAwake {
		t.Errorf("model %q, %d engines, %q, want tiny, 1, awake", s.Model, s.Engines, s.Sleep)
	}
	if s.KVTokens != 1048576 || s.Blocks != 32768 || s.BlockSize != 32 {
		t.Errorf("KV %d tokens, %d blocks of %d, want 1048576, 32768 of 32", s.KVTokens, s.Blocks, s.BlockSize)
	}
	if s.Sources["local_compute"] != 791 || s.Sources["local_cache_hit"] != 96 {
		t.Errorf("sources = %v, want 791 computed and 96 cached", s.Sources)
	}
	if s.Finished["stop"] != 8 || s.Finished["length"] != 43 {
		t.Errorf("finished = %v, want 8 stop and 43 length", s.Finished)
	}
	if got := s.Started.Unix(); got != 1795445993 {
		t.Errorf("started = %v, want 1795445993", got)
	}
	if s.Created < 1795446046 || s.Created > 1795446047 {
		t.Errorf("created = %v, want 1795446046.28", s.Created)
	}
	for name, h := range map[string]*Buckets{"ttft": s.TTFT, "itl": s.ITL, "e2e": s.E2E, "queue": s.Queue} {
		if h == nil || h.Count() == 0 || !math.IsInf(h.Bounds[len(h.Bounds)-1], 1) {
			t.Errorf("%s = %+v, want a histogram with observations", name, h)
		}
	}
	if s.TTFT.Count() != 53 || len(s.TTFT.Bounds) != 23 || s.TTFT.Bounds[0] != 0.001 {
		t.Errorf("ttft: %v in %v, want 53 in the 22 bounds of the page and +Inf", s.TTFT.Count(), s.TTFT.Bounds)
	}
	if len(s.Unknown) > 0 || len(s.Missing) > 0 || len(s.Broken) > 0 {
		t.Errorf("unknown %v missing %v broken %v, want none", s.Unknown, s.Missing, s.Broken)
	}
}

// twoEngines is a page of data parallelism over two engines.
const twoEngines = `# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 5.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0
vllm:num_requests_waiting{engine="1",model_name="m"} 4.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="deferred"} 1.0
vllm:num_requests_waiting_by_reason{engine="1",model_name="m",reason="capacity"} 4.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.2
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.6
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="100"} 1.0
vllm:cache_config_info{block_size="16",engine="1",num_gpu_blocks="300"} 1.0
# TYPE vllm:engine_sleep_state gauge
vllm:engine_sleep_state{engine="0",sleep_state="awake"} 1.0
vllm:engine_sleep_state{engine="1",sleep_state="awake"} 0.0
vllm:engine_sleep_state{engine="1",sleep_state="weights_offloaded"} 1.0
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.1"} 10.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="1"} 20.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf"} 20.0
vllm:time_to_first_token_seconds_count{engine="0"} 20.0
vllm:time_to_first_token_seconds_sum{engine="0"} 4.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="0.1"} 70.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="1.0"} 80.0
vllm:time_to_first_token_seconds_bucket{engine="1",le="+Inf"} 80.0
vllm:time_to_first_token_seconds_count{engine="1"} 80.0
vllm:time_to_first_token_seconds_sum{engine="1"} 6.0
`

func TestSumsOverEnginesAndWeighsKV(t *testing.T) {
	s := parse(t, twoEngines)
	want(t, "running", s.Running, 8)
	want(t, "waiting", s.Waiting, 6)
	want(t, "capacity", s.Capacity, 5)
	want(t, "kv", s.KV, 0.5) // (0.2*100 + 0.6*300) / 400
	if s.Engines != 2 || s.Blocks != 400 || s.KVTokens != 6400 {
		t.Errorf("%d engines, %d blocks, %d tokens, want 2, 400, 6400", s.Engines, s.Blocks, s.KVTokens)
	}
	if s.Sleep != SleepWeights {
		t.Errorf("sleep = %q, want %q: one engine of two sleeps", s.Sleep, SleepWeights)
	}
	if s.TTFT.Count() != 100 || s.TTFT.Counts[0] != 80 || s.TTFT.Sum != 10 {
		t.Errorf("ttft = %+v, want 100 observations, 80 under 0.1, sum 10", s.TTFT)
	}
	if s.Generation != nil || !slices.Contains(s.Missing, nameGeneration) {
		t.Errorf("generation = %v, missing %v, want unknown and named", s.Generation, s.Missing)
	}
}

func TestOldNamesAreReadOnlyWhereTheNewOnesAreAbsent(t *testing.T) {
	const old = `# TYPE vllm:gpu_cache_usage_perc gauge
vllm:gpu_cache_usage_perc{model_name="m"} 0.25
# TYPE vllm:gpu_prefix_cache_queries_total counter
vllm:gpu_prefix_cache_queries_total{model_name="m"} 40.0
# TYPE vllm:gpu_prefix_cache_hits_total counter
vllm:gpu_prefix_cache_hits_total{model_name="m"} 10.0
# TYPE vllm:time_per_output_token_seconds histogram
vllm:time_per_output_token_seconds_bucket{le="0.01"} 1.0
vllm:time_per_output_token_seconds_bucket{le="+Inf"} 2.0
vllm:time_per_output_token_seconds_count 2.0
vllm:time_per_output_token_seconds_sum 0.5
`
	s := parse(t, old)
	want(t, "kv", s.KV, 0.25)
	want(t, "queries", s.Queries, 40)
	want(t, "hits", s.Hits, 10)
	if s.ITL.Count() != 2 {
		t.Errorf("itl = %+v, want 2 observations", s.ITL)
	}
	s = parse(t, old+`# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{model_name="m"} 0.5
`)
	want(t, "kv with both names", s.KV, 0.5)
}

func TestNamesAreMatchedWhole(t *testing.T) {
	s := parse(t, "vllm:num_requests_waiting_by_reason{reason=\"capacity\"} 9\nvllm:num_requests_waiting_by_reason{reason=\"deferred\"} 3\n")
	if s.Waiting != nil {
		t.Errorf("waiting = %v from another family, want unknown", *s.Waiting)
	}
	want(t, "capacity", s.Capacity, 9)
}

func TestNewNamesAreNoticed(t *testing.T) {
	s := parse(t, "# TYPE vllm:brand_new_total counter\nvllm:brand_new_total 1\n# TYPE vllm:brand_new_created gauge\n# TYPE vllm:nixl_xfer_time histogram\n# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 1\n")
	if !slices.Equal(s.Unknown, []string{"vllm:brand_new_total"}) {
		t.Errorf("unknown = %v, want vllm:brand_new_total alone", s.Unknown)
	}
	var flood strings.Builder
	flood.WriteString("# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 1\n")
	for i := range 500 {
		flood.WriteString("# TYPE vllm:x" + strings.Repeat("y", i) + " gauge\n")
	}
	if s := parse(t, flood.String()); len(s.Unknown) != maxUnknown {
		t.Errorf("%d unknown names, want at most %d", len(s.Unknown), maxUnknown)
	}
}

func TestOneBrokenFamilyDoesNotBlindTheRest(t *testing.T) {
	s := parse(t, "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{engine=\"0} what\n# TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting 7\n")
	want(t, "waiting", s.Waiting, 7)
	if s.Running != nil || !slices.Equal(s.Broken, []string{nameRunning}) {
		t.Errorf("running = %v, broken = %v, want unknown and named", s.Running, s.Broken)
	}
}

func TestJunkValuesAreUnknownNotNumbers(t *testing.T) {
	s := parse(t, "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running NaN\n# TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total +Inf\n# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc -1\n")
	if s.Running != nil || s.Generation != nil || s.KV != nil {
		t.Errorf("running %v generation %v kv %v, want all unknown", s.Running, s.Generation, s.KV)
	}
}

func TestPagesWithoutVLLMMetricsAreAnError(t *testing.T) {
	for _, text := range []string{"", "<html>not found</html>", "# TYPE python_info gauge\npython_info 1\n"} {
		if _, err := Parse([]byte(text)); !errors.Is(err, ErrNoMetrics) {
			t.Errorf("Parse(%q) = %v, want ErrNoMetrics", text, err)
		}
	}
	if _, err := Read(strings.NewReader(strings.Repeat("#\n", maxPage))); err == nil || errors.Is(err, ErrNoMetrics) {
		t.Errorf("Read of 8 MB = %v, want an error about its size", err)
	}
}

func TestQuantileRules(t *testing.T) {
	inf := math.Inf(1)
	b := &Buckets{Bounds: []float64{0.3, 0.5, 1, inf}, Counts: []float64{50, 80, 90, 100}, Sum: 40}
	for _, c := range []struct {
		q, value  float64
		low, high bool
	}{
		{0.5, 0.3, true, false},   // in the first bucket: <0.3
		{0.65, 0.4, false, false}, // half of the second
		{0.9, 1, false, false},
		{0.95, 1, false, true}, // past the last finite bound: >1
	} {
		e, ok := b.Quantile(c.q)
		if !ok || math.Abs(e.Value-c.value) > 1e-9 || e.Low != c.low || e.High != c.high || e.Mean != 0.4 || e.Count != 100 {
			t.Errorf("Quantile(%v) = %+v, %v, want %v low %v high %v mean 0.4", c.q, e, ok, c.value, c.low, c.high)
		}
	}
	if e, ok := (&Buckets{Bounds: []float64{1, inf}, Counts: []float64{0, 0}}).Quantile(0.5); ok {
		t.Errorf("Quantile of nothing = %+v, want none", e)
	}
	if _, ok := (*Buckets)(nil).Quantile(0.5); ok {
		t.Error("Quantile of no histogram, want none")
	}
}

func TestScraper(t *testing.T) {
	page := recorded(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/metrics":
			http.NotFound(w, r)
		case r.Header.Get("Authorization") != "Bearer k":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			_, _ = w.Write(page)
		}
	}))
	defer srv.Close()
	s, err := Scraper{URL: srv.URL + "/", Key: "k"}.Scrape(t.Context())
	if err != nil || s.Generation == nil || *s.Generation != 8414 {
		t.Errorf("Scrape = %v, %v, want 8414 tokens", s, err)
	}
	if _, err := (Scraper{URL: srv.URL}).Scrape(t.Context()); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("Scrape without key = %v, want an error with the status", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(recorded(f)[:6000])
	f.Add([]byte(twoEngines))
	f.Add([]byte("vllm:num_requests_running{a=\"b\"} 1e400\n# TYPE vllm:iteration_tokens_total histogram\nvllm:iteration_tokens_total_count -3\n"))
	f.Add([]byte("# TYPE vllm:e2e_request_latency_seconds histogram\nvllm:e2e_request_latency_seconds_bucket{le=\"NaN\"} 1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse(text)
		if err != nil {
			return
		}
		var tr Tracker
		tr.Add(noon, s)
		tr.Add(noon.Add(time.Second), s)
		r := tr.Rates(noon.Add(time.Second))
		for _, v := range []*float64{s.Running, s.Waiting, s.KV, s.Generation, s.Prompt, s.Steps, r.Out, r.In, r.Prefix, r.Steps} {
			if v != nil && (math.IsNaN(*v) || *v < 0) {
				t.Errorf("a value is %v, want unknown or not negative", *v)
			}
		}
		for _, e := range []*Estimate{r.TTFT95, r.ITL95, r.E2E95, r.Queue95} {
			if e != nil && (math.IsNaN(e.Value) || math.IsInf(e.Value, 0)) {
				t.Errorf("a quantile is %v, want a number", e.Value)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	page := recorded(b)
	b.SetBytes(int64(len(page)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(page); err != nil {
			b.Fatal(err)
		}
	}
}
