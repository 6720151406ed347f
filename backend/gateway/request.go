package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/tidwall/gjson"
)

// request is what the gateway reads of a client's body: a few top-level members, nothing else.
type request struct {
	body  []byte
	model string // as the client wrote it; "" for none

	stream bool
	asked  bool // the client wants a usage event
	inject bool // we must ask for it in its place
	n      int  // answers wanted, at least 1

	modelAt    member // value 0: the body has none
	optionsAt  member
	priorityAt member
	usageAt    member // include_usage inside stream_options, offsets in the body
	inputAt    member // what the model is to answer: messages, prompt or input
	members    int
}

// badRequestError is an error that is the client's fault, with the name of the field at fault.
type badRequestError struct{ msg, param string }

func (e *badRequestError) Error() string { return e.msg }

// parse reads body. Its errors are *badRequestError.
//
// A key that we act on must stand in the body once. Python's parser takes the last of several,
// others the first: whoever guesses differently from the worker routes one model and pays for another.
func (q *request) parse(body []byte, d *dialect) error {
	*q = request{body: body, n: 1}
	var seen uint
	var streamAt, nAt member
	known := [...]struct {
		key string
		at  *member
	}{
		{"model", &q.modelAt},
		{"stream", &streamAt},
		{"stream_options", &q.optionsAt},
		{"priority", &q.priorityAt},
		{"n", &nAt},
		{d.input, &q.inputAt},
	}
	err := members(body, func(raw []byte, m member) error {
		q.members++
		key := unescape(raw)
		for i := range known {
			if known[i].key != string(key) {
				continue
			}
			if seen&(1<<i) != 0 {
				return &badRequestError{fmt.Sprintf("%q stands twice in the body, the second time at byte %d", known[i].key, m.start), known[i].key}
			}
			seen |= 1 << i
			*known[i].at = m
		}
		return nil
	})
	if err != nil {
		if e, ok := errors.AsType[*badRequestError](err); ok {
			return e
		}
		return &badRequestError{"the body is not a JSON object: " + err.Error(), ""}
	}
	if v := q.raw(q.modelAt); !none(v) {
		if v[0] != '"' {
			return &badRequestError{"model must be a string", "model"}
		}
		q.model = string(unescape(v[1 : len(v)-1]))
	}
	switch string(q.raw(streamAt)) {
	case "true":
		q.stream = true
	case "", "null", "false":
	default:
		return &badRequestError{"stream must be true or false", "stream"}
	}
	if v := q.raw(nAt); !none(v) {
		n, err := strconv.Atoi(string(v))
		if err == nil && n > 1 {
			q.n = n // what is no number, or less than 1, the worker refuses in its own words
		}
	}
	return q.parseOptions(d)
}

// parseOptions reads stream_options. vLLM takes include_usage as true when stream_options is
// there without it (StreamOptions.include_usage: bool | None = True).
func (q *request) parseOptions(d *dialect) error {
	if !q.stream || !d.usageOption {
		return nil
	}
	switch v := q.raw(q.optionsAt); {
	case none(v):
		q.inject = true
		return nil
	case v[0] != '{':
		return &badRequestError{"stream_options must be an object", "stream_options"}
	}
	base := q.optionsAt.value
	err := members(q.optionsAt.raw(q.body), func(raw []byte, m member) error {
		if string(unescape(raw)) != "include_usage" {
			return nil
		}
		if q.usageAt.value != 0 {
			return &badRequestError{"include_usage stands twice in stream_options", "stream_options"}
		}
		q.usageAt = member{start: base + m.start, value: base + m.value, end: base + m.end}
		return nil
	})
	if err != nil {
		return err
	}
	switch string(q.raw(q.usageAt)) {
	case "", "true":
		q.asked = true
	case "false", "null":
		q.inject = true
	default:
		return &badRequestError{"stream_options.include_usage must be true or false", "stream_options"}
	}
	return nil
}

// kept reports whether the request asks for something that stays behind at the worker: sent again, it would be there twice.
func (q *request) kept() bool {
	return gjson.GetBytes(q.body, "store").Bool() || gjson.GetBytes(q.body, "background").Bool()
}

// raw is the member's value as it is written, nil where the body has none.
func (q *request) raw(m member) []byte {
	if m.value == 0 {
		return nil
	}
	return m.raw(q.body)
}

// none reports whether a value says nothing.
func none(v []byte) bool { return len(v) == 0 || string(v) == "null" }

// edits appends what must change in the body before it goes to an upstream that knows the model
// as name ("" leaves the client's) and an answer's greatest length as limit ("" leaves that too), in order.
func (q *request) edits(dst []edit, name, limit string) []edit {
	left := q.members
	var space [2]member
	gone := space[:0]
	if q.priorityAt.value != 0 { // ours to grant: it would let a client jump vLLM's queue
		gone = append(gone, q.priorityAt)
	}
	if limit != "" {
		dst, gone = q.oneLimit(dst, gone, limit)
	}
	dst = without(dst, gone)
	left -= len(gone)
	add := ""
	if name != "" && (name != q.model || q.modelAt.value == 0) {
		if quoted := quote(name); q.modelAt.value != 0 {
			dst = append(dst, edit{q.modelAt.value, q.modelAt.end, quoted})
		} else {
			add += `"model":` + quoted + ","
		}
	}
	if q.inject {
		switch {
		case q.usageAt.value != 0:
			dst = append(dst, edit{q.usageAt.value, q.usageAt.end, "true"})
		case q.optionsAt.value != 0:
			dst = append(dst, edit{q.optionsAt.value, q.optionsAt.end, includeUsage})
		default:
			add += `"stream_options":` + includeUsage + ","
		}
	}
	if add != "" {
		if left == 0 {
			add = strings.TrimSuffix(add, ",")
		}
		at := bytes.IndexByte(q.body, '{') + 1
		dst = append(dst, edit{at, at, add})
	}
	sortEdits(dst)
	return dst
}

// oneLimit gives the greatest length of an answer the name that the upstream knows it by. OpenAI refuses a request
// that has both names; as in vLLM, max_completion_tokens counts then. What is left out is added to gone, in order.
func (q *request) oneLimit(dst []edit, gone []member, limit string) ([]edit, []member) {
	var older, newer []member
	set := false                                           // max_completion_tokens says something
	_ = members(q.body, func(raw []byte, m member) error { // it was read before, without an error
		switch string(unescape(raw)) {
		case "max_tokens":
			older = append(older, m)
		case "max_completion_tokens":
			newer = append(newer, m)
			set = set || !none(m.raw(q.body))
		}
		return nil
	})
	keep, drop := older, newer
	if set || len(older) == 0 {
		keep, drop = newer, older
	}
	for _, m := range keep {
		colon := m.start + 1 + bytes.IndexByte(q.body[m.start+1:m.value], '"') + 1
		dst = append(dst, edit{m.start, colon, `"` + limit + `"`})
	}
	gone = append(gone, drop...)
	slices.SortFunc(gone, func(a, b member) int { return a.start - b.start })
	return dst, gone
}

const includeUsage = `{"include_usage":true}`

// unescape gives a key without its escapes: "mod\u0065l" is model to every parser.
func unescape(raw []byte) []byte {
	if slices.Contains(raw, '\\') {
		return []byte(gjson.Parse(`"` + string(raw) + `"`).Str)
	}
	return raw
}

// lastUser is the text of the last thing the user said, at most limit bytes.
func (q *request) lastUser(limit int) string {
	if q.inputAt.value == 0 {
		return ""
	}
	v := inPlace(q.inputAt.raw(q.body))
	text := ""
	if v.IsArray() && strings.HasPrefix(strings.TrimLeft(v.Raw[1:], " \n\r\t"), "{") {
		var last gjson.Result
		v.ForEach(func(_, m gjson.Result) bool {
			if m.Get("role").Str == "user" {
				last = m.Get("content")
			}
			return true
		})
		v = last
	}
	if v.IsArray() {
		v.ForEach(func(_, part gjson.Result) bool {
			if part.Type == gjson.String {
				text += part.Str
			} else {
				text += part.Get("text").Str
			}
			return len(text) < limit
		})
	} else if v.Type == gjson.String {
		text = v.Str
	}
	return strings.Clone(cut(text, limit)) // or it would hold, and point into, the whole body
}

// inPlace parses JSON without a copy, which of a body of megabytes is megabytes. What it gives points
// into b: none of it may outlive b.
func inPlace(b []byte) gjson.Result {
	return gjson.Parse(unsafe.String(unsafe.SliceData(b), len(b)))
}

// cut shortens s to at most limit bytes without splitting a character.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && s[limit]&0xC0 == 0x80 {
		limit--
	}
	return s[:limit]
}
