package gateway

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// variant is a recorded stream as somebody else might have written it.
type variant struct {
	name   string
	route  int // index in dialects
	raw    []byte
	usage  api.Usage
	finish string
	events int64
	text   string // "" for one too long to keep
	long   bool
}

// firstText is what stands before the text of a content event, by dialect.
var firstText = [...]string{`"delta":{"content":"`, `"text":"`, `"delta":"`, `"type":"text_delta","text":"`}

// variants are the recordings in different words, each with every line end. The long ones have an event of a megabyte.
func variants(t testing.TB) (all []variant) {
	lines := func(change func(line string) string) func(body, token string) string {
		return func(body, _ string) string {
			out := strings.Split(body, "\n")
			for i, l := range out {
				if strings.HasPrefix(l, "data: ") {
					out[i] = change(l)
				}
			}
			return strings.Join(out, "\n")
		}
	}
	said := func(text string) func(body, token string) string {
		return func(body, token string) string { return strings.Replace(body, token, token+text, 1) }
	}
	pad := strings.Repeat("long ", 1<<18)
	ways := []struct {
		name    string
		rewrite func(body, token string) string
		adds    string // to the first text
	}{
		{"as recorded", said(""), ""},
		{"comments", lines(func(l string) string { return ": before\n" + l + "\n:\n: behind " + l }), ""},
		{"no space behind the colon", lines(func(l string) string { return strings.Replace(l, "data: ", "data:", 1) }), ""},
		{"id and retry", lines(func(l string) string { return "id: 7\nretry: 100\n" + l + "\nunknown: x" }), ""},
		{"a byte order mark", func(body, _ string) string { return "\xef\xbb\xbf" + body }, ""},
		{"several data lines", lines(func(l string) string {
			return strings.Replace(strings.Replace(l, "data: {", "data: {\ndata: ", 1), `":`, "\":\ndata:", 1)
		}), ""},
		{"characters of many bytes", said("né€😀́"), "né€😀́"},
		{"escapes", said(`\"\\\/\n\u00e9\ud83d\ude00`), "\"\\/\né😀"},
		{"a megabyte", said(pad), pad},
	}
	for _, rec := range replayed {
		_, _, body := recording(t, rec.name)
		head := firstText[rec.route]
		at := 0
		for { // the first text that is not empty
			at += strings.Index(body[at:], head) + len(head)
			if body[at] != '"' {
				break
			}
		}
		token := body[at-len(head) : at+strings.IndexByte(body[at:], '"')]
		first := token[len(head):]
		for _, way := range ways {
			for _, eol := range []string{"\n", "\r\n", "\r"} {
				v := variant{
					name: rec.name + ", " + way.name + ", " + strconv.Quote(eol), route: rec.route, usage: rec.usage, finish: rec.finish, events: rec.events,
					raw: []byte(strings.ReplaceAll(way.rewrite(body, token), "\n", eol)), long: len(way.adds) > maxText,
				}
				if !v.long {
					v.text = strings.Replace(rec.text, first, first+way.adds, 1)
				}
				all = append(all, v)
			}
		}
	}
	return all
}

// check compares what came of a variant with what must.
func (v *variant) check(t *testing.T, what string, at int, tap *tap, out []byte) {
	t.Helper()
	switch {
	case !bytes.Equal(out, v.raw):
		t.Fatalf("%s: %s %d: the bytes changed", v.name, what, at)
	case tap.usage != v.usage || tap.hasUsage != (v.usage != api.Usage{}) || tap.finish != v.finish || tap.events != v.events || tap.answer() != v.text || !tap.whole():
		t.Fatalf("%s: %s %d: usage %+v, finish %q, %d content events, text %q, whole %v; want %+v, %q, %d, %q, true",
			v.name, what, at, tap.usage, tap.finish, tap.events, tap.answer(), tap.whole(), v.usage, v.finish, v.events, v.text)
	}
}

// TestStreamsSplitAnywhere cuts every stream in two at every byte, and into single bytes. Without VLLMDECK_RELIABILITY
// only the recordings themselves are cut everywhere, the rest here and there, as the long ones always are.
func TestStreamsSplitAnywhere(t *testing.T) {
	full := os.Getenv("VLLMDECK_RELIABILITY") != ""
	streams, splits := 0, 0
	for _, v := range variants(t) {
		if v.long && !full && v.route > 0 {
			continue
		}
		streams++
		d := &dialects[v.route]
		step := 1
		switch {
		case v.long:
			step = 200
		case !full && !strings.Contains(v.name, "as recorded"):
			step = 29
		}
		for at := 0; at < len(v.raw); at += step {
			if v.long && at > 2000 { // inside of the text
				at = max(at, len(v.raw)-2000)
			}
			tap, out := feed(d, v.raw[:at], v.raw[at:])
			v.check(t, "split at", at, tap, out)
			splits++
		}
		if v.long {
			continue
		}
		var bytewise [][]byte
		for i := range v.raw {
			bytewise = append(bytewise, v.raw[i:i+1])
		}
		tap, out := feed(d, bytewise...)
		v.check(t, "byte by byte", 1, tap, out)
	}
	t.Attr("streams", strconv.Itoa(streams))
	t.Attr("splits", strconv.Itoa(splits))
}

func TestTheLastByteOfAStreamIsNotLost(t *testing.T) {
	for _, eol := range []string{"\n", "\r\n", "\r"} {
		body := strings.ReplaceAll(evRole+evText("x")+evFinish+evDone, "\n", eol)
		url := serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"+chunk(body[:len(body)-1]))
			<-time.After(30 * time.Millisecond)
			_, _ = io.WriteString(c, chunk(body[len(body)-1:])+"0\r\n\r\n")
		})
		r := newRig(t)
		r.pool.add("a", url)
		if got := r.post(t, "/v1/chat/completions", `{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true}}`); got.err != nil || got.body != body {
			t.Errorf("with %q the client got %q (%v), want %q", eol, got.body, got.err, body)
		}
	}
}
