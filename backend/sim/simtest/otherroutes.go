package simtest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

func logprobs(t *testing.T, s Target) {
	o := parse(t, s.do(t, "POST", "/v1/chat/completions", s.body(user+`,"max_tokens":3,"temperature":0,"ignore_eos":true,"logprobs":true,"top_logprobs":2`)).body)
	l, _ := o.at("choices.0.logprobs.content").([]any)
	if len(l) != 3 {
		t.Fatalf("logprobs of 3 tokens = %v", o.at("choices.0.logprobs"))
	}
	if o.at("choices.0.logprobs.content.0.top_logprobs.1") == nil || o.at("choices.0.logprobs.content.0.bytes.0") == nil {
		t.Errorf("logprobs lack bytes or alternatives: %v", l[0])
	}
	o = parse(t, s.do(t, "POST", "/v1/completions", s.body(`"prompt":"Once upon","max_tokens":3,"temperature":0,"logprobs":1,"ignore_eos":true`)).body)
	for _, k := range []string{"text_offset", "token_logprobs", "tokens", "top_logprobs"} {
		if l, _ := o.at("choices.0.logprobs." + k).([]any); len(l) != 3 {
			t.Errorf("%s of 3 tokens = %v", k, l)
		}
	}
}

func completions(t *testing.T, s Target) {
	a := s.do(t, "POST", "/v1/completions", s.body(`"prompt":"Once upon a time","temperature":0,"ignore_eos":true`))
	if got, want := keyOrder(t, a.body), "id object created model choices service_tier system_fingerprint usage kv_transfer_params ec_transfer_params metrics"; got != want {
		t.Errorf("keys = %s\nwant   %s", got, want)
	}
	o := parse(t, a.body)
	if _, n := checkUsage(t, o); n != 16 {
		t.Errorf("completion without a limit has %d tokens, want 16", n)
	}
	if !strings.HasPrefix(o.str("id"), "cmpl-") || o.str("object") != "text_completion" {
		t.Errorf("id or object is wrong: %s", a.body)
	}
	evs := s.stream(t, "/v1/completions", s.body(`"prompt":"Once upon a time","max_tokens":16,"temperature":0,"ignore_eos":true,"stream":true,"stream_options":{"include_usage":true}`))
	var text strings.Builder
	for _, e := range evs[:len(evs)-1] {
		text.WriteString(parse(t, []byte(e.data)).str("choices.0.text"))
	}
	if text.String() != o.str("choices.0.text") {
		t.Errorf("streamed %q, plain %q", text.String(), o.str("choices.0.text"))
	}
	two := parse(t, s.do(t, "POST", "/v1/completions", s.body(`"prompt":["One","Two"],"max_tokens":2,"ignore_eos":true`)).body)
	if two.num("choices.1.index") != 1 || two.at("choices.2") != nil {
		t.Errorf("two prompts give %v", two.at("choices"))
	}
}

func responses(t *testing.T, s Target) {
	o := parse(t, s.do(t, "POST", "/v1/responses", s.body(`"input":"Hello","max_output_tokens":4,"temperature":0`)).body)
	if o.str("object") != "response" || o.str("output.0.content.0.type") != "output_text" || o.num("usage.input_tokens") < 1 {
		t.Errorf("response = %v", o)
	}
	evs := s.stream(t, "/v1/responses", s.body(`"input":"Tell me about the sea.","max_output_tokens":6,"temperature":0,"stream":true`))
	var names []string
	for i, e := range evs {
		o := parse(t, []byte(e.data))
		if o.str("type") != e.event || o.num("sequence_number") != i {
			t.Errorf("event %d: %s has type %q and number %d", i, e.event, o.str("type"), o.num("sequence_number"))
		}
		if n := len(names); n == 0 || names[n-1] != e.event {
			names = append(names, strings.TrimPrefix(e.event, "response."))
		}
	}
	want := "created in_progress output_item.added content_part.added output_text.delta output_text.done content_part.done output_item.done completed"
	got := strings.ReplaceAll(strings.Join(names, " "), "output_text.delta output_text.delta", "output_text.delta")
	if got = dedupe(got); got != want {
		t.Errorf("events = %s\nwant     %s", got, want)
	}
}

// dedupe drops words that repeat the one before.
func dedupe(s string) string {
	var out []string
	for w := range strings.FieldsSeq(s) {
		if len(out) == 0 || out[len(out)-1] != w {
			out = append(out, w)
		}
	}
	return strings.Join(out, " ")
}

func messages(t *testing.T, s Target) {
	o := parse(t, s.do(t, "POST", "/v1/messages", s.body(`"messages":[{"role":"user","content":"Hello"}],"max_tokens":2`)).body)
	if o.str("type") != "message" || o.str("content.0.type") != "text" || o.num("usage.output_tokens") < 1 {
		t.Errorf("message = %v", o)
	}
	var names []string
	for _, e := range s.stream(t, "/v1/messages", s.body(`"messages":[{"role":"user","content":"Tell me about the sea."}],"max_tokens":5,"temperature":0,"stream":true`)) {
		names = append(names, e.event)
	}
	want := "message_start content_block_start content_block_delta content_block_stop message_delta message_stop"
	if got := dedupe(strings.Join(names, " ")); got != want {
		t.Errorf("events = %s\nwant     %s", got, want)
	}
	count := parse(t, s.do(t, "POST", "/v1/messages/count_tokens", s.body(`"messages":[{"role":"user","content":"Hello"}]`)).body)
	if count.num("input_tokens") < 1 {
		t.Errorf("count_tokens = %v", count)
	}
}

func tokenize(t *testing.T, s Target) {
	const text = "The railway, opened in 1825,\ncost £1,000 a mile: cheap!  Überall."
	a := s.do(t, "POST", "/tokenize", s.body(fmt.Sprintf(`"prompt":%q`, text)))
	o := parse(t, a.body)
	l, _ := o.at("tokens").([]any)
	if o.num("count") != len(l) || len(l) == 0 || o.num("max_model_len") == 0 || keyOrder(t, a.body) != "count max_model_len tokens token_strs" {
		t.Fatalf("tokenize = %s", a.body)
	}
	var ids []string
	for _, id := range l {
		ids = append(ids, strconv.Itoa(int(id.(float64))))
	}
	back := parse(t, s.do(t, "POST", "/detokenize", s.body(`"tokens":[`+strings.Join(ids, ",")+`]`)).body)
	if got := back.str("prompt"); got != text {
		t.Errorf("detokenize(tokenize(%q)) = %q", text, got)
	}
	chat := parse(t, s.do(t, "POST", "/tokenize", s.body(user)).body)
	plain := parse(t, s.do(t, "POST", "/v1/chat/completions", s.body(user+`,"max_tokens":1`)).body)
	if got, want := chat.num("count"), plain.num("usage.prompt_tokens"); got != want {
		t.Errorf("tokenize counts %d tokens for a conversation, its usage says %d", got, want)
	}
}
