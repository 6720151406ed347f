package sim

import (
	"fmt"
	"strconv"
	"strings"
)

// chat answers /v1/chat/completions.
func (x *exchange) chat() error {
	x.faults = x.s.dice()
	req, err := x.s.readChat(x)
	if err != nil {
		return err
	}
	r, rerr := x.generate(req)
	if rerr != nil {
		return rerr
	}
	r.id = "chatcmpl-" + r.id
	if req.stream {
		return r.stream(r.chatShape(), nil)
	}
	if err := r.whole(); err != nil {
		return err
	}
	x.json(200, r.chatBody())
	return nil
}

// readChat reads and checks a request in the order that vLLM does: schema, model, template,
// lengths, sampling.
func (s *Server) readChat(x *exchange) (*request, error) {
	f, err := x.body()
	if err != nil {
		return nil, err
	}
	req := &request{role: "assistant"}
	model := f.str("model")
	ms, merr := f.messages("messages", s.o.Model)
	req.sampling(f, "max_completion_tokens", "max_tokens")
	if err := req.streaming(f); err != nil {
		return nil, err
	}
	if f.is("logprobs") {
		req.logprobs = 0
	}
	if v := f.integer("top_logprobs"); v != nil && *v > 0 {
		if req.logprobs < 0 && len(f.errs) == 0 {
			return nil, parameter("top_logprobs", "", "when using `top_logprobs`, `logprobs` must be set to true.")
		}
		req.logprobs = int(min(*v, 20))
	}
	open := f.is("continue_final_message")
	add := f.boolean("add_generation_prompt")
	if open && add != nil && *add && len(f.errs) == 0 {
		return nil, badRequest("", "Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	if err := s.o.knows(model); err != nil {
		return nil, err
	}
	if tools, ok := f.list("tools"); ok && len(tools) > 0 {
		if c := f.str("tool_choice"); c == nil || *c == "auto" {
			return nil, badRequest("", "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set")
		}
	}
	if merr != nil {
		return nil, merr
	}
	switch {
	case len(ms) == 0:
		return nil, badRequest("", "Cannot apply chat template to an empty conversation. Provide at least one message.")
	case open && add == nil:
		return nil, badRequest("", "continue_final_message and add_generation_prompt are not compatible. Use continue_final_message when you want the model to continue the final message, and add_generation_prompt when you want to add a header that will prompt it to start a new assistant message instead.")
	}
	if open {
		req.role = ms[len(ms)-1].role
	}
	req.echo = f.is("echo")
	p := prompt{messages: ms, open: open, ids: template(ms, !open && (add == nil || *add), open)}
	req.prompts = []prompt{p}
	asked := "max_tokens"
	if _, ok := f.get("max_completion_tokens"); ok {
		asked = "max_completion_tokens"
	}
	if err := s.o.fit(req, asked, req.prompts, runes(ms)); err != nil {
		return nil, err
	}
	if req.deferred != nil {
		return nil, req.deferred
	}
	return req, nil
}

func (r *run) model() string { return r.s.o.Names[0] }

func (r *run) chatBody() []byte {
	b := fmt.Appendf(nil, `{"id":%s,"object":"chat.completion","created":%d,"model":%s,"choices":[`, quote(r.id), r.created, quote(r.model()))
	for i, c := range r.choices {
		if i > 0 {
			b = append(b, ',')
		}
		text := c.text()
		if r.req.echo && r.req.prompts[0].open {
			ms := r.req.prompts[0].messages
			text = ms[len(ms)-1].text + text
		}
		b = fmt.Appendf(b, `{"index":%d,"message":{"role":%s,"content":%s,"refusal":null,"annotations":null,"audio":null,"function_call":null,"reasoning":null},"logprobs":`, i, quote(r.req.role), quote(text))
		b = r.chatLogprobs(b, c, 0, len(c.ids))
		b = fmt.Appendf(b, `,"finish_reason":%s,"stop_reason":%s,"token_ids":`, quote(c.reason), quoteOrNull(c.stop))
		b = r.tokenList(b, c.ids)
		b = append(b, `,"routed_experts":null}`...)
	}
	b = fmt.Appendf(b, `],"service_tier":null,"system_fingerprint":%s,"usage":`, quote(r.s.fingerprint))
	b = r.plainUsage(b, strconv.Itoa(r.usage().created))
	b = append(b, `,"prompt_logprobs":null,"prompt_token_ids":`...)
	b = r.tokenList(b, r.choices[0].q.prompt)
	return append(b, `,"prompt_text":null,"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}`...)
}

// tokenList writes ids if the request asked for them, else null.
func (r *run) tokenList(b []byte, ids []int32) []byte {
	if !r.req.tokenIDs {
		return append(b, "null"...)
	}
	return appendInts(b, ids)
}

// plainUsage is the usage of an answer that was not streamed. created is the number of tokens
// that the prefix cache gained, or null.
func (r *run) plainUsage(b []byte, created string) []byte {
	u := r.usage()
	return fmt.Appendf(b, `{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d,"created_cache_tokens":%s,"multimodal_tokens":null},"completion_tokens_details":null}`,
		u.prompt, u.prompt+u.completion, u.completion, u.cached, created)
}

// chatLogprobs writes the logprobs of tokens from..to, or null.
func (r *run) chatLogprobs(b []byte, c *choice, from, to int) []byte {
	if r.req.logprobs < 0 {
		return append(b, "null"...)
	}
	one := func(text string, lp float64) {
		b = fmt.Appendf(b, `{"token":%s,"logprob":%s,"bytes":[`, quote(text), strconv.FormatFloat(lp, 'g', -1, 64))
		for i := range len(text) {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(text[i]), 10)
		}
		b = append(b, ']')
	}
	b = append(b, `{"content":[`...)
	for i := from; i < to; i++ {
		if i > from {
			b = append(b, ',')
		}
		id := c.ids[i]
		lp := logprob(id, i)
		one(tokenText(id), lp)
		b = append(b, `,"top_logprobs":[`...)
		for k := range r.req.logprobs {
			if k > 0 {
				b = append(b, ',')
			}
			alt, altLP := alternative(id, i, k)
			one(tokenText(alt), altLP)
			b = append(b, '}')
		}
		b = append(b, "]}"...)
	}
	return append(b, "]}"...)
}

// tokenText is how logprobs show a token: special tokens by name.
func tokenText(id int32) string {
	switch id {
	case tokEOS:
		return "<|endoftext|>"
	case tokStart:
		return "<|im_start|>"
	case tokEnd:
		return "<|im_end|>"
	}
	return piece(id)
}

// alternative is the k-th most likely token at a place, the chosen one first.
func alternative(id int32, at, k int) (int32, float64) {
	lp := logprob(id, at)
	if k == 0 {
		return id, lp
	}
	n := len(vocab().pieces)
	alt := byteBase + 256 + int32(mix(uint64(id)<<8^uint64(at)<<32^uint64(k))%uint64(n-256))
	return alt, lp - 1.5*float64(k) - 0.25
}

func (r *run) chatShape() shape {
	head := fmt.Sprintf(`data: {"id":%s,"object":"chat.completion.chunk","created":%d,"model":%s,"choices":[`, quote(r.id), r.created, quote(r.model()))
	each := func(b []byte, completion int) []byte { // continuous_usage_stats
		if !r.req.eachUsage {
			return b
		}
		p := len(r.choices[0].q.prompt)
		return fmt.Appendf(b, `,"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"completion_tokens_details":null}`, p, p+completion, completion)
	}
	return shape{
		open: func() []byte {
			var b []byte
			for i := range r.choices {
				b = append(b, head...)
				b = fmt.Appendf(b, `{"index":%d,"delta":{"role":%s,"content":""},"logprobs":null,"finish_reason":null}]`, i, quote(r.req.role))
				b = each(b, 0)
				b = append(b, `,"prompt_token_ids":`...)
				b = r.tokenList(b, r.choices[0].q.prompt)
				b = append(b, `,"prompt_text":null}`+"\n\n"...)
				if r.req.echo && r.req.prompts[0].open {
					ms := r.req.prompts[0].messages
					b = append(b, head...)
					b = fmt.Appendf(b, `{"index":%d,"delta":{"content":%s},"logprobs":null,"finish_reason":null}]}`+"\n\n", i, quote(ms[len(ms)-1].text))
				}
			}
			return b
		},
		delta: func(b []byte, i int, c *choice, to int) []byte {
			b = append(b, head...)
			b = append(b, `{"index":`...)
			b = strconv.AppendInt(b, int64(i), 10)
			b = append(b, `,"delta":{"content":`...)
			b = appendJSON(b, c.between(c.sent, to))
			b = append(b, `},"logprobs":`...)
			b = r.chatLogprobs(b, c, c.sent, to)
			last := to == len(c.ids)
			if last {
				b = fmt.Appendf(b, `,"finish_reason":%s,"stop_reason":%s`, quote(c.reason), quoteOrNull(c.stop))
			} else {
				b = append(b, `,"finish_reason":null`...)
			}
			b = append(b, `,"token_ids":`...)
			b = r.tokenList(b, c.ids[c.sent:to])
			b = append(b, "}]"...)
			b = each(b, to)
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
				b = fmt.Appendf(b, `],"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d,"created_cache_tokens":%d}},"system_fingerprint":%s}`+"\n\n",
					u.prompt, u.prompt+u.completion, u.completion, u.cached, u.created, quote(r.s.fingerprint))
			}
			return append(b, "data: [DONE]\n\n"...)
		},
		fail: func(e *apiError) []byte { return append(e.event(), "data: [DONE]\n\n"...) },
	}
}

// between joins the visible text of tokens from..to.
func (c *choice) between(from, to int) string {
	if to == from+1 {
		return c.deltas[from]
	}
	return strings.Join(c.deltas[from:to], "")
}
