package sim

import (
	"encoding/json"
	"fmt"
)

// response is what /v1/responses says about a request beside its output.
type response struct {
	*run
	item         string // id of the message
	instructions *string
	metadata     json.RawMessage
	user         *string
	topP         float64
	limit        *int64
	seqNo        int
}

// responses answers /v1/responses.
func (x *exchange) responses() error {
	x.faults = x.s.dice()
	rs, req, err := x.s.readResponses(x)
	if err != nil {
		return err
	}
	r, rerr := x.generate(req)
	if rerr != nil {
		return rerr
	}
	r.id = "resp_" + r.id
	rs.run, rs.item = r, "msg_"+randomHex()
	if req.stream {
		return r.stream(rs.shape(), rs.opening())
	}
	if err := r.whole(); err != nil {
		return err
	}
	x.json(200, rs.body(true))
	return nil
}

func (s *Server) readResponses(x *exchange) (*response, *request, error) {
	f, err := x.body()
	if err != nil {
		return nil, nil, err
	}
	f.own = 1 // request_id
	rs := &response{topP: 1}
	req := &request{role: "assistant"}
	model := f.str("model")
	var ms []message
	if raw, ok := f.get("input"); !ok {
		f.missing("input")
	} else {
		var text string
		if json.Unmarshal(raw, &text) == nil {
			ms = []message{{"user", text}}
		} else {
			var merr *apiError
			if ms, merr = f.messages("input", s.o.Model); merr != nil {
				return nil, nil, merr
			}
		}
	}
	rs.instructions, rs.user = f.str("instructions"), f.str("user")
	rs.metadata, _ = f.get("metadata")
	if rs.metadata == nil {
		rs.metadata = json.RawMessage("null")
	}
	if v := f.float("top_p"); v != nil {
		rs.topP = *v
	}
	rs.limit = f.integer("max_output_tokens")
	req.sampling(f, "max_output_tokens")
	req.stream = f.is("stream")
	if err := f.err(); err != nil {
		return nil, nil, err
	}
	if err := s.o.knows(model); err != nil {
		return nil, nil, err
	}
	if rs.instructions != nil {
		ms = append([]message{{"system", *rs.instructions}}, ms...)
	}
	req.n = 1
	req.prompts = []prompt{{messages: ms, ids: template(ms, true, false)}}
	if err := s.o.fit(req, "max_output_tokens", req.prompts, runes(ms)); err != nil {
		return nil, nil, err
	}
	if req.deferred != nil {
		return nil, nil, req.deferred
	}
	if rs.limit == nil {
		left := int64(req.maxTokens)
		rs.limit = &left
	}
	return rs, req, nil
}

func (rs *response) content() []byte {
	return fmt.Appendf(nil, `{"annotations":[],"text":%s,"type":"output_text","logprobs":null}`, quote(rs.choices[0].text()))
}

func (rs *response) message() []byte {
	return fmt.Appendf(nil, `{"id":%s,"content":[%s],"role":"assistant","status":"completed","type":"message","phase":null}`, quote(rs.item), rs.content())
}

// body is the response object, before or after its output.
func (rs *response) body(done bool) []byte {
	incomplete, output, status, use := "null", "", "in_progress", "null"
	if done {
		status, output = "completed", string(rs.message())
		if rs.choices[0].reason == "length" {
			status, incomplete = "incomplete", `{"reason":"max_output_tokens"}`
		}
		u := rs.usage()
		use = fmt.Sprintf(`{"input_tokens":%d,"input_tokens_details":{"cached_tokens":%d,"cache_write_tokens":%d,"input_tokens_per_turn":[],"cached_tokens_per_turn":[]},"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":0,"tool_output_tokens":0,"output_tokens_per_turn":[],"tool_output_tokens_per_turn":[]},"total_tokens":%d}`,
			u.prompt, u.cached, u.created, u.completion, u.prompt+u.completion)
	}
	return fmt.Appendf(nil, `{"id":%s,"created_at":%d,"incomplete_details":%s,"instructions":%s,"metadata":%s,"model":%s,"object":"response","output":[%s],"parallel_tool_calls":true,"temperature":%s,"tool_choice":"none","tools":[],"top_p":%s,"background":false,"max_output_tokens":%d,"max_tool_calls":null,"previous_response_id":null,"prompt":null,"reasoning":null,"service_tier":"auto","status":"%s","text":null,"top_logprobs":null,"truncation":"disabled","usage":%s,"user":%s,"presence_penalty":0.0,"frequency_penalty":0.0,"kv_transfer_params":null,"ec_transfer_params":null,"input_messages":null,"output_messages":null}`,
		quote(rs.id), rs.created, incomplete, quoteOrNull(rs.instructions), rs.metadata, quote(rs.model()), output, pyFloat(rs.req.temperature), pyFloat(rs.topP), *rs.limit, status, use, quoteOrNull(rs.user))
}

// event numbers and names one event; rest is its JSON from the first key up to the number.
func (rs *response) event(b []byte, name, rest string) []byte {
	b = fmt.Appendf(b, "event: %s\ndata: {%s,\"sequence_number\":%d,\"type\":\"%s\"}\n\n", name, rest, rs.seqNo, name)
	rs.seqNo++
	return b
}

// part is an event about the content part; its keys stand in alphabetical order.
func (rs *response) part(b []byte, name, rest string) []byte {
	return rs.event(b, name, `"content_index":0,`+rest)
}

// opening is sent before the engine has said anything.
func (rs *response) opening() []byte {
	b := rs.event(nil, "response.created", `"response":`+string(rs.body(false)))
	return rs.event(b, "response.in_progress", `"response":`+string(rs.body(false)))
}

func (rs *response) shape() shape {
	item := quote(rs.item)
	return shape{
		open: func() []byte {
			b := rs.event(nil, "response.output_item.added", fmt.Sprintf(`"item":{"id":%s,"content":[],"role":"assistant","status":"in_progress","type":"message","phase":null},"output_index":0`, item))
			return rs.part(b, "response.content_part.added", fmt.Sprintf(`"item_id":%s,"output_index":0,"part":{"annotations":[],"text":"","type":"output_text","logprobs":[]}`, item))
		},
		delta: func(b []byte, _ int, c *choice, to int) []byte {
			text := c.between(c.sent, to)
			if text == "" {
				return b
			}
			return rs.part(b, "response.output_text.delta", fmt.Sprintf(`"delta":%s,"item_id":%s,"logprobs":[],"output_index":0`, quote(text), item))
		},
		close: func() []byte {
			// Here the text stands behind the number.
			b := fmt.Appendf(nil, "event: response.output_text.done\ndata: {\"content_index\":0,\"item_id\":%s,\"logprobs\":[],\"output_index\":0,\"sequence_number\":%d,\"text\":%s,\"type\":\"response.output_text.done\"}\n\n", item, rs.seqNo, quote(rs.choices[0].text()))
			rs.seqNo++
			b = rs.part(b, "response.content_part.done", fmt.Sprintf(`"item_id":%s,"output_index":0,"part":%s`, item, rs.content()))
			b = rs.event(b, "response.output_item.done", fmt.Sprintf(`"item":%s,"output_index":0`, rs.message()))
			return rs.event(b, "response.completed", `"response":`+string(rs.body(true)))
		},
	}
}
