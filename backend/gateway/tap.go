package gateway

import (
	"bytes"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// meaning is what an event is to the gateway.
type meaning uint8

const (
	plain   meaning = iota // nothing that concerns us; comments too
	content                // a part of the answer: the first one commits the stream
	usage                  // nothing but the token counts
	failure                // the worker says that it failed
	end                    // the answer is over, as the worker meant it
)

// tap reads a copy of an answer as it passes: what it cost, how it went, whether it is whole.
type tap struct {
	d      *dialect
	wanted int // choices that must finish

	seen     int   // events with data
	events   int64 // with content
	first    time.Time
	last     time.Time
	maxGap   time.Duration
	usage    api.Usage
	hasUsage bool
	finish   string // the last finish_reason
	finished int    // choices that finished
	quiet    bool   // the last of them by a token that is not shown: the model's own end, or a stop
	ended    bool   // the closing event came
	fault    string // what the worker's error says
	code     int    // its HTTP status, 0 where it gives none

	alike alike // the last event of nothing but text

	keep  bool   // collect the answer's text
	limit int    // bytes of text to collect
	text  []byte // of the first choice, as JSON writes it inside quotes
	rated int    // how much of text is rated, where that is less
	more  bool   // the answer was longer than limit, or than could be kept

	resume   bool   // collect what a continuation needs, too
	head     []byte // data of the first event
	thought  []byte // reasoning, as JSON writes it inside quotes
	thinking bool   // the last content was reasoning
	other    bool   // there was content that is neither text nor reasoning
}

const maxText = 16 << 10 // of an answer that is rated

// whole reports whether the worker has given a complete answer. Nothing else may let a stream end well.
func (t *tap) whole() bool {
	return t.ended && t.fault == "" && (t.finished >= t.wanted || !t.d.finishes)
}

// event takes one event of a stream that came at now.
func (t *tap) event(ev []byte, now time.Time) meaning {
	data, name := fields(ev)
	if len(data) == 0 {
		return plain
	}
	t.seen++
	if t.resume && t.head == nil {
		t.head = bytes.Clone(data)
	}
	m := t.d.event(t, data, name)
	if m == content {
		t.events++
		if t.first.IsZero() {
			t.first = now
		} else if gap := now.Sub(t.last); gap > t.maxGap {
			t.maxGap = gap
		}
		t.last = now
	}
	if m == end {
		t.ended = true
	}
	return m
}

// again readies the tap for the next leg of a continued answer: what the client has stays.
func (t *tap) again() {
	t.seen, t.usage, t.hasUsage, t.ended, t.fault, t.code = 0, api.Usage{}, false, false, "", 0
}

// gap is the mean time between content events, 0 where there are less than two.
func (t *tap) gap() time.Duration {
	if t.events < 2 {
		return 0
	}
	return t.last.Sub(t.first) / time.Duration(t.events-1)
}

// fail notes the worker's own error, an object or a bare string.
func (t *tap) fail(err gjson.Result) meaning {
	t.fault, t.code = readError(err)
	return failure
}

// readError gives the message and HTTP status of an error value in any of vLLM's shapes.
func readError(err gjson.Result) (msg string, code int) {
	msg = err.Get("message").Str
	if err.Type == gjson.String {
		msg = err.Str
	}
	if msg == "" {
		msg = "the worker reported an error without a message"
	}
	return strings.Clone(cut(msg, 1000)), int(err.Get("code").Int())
}

// chatEvent reads an event of chat or completions.
func chatEvent(t *tap, data, _ []byte) meaning {
	if text, ok := t.quickText(data); ok && (len(t.thought) == 0 || !bytes.Contains(data, keyReasoning)) {
		if t.keep && t.alike.first {
			t.add(text)
		}
		t.thinking = false
		return content
	}
	if string(data) == "[DONE]" {
		return end
	}
	v := gjson.ParseBytes(data)
	if err := v.Get("error"); err.Exists() && err.Type != gjson.Null {
		return t.fail(err)
	}
	m := plain
	choices := v.Get("choices")
	choices.ForEach(func(_, choice gjson.Result) bool {
		part := choice.Get("delta")
		if !part.Exists() {
			part = choice
		}
		if hasContent(part) {
			m = content
			if t.keep && choice.Get("index").Int() == 0 {
				t.addValue(part.Get(t.d.text))
			}
			if t.resume {
				t.kinds(part)
			}
		}
		switch reason := choice.Get("finish_reason").Str; reason {
		case "":
		case "abort", "error":
			// A worker that is stopped ends its answers so, with HTTP 200: not as the client meant it.
			t.fault, t.finish = "the worker broke the answer off: finish_reason "+reason, reason
		default:
			t.finish = reason
			t.finished++
			t.quiet = reason == "stop" && m != content
		}
		return true
	})
	if t.fault != "" {
		return failure
	}
	if u := v.Get("usage"); u.IsObject() {
		t.usage, t.hasUsage = openaiUsage(u), true
		if m == plain && !choices.Get("0").Exists() {
			return usage
		}
	}
	return m
}

var (
	firstChoice  = []byte(`"index":0`)
	deltaText    = []byte(`"delta":{"content":"`)
	plainText    = []byte(`"text":"`)
	keyUsage     = []byte(`"usage"`)
	keyError     = []byte(`"error"`)
	keyFinish    = []byte(`"finish_reason":`)
	keyReasoning = []byte(`"reasoning`)
	null         = []byte("null")
)

// alike is what stands around the text in an event of nothing but text. Those of one stream are
// alike but for the text, so it is looked through once and only compared after that.
type alike struct {
	head, rest []byte
	first      bool // it is of the first choice
}

// quickText is the function of that name, with the event before in mind.
func (t *tap) quickText(data []byte) ([]byte, bool) {
	a := &t.alike
	if n := len(a.head); n > 0 && len(data) > n && bytes.Equal(data[:n], a.head) {
		text := data[n:]
		if end := quoteEnd(text); end > 0 && bytes.Equal(text[end:], a.rest) {
			return text[:end], true
		}
	}
	text, at, ok := quickText(data)
	if ok {
		a.head, a.rest = append(a.head[:0], data[:at]...), append(a.rest[:0], data[at+len(text):]...)
		a.first = bytes.Contains(a.head, firstChoice) || bytes.Contains(a.rest, firstChoice)
	}
	return text, ok
}

// quickText gives the text, as JSON writes it, of the event that nearly all of a stream consists
// of: text that is not empty, and nothing else that we look for. It parses nothing. A quoted
// key cannot stand inside a JSON string, where its quotes would be escaped, so what is not found
// is not there; whatever looks like more is left to the parser. at is where in data the text begins.
func quickText(data []byte) (text []byte, at int, ok bool) {
	i := bytes.Index(data, deltaText)
	n := len(deltaText)
	if i < 0 {
		if i = bytes.Index(data, plainText); i < 0 {
			return nil, 0, false
		}
		n = len(plainText)
	}
	text = data[i+n:]
	end := quoteEnd(text)
	if end <= 0 {
		return nil, 0, false
	}
	head, rest := data[:i], text[end:]
	if bytes.Contains(rest, keyUsage) || bytes.Contains(rest, keyError) || bytes.Contains(head, keyUsage) || bytes.Contains(head, keyError) {
		return nil, 0, false
	}
	if bytes.Contains(head, keyFinish) {
		return nil, 0, false
	}
	if j := bytes.Index(rest, keyFinish); j >= 0 {
		rest = rest[j+len(keyFinish):]
		if !bytes.HasPrefix(rest, null) || bytes.Contains(rest, keyFinish) {
			return nil, 0, false
		}
	}
	return text[:end], i + n, true
}

// quoteEnd gives the position of the quote that ends the JSON string b begins inside of, or -1.
func quoteEnd(b []byte) int {
	for from := 0; ; {
		i := bytes.IndexByte(b[from:], '"')
		if i < 0 {
			return -1
		}
		i += from
		back := i
		for back > 0 && b[back-1] == '\\' {
			back--
		}
		if (i-back)%2 == 0 {
			return i
		}
		from = i + 1
	}
}

// hasContent reports whether a delta, message or completion choice holds a part of the answer.
func hasContent(part gjson.Result) bool {
	found := false
	part.ForEach(func(key, v gjson.Result) bool {
		switch key.Str {
		case "content", "reasoning", "reasoning_content", "refusal", "text":
			found = v.Type == gjson.String && v.Str != "" || v.Type == gjson.JSON && v.Get("0").Exists()
		case "tool_calls":
			found = v.Get("0").Exists()
		case "function_call", "audio":
			found = v.IsObject()
		}
		return !found
	})
	return found
}

// add keeps a piece of text. Pieces are kept whole, so that no escape is cut.
func (t *tap) add(text []byte) {
	n := len(t.text) + len(text)
	if n > t.limit {
		t.keep, t.more = false, true
		return
	}
	if n > maxText && t.rated == 0 {
		t.rated = len(t.text)
	}
	if t.text == nil {
		t.text = make([]byte, 0, 512)
	}
	t.text = append(t.text, text...)
}

// forget lets go of the text, but for what is rated.
func (t *tap) forget() {
	if t.rated == 0 && len(t.text) <= maxText {
		t.rated = len(t.text)
	}
	t.keep, t.more = false, true
	t.text, t.thought = bytes.Clone(t.text[:t.rated]), nil
}

func (t *tap) addValue(v gjson.Result) {
	if inner := inside(v); len(inner) > 0 {
		t.add([]byte(inner))
	}
}

// inside gives what stands between the quotes of a JSON string.
func inside(v gjson.Result) string {
	if v.Type == gjson.String && len(v.Raw) > 2 {
		return v.Raw[1 : len(v.Raw)-1]
	}
	return ""
}

// kinds notes what a part of the answer consists of.
func (t *tap) kinds(part gjson.Result) {
	part.ForEach(func(key, v gjson.Result) bool {
		switch key.Str {
		case "reasoning", "reasoning_content":
			// A delta may carry it under both names that vLLM has had for it.
			if s := inside(v); s != "" && (key.Str == "reasoning" || part.Get("reasoning").Str == "") {
				t.thinking = true
				t.think(s)
			}
		case "refusal", "tool_calls", "function_call", "audio":
			t.other = t.other || v.IsObject() || v.Get("0").Exists() || v.Str != ""
		}
		return true
	})
	if inside(part.Get(t.d.text)) != "" {
		t.thinking = false // it has come to the answer itself
	}
}

// think keeps a piece of reasoning.
func (t *tap) think(s string) {
	if len(t.thought)+len(s) > t.limit {
		t.more = true
		return
	}
	t.thought = append(t.thought, s...)
}

// all is the text that was kept, however long.
func (t *tap) all() string { return gjson.Parse(`"` + string(t.text) + `"`).Str }

// answer is the text that was kept for rating.
func (t *tap) answer() string {
	text := t.text
	if t.rated > 0 {
		text = text[:t.rated]
	}
	if len(text) == 0 || len(text) > maxText {
		return ""
	}
	return gjson.Parse(`"` + string(text) + `"`).Str
}
