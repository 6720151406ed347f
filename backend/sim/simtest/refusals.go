package simtest

import (
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"testing"
)

func quoteJSON(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

func errorBodies(t *testing.T, s Target) {
	limit := parse(t, s.do(t, "GET", "/v1/models", "").body).num("data.0.max_model_len")
	long := strings.Repeat("zq ", limit)
	null := any(nil)
	for _, c := range []struct {
		path, body string
		status     int
		kind       string
		param      any
		message    string // a part of it
	}{
		{"/v1/chat/completions", `{"model":"` + s.Model + `",`, 400, "Bad Request", "*", "JSON decode error"},
		{"/v1/chat/completions", "", 400, "*", "*", ""},
		{"/v1/chat/completions", `[1]`, 400, "Bad Request", "body", "valid dictionary"},
		{"/v1/chat/completions", `{}`, 400, "Bad Request", "body.messages", "Field required"},
		{"/v1/chat/completions", `{"messages":"x"}`, 400, "Bad Request", "body.messages", "valid list"},
		{"/v1/chat/completions", `{"messages":[5]}`, 400, "Bad Request", "body.messages.0.ChatCompletionDeveloperMessageParam", "valid dictionary"},
		{"/v1/chat/completions", `{"messages":[]}`, 400, "BadRequestError", null, "empty conversation"},
		{"/v1/chat/completions", `{"model":"nope",` + user + `}`, 404, "NotFoundError", "model", "The model `nope` does not exist. Valid aliases: " + s.Model},
		{"/v1/chat/completions", `{` + user + `,"max_tokens":0}`, 400, "BadRequestError", "max_tokens", "max_tokens must be at least 1, got 0."},
		{"/v1/chat/completions", `{` + user + `,"max_tokens":"x"}`, 400, "Bad Request", "body.max_tokens", "valid integer"},
		{"/v1/chat/completions", fmt.Sprintf(`{`+user+`,"max_tokens":%d}`, limit+1), 400, "BadRequestError", "max_tokens", fmt.Sprintf("max_tokens=%d cannot be greater than max_model_len=%d", limit+1, limit)},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":"` + long + `"}]}`, 400, "BadRequestError", "input_tokens", fmt.Sprintf("maximum context length is %d tokens", limit)},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":"` + strings.Repeat(long, 8) + `"}]}`, 400, "BadRequestError", "*", fmt.Sprintf("maximum context length is %d tokens", limit)},
		{"/v1/chat/completions", `{` + user + `,"temperature":-1}`, 400, "BadRequestError", "temperature", "non-negative, got -1.0"},
		{"/v1/chat/completions", `{` + user + `,"temperature":3}`, 400, "BadRequestError", "temperature", "in [0, 2], got 3.0"},
		{"/v1/chat/completions", `{` + user + `,"top_p":0}`, 400, "BadRequestError", "top_p", "in (0, 1], got 0.0"},
		{"/v1/chat/completions", `{` + user + `,"n":0}`, 400, "BadRequestError", null, "n must be at least 1, got 0."},
		{"/v1/chat/completions", `{` + user + `,"n":2,"temperature":0}`, 400, "BadRequestError", null, "greedy sampling"},
		{"/v1/chat/completions", `{` + user + `,"stream_options":{"include_usage":true}}`, 400, "BadRequestError", "stream_options", "`stream=True`"},
		{"/v1/chat/completions", `{` + user + `,"top_logprobs":2}`, 400, "BadRequestError", "top_logprobs", "`logprobs` must be set"},
		{"/v1/chat/completions", `{` + user + `,"stop":["a","b","c","d","e"]}`, 400, "Bad Request", "body.stop", "at most 4 items"},
		{"/v1/chat/completions", `{` + user + `,"max_tokens":2,"min_tokens":5}`, 400, "BadRequestError", null, "min_tokens must be"},
		{"/v1/chat/completions", `{` + user + `,"tools":[{"type":"function","function":{"name":"f","parameters":{}}}]}`, 400, "BadRequestError", null, "tool choice requires"},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]}`, 400, "BadRequestError", null, "not a multimodal model"},
		{"/v1/chat/completions", `{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}],"continue_final_message":true,"add_generation_prompt":true}`, 400, "BadRequestError", null, "Cannot set both"},
		{"/v1/completions", `{}`, 400, "BadRequestError", "prompt", "must be provided and non-empty"},
		{"/v1/completions", `{"model":"nope","prompt":"x"}`, 404, "NotFoundError", "model", "does not exist"},
		{"/v1/completions", fmt.Sprintf(`{"prompt":"x","max_tokens":%d}`, limit+1), 400, "BadRequestError", "max_tokens", "cannot be greater"},
		{"/v1/responses", `{}`, 400, "Bad Request", "body.input", "Field required"},
		{"/v1/responses", `{"model":"nope","input":"x"}`, 404, "NotFoundError", "model", "does not exist"},
		{"/v1/messages", `{"model":"` + s.Model + `","messages":[{"role":"user","content":"x"}]}`, 400, "Bad Request", "body.max_tokens", "1 validation error"},
		{"/v1/messages", `{"messages":[{"role":"user","content":"x"}]}`, 400, "Bad Request", "body.model", "2 validation errors"},
		{"/v1/messages/count_tokens", `{"messages":[{"role":"user","content":"x"}]}`, 400, "Bad Request", "body.model", "1 validation error"},
		{"/tokenize", `{}`, 400, "Bad Request", "body.prompt", "Field required"},
		{"/tokenize", `{"model":"nope","prompt":"x"}`, 404, "NotFoundError", "model", "does not exist"},
		{"/detokenize", `{}`, 400, "Bad Request", "body.tokens", "Field required"},
		{"/v1/chat/completions/render", `{` + user + `}`, 403, "PermissionDeniedError", null, "--enable-scale-out"},
	} {
		name := c.body[:min(len(c.body), 90)]
		a := s.do(t, "POST", c.path, c.body)
		if a.status != c.status {
			t.Errorf("%s %s: HTTP %d, want %d: %s", c.path, name, a.status, c.status, a.body)
			continue
		}
		if got := keyOrder(t, a.body); got != "error" {
			t.Errorf("%s %s: keys = %s, want error", c.path, name, got)
		}
		o := parse(t, a.body)
		if got := o.str("error.type"); got != c.kind && c.kind != "*" {
			t.Errorf("%s %s: type = %q, want %q", c.path, name, got, c.kind)
		}
		if got := o.at("error.param"); got != c.param && c.param != "*" {
			t.Errorf("%s %s: param = %v, want %v", c.path, name, got, c.param)
		}
		if got := o.num("error.code"); got != c.status {
			t.Errorf("%s %s: code = %d, want %d", c.path, name, got, c.status)
		}
		if got := o.str("error.message"); !strings.Contains(got, c.message) {
			t.Errorf("%s %s: message = %q, want %q in it", c.path, name, got, c.message)
		}
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		want, allow        string
	}{
		{"GET", "/nothing", "", 404, `{"detail":"Not Found"}`, ""},
		{"POST", "/v1/embeddings", `{"input":"x"}`, 404, `{"detail":"Not Found"}`, ""},
		{"GET", "/v1/chat/completions", "", 405, `{"detail":"Method Not Allowed"}`, "POST"},
		{"POST", "/health", "", 405, `{"detail":"Method Not Allowed"}`, "GET"},
		{"GET", "/v1/responses/resp_1", "", 404, `{"error":{"message":"Response with id 'resp_1' not found.","type":"invalid_request_error","param":"response_id","code":404}}`, ""},
		{"POST", "/v1/messages", `{"model":"nope",` + user + `,"max_tokens":4}`, 404, `{"type":"error","error":{"type":"NotFoundError","message":"The model ` + "`nope`" + ` does not exist. Valid aliases: ` + s.Model + `."}}`, ""},
	} {
		a := s.do(t, c.method, c.path, c.body)
		if a.status != c.status || string(a.body) != c.want || a.header.Get("Allow") != c.allow {
			t.Errorf("%s %s = %d %s (allow %q)\nwant %d %s (allow %q)", c.method, c.path, a.status, a.body, a.header.Get("Allow"), c.status, c.want, c.allow)
		}
	}
	a := s.do(t, "POST", "/v1/chat/completions", `{}`, "Content-Type", "text/plain")
	if a.status != 400 || !strings.Contains(string(a.body), "Only 'application/json' is allowed") {
		t.Errorf("text/plain = %d %s", a.status, a.body)
	}
}

// leniency is what vLLM takes without complaint.
func leniency(t *testing.T, s Target) {
	for _, body := range []string{
		`{` + user + `,"max_tokens":1}`,
		`{"model":"",` + user + `,"max_tokens":1}`,
		`{"model":null,` + user + `,"max_tokens":1}`,
		`{` + user + `,"max_tokens":1,"bogus":{"a":1}}`,
		`{` + user + `,"max_tokens":"1"}`,
		`{` + user + `,"max_tokens":1,"priority":3}`,
		`{"messages":[{"role":"alien","content":"x"}],"max_tokens":1}`,
		`{"messages":[{"role":"user"}],"max_tokens":1}`,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"Hello"},{"type":"text","text":" there"}]}],"max_tokens":1}`,
	} {
		a := s.do(t, "POST", "/v1/chat/completions", body)
		if a.status != 200 {
			t.Errorf("%s: HTTP %d: %s", body, a.status, a.body)
			continue
		}
		if got := parse(t, a.body).str("model"); got != s.Model {
			t.Errorf("%s: model = %q, want %q", body, got, s.Model)
		}
	}
}

// metricFamilies checks the names and labels that vllmdeck reads.
func metricFamilies(t *testing.T, s Target) {
	a := s.do(t, "GET", "/metrics", "")
	if got := a.header.Get("Content-Type"); !strings.HasPrefix(got, "text/plain; version=") {
		t.Errorf("Content-Type = %q", got)
	}
	m := s.scrape(t)
	var missing []string
	need := func(key string) {
		if _, ok := m[key]; !ok {
			missing = append(missing, key)
		}
	}
	for _, n := range []string{
		"num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prefix_cache_queries_total", "prefix_cache_hits_total",
		"num_preemptions_total", "prompt_tokens_total", "prompt_tokens_cached_total", "generation_tokens_total",
		"prompt_tokens_created", "generation_tokens_created", "external_prefix_cache_hits_total", "mm_cache_queries_total",
	} {
		need("vllm:" + n + "{engine=0}")
	}
	for _, n := range []string{
		"request_prompt_tokens", "request_generation_tokens", "iteration_tokens_total", "request_max_num_generation_tokens", "request_params_n",
		"request_params_max_tokens", "time_to_first_token_seconds", "inter_token_latency_seconds", "request_time_per_output_token_seconds",
		"e2e_request_latency_seconds", "request_queue_time_seconds", "request_inference_time_seconds", "request_prefill_time_seconds",
		"request_decode_time_seconds", "request_num_preemptions", "request_prefill_kv_computed_tokens",
	} {
		need("vllm:" + n + "_count{engine=0}")
		need("vllm:" + n + "_sum{engine=0}")
		need("vllm:" + n + "_created{engine=0}")
	}
	for name, values := range map[string][]string{
		"vllm:num_requests_waiting_by_reason{engine=0,reason=%s}":          {"capacity", "deferred"},
		"vllm:engine_sleep_state{engine=0,sleep_state=%s}":                 {"awake", "weights_offloaded", "discard_all"},
		"vllm:prompt_tokens_by_source_total{engine=0,source=%s}":           {"local_compute", "local_cache_hit", "external_kv_transfer"},
		"vllm:prompt_tokens_cached_by_source_total{engine=0,source=%s}":    {"device", "host", "p2p", "disk", "external_unspecified"},
		"vllm:request_success_total{engine=0,finished_reason=%s}":          {"stop", "length", "abort", "error", "repetition"},
		"vllm:admission_rejections_total{reason=%s}":                       {"max_num_queued_reqs", "max_num_queued_tokens"},
		"http_requests_total{handler=/v1/chat/completions,method=POST,%s}": {"status=2xx", "status=4xx"},
		"process_%s{}": {"start_time_seconds", "resident_memory_bytes", "cpu_seconds_total"},
	} {
		for _, v := range values {
			need(fmt.Sprintf(name, v))
		}
	}
	sort.Strings(missing)
	if len(missing) > 0 {
		t.Errorf("/metrics lacks:\n  %s", strings.Join(missing, "\n  "))
	}
	text := string(a.body)
	for _, want := range []string{`le="1.0"`, `le="+Inf"`, "vllm:cache_config_info{", "kv_cache_size_tokens=", "num_gpu_blocks="} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	if m["vllm:engine_sleep_state{engine=0,sleep_state=awake}"] != 1 {
		t.Errorf("engine is not awake")
	}
}
