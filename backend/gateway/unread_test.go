package gateway

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// raw sends bytes as they are and gives the first answer.
func (r *rig) raw(t *testing.T, request string) answer {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(c, request)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{status: res.StatusCode, header: res.Header, body: string(b), err: err}
}

func TestWhatCannotBeReadIsRefusedInOpenAIsShape(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct {
		request string
		status  int
		code    string
		message string
	}{
		{"GARBAGE\r\n\r\n", 400, "bad_request", "400 Bad Request"},
		{"GET /v1/models HTTP/1.1\r\n\r\n", 400, "bad_request", "missing required Host header"},
		{"GET /v1/models HTTP/1.1\r\nHost: x\r\nBad Name: y\r\n\r\n", 400, "bad_request", "invalid header name"},
		{"POST /v1/models HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "bad_request", "400 Bad Request"},
		{"POST /v1/models HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "not_implemented", "Unsupported transfer encoding"},
		{"GET /v1/models HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n", 431, "request_header_fields_too_large", "Request Header Fields Too Large"},
		{"GET /v1/models HTTP/3.7\r\nHost: x\r\n\r\n", 505, "http_version_not_supported", "unsupported protocol version"},
		{"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404, "not_found", "there is no such route here"},
	} {
		got := r.raw(t, tt.request)
		e := gjson.Get(got.body, "error")
		if got.err != nil || got.status != tt.status || got.header.Get("Content-Type") != "application/json" || e.Get("code").Str != tt.code || e.Get("type").Str != "invalid_request_error" || !strings.Contains(e.Get("message").Str, tt.message) {
			t.Errorf("%.60q: %d %s %s (%v), want %d %s in OpenAI's shape: %s", tt.request, got.status, got.header.Get("Content-Type"), got.body, got.err, tt.status, tt.code, tt.message)
		}
	}
}

func TestAnAnswerLikeNetHTTPsOwnPassesUnchanged(t *testing.T) {
	for _, p := range []string{
		"", "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: x\r\n\r\n{}",
		"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nDate: x\r\nConnection: close\r\n\r\nx",
		"data: HTTP/1.1 400 Bad Request" + string(plainError) + "x", string(plainError),
	} {
		if e := shaped([]byte(p)); e != nil {
			t.Errorf("shaped(%q) = %q, want it left alone", p, e)
		}
	}
}

func TestAClientWhoseBodyFindsNoRoomLearnsIt(t *testing.T) {
	r := newRig(t, func(g *Gateway) { g.MaxBodies = 1 << 20 })
	body := `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("x", 12<<20) + `"}]}`
	for i := range 8 {
		req, err := http.NewRequest(http.MethodPost, r.url+"/v1/chat/completions", io.MultiReader(strings.NewReader(body)))
		if err != nil {
			t.Fatal(err)
		}
		if i%2 > 0 {
			req.ContentLength = int64(len(body)) // else it comes in chunks
		}
		res, err := r.http.Do(req)
		if err != nil {
			t.Fatalf("request %d: %v, want an answer", i, err)
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusTooManyRequests || gjson.GetBytes(b, "error.code").Str != "bodies_full" || res.Header.Get("Retry-After") == "" {
			t.Errorf("request %d: HTTP %d %s (%v), want 429 bodies_full", i, res.StatusCode, b, err)
		}
	}
	if n := r.bodies.Load(); n != 0 {
		t.Errorf("%d bytes of room are still taken, want none", n)
	}
}

func TestAPanicOfAnyRouteIsLogged(t *testing.T) {
	var log bytes.Buffer
	p := newPool()
	g := &Gateway{Upstreams: p, Accounts: p, Log: slog.New(slog.NewTextHandler(&log, nil)), Health: func() (any, int) { panic("of health") }}
	defer func() {
		if p := recover(); p != any(http.ErrAbortHandler) {
			t.Errorf("ServeHTTP panics with %v, want http.ErrAbortHandler, which cuts the connection", p)
		}
		if text := log.String(); !strings.Contains(text, "of health") || !strings.Contains(text, "unread_test.go") {
			t.Errorf("log = %q, want the panic with its stack", text)
		}
	}()
	g.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/health", nil))
}
