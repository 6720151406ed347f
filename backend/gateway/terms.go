package gateway

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// terms is what a client's body says about continuing its answer at another worker.
type terms struct {
	input   member
	limits  []member // max_tokens and max_completion_tokens, where they are given
	max     int64    // tokens of the answer; 0: as many as fit
	minAt   member
	min     int64
	addAt   member // add_generation_prompt
	openAt  member // continue_final_message
	prompts []byte // members that shape the prompt, as /tokenize takes them, each with a comma before it
}

// defaultMax is vLLM's max_tokens of /v1/completions where a request names none.
const defaultMax = 16

// rule says what value of a field an answer can be continued with.
type rule uint8

const (
	anything rule = iota + 1 // it changes nothing about the tokens to come, or works in the next leg as in this
	shapes                   // the same, and it shapes the prompt
	nothing                  // only a value that says nothing: null, false, 0, "", [] or {}
	yes                      // only true or null
	own                      // looked at one by one
)

// rules are the fields of chat and completions that continuing is known to bear. A field that is not
// here is not known to, so an answer to a request with it is not continued.
var rules = map[string]rule{
	"model": anything, "stream": anything, "n": anything, "user": anything, "seed": anything,
	"temperature": anything, "top_p": anything, "top_k": anything, "min_p": anything,
	"repetition_penalty": anything, // counts the tokens of prompt and answer alike
	"length_penalty":     anything, // of beam search alone
	"logit_bias":         anything, "allowed_token_ids": anything, "stop_token_ids": anything, "ignore_eos": anything,
	"include_stop_str_in_output": anything,                                  // see stop
	"tool_choice":                anything, "parallel_tool_calls": anything, // without tools they say nothing
	"reasoning_effort": anything, "thinking_token_budget": anything, "documents": anything,
	"priority": anything, "session_id": anything, "cache_salt": anything, "request_id": anything, "stream_interval": anything,
	"metadata": anything, "service_tier": anything, "safety_identifier": anything,
	"prompt_cache_key": anything, "verbosity": anything, "return_tokens_as_token_ids": anything, "spaces_between_special_tokens": anything,
	"chat_template": shapes, "chat_template_kwargs": shapes, "add_special_tokens": shapes, "media_io_kwargs": shapes, "mm_processor_kwargs": shapes,
	"tools": nothing, "functions": nothing, "function_call": nothing,
	"logprobs": own, "prompt_logprobs": own, "top_logprobs": nothing, "logprob_token_ids": nothing,
	"structured_outputs": nothing, "guided_json": nothing, "guided_regex": nothing, "guided_choice": nothing, "guided_grammar": nothing,
	"frequency_penalty": nothing, "presence_penalty": nothing, // count the answer's tokens alone
	"bad_words": nothing, // one of several tokens may span the cut
	"echo":      nothing, "return_token_ids": nothing, "use_beam_search": nothing, "suffix": nothing, "prompt_embeds": nothing,
	"truncate_prompt_tokens": nothing, "kv_transfer_params": nothing, "logits_processors": nothing,
	"store":               nothing, // it would be stored in pieces
	"include_reasoning":   yes,     // what the client is not shown, we do not know
	"skip_special_tokens": yes,     // written out, they would be read as text
	"messages":            own, "prompt": own, "max_tokens": own, "max_completion_tokens": own, "min_tokens": own, "stop": own, "best_of": own,
	"response_format": own, "stream_options": own, "add_generation_prompt": own, "continue_final_message": own,
}

// readTerms finds out whether an answer to q can be continued. Its error says what stands against it. It is
// only called when an answer has lost its worker: the request's way in does not pay for it.
func (q *request) readTerms(d *dialect) (*terms, error) {
	t := &terms{}
	if d.name == "completions" {
		t.max = defaultMax
	}
	seen := map[string]bool{}
	err := members(q.body, func(raw []byte, m member) error {
		key := string(unescape(raw))
		if seen[key] {
			return fmt.Errorf("%s stands twice in the request", key)
		}
		seen[key] = true
		return t.field(key, m, q.body)
	})
	switch {
	case err != nil:
		return nil, err
	case t.input.value == 0:
		return nil, fmt.Errorf("it has no %s", d.input)
	case d.name == "chat" && q.body[t.input.value] != '[', d.name != "chat" && q.body[t.input.value] != '"':
		return nil, fmt.Errorf("its %s is not a single text", d.input)
	}
	return t, nil
}

func (t *terms) field(key string, m member, body []byte) error {
	v := gjson.ParseBytes(m.raw(body))
	r := rules[key]
	ok := r != 0
	switch r {
	case shapes:
		t.prompts = append(append(t.prompts, ','), body[m.start:m.end]...)
	case nothing:
		ok = empty(v)
	case yes:
		ok = v.Type == gjson.Null || v.Type == gjson.True
	case own:
		ok = t.own(key, m, v)
	}
	if !ok {
		return fmt.Errorf("the request has %s", cut(key, 60))
	}
	return nil
}

// own looks at the fields that have rules of their own.
func (t *terms) own(key string, m member, v gjson.Result) bool {
	null := v.Type == gjson.Null
	switch key {
	case "messages", "prompt":
		t.input = m
		return v.Type == gjson.String || v.Get("0").Exists()
	case "max_tokens", "max_completion_tokens":
		if null {
			return true
		}
		t.limits = append(t.limits, m)
		if n := v.Int(); key == "max_completion_tokens" || len(t.limits) == 1 {
			t.max = n // vLLM goes by max_completion_tokens where both are there
		}
		return v.Type == gjson.Number && v.Int() > 0
	case "min_tokens":
		t.minAt, t.min = m, v.Int()
		return true
	case "stop":
		// vLLM holds back as many characters as its longest stop string has less one, so with a longer
		// one events end inside of tokens, and a token cannot be taken up in its middle.
		ok := true
		v.ForEach(func(_, s gjson.Result) bool { // of a single string, that
			ok = utf8.RuneCountInString(s.Str) <= 1
			return ok
		})
		return ok
	case "logprobs", "prompt_logprobs": // 0 asks for those of the tokens themselves
		return null || v.Type == gjson.False
	case "best_of":
		return null || v.Int() == 1
	case "response_format":
		return null || v.Get("type").Str == "text"
	case "stream_options":
		return empty(v.Get("continuous_usage_stats"))
	case "add_generation_prompt":
		t.addAt = m
		return null || v.Type == gjson.True
	case "continue_final_message":
		t.openAt = m
		return empty(v)
	}
	return false
}

// empty reports whether a value says nothing.
func empty(v gjson.Result) bool {
	switch v.Type {
	case gjson.Null, gjson.False:
		return true
	case gjson.Number:
		return v.Num == 0
	case gjson.String:
		return v.Str == ""
	case gjson.JSON:
		some := false
		v.ForEach(func(_, _ gjson.Result) bool { some = true; return false })
		return !some
	}
	return false
}

// edits appends what makes of the client's body the request that continues its answer after text, of which
// sent tokens are counted.
func (t *terms) edits(dst []edit, d *dialect, body, text, thought []byte, sent int64) []edit {
	add := ""
	dst = append(dst, edit{t.input.end - 1, t.input.end - 1, t.spoken(d, text, thought)})
	if d.name == "chat" {
		put := func(m member, key, value string) {
			if m.value != 0 {
				dst = append(dst, edit{m.value, m.end, value})
			} else {
				add += `"` + key + `":` + value + `,`
			}
		}
		put(t.addAt, "add_generation_prompt", "false")
		put(t.openAt, "continue_final_message", "true")
	}
	if t.max > 0 {
		left := strconv.FormatInt(t.max-sent, 10)
		for _, m := range t.limits {
			dst = append(dst, edit{m.value, m.end, left})
		}
		if len(t.limits) == 0 {
			add += `"max_tokens":` + left + `,`
		}
	}
	if t.min > 0 {
		dst = append(dst, edit{t.minAt.value, t.minAt.end, "0"}) // it was reached
	}
	if add != "" {
		at := bytes.IndexByte(body, '{') + 1
		dst = append(dst, edit{at, at, add})
	}
	return dst
}

// spoken is what the answer so far adds at the end of the input.
func (t *terms) spoken(d *dialect, text, thought []byte) string {
	if d.name != "chat" {
		return string(text)
	}
	var b strings.Builder
	b.Grow(len(text) + len(thought) + 64)
	b.WriteString(`,{"role":"assistant","content":"`)
	b.Write(text)
	if len(thought) > 0 {
		b.WriteString(`","reasoning":"`)
		b.Write(thought)
	}
	b.WriteString(`"}`)
	return b.String()
}

// question is the body that asks /tokenize how long the prompt is, with text after it or, if that is nil, without.
func (t *terms) question(d *dialect, body []byte, model string, text, thought []byte) []byte {
	input := t.input.raw(body)
	b := fmt.Appendf(nil, `{"model":%s`, quote(model))
	b = append(b, t.prompts...)
	if d.name == "chat" {
		b = fmt.Appendf(b, `,"add_generation_prompt":%t,"continue_final_message":%t`, text == nil, text != nil)
	}
	b = fmt.Appendf(b, `,"%s":%s`, d.input, input[:len(input)-1])
	if text != nil {
		b = append(b, t.spoken(d, text, thought)...)
	}
	return append(b, input[len(input)-1], '}')
}
