package gateway

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// edited gives the body as it goes to an upstream that calls the model name.
func edited(t testing.TB, body, name string, d *dialect) string {
	t.Helper()
	var q request
	if err := q.parse([]byte(body), d); err != nil {
		t.Fatalf("parse %s: %v", body, err)
	}
	edits := q.edits(nil, name, "")
	out := string(splice(nil, q.body, edits))
	joined := string(bytes.Join(pieces(q.body, edits), nil))
	if joined != out {
		t.Errorf("pieces give %s, splice gives %s", joined, out)
	}
	return out
}

func TestBodyIsSplicedNotEncodedAgain(t *testing.T) {
	for _, tt := range []struct{ name, body, model, want string }{
		{"nothing to change", `{ "model" : "m" , "x": 1e400 }`, "", `{ "model" : "m" , "x": 1e400 }`},
		{"the upstream's own name", `{"model":"m"}`, "m", `{"model":"m"}`},
		{"an alias", `{"x":[1, 2],"model" : "m","y":"é\u00e9"}`, "real/name", `{"x":[1, 2],"model" : "real/name","y":"é\u00e9"}`},
		{"no model", `{"messages":[]}`, "real", `{"model":"real","messages":[]}`},
		{"null as model", `{"model":null}`, "real", `{"model":"real"}`},
		{"no model and nothing else", ` { } `, "real", ` {"model":"real" } `},
		{"a model with quotes", `{"model":"m"}`, `a"b`, `{"model":"a\"b"}`},
		{"a stream is asked for its usage", `{"model":"m","stream":true}`, "", `{"stream_options":{"include_usage":true},"model":"m","stream":true}`},
		{"null as stream_options", `{"stream":true,"stream_options":null}`, "", `{"stream":true,"stream_options":{"include_usage":true}}`},
		{"usage declined", `{"stream":true,"stream_options":{"include_usage":false,"continuous_usage_stats":false}}`, "", `{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":false}}`},
		{"usage asked for", `{"stream":true,"stream_options":{"include_usage":true}}`, "", `{"stream":true,"stream_options":{"include_usage":true}}`},
		{"vLLM's default inside stream_options", `{"stream":true,"stream_options":{}}`, "", `{"stream":true,"stream_options":{}}`},
		{"not a stream", `{"stream":false}`, "", `{"stream":false}`},
		{"priority in the middle", `{"a":1,"priority":-5,"b":2}`, "", `{"a":1,"b":2}`},
		{"priority first", `{"priority":-5, "b":2}`, "", `{ "b":2}`},
		{"priority last", `{"b":2, "priority":-5}`, "", `{"b":2}`},
		{"priority alone", `{"priority":-5}`, "real", `{"model":"real"}`},
		{"priority in disguise", `{"a":1,"prior\u0069ty":-5}`, "", `{"a":1}`},
		{"all at once", `{"priority":1,"model":"m","stream":true,"z":0}`, "real", `{"stream_options":{"include_usage":true},"model":"real","stream":true,"z":0}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := edited(t, tt.body, tt.model, &dialects[0]); got != tt.want {
				t.Errorf("upstream gets %s, want %s", got, tt.want)
			}
		})
	}
	limits := func(body, limit string) string {
		var q request
		if err := q.parse([]byte(body), &dialects[0]); err != nil {
			t.Fatalf("parse %s: %v", body, err)
		}
		return string(splice(nil, q.body, q.edits(nil, "", limit)))
	}
	for _, tt := range []struct{ body, limit, want string }{
		{`{"model":"m","max_tokens": 5}`, "max_completion_tokens", `{"model":"m","max_completion_tokens": 5}`},
		{`{"max\u005ftokens":5,"model":"m"}`, "max_completion_tokens", `{"max_completion_tokens":5,"model":"m"}`},
		{`{"max_completion_tokens":5}`, "max_completion_tokens", `{"max_completion_tokens":5}`},
		{`{"max_completion_tokens":5}`, "max_tokens", `{"max_tokens":5}`},
		{`{"max_tokens":5,"max_completion_tokens":7}`, "max_completion_tokens", `{"max_completion_tokens":7}`},
		{`{"max_completion_tokens":7,"max_tokens":5}`, "max_tokens", `{"max_tokens":7}`},
		{`{"max_completion_tokens":null,"max_tokens":5}`, "max_completion_tokens", `{"max_completion_tokens":5}`},
		{`{"max_tokens":null,"x":1,"max_completion_tokens":7}`, "max_completion_tokens", `{"x":1,"max_completion_tokens":7}`},
		{`{"max_tokens":null,"x":1}`, "max_completion_tokens", `{"max_completion_tokens":null,"x":1}`},
		{`{"priority":1,"max_tokens":5,"max_completion_tokens":7}`, "max_completion_tokens", `{"max_completion_tokens":7}`},
		{`{"x":1,"max_tokens":5,"priority":1,"max_completion_tokens":7,"max_tokens":8}`, "max_completion_tokens", `{"x":1,"max_completion_tokens":7}`},
		{`{"max_tokens":5,"priority":1,"max_tokens":6,"x":0,"max_completion_tokens":7}`, "max_completion_tokens", `{"x":0,"max_completion_tokens":7}`},
		{`{"x":1,"max_tokens":5,"max_completion_tokens":7}`, "", `{"x":1,"max_tokens":5,"max_completion_tokens":7}`},
		{`{"x":{"max_tokens":5}}`, "max_completion_tokens", `{"x":{"max_tokens":5}}`},
	} {
		if got := limits(tt.body, tt.limit); got != tt.want {
			t.Errorf("an upstream that says %q gets %s for %s, want %s", tt.limit, got, tt.body, tt.want)
		}
	}
	if got, body := edited(t, `{"stream":true}`, "", &dialects[3]), `{"stream":true}`; got != body {
		t.Errorf("messages: upstream gets %s, want %s: there is no such option", got, body)
	}
}

func TestBadBodies(t *testing.T) {
	deep := strings.Repeat("[", 400) + strings.Repeat("]", 400)
	for _, tt := range []struct{ name, body, want string }{
		{"empty", "", "byte 0"},
		{"cut off", `{"model":"tiny",`, "byte 16"},
		{"not an object", `[1]`, "byte 0"},
		{"two values", `{} {}`, "byte 3"},
		{"a comma too many", `{"a":1,}`, "byte 7"},
		{"a bare word", `{"a":nul}`, "byte 5"},
		{"a bad number", `{"a":01}`, "byte 6"},
		{"a control character", "{\"a\":\"\n\"}", "byte 6"},
		{"a bad escape", `{"a":"\x"}`, "byte 6"},
		{"UTF-16", "\xff\xfe{\x00}\x00", "byte 0"},
		{"too deep", `{"a":` + deep + `}`, "nested deeper"},
		{"model twice", `{"model":"a","model":"b"}`, `"model" stands twice`},
		{"model twice in disguise", `{"model":"a","mod\u0065l":"b"}`, `"model" stands twice`},
		{"stream twice", `{"stream":true,"stream":false}`, `"stream" stands twice`},
		{"usage twice", `{"stream":true,"stream_options":{"include_usage":true,"include_usage":false}}`, "include_usage stands twice"},
		{"a model that is a number", `{"model":1}`, "model must be a string"},
		{"stream that Python would take for true", `{"stream":1}`, "stream must be"},
		{"stream_options that is no object", `{"stream":true,"stream_options":1}`, "stream_options must be"},
		{"include_usage that Python would take for true", `{"stream":true,"stream_options":{"include_usage":"yes"}}`, "include_usage must be"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var q request
			err := q.parse([]byte(tt.body), &dialects[0])
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("parse = %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestMedia(t *testing.T) {
	allowed := []string{"cdn.example.org"}
	for _, tt := range []struct {
		name, url string
		ok        bool
	}{
		{"data", "data:image/png;base64,AAAA", true},
		{"DATA", "DATA:image/png;base64,AAAA", true},
		{"allowed host", "https://cdn.example.org/a.png", true},
		{"allowed host, other case and port", "http://CDN.Example.org:8080/a.png", true},
		{"other host", "https://example.org/a.png", false},
		{"metadata service", "http://169.254.169.254/latest/", false},
		{"allowed host as user", "http://cdn.example.org@169.254.169.254/", false},
		{"allowed host as suffix", "http://cdn.example.org.evil.net/", false},
		{"backslash", `http://169.254.169.254\\@cdn.example.org/`, false},
		{"file", "file:///etc/passwd", false},
		{"no scheme", "//cdn.example.org/a", false},
		{"leading blank", " https://cdn.example.org/a", false},
		{"tab inside", `https://cdn.example.org\t.evil.net/`, false},
		{"empty", "", false},
	} {
		for _, body := range []string{
			`{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"` + tt.url + `"}}]}]}`,
			`{"messages":[{"role":"user","content":[{"type":"image_url","image\u005furl":{"\u0075rl":"` + tt.url + `"}}]}]}`,
			`{"messages":[{"role":"user","content":[{"type":"input_image","image_url":"` + tt.url + `"}]}]}`,
			`{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"` + tt.url + `"}}]}]}`,
		} {
			var q request
			if err := q.parse([]byte(body), &dialects[0]); err != nil {
				t.Fatal(err)
			}
			if err := checkMedia(&q, allowed); (err == nil) != tt.ok {
				t.Errorf("%s: checkMedia(%s) = %v, want ok %v", tt.name, body, err, tt.ok)
			}
		}
	}
	for _, body := range []string{
		`{"messages":[{"role":"user","content":"see http://169.254.169.254 as \"image_url\": yes"}]}`,
		`{"metadata":{"page_url":"http://example.org"},"messages":[]}`,
		`{"tools":[{"function":{"parameters":{"properties":{"url":{"type":"string"}}}}}],"messages":[]}`,
	} {
		var q request
		if err := q.parse([]byte(body), &dialects[0]); err != nil {
			t.Fatal(err)
		}
		if err := checkMedia(&q, nil); err != nil {
			t.Errorf("checkMedia(%s) = %v, want none: nobody fetches that", body, err)
		}
	}
}

func TestLastUser(t *testing.T) {
	for _, tt := range []struct {
		d          int
		body, want string
	}{
		{0, `{"messages":[{"role":"user","content":"one"},{"role":"assistant","content":"two"},{"role":"user","content":"three"},{"role":"assistant","content":"four"}]}`, "three"},
		{0, `{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"data:,"}},{"type":"text","text":"b"}]}]}`, "ab"},
		{0, `{"messages":[]}`, ""},
		{0, `{}`, ""},
		{1, `{"prompt":"Once"}`, "Once"},
		{1, `{"prompt":["a","b"]}`, "ab"},
		{1, `{"prompt":[1,2,3]}`, ""},
		{2, `{"input":[{"role":"user","content":[{"type":"input_text","text":"q"}]}]}`, "q"},
		{0, `{"messages":[{"role":"user","content":"` + strings.Repeat("é", 3000) + `"}]}`, strings.Repeat("é", 2048)},
		{0, `{"messages":[{"role":"user","content":"x` + strings.Repeat("é", 3000) + `"}]}`, "x" + strings.Repeat("é", 2047)},
	} {
		var q request
		if err := q.parse([]byte(tt.body), &dialects[tt.d]); err != nil {
			t.Fatal(err)
		}
		if got := q.lastUser(4 << 10); got != tt.want {
			t.Errorf("lastUser(%.80s) = %.40q, want %.40q", tt.body, got, tt.want)
		}
	}
}

// bodyOnTheWire checks what arrives at a worker, by both clients and in every size.
func bodyOnTheWire(t *testing.T, sizes ...int) {
	for name, client := range map[string]*http.Client{"own": nil, "net/http": netHTTP()} {
		t.Run(name, func(t *testing.T) {
			var got string
			var header http.Header
			var path string
			r := newRig(t, func(g *Gateway) { g.CostInfo = false; g.Version = "1.2" })
			r.pool.name, r.pool.key, r.pool.client = "real", "worker-key", client
			r.pool.add("a", serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
				b, err := io.ReadAll(req.Body)
				if err != nil || int64(len(b)) != req.ContentLength {
					t.Errorf("the worker read %d of %d bytes: %v", len(b), req.ContentLength, err)
				}
				got, header, path = string(b), req.Header, req.URL.Path
				w.Header().Set("Content-Type", "application/json")
				w.Header().Set("Access-Control-Allow-Origin", "*")
				w.Header().Set("Set-Cookie", "a=b")
				w.Header().Set("X-Custom", "kept")
				io.WriteString(w, wholeAnswer)
			}))
			if client != nil {
				defer client.CloseIdleConnections()
			}
			for _, size := range sizes {
				pad := strings.Repeat("x", size)
				res := r.post(t, "/v1/chat/completions?api-version=1", `{"model":"default","unknown":{"vllm":[true]},"priority":3,"pad":"`+pad+`"}`,
					"Authorization", "Bearer client-secret", "X-Api-Key", "client-secret", "Cookie", "c=d", "Forwarded", "for=1", "X-Forwarded-For", "1.2.3.4", "X-Vllm-Priority", "9",
					"Connection", "X-Hop, close", "X-Hop", "1", "X-Mine", "passes", "Traceparent", "00-1-2-03", "X-Request-Id", "my-id", "Accept-Encoding", "gzip")
				if want := `{"model":"real","unknown":{"vllm":[true]},"pad":"` + pad + `"}`; got != want {
					t.Fatalf("size %d: the worker got %.100s (%d bytes), want %.100s (%d bytes)", size, got, len(got), want, len(want))
				}
				if res.status != 200 || res.body != wholeAnswer || res.header.Get("X-Request-Id") != "my-id" || res.header.Get("Traceparent") != "00-1-2-03" || res.header.Get("X-Custom") != "kept" {
					t.Errorf("client got %d %.100s with %v", res.status, res.body, res.header)
				}
				for _, name := range []string{"Access-Control-Allow-Origin", "Set-Cookie"} {
					if res.header.Get(name) != "" {
						t.Errorf("the worker's %s reached the client", name)
					}
				}
				r.pool.row(t)
			}
			want := http.Header{
				"Authorization": {"Bearer worker-key"}, "Accept-Encoding": {"identity"}, "User-Agent": {"vllmdeck/1.2"}, "Content-Type": {"application/json"},
				"X-Request-Id": {"my-id"}, "Traceparent": {"00-1-2-03"}, "X-Mine": {"passes"},
			}
			header.Del("Content-Length")
			if !reflect.DeepEqual(header, want) || path != "/v1/chat/completions" {
				t.Errorf("the worker got %s %v, want %v", path, header, want)
			}
		})
	}
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		`{}`, chatBody, streamBody, `{"priority":1}`, `{"model":"m","stream":true,"stream_options":{"include_usage":false}}`, ` {"a" : [ {"b":-1.5e+3} , null,true,"\u00e9\n" ] } `,
		`{"mod\u0065l":"x","prior\u0069ty":0,"stream":true,"stream_options":null}`, `{"a":` + strings.Repeat("[", 300),
	} {
		f.Add([]byte(s), "real")
	}
	for _, s := range []string{`{"max_tokens":1,"priority":2,"max_completion_tokens":3}`, `{"a":0,"priority":2,"max_tokens":1}`} {
		f.Add([]byte(s), "")
	}
	f.Fuzz(func(t *testing.T, body []byte, name string) {
		var q request
		err := q.parse(body, &dialects[0])
		if err != nil {
			return
		}
		// encoding/json is stricter in nothing and knows the depth that we allow.
		if !json.Valid(body) {
			t.Fatalf("%q was taken for JSON", body)
		}
		out := splice(nil, q.body, q.edits(nil, name, ""))
		if !json.Valid(out) {
			t.Fatalf("%q became %q, which is no JSON", body, out)
		}
		if out := splice(nil, q.body, q.edits(nil, name, "max_completion_tokens")); !json.Valid(out) || gjson.GetBytes(out, "max_tokens").Exists() {
			t.Fatalf("%q became %q, which is no JSON or has max_tokens", body, out)
		}
		v := gjson.ParseBytes(out)
		if v.Get("priority").Exists() {
			t.Errorf("%q still has a priority", out)
		}
		if utf8.ValidString(name) && name != "" && q.model != name && v.Get("model").Str != name {
			t.Errorf("%q asks for %q, want %q", out, v.Get("model").Str, name)
		}
		if q.inject && !v.Get("stream_options.include_usage").Bool() {
			t.Errorf("%q does not ask for usage", out)
		}
		_ = checkMedia(&q, nil)
		_ = q.lastUser(100)
	})
}

func FuzzSplice(f *testing.F) {
	f.Add([]byte(wholeAnswer))
	f.Add([]byte("{ }\n"))
	f.Add([]byte(`{"a":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if !json.Valid(b) {
			return
		}
		out, ok := addMember(append([]byte(nil), b...), []byte(`"cost_info":{"x":1}`))
		if isObject := gjson.ParseBytes(b).IsObject(); ok != isObject {
			t.Fatalf("addMember(%q) = %v, want %v", b, ok, isObject)
		}
		if !ok {
			return
		}
		if !json.Valid(out) || gjson.GetBytes(out, "cost_info.x").Int() != 1 && !gjson.GetBytes(b, "cost_info").Exists() {
			t.Fatalf("%q became %q", b, out)
		}
		// Every other byte is as it was.
		if rest := strings.Replace(strings.Replace(string(out), `,"cost_info":{"x":1}`, "", 1), `"cost_info":{"x":1}`, "", 1); rest != string(b) && !strings.Contains(string(b), "cost_info") {
			t.Errorf("without the addition %q, want %q", rest, b)
		}
	})
}
