package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// mangled is one kind of request that must not be answered with 200.
type mangled struct {
	kind   string
	raw    func(dice *rand.Rand) string
	due    []int // what is answered, one status for each request in raw, 0 for any of 4xx and 501; none: one such
	any    bool  // the answers after the first may be missing: the connection may have been closed
	leaves bool  // the client closes its side
	mute   bool  // no answer is due: the connection ends
	bare   bool  // the answer is net/http's own and has no body: to Expect
}

// spy is in every mangled request that can carry it, so that a worker's calls can be told apart.
const spy = "X-Spy"

// head begins a request.
func head(line string, headers ...string) string {
	return line + "\r\nHost: gateway\r\n" + spy + ": 1\r\n" + strings.Join(append(headers, "\r\n"), "\r\n")
}

// post is a request with a body.
func post(path, body string, headers ...string) string {
	return head("POST "+path+" HTTP/1.1", append(headers, "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(body)))...) + body
}

const chatPath, fine = "/v1/chat/completions", `{"model":"toy","max_tokens":1,"messages":[{"role":"user","content":"x"}]}`

// mangledKinds are all there are.
func mangledKinds() []mangled {
	kinds := []mangled{
		{kind: "two lengths", raw: text(head("POST "+chatPath+" HTTP/1.1", "Content-Length: 5", "Content-Length: 6") + fine)},
		{
			kind: "length and chunks, and a request behind", due: []int{400, 404}, any: true,
			raw: text(head("POST "+chatPath+" HTTP/1.1", "Content-Length: 6", "Transfer-Encoding: chunked") + "3\r\n{,}\r\n0\r\n\r\n" + post("/sleep", "{}")),
		},
		{
			kind: "a request in a body, the length a lie", due: []int{400, 404}, any: true,
			raw: text(head("POST "+chatPath+" HTTP/1.1", "Content-Length: 3") + "{,}" + post("/collective_rpc", "{}")),
		},
		{kind: "two encodings", raw: text(head("POST "+chatPath+" HTTP/1.1", "Transfer-Encoding: chunked", "Transfer-Encoding: identity") + "0\r\n\r\n")},
		{kind: "a body that never ends, and the client leaves", leaves: true, mute: true, raw: text(head("POST "+chatPath+" HTTP/1.1", "Content-Length: 500") + fine)},
		{kind: "half a head, and the client leaves", leaves: true, due: []int{400}, raw: text("POST " + chatPath + " HTTP/1.1\r\nHost: ga")},
		{kind: "no host", raw: text("POST " + chatPath + " HTTP/1.1\r\n\r\n")},
		{kind: "two hosts", raw: text(head("POST "+chatPath+" HTTP/1.1", "Host: other"))},
		{kind: "a host that is none", raw: text("GET /v1/models HTTP/1.1\r\nHost: a b\r\n\r\n")},
		{kind: "a header's name with a space", raw: text(head("GET /v1/models HTTP/1.1", "Bad Name: 1"))},
		{kind: "a space before the colon", raw: text(head("POST "+chatPath+" HTTP/1.1", "Transfer-Encoding : chunked") + "0\r\n\r\n")},
		{kind: "a header without a colon", raw: text(head("GET /v1/models HTTP/1.1", "nothing"))},
		{kind: "a header without a name", raw: text(head("GET /v1/models HTTP/1.1", ": value"))},
		{kind: "a folded first header", raw: text("GET /v1/models HTTP/1.1\r\n folded\r\nHost: x\r\n\r\n")},
		{kind: "NUL in a header", raw: text(head("GET /v1/models HTTP/1.1", "X-A: a\x00b"))},
		{kind: "NUL in a header's name", raw: text(head("GET /v1/models HTTP/1.1", "X-\x00A: a"))},
		{kind: "control characters in a header", raw: text(head("GET /v1/models HTTP/1.1", "X-A: \x01\x1b[2J"))},
		{kind: "a header of 70 to 900 kB", raw: func(d *rand.Rand) string {
			return head("GET /v1/models HTTP/1.1", "X-A: "+strings.Repeat("a", 70_000+d.IntN(830_000)))
		}},
		{kind: "ten thousand headers", raw: func(d *rand.Rand) string {
			return head("GET /v1/models HTTP/1.1", strings.Repeat(fmt.Sprintf("X-%d: a\r\n", d.IntN(1000)), 10_000)+"X-End: 1")
		}},
		{kind: "a path of 100 kB", raw: text(head("GET /" + strings.Repeat("a/", 50_000) + " HTTP/1.1"))},
		{kind: "a token of 60 kB", raw: text(post(chatPath, `{,}`, "Authorization: Bearer "+strings.Repeat("k", 60_000)))},
		{kind: "Expect what nobody knows", bare: true, raw: text(head("POST "+chatPath+" HTTP/1.1", "Expect: 200-ok", "Content-Length: 0"))},
		{kind: "HTTP/2 without TLS", due: []int{404, 400}, any: true, raw: text("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00")},
		{kind: "version 9.9", due: []int{505}, raw: text("GET /v1/models HTTP/9.9\r\nHost: x\r\n\r\n")},
		{kind: "random bytes", raw: func(d *rand.Rand) string {
			b := make([]byte, 1+d.IntN(2000))
			for i := range b {
				b[i] = byte(d.Uint32())
			}
			return "\x16\x03\x01" + strings.NewReplacer("\n", "", "\r", "").Replace(string(b)) + "\r\n\r\n"
		}},
		{kind: "nesting without end", raw: func(d *rand.Rand) string {
			return post(chatPath, `{"model":"toy","messages":`+strings.Repeat("[", 300+d.IntN(100_000)))
		}},
		{kind: "deep objects", raw: func(d *rand.Rand) string {
			n := 300 + d.IntN(20_000)
			return post(chatPath, strings.Repeat(`{"a":`, n)+"1"+strings.Repeat("}", n))
		}},
		{kind: "deep lists in a message", raw: func(d *rand.Rand) string {
			n := 257 + d.IntN(20_000)
			return post(chatPath, `{"model":"toy","messages":[{"role":"user","content":`+strings.Repeat("[", n)+strings.Repeat("]", n)+`}]}`)
		}},
		{kind: "thirty thousand fields, no messages", raw: func(d *rand.Rand) string {
			return post(chatPath, `{"model":"toy"`+strings.Repeat(fmt.Sprintf(`,"k%d":1`, d.IntN(9)), 30_000)+"}")
		}},
		{kind: "a body cut off anywhere", raw: func(d *rand.Rand) string { return post(chatPath, fine[:d.IntN(len(fine)-1)]) }},
		{kind: "one byte of the body wrong", raw: func(d *rand.Rand) string {
			b := []byte(fine)
			b[d.IntN(len(b))] = '\x01' // which no JSON may have, in a string or out of it
			return post(chatPath, string(b))
		}},
		{kind: "more than max_body, said", due: []int{413}, raw: text(head("POST "+chatPath+" HTTP/1.1", "Content-Length: 40000000"))},
		{kind: "a length beyond int64", raw: text(head("POST "+chatPath+" HTTP/1.1", "Content-Length: 99999999999999999999") + fine)},
	}
	add := func(name string, list []string, raw func(s string) string, due ...int) {
		kinds = append(kinds, mangled{kind: name, due: due, raw: func(d *rand.Rand) string { return raw(list[d.IntN(len(list))]) }})
	}
	add("request lines", []string{
		"GARBAGE", "GET", "GET /v1/models", " GET /v1/models HTTP/1.1", "GET  /v1/models HTTP/1.1", "GET /v1/models  HTTP/1.1", "GET /v1/models HTTP/1.1 x",
		"GET /v1/models HTTP/1", "GET /v1/models HTTP/x.y", "GET /v1/models http/1.1", "G\x00T /v1/models HTTP/1.1", "GE(T /v1/models HTTP/1.1", "GET /v1/\x00 HTTP/1.1",
		"GET /v1/\x7f HTTP/1.1", "GET v1/models HTTP/1.1", "GET ../v1/models HTTP/1.1", "GET ?x HTTP/1.1", "POST /v1/%zz HTTP/1.1", "GET http:// HTTP/1.1", "GET http://[::1/v1/models HTTP/1.1", "SSH-2.0-OpenSSH_9.9",
	}, func(s string) string { return s + "\r\nHost: x\r\n\r\n" })
	add("methods", []string{"GET", "PUT", "DELETE", "PATCH", "TRACE", "OPTIONS", "PROPFIND", "post", "Post", "HEAD1", "CONNECTED", "!#$"},
		func(s string) string { return head(s + " " + chatPath + " HTTP/1.1") }, 405)
	add("methods of the other routes", []string{"POST /v1/models", "POST /v1/models/toy", "PUT /v1/models/../sleep", "DELETE /v1/models", "POST /metrics", "PUT /health", "POST /cost-comparison", "DELETE /metrics", "TRACE /health"},
		func(s string) string { return head(s+" HTTP/1.1", "Content-Length: 0") }, 405)
	add("lengths", []string{"-1", "+5", "5, 6", "0x10", "1e3", "5.0", "5 5", "five", "--5", "５", ""},
		func(s string) string { return head("POST "+chatPath+" HTTP/1.1", "Content-Length: "+s) + fine })
	add("encodings", []string{"xchunked", "gzip", "identity", "chunked, gzip", "gzip, chunked", "chunked, chunked", "chunked;q=1", "\"chunked\"", "chunked\x0b", "chunKed x"},
		func(s string) string {
			return head("POST "+chatPath+" HTTP/1.1", "Transfer-Encoding: "+s) + "0\r\n\r\n"
		})
	add("chunks", []string{"zz\r\n", "-1\r\n", "fffffffffffffffff\r\n{}", "5\r\n{}\r\n", "2\r\n{}xx0\r\n\r\n", "2;" + strings.Repeat("e", 5000) + "\r\n{}\r\n0\r\n\r\n", "0x2\r\n{}\r\n0\r\n\r\n", "\r\n", "2\n{}\n0\n\n"},
		func(s string) string {
			return head("POST "+chatPath+" HTTP/1.1", "Transfer-Encoding: chunked") + s + strings.Repeat("\r\n", 6)
		})
	add("paths", []string{
		"/v1/../admin", "/v1/../metrics", "/v1/%2e%2e/admin", "/v1/%2e%2e/%2e%2e/etc/passwd", "/v1/..%2fmetrics", "/..;/sleep", "/v1/chat/../../sleep", "/v1/chat/completions/", "//v1/chat/completions", "/v1//chat/completions",
		"/v1/chat/completions%00", "/v1/chat/completions;x=1", "/V1/chat/completions", "/v1/chat/./completions", "/v1/chat%2fcompletions", "/v1/chat%2Fcompletions", "/v1/%63hat/completions", "/v1\\chat\\completions", "/v1/chat/completions%20", "/v1/chat/completions/render",
		"/metrics/../sleep", "/health/../v1/unload_lora_adapter", "/.", "/..", "/", "/%2e", "/v1", "/v1/", "/admin", "/debug/pprof/", "/v1/snapshot", "/v1/do", "/v1/log", "http://169.254.169.254/latest/meta-data", "http://worker/sleep", "/\xff\xfe", "/%c0%ae%c0%ae/sleep",
	}, func(s string) string { return post(s, fine) }, 404)
	add("a worker's other routes", []string{
		"/sleep", "/sleep?level=2", "/wake_up", "/is_sleeping", "/collective_rpc", "/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache", "/start_profile", "/stop_profile", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/pause", "/resume", "/is_paused",
		"/scale_elastic_ep", "/is_scaling_elastic_ep", "/server_info", "/version", "/ping", "/load", "/inference/v1/generate", "/inference/v1/abort_requests", "/abort_requests", "/v1/responses/resp_1", "/v1/responses/resp_1/cancel", "/docs", "/redoc", "/openapi.json",
		"/invocations", "/classify", "/pooling", "/score", "/v1/score", "/rerank", "/v2/rerank", "/v1/audio/transcriptions", "/v1/audio/translations", "/v1/realtime", "/tokenizer_info", "/get_world_size", "/init_weight_transfer_engine", "/update_weights", "/v1/messages/count_tokens", "/kv_event_sources", "/v1/files", "/v1/batches",
	}, func(s string) string { return post(s, `{"method":"shutdown","args":[]}`) }, 404)
	add("the same with GET", []string{"/sleep", "/is_sleeping", "/server_info", "/version", "/ping", "/load", "/docs", "/openapi.json", "/v1/responses/resp_1", "/kv_event_sources", "/tokenizer_info"},
		func(s string) string { return head("GET " + s + " HTTP/1.1") }, 404)
	add("targets that are no path", []string{"OPTIONS *", "CONNECT evil:443", "TRACE *", "CONNECT /sleep", "OPTIONS /sleep"},
		func(s string) string { return head(s + " HTTP/1.1") })
	add("bodies that are no JSON object", []string{
		"", " ", "null", "true", "[]", "[{}]", "5", `"x"`, "nan", "{'model':'toy'}", "{model:1}", `{"model":NaN}`, `{"a":Infinity}`, `{"a":01}`, `{"a":1.}`, `{"a":.5}`, `{"a":+1}`, `{"a":1,}`, `{,}`, `{"a"}`, `{"a":}`, `{"a":1}}`, `{"a":1}{"b":2}`,
		`{"a":"\x"}`, `{"a":"\u12"}`, "{\"a\":\"\n\"}", "{\"a\":\"\x00\"}", "\xef\xbb\xbf" + fine, "\xff\xfe{\x00}\x00", "{\"a\":tru}", `{"a":1 "b":2}`, "// x\n{}", "\x1f\x8b\x08\x00\x00\x00\x00\x00", "model=toy&messages=x", "<xml/>", "--boundary\r\n", "data: {}\n\n",
	}, func(s string) string { return post(chatPath, s) }, 400)
	add("two of a key", []string{`"model":"toy","model":"evil"`, `"stream":true,"stream":false`, `"n":1,"n":100`, `"mod\u0065l":"toy","model":"toy"`, `"model":"toy","messages":[]`, `"stream":true,"stream_options":{"include_usage":true,"include_usage":false}`},
		func(s string) string {
			return post(chatPath, "{"+s+`,"messages":[{"role":"user","content":"x"}]}`)
		})
	add("wrong types", []string{
		`"model":5`, `"model":["toy"]`, `"model":{"a":1}`, `"model":true`, `"stream":"yes"`, `"stream":1`, `"stream":[]`, `"stream":true,"stream_options":5`, `"stream":true,"stream_options":{"include_usage":"x"}`, `"stream":true,"stream_options":[]`,
		`"model":"toy","max_tokens":"x"`, `"model":"toy","max_tokens":-5`, `"model":"toy","max_tokens":{}`, `"model":"toy","temperature":"hot"`, `"model":"toy","temperature":-1`, `"model":"toy","top_p":7`, `"model":"toy","n":-1`, `"model":"toy","n":"many"`, `"model":"toy","stop":5`,
		`"model":"toy","max_tokens":1e999`, `"model":"toy","logprobs":"x"`, `"model":"toy","frequency_penalty":99`, `"model":"` + strings.Repeat("m", 100_000) + `"`, `"model":"../../etc/passwd"`, `"model":"toy\u0000"`, `"model":"nobody"`,
	}, func(s string) string {
		return post(chatPath, "{"+s+`,"messages":[{"role":"user","content":"x"}]}`)
	})
	add("wrong messages", []string{`"x"`, "5", "{}", "[5]", `["x"]`, `[{"role":5,"content":"x"}]`, `[{"content":"x"}]`, "null", `[[]]`}, func(s string) string {
		return post(chatPath, `{"model":"toy","messages":`+s+`}`)
	})
	add("media from elsewhere", []string{"http://169.254.169.254/latest/meta-data", "file:///etc/passwd", "http://127.0.0.1:1/x", "https://evil.example\\@good.example/", "gopher://x", "HTTP://EVIL"}, func(s string) string {
		return post(chatPath, fmt.Sprintf(`{"model":"toy","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":%q}}]}]}`, s))
	})
	add("the other routes", []string{"/v1/completions {\"model\":\"toy\",\"prompt\":{\"a\":1}}", "/v1/messages {\"model\":\"toy\"}", "/v1/messages {,}", "/v1/responses {\"model\":\"toy\"}", "/v1/responses [", "/v1/embeddings {\"model\":\"toy\",\"stream\":true,\"input\":\"x\"}", "/tokenize {\"model\":5}", "/detokenize {\"model\":\"toy\",\"tokens\":\"x\"}", "/v1/rerank x"},
		func(s string) string { path, body, _ := strings.Cut(s, " "); return post(path, body) })
	add("a request of another site's page", []string{"cross-site", "same-site", "x"}, func(s string) string { return post(chatPath, fine, "Sec-Fetch-Site: "+s) }, 403)
	return kinds
}

func text(s string) func(*rand.Rand) string { return func(*rand.Rand) string { return s } }
