package simtest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Target is a server to hold to the contract. It must be idle, and started with
// --enable-prompt-tokens-details and --enable-request-id-headers.
type Target struct {
	BaseURL   string
	Model     string // its first served name
	Client    *http.Client
	Simulated bool
}

// Contract checks what vllmdeck relies on.
func Contract(t *testing.T, target Target) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Target)
	}{
		{"small routes", smallRoutes},
		{"models", modelList},
		{"chat", chat},
		{"chat stream", chatStream},
		{"usage options", usageOptions},
		{"choices", choices},
		{"finish reasons", finishReasons},
		{"logprobs", logprobs},
		{"completions", completions},
		{"responses", responses},
		{"messages", messages},
		{"tokenize", tokenize},
		{"errors", errorBodies},
		{"leniency", leniency},
		{"request ids", requestIDs},
		{"metrics", metricFamilies},
		{"counters follow usage", counters},
		{"prefix cache", prefixCache},
		{"continuation", continuation},
		{"disconnect", disconnect},
		{"sleep mode", sleepMode},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, target) })
	}
}

const user = `"messages":[{"role":"user","content":"Tell me about the history of railways."}]`

func (t Target) body(rest string) string {
	return fmt.Sprintf(`{"model":%q,%s}`, t.Model, rest)
}

func smallRoutes(t *testing.T, s Target) {
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/health", ""},
		{"GET", "/ping", ""},
		{"POST", "/ping", ""},
		{"GET", "/load", `{"server_load":0}`},
		{"GET", "/kv_event_sources", "{}"},
	} {
		a := s.do(t, c.method, c.path, "")
		if a.status != 200 || string(a.body) != c.body {
			t.Errorf("%s %s = %d %q, want 200 %q", c.method, c.path, a.status, a.body, c.body)
		}
		if got := a.header.Get("Server"); got != "uvicorn" {
			t.Errorf("%s %s: Server = %q, want uvicorn", c.method, c.path, got)
		}
		if got := a.header.Get("X-Vllmdeck-Simulated") == "1"; got != s.Simulated {
			t.Errorf("%s %s: marked as simulated: %v, want %v", c.method, c.path, got, s.Simulated)
		}
	}
	if v := parse(t, s.do(t, "GET", "/version", "").body).str("version"); !strings.HasPrefix(v, "0.") {
		t.Errorf("/version says %q, want 0.x", v)
	}
}

func modelList(t *testing.T, s Target) {
	a := s.do(t, "GET", "/v1/models", "")
	o := parse(t, a.body)
	if got := o.str("data.0.id"); got != s.Model {
		t.Errorf("first model = %q, want %q", got, s.Model)
	}
	if o.str("object") != "list" || o.str("data.0.owned_by") != "vllm" || o.num("data.0.max_model_len") < 1 || o.str("data.0.root") == "" {
		t.Errorf("model list lacks object, owned_by, root or max_model_len: %s", a.body)
	}
}

func chat(t *testing.T, s Target) {
	a := s.do(t, "POST", "/v1/chat/completions", s.body(user+`,"max_tokens":8,"temperature":0`))
	if a.status != 200 {
		t.Fatalf("HTTP %d: %s", a.status, a.body)
	}
	want := "id object created model choices service_tier system_fingerprint usage prompt_logprobs prompt_token_ids prompt_text kv_transfer_params ec_transfer_params metrics"
	if got := keyOrder(t, a.body); got != want {
		t.Errorf("keys = %s\nwant   %s", got, want)
	}
	o := parse(t, a.body)
	if !strings.HasPrefix(o.str("id"), "chatcmpl-") || o.str("object") != "chat.completion" || o.str("model") != s.Model {
		t.Errorf("id, object or model is wrong: %s", a.body)
	}
	if o.str("choices.0.message.role") != "assistant" {
		t.Errorf("role = %q, want assistant", o.str("choices.0.message.role"))
	}
	checkUsage(t, o)
	if _, ok := o.at("usage.prompt_tokens_details.cached_tokens").(float64); !ok {
		t.Errorf("usage has no cached_tokens: %s", a.body)
	}
}

// checkUsage checks that a usage adds up.
func checkUsage(t *testing.T, o object) (prompt, completion int) {
	t.Helper()
	prompt, completion = o.num("usage.prompt_tokens"), o.num("usage.completion_tokens")
	if prompt < 1 || o.num("usage.total_tokens") != prompt+completion {
		t.Errorf("usage does not add up: %v", o.at("usage"))
	}
	return prompt, completion
}

func chatStream(t *testing.T, s Target) {
	evs := s.stream(t, "/v1/chat/completions", s.body(user+`,"max_tokens":6,"temperature":0,"ignore_eos":true,"stream":true`))
	if n := len(evs); n < 3 || evs[n-1].data != "[DONE]" {
		t.Fatalf("stream does not end with [DONE]: %v", evs)
	}
	first := parse(t, []byte(evs[0].data))
	if got := keyOrder(t, []byte(evs[0].data)); got != "id object created model choices prompt_token_ids prompt_text" {
		t.Errorf("keys of the first event = %s", got)
	}
	if first.str("object") != "chat.completion.chunk" || first.str("choices.0.delta.role") != "assistant" || first.at("choices.0.delta.content") != "" {
		t.Errorf("first event opens no answer: %s", evs[0].data)
	}
	var text strings.Builder
	for i, e := range evs[1 : len(evs)-1] {
		o := parse(t, []byte(e.data))
		if o.str("id") != first.str("id") {
			t.Errorf("event %d has another id: %s", i+1, e.data)
		}
		if _, ok := o["usage"]; ok {
			t.Errorf("event %d has a usage that nobody asked for: %s", i+1, e.data)
		}
		text.WriteString(o.str("choices.0.delta.content"))
		last := i == len(evs)-3
		if got := o.at("choices.0.finish_reason") == "length"; got != last {
			t.Errorf("event %d of %d: finish_reason = %v", i+1, len(evs), o.at("choices.0.finish_reason"))
		}
		if (o.str("system_fingerprint") != "") != last {
			t.Errorf("event %d of %d: system_fingerprint = %q", i+1, len(evs), o.str("system_fingerprint"))
		}
	}
	plain := parse(t, s.do(t, "POST", "/v1/chat/completions", s.body(user+`,"max_tokens":6,"temperature":0,"ignore_eos":true`)).body)
	if got := plain.str("choices.0.message.content"); got != text.String() {
		t.Errorf("plain answer = %q, streamed %q", got, text.String())
	}
}

func usageOptions(t *testing.T, s Target) {
	with := func(options string) []chunk {
		return s.stream(t, "/v1/chat/completions", s.body(user+`,"max_tokens":4,"temperature":0,"ignore_eos":true,"stream":true,"stream_options":`+options))
	}
	evs := with(`{"include_usage":true}`)
	end := parse(t, []byte(evs[len(evs)-2].data))
	if l, ok := end.at("choices").([]any); !ok || len(l) != 0 {
		t.Errorf("usage event has choices: %s", evs[len(evs)-2].data)
	}
	if _, n := checkUsage(t, end); n != 4 {
		t.Errorf("completion_tokens = %d, want 4", n)
	}
	if got := keyOrder(t, []byte(evs[len(evs)-2].data)); got != "id object created model choices usage system_fingerprint" {
		t.Errorf("keys of the usage event = %s", got)
	}
	for _, e := range evs[:len(evs)-2] {
		if strings.Contains(e.data, `"usage"`) {
			t.Errorf("content event has a usage: %s", e.data)
		}
	}
	evs = with(`{"include_usage":true,"continuous_usage_stats":true}`)
	seen := -1
	for _, e := range evs[:len(evs)-1] {
		o := parse(t, []byte(e.data))
		_, n := checkUsage(t, o)
		if n < seen {
			t.Errorf("completion_tokens falls from %d to %d", seen, n)
		}
		seen = n
	}
	if evs = with(`{"include_usage":false,"continuous_usage_stats":true}`); strings.Contains(fmt.Sprint(evs), `"usage"`) {
		t.Errorf("continuous_usage_stats without include_usage gives a usage")
	}
}

func choices(t *testing.T, s Target) {
	o := parse(t, s.do(t, "POST", "/v1/chat/completions", s.body(user+`,"max_tokens":3,"n":2,"temperature":1,"seed":4,"ignore_eos":true`)).body)
	if o.num("choices.1.index") != 1 || o.at("choices.2") != nil {
		t.Fatalf("n=2 gives %v", o.at("choices"))
	}
	if p, n := checkUsage(t, o); n != 6 || p > 40 {
		t.Errorf("usage of n=2 x 3 tokens = %d prompt, %d completion", p, n)
	}
	evs := s.stream(t, "/v1/chat/completions", s.body(user+`,"max_tokens":3,"n":2,"temperature":1,"seed":4,"ignore_eos":true,"stream":true`))
	for i := range 2 {
		if got := parse(t, []byte(evs[i].data)).num("choices.0.index"); got != i {
			t.Errorf("event %d opens choice %d", i, got)
		}
	}
	ends := 0
	for _, e := range evs {
		if strings.Contains(e.data, `"finish_reason":"length"`) {
			ends++
		}
	}
	if ends != 2 {
		t.Errorf("%d choices ended, want 2", ends)
	}
}

func finishReasons(t *testing.T, s Target) {
	full := parse(t, s.do(t, "POST", "/v1/chat/completions", s.body(user+`,"max_tokens":12,"temperature":0,"ignore_eos":true`)).body)
	if got := full.str("choices.0.finish_reason"); got != "length" {
		t.Errorf("finish_reason at the limit = %q, want length", got)
	}
	text := full.str("choices.0.message.content")
	stop := text[len(text)/2 : len(text)/2+2]
	at := strings.Index(text, stop)
	q := s.body(user + fmt.Sprintf(`,"max_tokens":12,"temperature":0,"ignore_eos":true,"stop":%q`, stop))
	o := parse(t, s.do(t, "POST", "/v1/chat/completions", q).body)
	if o.str("choices.0.finish_reason") != "stop" || o.str("choices.0.stop_reason") != stop {
		t.Errorf("stopped by %q: finish_reason %v, stop_reason %v", stop, o.at("choices.0.finish_reason"), o.at("choices.0.stop_reason"))
	}
	if got := o.str("choices.0.message.content"); got != text[:at] {
		t.Errorf("stopped text = %q, want %q", got, text[:at])
	}
	var streamed strings.Builder
	for _, e := range s.stream(t, "/v1/chat/completions", strings.TrimSuffix(q, "}")+`,"stream":true}`) {
		if e.data != "[DONE]" {
			streamed.WriteString(parse(t, []byte(e.data)).str("choices.0.delta.content"))
		}
	}
	if got := streamed.String(); got != text[:at] {
		t.Errorf("stopped stream = %q, want %q: no part of a stop string may be sent", got, text[:at])
	}
}

func requestIDs(t *testing.T, s Target) {
	a := s.do(t, "POST", "/v1/chat/completions", s.body(user+`,"max_tokens":1`), "X-Request-Id", "abc-1")
	if got := parse(t, a.body).str("id"); got != "chatcmpl-abc-1" {
		t.Errorf("id = %q, want chatcmpl-abc-1", got)
	}
	if got := a.header.Get("X-Request-Id"); got != "abc-1" {
		t.Errorf("X-Request-Id = %q, want abc-1", got)
	}
	if got := s.do(t, "GET", "/health", "").header.Get("X-Request-Id"); len(got) != 32 {
		t.Errorf("own X-Request-Id = %q, want 32 hex digits", got)
	}
}

func counters(t *testing.T, s Target) {
	s.settle(t)
	before := s.scrape(t)
	var prompt, completion float64
	for i := range 3 {
		o := parse(t, s.do(t, "POST", "/v1/chat/completions", s.body(fmt.Sprintf(`"messages":[{"role":"user","content":"Count %d"}],"max_tokens":%d,"temperature":0`, i, 3+i))).body)
		p, c := checkUsage(t, o)
		prompt += float64(p)
		completion += float64(c)
	}
	s.settle(t)
	after := s.scrape(t)
	for name, want := range map[string]float64{
		"vllm:prompt_tokens_total": prompt, "vllm:generation_tokens_total": completion,
		"vllm:request_prompt_tokens_sum": prompt, "vllm:request_generation_tokens_sum": completion,
		"vllm:e2e_request_latency_seconds_count": 3, "vllm:time_to_first_token_seconds_count": 3,
		"vllm:inter_token_latency_seconds_count": completion - 3, "vllm:request_params_n_count": 3,
	} {
		if got := after.engine(name) - before.engine(name); got != want {
			t.Errorf("%s rose by %v, want %v", name, got, want)
		}
	}
	done := func(m metrics) float64 {
		return m["vllm:request_success_total{engine=0,finished_reason=stop}"] + m["vllm:request_success_total{engine=0,finished_reason=length}"]
	}
	if got := done(after) - done(before); got != 3 {
		t.Errorf("request_success_total rose by %v, want 3", got)
	}
	if got := after.engine("vllm:iteration_tokens_total_count") - before.engine("vllm:iteration_tokens_total_count"); got != completion {
		t.Errorf("iteration_tokens_total_count rose by %v over %v single steps", got, completion)
	}
}

// settle waits until nothing is in flight.
func (t Target) settle(tb testing.TB) {
	tb.Helper()
	t.until(tb, 5*time.Second, func(m metrics) bool {
		return m.engine("vllm:num_requests_running") == 0 && m.engine("vllm:num_requests_waiting") == 0
	}, "the server to be idle")
}

func (t Target) until(tb testing.TB, limit time.Duration, ok func(metrics) bool, what string) {
	tb.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !ok(t.scrape(tb)) {
		select {
		case <-deadline.C:
			tb.Fatalf("waited %v for %s", limit, what)
		case <-tick.C:
		}
	}
}

func prefixCache(t *testing.T, s Target) {
	q := s.body(fmt.Sprintf(`"messages":[{"role":"user","content":"%d %s"}],"max_tokens":1`, time.Now().UnixNano(), strings.Repeat("The same words come again and again. ", 12)))
	first := parse(t, s.do(t, "POST", "/v1/chat/completions", q).body)
	second := parse(t, s.do(t, "POST", "/v1/chat/completions", q).body)
	cached, created := "usage.prompt_tokens_details.cached_tokens", "usage.prompt_tokens_details.created_cache_tokens"
	prompt := first.num("usage.prompt_tokens")
	if got := second.num(cached); got < prompt/2 || got >= prompt || first.num(cached) >= got {
		t.Errorf("cached tokens of %d: first %d, then %d", prompt, first.num(cached), got)
	}
	if second.num(created) >= first.num(created) {
		t.Errorf("created cache tokens: first %d, then %d", first.num(created), second.num(created))
	}
}

func continuation(t *testing.T, s Target) {
	q := s.body(user + `,"max_tokens":24,"temperature":0,"stream":true,"ignore_eos":true`)
	var parts []string
	for _, e := range s.stream(t, "/v1/chat/completions", q) {
		if e.data != "[DONE]" {
			if c := parse(t, []byte(e.data)).str("choices.0.delta.content"); c != "" {
				parts = append(parts, c)
			}
		}
	}
	cut := len(parts) / 2
	begun, rest := strings.Join(parts[:cut], ""), strings.Join(parts[cut:], "")
	o := parse(t, s.do(t, "POST", "/v1/chat/completions", s.body(fmt.Sprintf(
		`"messages":[{"role":"user","content":"Tell me about the history of railways."},{"role":"assistant","content":%s}],"add_generation_prompt":false,"continue_final_message":true,"max_tokens":%d,"temperature":0,"ignore_eos":true`,
		quoteJSON(begun), 24-cut))).body)
	if got := o.str("choices.0.message.content"); got != rest {
		// Random weights may tokenize what they said otherwise than they said it.
		if s.Simulated || s.Model != "tiny" {
			t.Errorf("after %q came %q, want %q", begun, got, rest)
		}
	}
}

func disconnect(t *testing.T, s Target) {
	s.settle(t)
	before := s.scrape(t)
	for _, stream := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		q := s.body(user + fmt.Sprintf(`,"max_tokens":900,"ignore_eos":true,"stream":%v`, stream))
		done := make(chan struct{})
		go func() {
			defer close(done)
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, s.BaseURL+"/v1/chat/completions", strings.NewReader(q))
			req.Header.Set("Content-Type", "application/json")
			res, err := s.Client.Do(req)
			if err == nil {
				<-ctx.Done()
				res.Body.Close()
			}
		}()
		s.until(t, 10*time.Second, func(m metrics) bool { return m.engine("vllm:num_requests_running") == 1 }, "the request to run")
		cancel()
		<-done
		s.until(t, time.Second, func(m metrics) bool { return m.engine("vllm:num_requests_running") == 0 }, "the abandoned request to go")
	}
	s.settle(t)
	after := s.scrape(t)
	const abort = "vllm:request_success_total{engine=0,finished_reason=abort}"
	if after[abort] != before[abort] {
		t.Errorf("abort counter rose by %v; vLLM does not count clients that went away", after[abort]-before[abort])
	}
	if after.engine("vllm:generation_tokens_total") == before.engine("vllm:generation_tokens_total") {
		t.Errorf("abandoned requests generated nothing")
	}
}
