package gateway

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// replayed is what vLLM 0.32 said in one recording, and what the gateway must make of it.
var replayed = []struct {
	name   string
	route  int // index in dialects
	usage  api.Usage
	finish string
	events int64
	text   string
}{
	{"chat_stop", 0, api.Usage{}, "stop", 12, "illchangemoryream.romittlayite the fal"},
	{"chat_stream", 0, api.Usage{}, "stop", 3, "hearoundle"},
	{"chat_stream_usage", 0, api.Usage{Input: 14, Output: 4}, "stop", 3, "hearoundle"},
	{"chat_stream_cont_usage", 0, api.Usage{Input: 14, Output: 4}, "stop", 3, "hearoundle"},
	{"chat_stream_logprobs", 0, api.Usage{}, "length", 2, "hearound"},
	{"chat_stream_n2", 0, api.Usage{Input: 14, Output: 6}, "length", 6, "ineghtome"},
	{"completion_stream", 1, api.Usage{Input: 7, Output: 3}, "length", 3, "iracenc"},
	{"responses_stream", 2, api.Usage{Input: 12, Output: 3}, "max_output_tokens", 2, "hearoundill"},
	{"messages_stream", 3, api.Usage{Input: 12, Output: 3}, "max_tokens", 3, "ycheate"},
}

// feed runs a stream through splitter and tap in pieces, as stream does, and gives what may be sent.
func feed(d *dialect, pieces ...[]byte) (*tap, []byte) {
	t := &tap{d: d, wanted: 1, keep: true, limit: maxText}
	var s splitter
	var b, out []byte
	for _, p := range pieces {
		b = append(b, p...)
		s.saw(p)
		for {
			n := s.next(b)
			if n == 0 {
				break
			}
			t.event(b[:n], time.Unix(1, 0))
			out = append(out, b[:n]...)
			b = b[n:]
		}
	}
	return t, append(out, b...)
}

func TestRecordingsPassThroughTheGateway(t *testing.T) {
	for _, rec := range replayed {
		t.Run(rec.name, func(t *testing.T) {
			_, header, body := recording(t, rec.name)
			var split counter
			url := serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) {
				at := int(split.Add(1)) * 97 % len(body)
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: "+header.Get("Content-Type")+"\r\nTransfer-Encoding: chunked\r\n\r\n")
				if at > 0 {
					io.WriteString(c, chunk(body[:at]))
				}
				io.WriteString(c, chunk(body[at:])+"0\r\n\r\n")
			})
			r := newRig(t)
			r.pool.add("a", url)
			d := dialects[rec.route]
			req := `{"model":"m","` + d.input + `":"x","stream":true,"stream_options":{"include_usage":true}}`
			for range 20 {
				got := r.post(t, d.path, req)
				if got.err != nil || got.body != body {
					t.Fatalf("client got %q (%v), want the worker's bytes %q", got.body, got.err, body)
				}
				row := r.pool.row(t)
				if rec.usage != (api.Usage{}) && (row.Usage != rec.usage || row.UsageSource != api.UsageUpstream) {
					t.Errorf("usage = %+v from %s, want %+v from upstream", row.Usage, row.UsageSource, rec.usage)
				}
				if rec.usage == (api.Usage{}) && (row.Usage.Output != rec.events || row.UsageSource != api.UsageCounted) {
					t.Errorf("usage = %+v from %s, want %d counted", row.Usage, row.UsageSource, rec.events)
				}
				if row.Outcome != api.OutcomeOK || row.Finish != rec.finish || row.Route != d.name || !row.Stream || row.TTFT <= 0 || row.Duration < row.TTFT {
					t.Errorf("row = %s finish %q route %s TTFT %v of %v, want ok, %q, %s", row.Outcome, row.Finish, row.Route, row.TTFT, row.Duration, rec.finish, d.name)
				}
			}
		})
	}
}

func TestRecordingsOfDeathsAreNeverWhole(t *testing.T) {
	for _, name := range []string{"die_EngineCor_stream", "die_api_stream"} {
		_, _, body := recording(t, name)
		if tap, _ := feed(&dialects[0], []byte(body)); tap.whole() {
			t.Errorf("%s counts as whole, want lost", name)
		}
	}
}

func TestPlainRecordings(t *testing.T) {
	for _, tt := range []struct {
		name   string
		path   string
		usage  api.Usage
		finish string
	}{
		{"chat", "/v1/chat/completions", api.Usage{Input: 14, Output: 4}, "stop"},
		{"chat_usage_cached2", "/v1/chat/completions", api.Usage{Input: 2, CacheRead: 96, Output: 4}, "length"},
		{"json_schema", "/v1/chat/completions", api.Usage{Input: 10, Output: 20}, "length"},
		{"completion", "/v1/completions", api.Usage{Input: 7, Output: 6}, "length"},
		{"responses", "/v1/responses", api.Usage{Input: 12, Output: 4}, "max_output_tokens"},
		{"messages", "/v1/messages", api.Usage{Input: 12, Output: 4}, "max_tokens"},
		{"tokenize", "/tokenize", api.Usage{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, body := recording(t, tt.name)
			r := newRig(t, func(g *Gateway) { g.CostInfo = false })
			r.pool.add("a", serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
				if req.URL.Path != tt.path {
					t.Errorf("the worker was asked for %s, want %s", req.URL.Path, tt.path)
				}
				w.Header().Set("Content-Type", "application/json")
				io.WriteString(w, body)
			}))
			got := r.post(t, tt.path, `{"model":"m"}`)
			if got.body != body || got.status != 200 {
				t.Errorf("client got %d %q, want the worker's bytes", got.status, got.body)
			}
			if row := r.pool.row(t); row.Usage != tt.usage || row.UsageSource != api.UsageUpstream || row.Finish != tt.finish || row.Outcome != api.OutcomeOK {
				t.Errorf("row = %s %+v from %s, finish %q; want ok %+v from upstream, %q", row.Outcome, row.Usage, row.UsageSource, row.Finish, tt.usage, tt.finish)
			}
		})
	}
}

func TestOddStreams(t *testing.T) {
	ok := func(name string, usage api.Usage, n int64, evs ...string) {
		t.Run(name, func(t *testing.T) {
			raw := []byte(strings.Join(evs, ""))
			tap, out := feed(&dialects[0], raw)
			if !bytes.Equal(out, raw) || !tap.whole() || tap.usage != usage || tap.events != n {
				t.Errorf("whole %v, usage %+v, %d content events; want true, %+v, %d", tap.whole(), tap.usage, tap.events, usage, n)
			}
		})
	}
	ok("a byte order mark", api.Usage{}, 1, "\xef\xbb\xbf"+evText("x"), evFinish, evDone)
	ok("comments between", api.Usage{}, 1, ": hello\n\n", evRole, ":\n\n", evText("x"), evFinish, evDone)
	ok("no space after the colon", api.Usage{}, 1, "data:"+evText("x")[6:], evFinish, "data:[DONE]\n\n")
	ok("several data lines", api.Usage{}, 1, "data: {\"choices\":\ndata: [{\"index\":0,\"delta\":{\"content\":\"x\"}}]}\n\n", evFinish, evDone)
	ok("id and retry lines", api.Usage{}, 1, "id: 7\nretry: 100\n"+evText("x"), evFinish, evDone)
	ok("an event of a megabyte", api.Usage{}, 1, evText(strings.Repeat("long ", 1<<18)), evFinish, evDone)
	ok("usage in a chunk with choices", api.Usage{Input: 6, CacheRead: 8, Output: 4}, 1, evText("x"),
		strings.Replace(evFinish, `]}`, `],"usage":{"prompt_tokens":14,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":8}}}`, 1), evDone)
	ok("null usage everywhere", api.Usage{}, 1, strings.Replace(evText("x"), `]}`, `],"usage":null}`, 1), strings.Replace(evFinish, `]}`, `],"usage":null}`, 1), evDone)
	ok("reasoning tokens", api.Usage{Input: 3, Output: 2, Reasoning: 63}, 1, evText("x"), evFinish,
		`data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":65,"completion_tokens_details":{"reasoning_tokens":63}}}`+"\n\n", evDone)
	ok("parts greater than their whole", api.Usage{CacheRead: 3, Reasoning: 5}, 1, evText("x"), evFinish,
		`data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":9},"completion_tokens_details":{"reasoning_tokens":63}}}`+"\n\n", evDone)
	for _, delta := range []string{`{"reasoning":"hm"}`, `{"reasoning_content":"hm"}`, `{"refusal":"no"}`, `{"tool_calls":[{"index":0,"id":"x"}]}`, `{"role":"assistant","content":"x"}`} {
		ok("content is "+delta, api.Usage{}, 1, `data: {"choices":[{"index":0,"delta":`+delta+`}]}`+"\n\n", evFinish, evDone)
	}
	for _, delta := range []string{`{"role":"assistant"}`, `{"content":null}`, `{"content":""}`, `{"tool_calls":[]}`, `{"reasoning":""}`, `{}`} {
		ok("no content is "+delta, api.Usage{}, 0, `data: {"choices":[{"index":0,"delta":`+delta+`}]}`+"\n\n", evFinish, evDone)
	}
	ok("text that quotes our keys", api.Usage{}, 2, evText(`"usage":{"prompt_tokens":9} "error" "finish_reason":"stop" \`), evText(`"delta":{"content":"`), evFinish, evDone)
}

func TestTextIsReadWithItsEscapes(t *testing.T) {
	want := "tab\t quote\" back\\ é \U0001F600 end\\"
	tap, _ := feed(&dialects[0], []byte(evText("tab\t quote\" back\\")), []byte(strings.Replace(evText("X"), "X", ` é \ud83d\ude00 end\\`, 1)))
	if got := tap.answer(); got != want {
		t.Errorf("answer = %q, want %q", got, want)
	}
}

func FuzzSSE(f *testing.F) {
	for _, rec := range replayed {
		_, _, body := recording(f, rec.name)
		f.Add([]byte(body), 10, rec.route)
		f.Add([]byte(strings.ReplaceAll(body, "\n", "\r\n")), 100, rec.route)
	}
	f.Add([]byte("\r\r\n\n\r\n\r\ndata: x\r\rdata: y\n\r\n"), 3, 0)
	f.Fuzz(func(t *testing.T, raw []byte, at, route int) {
		d := &dialects[uint(route)%4]
		at = int(uint(at) % uint(len(raw)+1))
		one, out1 := feed(d, raw)
		two, out2 := feed(d, raw[:at], raw[at:])
		if !bytes.Equal(out1, raw) || !bytes.Equal(out2, raw) {
			t.Fatal("the bytes changed")
		}
		if one.usage != two.usage || one.events != two.events || one.finish != two.finish || one.ended != two.ended || one.whole() != two.whole() || one.seen != two.seen || one.answer() != two.answer() {
			t.Fatalf("split at %d: %+v, in one piece %+v", at, two, one)
		}
	})
}
