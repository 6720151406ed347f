package sim

import (
	"fmt"
)

// anthropic answers /v1/messages. Its errors have their own shape, except those of the schema.
func (x *exchange) anthropic() error {
	x.faults = x.s.dice()
	req, err := x.s.readMessages(x, true)
	if err != nil {
		return x.anthropicError(err)
	}
	r, rerr := x.generate(req)
	if rerr != nil {
		return x.anthropicError(rerr)
	}
	r.id = "chatcmpl-" + r.id
	if req.stream {
		return r.stream(r.messagesShape(), nil)
	}
	if err := r.whole(); err != nil {
		return x.anthropicError(err)
	}
	x.json(200, r.messagesBody())
	return nil
}

// anthropicError answers in Anthropic's shape what came from behind the schema, and hands the
// rest back.
func (x *exchange) anthropicError(err error) error {
	e := asAPIError(err)
	if e == errCut || e.kind == "Bad Request" || x.r.Context().Err() != nil {
		return err
	}
	x.json(e.status, fmt.Appendf(nil, `{"type":"error","error":{"type":%s,"message":%s}}`, quote(e.kind), quote(e.message)))
	return nil
}

// countTokens answers /v1/messages/count_tokens.
func (x *exchange) countTokens() error {
	req, err := x.s.readMessages(x, false)
	if err != nil {
		return x.anthropicError(err)
	}
	n := len(req.prompts[0].ids)
	x.json(200, fmt.Appendf(nil, `{"input_tokens":%d,"context_management":{"original_input_tokens":%d}}`, n, n))
	return nil
}

func (s *Server) readMessages(x *exchange, limited bool) (*request, error) {
	f, err := x.body()
	if err != nil {
		return nil, err
	}
	req := &request{role: "assistant"}
	model := f.str("model")
	if _, ok := f.get("model"); !ok {
		f.missing("model") // on this route alone
	}
	ms, merr := f.messages("messages", s.o.Model)
	if _, ok := f.get("max_tokens"); !ok && limited {
		f.missing("max_tokens")
	}
	req.sampling(f, "max_tokens")
	req.stops(f, "stop_sequences")
	req.stream = f.is("stream")
	if err := f.err(); err != nil {
		return nil, err
	}
	if v := f.integer("max_tokens"); v != nil && *v < 1 {
		return nil, schemaError(violation{"value_error", "body.max_tokens", "Value error, max_tokens must be positive", pyRepr(f.raw["max_tokens"]), "{'error': ValueError('max_tokens must be positive')}"})
	}
	if err := s.o.knows(model); err != nil {
		return nil, err
	}
	if merr != nil {
		return nil, merr
	}
	if raw, ok := f.get("system"); ok {
		text, err := content(raw, s.o.Model)
		if err != nil {
			return nil, err
		}
		ms = append([]message{{"system", text}}, ms...)
	}
	req.n = 1
	req.prompts = []prompt{{messages: ms, ids: template(ms, true, false)}}
	if !limited {
		return req, nil
	}
	if err := s.o.fit(req, "max_completion_tokens", req.prompts, runes(ms)); err != nil {
		return nil, err
	}
	if req.deferred != nil {
		return nil, req.deferred
	}
	return req, nil
}

// messagesEnd gives stop_reason and stop_sequence in Anthropic's words.
func (r *run) messagesEnd() (reason string, sequence *string) {
	c := r.choices[0]
	switch {
	case c.reason == "length":
		return "max_tokens", nil
	case c.stop != nil:
		return "stop_sequence", c.stop
	}
	return "end_turn", nil
}

func (r *run) messagesUsage() string {
	u := r.usage()
	return fmt.Sprintf(`{"input_tokens":%d,"output_tokens":%d,"cache_creation_input_tokens":%d,"cache_read_input_tokens":%d}`,
		u.prompt-u.cached-u.created, u.completion, u.created, u.cached)
}

func (r *run) messagesBody() []byte {
	reason, seq := r.messagesEnd()
	tail := ""
	if seq != nil {
		tail = `,"stop_sequence":` + quote(*seq)
	}
	return fmt.Appendf(nil, `{"id":%s,"type":"message","role":"assistant","content":[{"type":"text","text":%s}],"model":%s,"stop_reason":"%s"%s,"usage":%s}`,
		quote(r.id), quote(r.choices[0].text()), quote(r.model()), reason, tail, r.messagesUsage())
}

func (r *run) messagesShape() shape {
	event := func(b []byte, name, data string) []byte {
		return fmt.Appendf(b, "event: %s\ndata: {\"type\":\"%s\"%s}\n\n", name, name, data)
	}
	block := false
	return shape{
		open: func() []byte {
			return event(nil, "message_start", fmt.Sprintf(`,"message":{"id":%s,"type":"message","role":"assistant","content":[],"model":%s,"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":%d,"output_tokens":0}}`,
				quote(r.id), quote(r.model()), len(r.choices[0].q.prompt)))
		},
		delta: func(b []byte, _ int, c *choice, to int) []byte {
			text := c.between(c.sent, to)
			if text == "" {
				return b
			}
			if !block {
				block = true
				b = event(b, "content_block_start", `,"content_block":{"type":"text","text":""},"index":0`)
			}
			return event(b, "content_block_delta", fmt.Sprintf(`,"delta":{"type":"text_delta","text":%s},"index":0`, quote(text)))
		},
		close: func() []byte {
			var b []byte
			if block {
				b = event(b, "content_block_stop", `,"index":0`)
			}
			reason, seq := r.messagesEnd()
			b = event(b, "message_delta", fmt.Sprintf(`,"delta":{"stop_reason":"%s","stop_sequence":%s},"usage":%s`, reason, quoteOrNull(seq), r.messagesUsage()))
			return event(b, "message_stop", "")
		},
		// vLLM trips over its own error here: the text says nothing about the cause.
		fail: func(*apiError) []byte {
			return []byte("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"internal_error\",\"message\":\"2 validation errors for ChatCompletionStreamResponse\"}}\n\n")
		},
	}
}
