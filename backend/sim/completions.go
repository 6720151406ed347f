package sim

import (
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// defaultCompletionTokens is what /v1/completions gives when no limit is set.
const defaultCompletionTokens = 16

// completions answers /v1/completions.
func (x *exchange) completions() error {
	x.faults = x.s.dice()
	req, err := x.s.readCompletion(x)
	if err != nil {
		return err
	}
	r, rerr := x.generate(req)
	if rerr != nil {
		return rerr
	}
	r.id = "cmpl-" + r.id
	if req.stream {
		return r.stream(r.completionShape(), nil)
	}
	if err := r.whole(); err != nil {
		return err
	}
	x.json(200, r.completionBody())
	return nil
}

func (s *Server) readCompletion(x *exchange) (*request, error) {
	f, err := x.body()
	if err != nil {
		return nil, err
	}
	req := &request{completion: true}
	model := f.str("model")
	prompts := f.prompts()
	req.sampling(f, "max_tokens")
	if req.maxTokens < 0 {
		req.maxTokens = defaultCompletionTokens
		req.minTokens = min(req.minTokens, req.maxTokens)
	}
	if err := req.streaming(f); err != nil {
		return nil, err
	}
	if v := f.integer("logprobs"); v != nil {
		req.logprobs = int(min(max(*v, 0), 20))
	}
	req.echo = f.is("echo")
	if err := f.err(); err != nil {
		return nil, err
	}
	if len(prompts) == 0 {
		return nil, parameter("prompt", "", "Either prompt or prompt_embeds must be provided and non-empty.")
	}
	if err := s.o.knows(model); err != nil {
		return nil, err
	}
	req.prompts = prompts
	chars := 0
	for _, p := range prompts {
		chars = max(chars, utf8.RuneCountInString(p.text))
	}
	if err := s.o.fit(req, "max_tokens", prompts, chars); err != nil {
		return nil, err
	}
	if req.deferred != nil {
		return nil, req.deferred
	}
	return req, nil
}

// prompts reads a text, a list of tokens, or a list of either.
func (f *fields) prompts() []prompt {
	raw, ok := f.get("prompt")
	if !ok {
		return nil
	}
	one := func(raw json.RawMessage) (prompt, bool) {
		var s string
		if json.Unmarshal(raw, &s) == nil {
			return prompt{text: s, ids: encode(nil, s)}, s != ""
		}
		var ids []int32
		if json.Unmarshal(raw, &ids) == nil {
			return prompt{text: decode(ids), ids: ids}, len(ids) > 0
		}
		return prompt{}, false
	}
	if p, ok := one(raw); ok {
		return []prompt{p}
	}
	var l []json.RawMessage
	if json.Unmarshal(raw, &l) != nil {
		if raw[0] == '"' {
			return nil // empty
		}
		for _, kind := range []string{"list", "list", "string", "list"} {
			f.fail("prompt", kind+"_type", "Input should be a valid "+kind)
		}
		return nil
	}
	var ps []prompt
	for _, raw := range l {
		p, ok := one(raw)
		if !ok {
			return nil
		}
		ps = append(ps, p)
	}
	return ps
}

// prefix is what comes before a choice's text.
func (r *run) prefix(i int) string {
	if !r.req.echo {
		return ""
	}
	return r.req.prompts[i/r.req.n].text
}

func (r *run) completionBody() []byte {
	b := fmt.Appendf(nil, `{"id":%s,"object":"text_completion","created":%d,"model":%s,"choices":[`, quote(r.id), r.created, quote(r.model()))
	for i, c := range r.choices {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"index":%d,"text":%s,"logprobs":`, i, quote(r.prefix(i)+c.text()))
		b = r.textLogprobs(b, c, 0, len(c.ids))
		b = fmt.Appendf(b, `,"finish_reason":%s,"stop_reason":%s,"token_ids":`, quote(c.reason), quoteOrNull(c.stop))
		b = r.tokenList(b, c.ids)
		b = append(b, `,"prompt_logprobs":null,"prompt_token_ids":`...)
		b = r.tokenList(b, c.q.prompt)
		b = append(b, `,"routed_experts":null}`...)
	}
	b = fmt.Appendf(b, `],"service_tier":null,"system_fingerprint":%s,"usage":`, quote(r.s.fingerprint))
	b = r.plainUsage(b, "null") // vLLM does not count them on this route
	return append(b, `,"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}`...)
}

// textLogprobs writes the older shape of logprobs, or null.
func (r *run) textLogprobs(b []byte, c *choice, from, to int) []byte {
	if r.req.logprobs < 0 {
		return append(b, "null"...)
	}
	list := func(name string, one func(i int)) {
		b = append(b, name...)
		for i := from; i < to; i++ {
			if i > from {
				b = append(b, ',')
			}
			one(i)
		}
		b = append(b, ']')
	}
	at := utf8.RuneCountInString(decode(c.ids[:from]))
	list(`{"text_offset":[`, func(i int) {
		b = strconv.AppendInt(b, int64(at), 10)
		at += utf8.RuneCountInString(piece(c.ids[i]))
	})
	list(`,"token_logprobs":[`, func(i int) { b = strconv.AppendFloat(b, logprob(c.ids[i], i), 'g', -1, 64) })
	list(`,"tokens":[`, func(i int) { b = appendJSON(b, tokenText(c.ids[i])) })
	list(`,"top_logprobs":[`, func(i int) {
		b = append(b, '{')
		for k := range max(1, r.req.logprobs) {
			if k > 0 {
				b = append(b, ',')
			}
			alt, lp := alternative(c.ids[i], i, k)
			b = append(appendJSON(b, tokenText(alt)), ':')
			b = strconv.AppendFloat(b, lp, 'g', -1, 64)
		}
		b = append(b, '}')
	})
	return append(b, '}')
}

func (r *run) completionShape() shape {
	head := fmt.Sprintf(`data: {"id":%s,"object":"text_completion","created":%d,"model":%s,"choices":[`, quote(r.id), r.created, quote(r.model()))
	return shape{
		open: func() []byte { return nil },
		delta: func(b []byte, i int, c *choice, to int) []byte {
			text := c.between(c.sent, to)
			echoed := c.sent == 0 && r.req.echo
			if echoed {
				text = r.prefix(i) + text
			}
			b = append(b, head...)
			b = append(b, `{"index":`...)
			b = strconv.AppendInt(b, int64(i), 10)
			b = append(b, `,"text":`...)
			b = appendJSON(b, text)
			b = append(b, `,"logprobs":`...)
			b = r.textLogprobs(b, c, c.sent, to)
			last := to == len(c.ids)
			if last {
				b = fmt.Appendf(b, `,"finish_reason":%s,"stop_reason":%s`, quote(c.reason), quoteOrNull(c.stop))
			} else {
				b = append(b, `,"finish_reason":null,"stop_reason":null`...)
			}
			b = append(b, `,"prompt_token_ids":`...)
			switch {
			case echoed: // vLLM adds them unasked
				b = appendInts(b, c.q.prompt)
			case c.sent == 0:
				b = r.tokenList(b, c.q.prompt)
			default:
				b = append(b, "null"...)
			}
			b = append(b, `,"token_ids":`...)
			b = r.tokenList(b, c.ids[c.sent:to])
			b = append(b, "}]"...)
			if r.req.eachUsage {
				p := len(c.q.prompt)
				b = fmt.Appendf(b, `,"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}`, p, p+to, to)
			}
			if last && !r.req.usage {
				b = append(b, `,"system_fingerprint":`...)
				b = appendJSON(b, r.s.fingerprint)
			}
			return append(b, "}\n\n"...)
		},
		close: func() []byte {
			var b []byte
			if r.req.usage {
				u := r.usage()
				b = append(b, head...)
				b = fmt.Appendf(b, `],"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d}},"system_fingerprint":%s}`+"\n\n",
					u.prompt, u.prompt+u.completion, u.completion, u.cached, quote(r.s.fingerprint))
			}
			return append(b, "data: [DONE]\n\n"...)
		},
		fail: func(e *apiError) []byte { return append(e.event(), "data: [DONE]\n\n"...) },
	}
}
