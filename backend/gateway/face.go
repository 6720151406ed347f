package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// face is what all events of one answer have in common, as JSON writes it.
type face struct{ id, object, created, model string }

// readFace reads the first event of an answer.
func readFace(data []byte) (face, error) {
	v := gjson.ParseBytes(data)
	f := face{v.Get("id").Raw, v.Get("object").Raw, v.Get("created").Raw, v.Get("model").Raw}
	if f.id == "" || f.object == "" || f.created == "" || f.model == "" {
		return f, errors.New("its first event has no id, object, created and model")
	}
	return f, nil
}

// put gives an event with data of a later leg as an event of the answer. Where it holds the usage, u replaces that.
func (f face) put(data []byte, usage bool, u api.Usage) []byte {
	var edits []edit
	set := func(path, raw string) {
		if v := gjson.GetBytes(data, path); v.Exists() && v.Index > 0 {
			edits = append(edits, edit{v.Index, v.Index + len(v.Raw), raw})
		}
	}
	set("id", f.id)
	set("created", f.created)
	set("model", f.model)
	if usage {
		set("usage.prompt_tokens", strconv.FormatInt(u.Prompt(), 10))
		set("usage.completion_tokens", strconv.FormatInt(u.Completion(), 10))
		set("usage.total_tokens", strconv.FormatInt(u.Prompt()+u.Completion(), 10))
		set("usage.prompt_tokens_details.cached_tokens", strconv.FormatInt(u.CacheRead, 10))
	}
	sortEdits(edits)
	ev := splice([]byte("data: "), data, edits)
	return append(bytes.ReplaceAll(ev, []byte("\n"), []byte(" ")), "\n\n"...)
}

// usage is the event that ends an answer with what it used.
func (f face) usage(u api.Usage) []byte {
	return fmt.Appendf(nil, `data: {"id":%s,"object":%s,"created":%s,"model":%s,"choices":[],"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d}}`+"\n\n",
		f.id, f.object, f.created, f.model, u.Prompt(), u.Prompt()+u.Completion(), u.Completion())
}

// replace puts ev in the place of the n bytes at b[at:].
func replace(b []byte, at, n int, ev []byte) []byte { return slices.Replace(b, at, at+n, ev...) }

// trimEnd takes the blanks off the end of text, which is written as JSON writes it.
func trimEnd(text []byte) []byte {
	for {
		n := len(text)
		switch {
		case n > 0 && text[n-1] == ' ':
			text = text[:n-1]
		case n > 1 && text[n-2] == '\\' && strings.IndexByte("nrtf", text[n-1]) >= 0 && !escaped(text[:n-2]):
			text = text[:n-2]
		default:
			return text
		}
	}
}

// escaped reports whether b ends in an odd number of backslashes.
func escaped(b []byte) bool { return (len(b)-len(bytes.TrimRight(b, `\`)))%2 == 1 }

// countLimit is how long a worker may take to count tokens: it runs no model for that.
const countLimit = 10 * time.Second

// countAt asks the worker of the present leg how many tokens a prompt has, and which, as JSON. Errors may be a *fault.
func (c *call) countAt(ctx context.Context, body []byte) (n int64, ids string, err error) {
	ctx, cancel := context.WithTimeout(ctx, countLimit)
	defer cancel()
	l := &c.lease
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(strings.TrimRight(l.URL, "/"), "/v1")+"/tokenize", bytes.NewReader(body))
	if err != nil {
		return 0, "", &dialError{err: err}
	}
	req.Header["Content-Type"] = jsonType
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", c.g.agent())
	req.Header.Set("X-Request-Id", c.id)
	if l.Key != "" {
		req.Header.Set("Authorization", "Bearer "+l.Key)
	}
	client := l.Client
	if client == nil {
		client = &c.g.client
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxEvent))
	if err != nil {
		return 0, "", err
	}
	count := gjson.GetBytes(b, "count")
	switch {
	case res.StatusCode/100 == 5 || res.StatusCode == http.StatusTooManyRequests:
		return 0, "", complaint(res.StatusCode, errorText(res.StatusCode, b), res.Header.Get("Retry-After"))
	case res.StatusCode != http.StatusOK || count.Type != gjson.Number:
		// Not a vLLM, or one that does not take this conversation: it would not continue it either.
		f := complaint(0, "it cannot continue an answer: /tokenize says "+errorText(res.StatusCode, b), "")
		f.result, f.free = route.Neutral, true
		return 0, "", f
	}
	return count.Int(), gjson.GetBytes(b, "tokens").Raw, nil
}
