package sim

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// request is a generation request of any route, read and checked.
type request struct {
	params
	prompts    []prompt
	stream     bool
	usage      bool // include_usage
	eachUsage  bool // continuous_usage_stats
	echo       bool
	tokenIDs   bool   // return_token_ids
	role       string // of the answer
	deferred   *apiError
	completion bool
}

// prompt is one conversation or text to answer.
type prompt struct {
	messages []message
	open     bool   // continue the last message
	text     string // of a plain completion
	ids      []int32
}

// sampling reads the parameters that all routes share. Range errors are kept in deferred: vLLM
// looks at them after the model and the prompt.
func (r *request) sampling(f *fields, tokenNames ...string) {
	r.temperature, r.n, r.logprobs = 1, 1, -1
	late := func(e *apiError) {
		if r.deferred == nil {
			r.deferred = e
		}
	}
	inRange := func(name string, ok func(float64) bool, what string, named bool) {
		v := f.float(name)
		if v == nil || ok(*v) {
			return
		}
		shown := pyFloat(*v)
		if named {
			late(parameter(name, shown, "%s must be %s, got %s.", name, what, shown))
		} else {
			late(badRequest("", "%s must be %s, got %s.", name, what, shown))
		}
	}
	r.maxTokens = -1
	for _, name := range tokenNames {
		v := f.integer(name)
		if v == nil || r.maxTokens >= 0 {
			continue
		}
		r.maxTokens = int(min(*v, math.MaxInt32))
		if *v < 1 {
			late(parameter("max_tokens", strconv.FormatInt(*v, 10), "max_tokens must be at least 1, got %d.", *v))
			r.maxTokens = 1
		}
	}
	if v := f.float("temperature"); v != nil {
		r.temperature = *v
		switch {
		case *v < 0:
			late(parameter("temperature", pyFloat(*v), "temperature must be non-negative, got %s.", pyFloat(*v)))
		case *v > 2:
			late(parameter("temperature", pyFloat(*v), "temperature must be in [0, 2], got %s.", pyFloat(*v)))
		}
	}
	inRange("top_p", func(v float64) bool { return v > 0 && v <= 1 }, "in (0, 1]", true)
	inRange("presence_penalty", func(v float64) bool { return v >= -2 && v <= 2 }, "in [-2, 2]", false)
	inRange("frequency_penalty", func(v float64) bool { return v >= -2 && v <= 2 }, "in [-2, 2]", false)
	if v := f.integer("top_k"); v != nil && *v < -1 {
		late(badRequest("", "top_k must be 0 (disable), or at least 1, got %d.", *v))
	}
	if v := f.integer("n"); v != nil {
		switch r.n = int(min(max(*v, 1), maxN+1)); {
		case *v < 1:
			late(badRequest("", "n must be at least 1, got %d.", *v))
		case *v > maxN:
			late(badRequest("", "n must be at most %d, got %d. To increase this limit, set the VLLM_MAX_N_SEQUENCES environment variable.", maxN, *v))
		case *v > 1 && r.temperature == 0:
			late(badRequest("", "n must be 1 when using greedy sampling, got %d.", *v))
		}
	}
	r.seed = f.integer("seed")
	if v := f.integer("min_tokens"); v != nil {
		r.minTokens = int(min(max(*v, 0), math.MaxInt32))
		if r.maxTokens > 0 && r.minTokens > r.maxTokens {
			late(badRequest("", "min_tokens must be less than or equal to max_tokens=%d, got %d.", r.maxTokens, r.minTokens))
		}
	}
	r.ignoreEOS = f.is("ignore_eos")
	r.keepStop = f.is("include_stop_str_in_output")
	r.tokenIDs = f.is("return_token_ids")
	r.stops(f, "stop")
	if salt := f.str("cache_salt"); salt != nil {
		r.salt = *salt
		if r.salt == "" {
			late(parameter("cache_salt", "", "Parameter 'cache_salt' must be a non-empty string if provided."))
		}
	}
	r.format(f)
}

// stops reads a stop string or a list of them.
func (r *request) stops(f *fields, name string) {
	raw, ok := f.get(name)
	if !ok {
		return
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		r.stop = []string{one}
	} else if json.Unmarshal(raw, &r.stop) != nil {
		f.fail(name, "list_type", "Input should be a valid list")
		return
	}
	if len(r.stop) > maxStops {
		f.fail(name, "string_type", "Input should be a valid string")
		f.errs = append(f.errs, violation{
			"too_long", f.loc + "." + name,
			fmt.Sprintf("List should have at most %d items after validation, not %d", maxStops, len(r.stop)), pyRepr(raw),
			fmt.Sprintf("{'field_type': 'List', 'max_length': %d, 'actual_length': %d}", maxStops, len(r.stop)),
		})
	}
	r.stop = slices.DeleteFunc(r.stop, func(s string) bool { return s == "" })
}

func (r *request) format(f *fields) {
	rf := f.object("response_format")
	if rf == nil {
		return
	}
	switch kind := rf.str("type"); {
	case kind == nil:
	case *kind == "json_object":
		r.json = answerSchema
	case *kind == "json_schema":
		r.json = answerSchema
		if js := rf.object("json_schema"); js != nil {
			s := &schema{}
			if raw, ok := js.get("schema"); ok && json.Unmarshal(raw, s) == nil {
				r.json = s
			}
		}
	}
}

// streaming reads stream and stream_options.
func (r *request) streaming(f *fields) *apiError {
	r.stream = f.is("stream")
	o := f.object("stream_options")
	if o == nil {
		return nil
	}
	if !r.stream && len(f.errs) == 0 {
		return parameter("stream_options", "", "Stream options can only be defined when `stream=True`.")
	}
	r.usage = o.is("include_usage")
	r.eachUsage = r.usage && o.is("continuous_usage_stats")
	return nil
}

// messages reads the conversation of chat, responses and messages.
func (f *fields) messages(name, model string) ([]message, *apiError) {
	l, ok := f.list(name)
	if !ok {
		if len(f.errs) == 0 {
			f.missing(name)
		}
		return nil, nil
	}
	var ms []message
	for i, raw := range l {
		var m struct {
			Role    *string
			Content json.RawMessage
		}
		at := fmt.Sprintf("%s.%s.%d.", f.loc, name, i)
		if json.Unmarshal(raw, &m) != nil || raw[0] != '{' {
			f.errs = append(f.errs, notAMessage(at, raw)...)
			continue
		}
		if m.Role == nil {
			f.errs = append(f.errs, noRole(at, raw)...)
			continue
		}
		text, err := content(m.Content, model)
		if err != nil {
			return nil, err
		}
		ms = append(ms, message{*m.Role, text})
	}
	return ms, nil
}

// messageKinds are the shapes that pydantic tries on a message, each with its own complaint.
var messageKinds = []string{"Developer", "System", "User", "Assistant", "Tool", "Function"}

func notAMessage(at string, raw json.RawMessage) []violation {
	var vs []violation
	for _, k := range messageKinds {
		vs = append(vs, violation{"dict_type", at + "ChatCompletion" + k + "MessageParam", "Input should be a valid dictionary", pyRepr(raw), ""})
	}
	return append(vs,
		violation{"dict_type", at + "CustomChatCompletionMessageParam", "Input should be a valid dictionary", pyRepr(raw), ""},
		violation{"model_attributes_type", at + "Message", "Input should be a valid dictionary or object to extract fields from", pyRepr(raw), ""})
}

func noRole(at string, raw json.RawMessage) []violation {
	var vs []violation
	missing := func(loc string) {
		vs = append(vs, violation{"missing", at + loc, "Field required", pyRepr(raw), ""})
	}
	for _, k := range messageKinds {
		param := "ChatCompletion" + k + "MessageParam."
		if k == "Function" {
			missing(param + "name")
		}
		missing(param + "role")
		if k == "Tool" {
			missing(param + "tool_call_id")
		}
	}
	missing("CustomChatCompletionMessageParam.role")
	missing("Message.author")
	missing("Message.role")
	return vs
}

// content joins the text parts of a message; a model of text refuses others.
func content(raw json.RawMessage, model string) (string, *apiError) {
	var s string
	if len(raw) == 0 || json.Unmarshal(raw, &s) == nil {
		return s, nil
	}
	var parts []struct{ Type, Text string }
	if json.Unmarshal(raw, &parts) != nil {
		return "", nil //nolint:nilerr // what is no list of parts has no text
	}
	var b strings.Builder
	for _, p := range parts {
		switch p.Type {
		case "text", "input_text", "output_text", "":
			b.WriteString(p.Text)
		case "image_url", "input_image", "image", "input_audio", "audio_url", "video_url":
			return "", badRequest("", "%s is not a multimodal model", model)
		}
	}
	return b.String(), nil
}

// knows says whether a request's model is served; none at all is.
func (o *Options) knows(model *string) *apiError {
	if model == nil || *model == "" || slices.Contains(o.Names, *model) {
		return nil
	}
	param := "model"
	return &apiError{404, "NotFoundError", fmt.Sprintf("The model `%s` does not exist. Valid aliases: %s.", *model, strings.Join(o.Names, ", ")), &param}
}

// fit checks a prompt against the context and lowers the limit to what it leaves. chars is the
// length of the prompt's text.
func (o *Options) fit(r *request, asked string, prompts []prompt, chars int) *apiError {
	if r.maxTokens > o.MaxLen {
		return parameter(asked, strconv.Itoa(r.maxTokens), "%s=%d cannot be greater than max_model_len=%d. Please request fewer output tokens.", asked, r.maxTokens, o.MaxLen)
	}
	if most := o.MaxLen * maxPiece; chars > most {
		return parameter("input_text", strconv.Itoa(chars), "This model's maximum context length is %d tokens. However, your prompt contains %d characters (more than %d characters, which is the upper bound for %d input tokens). Please reduce the length of the input prompt.", o.MaxLen, chars, most, o.MaxLen)
	}
	longest := 0
	for _, p := range prompts {
		longest = max(longest, len(p.ids))
	}
	if longest >= o.MaxLen {
		n := o.MaxLen + 1
		return parameter("input_tokens", strconv.Itoa(n), "This model's maximum context length is %d tokens. However, your prompt contains at least %d input tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input prompt.", o.MaxLen, n)
	}
	left := o.MaxLen - longest
	if r.maxTokens < 0 || r.maxTokens > left {
		r.maxTokens = left
	}
	r.minTokens = min(r.minTokens, r.maxTokens)
	return nil
}

func runes(ms []message) int {
	n := 0
	for _, m := range ms {
		n += utf8.RuneCountInString(m.text)
	}
	return n
}
