package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// apiError is an error body of vLLM's. A message of kind "Bad Request" comes from the schema,
// "BadRequestError" from the code behind it.
type apiError struct {
	status  int
	kind    string
	message string
	param   *string
}

func (e *apiError) Error() string { return e.message }

func (e *apiError) body() []byte {
	b := append([]byte(`{"error":{"message":`), appendJSON(nil, e.message)...)
	b = append(b, `,"type":`...)
	b = appendJSON(b, e.kind)
	b = append(b, `,"param":`...)
	b = append(b, quoteOrNull(e.param)...)
	return fmt.Appendf(b, `,"code":%d}}`, e.status)
}

// event is the body as it stands within a stream: json.dumps puts spaces there.
func (e *apiError) event() []byte {
	b := append([]byte(`data: {"error": {"message": `), appendJSON(nil, e.message)...)
	b = append(b, `, "type": `...)
	b = appendJSON(b, e.kind)
	b = append(b, `, "param": `...)
	b = append(b, quoteOrNull(e.param)...)
	return fmt.Appendf(b, `, "code": %d}}`+"\n\n", e.status)
}

func badRequest(param, format string, args ...any) *apiError {
	e := &apiError{status: 400, kind: "BadRequestError", message: fmt.Sprintf(format, args...)}
	if param != "" {
		e.param = &param
	}
	return e
}

// parameter is a bad request whose text ends as vLLM's do when a parameter is named.
func parameter(name, value, format string, args ...any) *apiError {
	suffix := " (parameter=" + name
	if value != "" {
		suffix += ", value=" + value
	}
	return badRequest(name, "%s", fmt.Sprintf(format, args...)+suffix+")")
}

// violation is one entry of a pydantic error.
type violation struct{ kind, loc, msg, input, ctx string }

func (v violation) String() string {
	s := fmt.Sprintf("{'type': '%s', 'loc': '%s', 'msg': '%s', 'input': %s", v.kind, v.loc, v.msg, v.input)
	if v.ctx != "" {
		s += ", 'ctx': " + v.ctx
	}
	return s + "}"
}

func schemaError(vs ...violation) *apiError {
	var b strings.Builder
	fmt.Fprintf(&b, "%d validation error", len(vs))
	if len(vs) > 1 {
		b.WriteString("s")
	}
	b.WriteString(":")
	for i, v := range vs {
		if i == 10 {
			fmt.Fprintf(&b, "\n  ...and %d more errors", len(vs)-i)
			break
		}
		b.WriteString("\n  " + v.String())
	}
	return &apiError{status: 400, kind: "Bad Request", message: b.String(), param: &vs[0].loc}
}

// pyRepr is how pydantic's message shows an input.
func pyRepr(raw json.RawMessage) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return "'None'"
	}
	switch raw[0] {
	case '{':
		var m map[string]json.RawMessage
		_ = json.Unmarshal(raw, &m)
		return fmt.Sprintf("'<dict of %d items>'", len(m))
	case '[':
		var l []json.RawMessage
		_ = json.Unmarshal(raw, &l)
		return fmt.Sprintf("'<list of %d items>'", len(l))
	case '"':
		var s string
		_ = json.Unmarshal(raw, &s)
		return pyString(s)
	case 'n':
		return "'None'"
	case 't':
		return "'True'"
	case 'f':
		return "'False'"
	}
	return "'" + string(raw) + "'"
}

func pyString(s string) string {
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		return `"` + s + `"`
	}
	return "'" + strings.ReplaceAll(s, "'", `\'`) + "'"
}

// fields reads a request body field by field and collects what does not fit its schema.
type fields struct {
	raw  map[string]json.RawMessage
	loc  string // "body"
	own  int    // fields that vLLM adds before it looks
	errs []violation
}

// parseBody reads a JSON object or says what Python would have said.
func parseBody(data []byte) (*fields, *apiError) {
	if len(bytes.TrimSpace(data)) == 0 {
		return nil, schemaError(violation{"missing", "body", "Field required", "'None'", ""})
	}
	if at, msg, ok := pySyntax(data); !ok {
		return nil, schemaError(violation{
			"json_invalid", "body." + strconv.Itoa(at), "JSON decode error", "'<dict of 0 items>'",
			"{'error': " + pyString(msg) + "}",
		})
	}
	f := &fields{loc: "body"}
	if err := json.Unmarshal(data, &f.raw); err != nil || f.raw == nil {
		return nil, schemaError(violation{"model_attributes_type", "body", "Input should be a valid dictionary or object to extract fields from", pyRepr(data), ""})
	}
	return f, nil
}

func (f *fields) fail(name, kind, msg string) {
	f.errs = append(f.errs, violation{kind, f.loc + "." + name, msg, pyRepr(f.raw[name]), ""})
}

func (f *fields) missing(name string) {
	f.errs = append(f.errs, violation{"missing", f.loc + "." + name, "Field required", fmt.Sprintf("'<dict of %d items>'", len(f.raw)+f.own), ""})
}

// err is what the schema has against the request, nil if nothing.
func (f *fields) err() *apiError {
	if len(f.errs) == 0 {
		return nil
	}
	return schemaError(f.errs...)
}

// get gives a field that is there and not null.
func (f *fields) get(name string) (json.RawMessage, bool) {
	raw, ok := f.raw[name]
	if !ok || string(raw) == "null" {
		return nil, false
	}
	return raw, true
}

func (f *fields) str(name string) *string {
	raw, ok := f.get(name)
	if !ok {
		return nil
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		f.fail(name, "string_type", "Input should be a valid string")
		return nil
	}
	return &s
}

// integer takes a number or, as pydantic does, a string that holds one.
func (f *fields) integer(name string) *int64 {
	raw, ok := f.get(name)
	if !ok {
		return nil
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		v, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
		if err != nil {
			f.fail(name, "int_parsing", "Input should be a valid integer, unable to parse string as an integer")
			return nil
		}
		return &v
	}
	var v float64
	if json.Unmarshal(raw, &v) != nil {
		if string(raw) == "true" || string(raw) == "false" {
			n := int64(len("false") - len(raw))
			return &n
		}
		f.fail(name, "int_type", "Input should be a valid integer")
		return nil
	}
	if v != math.Trunc(v) || math.Abs(v) > 1<<53 {
		f.fail(name, "int_from_float", "Input should be a valid integer, got a number with a fractional part")
		return nil
	}
	n := int64(v)
	return &n
}

func (f *fields) float(name string) *float64 {
	raw, ok := f.get(name)
	if !ok {
		return nil
	}
	var s string
	if json.Unmarshal(raw, &s) == nil {
		v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil {
			f.fail(name, "float_parsing", "Input should be a valid number, unable to parse string as a number")
			return nil
		}
		return &v
	}
	var v float64
	if json.Unmarshal(raw, &v) != nil {
		f.fail(name, "float_type", "Input should be a valid number")
		return nil
	}
	return &v
}

func (f *fields) boolean(name string) *bool {
	raw, ok := f.get(name)
	if !ok {
		return nil
	}
	v := false
	switch strings.ToLower(strings.Trim(string(raw), `"`)) {
	case "true", "1", "yes", "on", "y", "t":
		v = true
	case "false", "0", "no", "off", "n", "f":
	default:
		f.fail(name, "bool_parsing", "Input should be a valid boolean, unable to interpret input")
		return nil
	}
	return &v
}

// is reads a boolean that is false unless said otherwise.
func (f *fields) is(name string) bool {
	v := f.boolean(name)
	return v != nil && *v
}

// object reads a nested object; nil if absent.
func (f *fields) object(name string) *fields {
	raw, ok := f.get(name)
	if !ok {
		return nil
	}
	sub := &fields{loc: f.loc + "." + name}
	if json.Unmarshal(raw, &sub.raw) != nil {
		f.fail(name, "model_attributes_type", "Input should be a valid dictionary or object to extract fields from")
		return nil
	}
	return sub
}

// list reads an array; ok is false if it is absent or wrong.
func (f *fields) list(name string) ([]json.RawMessage, bool) {
	raw, ok := f.get(name)
	if !ok {
		return nil, false
	}
	var l []json.RawMessage
	if json.Unmarshal(raw, &l) != nil {
		f.fail(name, "list_type", "Input should be a valid list")
		return nil, false
	}
	return l, true
}
