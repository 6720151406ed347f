package gateway

import (
	"encoding/json"
	"net/http"
)

// refusal is an answer of our own in place of the worker's.
type refusal struct {
	status int
	kind   string // OpenAI's "type"
	code   string // OpenAI's "code"
	param  string // the field at fault
	msg    string
	retry  string // Retry-After, "" for none
	final  bool   // the client should not try again: we have done so
}

func (e *refusal) Error() string { return e.msg }

// errorBody is an error in OpenAI's shape, with our request id beside the usual fields.
type errorBody struct {
	Message   string  `json:"message"`
	Type      string  `json:"type"`
	Param     *string `json:"param"`
	Code      *string `json:"code"`
	RequestID string  `json:"request_id,omitempty"`
}

// body gives the JSON of the error, in the shape of the route it goes to.
func (e *refusal) body(id string, anthropic bool) []byte {
	body := errorBody{Message: e.msg, Type: e.kind, RequestID: id}
	if anthropic && e.status == http.StatusTooManyRequests {
		body.Type = "rate_limit_error" // theirs has no finer ones
	}
	if e.param != "" {
		body.Param = &e.param
	}
	if e.code != "" {
		body.Code = &e.code
	}
	var v any = struct {
		Error errorBody `json:"error"`
	}{body}
	if anthropic {
		v = struct {
			Type  string    `json:"type"`
			Error errorBody `json:"error"`
		}{"error", body}
	}
	b, err := json.Marshal(v)
	if err != nil { // strings alone: cannot fail
		return []byte(`{"error":{"message":"internal error","type":"server_error","param":null,"code":null}}`)
	}
	return b
}

// event gives the error as one event of a stream.
func (e *refusal) event(id string, anthropic bool) []byte {
	b := append([]byte("data: "), e.body(id, anthropic)...)
	if anthropic {
		b = append([]byte("event: error\n"), b...)
	}
	return append(b, '\n', '\n')
}

// write answers with the error.
func (e *refusal) write(w http.ResponseWriter, id string, anthropic bool) error {
	h := w.Header()
	h["Content-Type"] = jsonType
	h.Set("X-Request-Id", id)
	if e.retry != "" {
		h.Set("Retry-After", e.retry)
	}
	if e.final {
		h.Set("X-Should-Retry", "false") // OpenAI's clients would try three times what we tried three times
	}
	if e.status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(e.status)
	_, err := w.Write(append(e.body(id, anthropic), '\n'))
	return err
}

func invalid(status int, code, param, msg string) *refusal {
	return &refusal{status: status, kind: "invalid_request_error", code: code, param: param, msg: msg}
}

// quote writes s as a JSON string.
func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil { // a string cannot fail
		return `""`
	}
	return string(b)
}
