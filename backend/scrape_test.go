package backend

import (
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// page is a metrics page of a server that has ended so many requests.
func page(requests int, more string) string {
	return fmt.Sprintf(`# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",enable_prefix_caching="False",engine="0",num_gpu_blocks="100"} 1.0
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="m"} %[1]d00.0
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{engine="0",model_name="m"} %[1]d.0
# TYPE vllm:request_success_total counter
vllm:request_success_total{engine="0",finished_reason="stop",model_name="m"} %[1]d.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="m"} %[1]d.0
# TYPE vllm:spec_decode_num_draft_tokens_total counter
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="m"} %[1]d0.0
# TYPE vllm:spec_decode_num_accepted_tokens_total counter
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="m"} %[1]d.0
# TYPE vllm:request_prompt_tokens histogram
vllm:request_prompt_tokens_bucket{engine="0",le="100.0",model_name="m"} 0.0
vllm:request_prompt_tokens_bucket{engine="0",le="200.0",model_name="m"} %[1]d.0
vllm:request_prompt_tokens_bucket{engine="0",le="+Inf",model_name="m"} %[1]d.0
vllm:request_prompt_tokens_count{engine="0",model_name="m"} %[1]d.0
vllm:request_prompt_tokens_sum{engine="0",model_name="m"} %[1]d50.0
# TYPE vllm:request_generation_tokens histogram
vllm:request_generation_tokens_bucket{engine="0",le="50.0",model_name="m"} %[1]d.0
vllm:request_generation_tokens_bucket{engine="0",le="+Inf",model_name="m"} %[1]d.0
vllm:request_generation_tokens_count{engine="0",model_name="m"} %[1]d.0
vllm:request_generation_tokens_sum{engine="0",model_name="m"} %[1]d0.0
%[2]s`, requests, more)
}

func TestScrapesTellWhatAdviceIsBasedOn(t *testing.T) {
	t.Parallel()
	e := idleEngine(t, "workers: [{name: w0, model: m, attach: \"http://127.0.0.1:1\", gpus: 1}]\n")
	var n atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, page(int(10+5*n.Add(1)), "# TYPE vllm:frobs gauge\nvllm:frobs 1.0\n"))
	}))
	defer srv.Close()
	s := e.newScraper(srv.URL, "")
	if _, err := s.Scrape(t.Context()); err != nil {
		t.Fatal(err)
	}
	until(t, "a rate is known", func() bool {
		r, err := s.Scrape(t.Context())
		return err == nil && r.Accept != nil
	})
	before := n.Load()
	r, err := s.Scrape(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	scrapes := float64(n.Load() - 1)
	if n.Load() != before+1 {
		t.Fatal("one call is not one scrape")
	}
	for name, c := range map[string]struct {
		got  *float64
		want float64
	}{
		"preemptions": {r.Totals.Preemptions, 5 * scrapes}, "finished": {r.Totals.Finished, 10 * scrapes}, "at length": {r.Totals.Length, 5 * scrapes},
		"drafted": {r.Totals.Drafted, 50 * scrapes}, "accepted": {r.Totals.Accepted, 5 * scrapes}, "generated": {r.Totals.Generated, 500 * scrapes},
		"longest": {r.Totals.Longest, 250}, "acceptance": {r.Accept, 0.1},
	} {
		if c.got == nil || math.Abs(*c.got-c.want) > 1e-9 {
			t.Errorf("%s = %v, want %v", name, show(c.got), c.want)
		}
	}
	if !r.NoPrefixCache {
		t.Error("that its prefix cache is off is not known")
	}
	// What vLLM's next version brings or drops is told once.
	told := func(part string) (count int) {
		for _, x := range e.notices.list() {
			if strings.Contains(x.Text, part) && x.Level == "info" {
				count++
			}
		}
		return count
	}
	if told("does not know, and leaves alone: vllm:frobs") != 1 || told("does not export what others do") != 1 || told("vllm:time_to_first_token_seconds") != 1 {
		t.Errorf("notices: %+v", e.notices.list())
	}
}

func show(v *float64) any {
	if v == nil {
		return "unknown"
	}
	return *v
}
