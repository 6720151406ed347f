package gateway

import (
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

// dialect is one inference route: where its usage stands, what is content, how a stream ends.
type dialect struct {
	name        string        // api.Request.Route
	path        string        // of the client and of the upstream
	input       string        // the member that holds what is to be answered
	usageOption bool          // stream_options.include_usage exists
	finishes    bool          // each choice ends with a finish_reason
	costInfo    bool          // cost_info may be spliced into its answers
	anthropic   bool          // errors have Anthropic's shape
	text        string        // path of the text inside a choice's delta
	total       time.Duration // what the whole may take at most; 0: Gateway.AnswerTimeout or StreamTimeout

	// event reads the data and name of one event of a stream; nil: the route never streams.
	event func(t *tap, data, name []byte) meaning
	// answer reads a whole answer that came with a 2xx status.
	answer func(t *tap, body []byte)
}

// dialects are the routes that go to a worker.
var dialects = [...]dialect{
	{name: "chat", path: "/v1/chat/completions", input: "messages", usageOption: true, finishes: true, costInfo: true, text: "content", event: chatEvent, answer: chatAnswer},
	{name: "completions", path: "/v1/completions", input: "prompt", usageOption: true, finishes: true, costInfo: true, text: "text", event: chatEvent, answer: chatAnswer},
	{name: "responses", path: "/v1/responses", input: "input", event: responsesEvent, answer: responsesAnswer},
	{name: "messages", path: "/v1/messages", input: "messages", anthropic: true, event: messagesEvent, answer: messagesAnswer},
	{name: "embeddings", path: "/v1/embeddings", input: "input", answer: usageAnswer},
	{name: "rerank", path: "/v1/rerank", input: "query", answer: usageAnswer},
	{name: "tokenize", path: "/tokenize", input: "prompt", total: time.Minute, answer: freeAnswer},
	{name: "detokenize", path: "/detokenize", input: "tokens", total: time.Minute, answer: freeAnswer},
}

// chatAnswer reads a whole answer of chat or completions.
func chatAnswer(t *tap, body []byte) {
	choices, usage, fault := chatParts(body)
	if !choices.Exists() && fault.Exists() {
		t.fail(fault)
		return
	}
	choices.ForEach(func(_, choice gjson.Result) bool {
		var message, text gjson.Result
		first := true
		t.finish = ""
		choice.ForEach(func(key, v gjson.Result) bool {
			switch key.Str {
			case "finish_reason":
				t.finish = v.Str
			case "index":
				first = v.Int() == 0
			case "message":
				message = v
			case t.d.text:
				text = v
			}
			return true
		})
		switch t.finish {
		case "abort", "error":
			t.fault = "the worker broke the answer off: finish_reason " + t.finish
		}
		if t.keep && first {
			if message.Exists() {
				text = message.Get(t.d.text)
			}
			t.addValue(text)
		}
		return t.fault == ""
	})
	t.finish = ownReason(t.finish)
	if usage.IsObject() {
		t.usage, t.hasUsage = openaiUsage(usage), true
	}
}

// ownReason gives a finish_reason that points into no buffer.
func ownReason(s string) string {
	switch s {
	case "stop":
		return "stop"
	case "length":
		return "length"
	case "tool_calls":
		return "tool_calls"
	}
	return strings.Clone(s)
}

// chatParts finds what an answer is read for, in one pass. It copies nothing: see inPlace.
func chatParts(body []byte) (choices, usage, fault gjson.Result) {
	err := members(body, func(key []byte, m member) error {
		switch string(key) {
		case "choices":
			choices = inPlace(m.raw(body))
		case "usage":
			usage = inPlace(m.raw(body))
		case "error":
			fault = inPlace(m.raw(body))
		}
		return nil
	})
	if err != nil { // not strictly JSON: what can be read of it counts
		v := inPlace(body)
		choices, usage, fault = v.Get("choices"), v.Get("usage"), v.Get("error")
	}
	return choices, usage, fault
}

// responsesEvent reads an event of /v1/responses. Its closing events carry the whole response.
func responsesEvent(t *tap, data, _ []byte) meaning {
	v := gjson.ParseBytes(data)
	switch kind := v.Get("type").Str; kind {
	case "response.completed", "response.incomplete":
		readResponse(t, v.Get("response"))
		return end
	case "response.failed":
		return t.fail(v.Get("response.error"))
	case "error":
		return t.fail(v)
	case "":
		if err := v.Get("error"); err.Exists() {
			return t.fail(err)
		}
	default:
		if delta := v.Get("delta"); strings.HasSuffix(kind, ".delta") && delta.Str != "" {
			if kind == "response.output_text.delta" && t.keep {
				t.addValue(delta)
			}
			return content
		}
	}
	return plain
}

func responsesAnswer(t *tap, body []byte) {
	v := gjson.ParseBytes(body)
	if v.Get("status").Str == "failed" {
		t.fail(v.Get("error"))
		return
	}
	readResponse(t, v)
	if t.keep {
		v.Get("output.#.content.#.text|@flatten").ForEach(func(_, text gjson.Result) bool {
			t.addValue(text)
			return t.keep
		})
	}
}

func readResponse(t *tap, v gjson.Result) {
	t.finish = v.Get("status").Str
	if reason := v.Get("incomplete_details.reason").Str; reason != "" {
		t.finish = reason
	}
	if u := v.Get("usage"); u.IsObject() {
		t.usage, t.hasUsage = responsesUsage(u), true
	}
}

// messagesEvent reads an event of /v1/messages.
func messagesEvent(t *tap, data, _ []byte) meaning {
	v := gjson.ParseBytes(data)
	switch v.Get("type").Str {
	case "message_start":
		readMessages(t, v.Get("message.usage"), false)
	case "content_block_delta":
		delta := v.Get("delta")
		text := delta.Get("text")
		if t.keep {
			t.addValue(text)
		}
		for _, key := range [...]string{"text", "thinking", "partial_json"} {
			if delta.Get(key).Str != "" {
				return content
			}
		}
	case "message_delta":
		if reason := v.Get("delta.stop_reason").Str; reason != "" {
			t.finish = reason
		}
		readMessages(t, v.Get("usage"), true)
	case "message_stop":
		return end
	case "error":
		return t.fail(v.Get("error"))
	case "":
		if err := v.Get("error"); err.Exists() {
			return t.fail(err)
		}
	}
	return plain
}

func messagesAnswer(t *tap, body []byte) {
	v := gjson.ParseBytes(body)
	t.finish = v.Get("stop_reason").Str
	readMessages(t, v.Get("usage"), true)
	if t.keep {
		v.Get("content.#.text").ForEach(func(_, text gjson.Result) bool {
			t.addValue(text)
			return t.keep
		})
	}
}

// readMessages reads a usage object of /v1/messages, where input_tokens leaves out the cached ones.
// A stream opens with the prompt's counts and closes with the answer's; what a later object
// leaves out stays. Only the closing one is final.
func readMessages(t *tap, u gjson.Result, final bool) {
	if !u.IsObject() {
		return
	}
	set := func(dst *int64, keys ...string) {
		sum, found := int64(0), false
		for _, key := range keys {
			if v := u.Get(key); v.Type == gjson.Number {
				sum, found = sum+max(v.Int(), 0), true
			}
		}
		if found {
			*dst = sum
		}
	}
	set(&t.usage.Input, "input_tokens", "cache_creation_input_tokens") // vLLM bills no cache write
	set(&t.usage.CacheRead, "cache_read_input_tokens")
	set(&t.usage.Output, "output_tokens")
	t.hasUsage = t.hasUsage || final
}

// usageAnswer reads a whole answer that has usage and no text of a model.
func usageAnswer(t *tap, body []byte) {
	if u := gjson.GetBytes(body, "usage"); u.IsObject() {
		t.usage, t.hasUsage = rerankUsage(u), true
	}
}

// freeAnswer is for routes that run no model: they use no token, and that is exact.
func freeAnswer(t *tap, _ []byte) { t.hasUsage = true }
