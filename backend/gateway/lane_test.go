package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// Whatever the lane takes, net/http understands in the same way.
func FuzzLaneHead(f *testing.F) {
	const good = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n"
	for _, s := range []string{
		good + "\r\n{}", good + "Connection: keep-alive\r\n\r\n", good + "content-length: 2\r\n\r\n", good + "X-A:  b \r\nx-a: c\r\n\r\n",
		good + "Transfer-Encoding: chunked\r\n\r\n", good + " folded\r\n\r\n", good + "A : b\r\n\r\n", good + "A: b\n\r\n", good + "A: \x00\r\n\r\n",
		good + "Expect: 100-continue\r\n\r\n", good + "Host: b\r\n\r\n", good + "Pragma: no-cache\r\n\r\n", good + "Connection: close\r\n\r\n",
		"POST /tokenize HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 0\r\nCookie: a=b\r\nX-Request-Id: 1\r\n\r\nPOST ",
		strings.Replace(good, "2\r", "+2\r", 1) + "\r\n", strings.Replace(good, "HTTP/1.1", "HTTP/1.0", 1) + "\r\n", strings.Replace(good, "Host: a", "Host:", 1) + "\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var h head
		n, ok := h.read(b)
		if !ok {
			return
		}
		in := bytes.NewReader(b)
		r := bufio.NewReaderSize(in, 16)
		req, err := http.ReadRequest(r)
		if err != nil {
			t.Fatalf("net/http refuses what the lane takes: %v: %q", err, b)
		}
		if used := len(b) - in.Len() - r.Buffered(); used != n {
			t.Errorf("the head of %q has %d bytes, net/http says %d", b, n, used)
		}
		if req.Method != http.MethodPost || req.URL.String() != h.route.url.Path || req.Proto != "HTTP/1.1" || req.Host != h.host || req.ContentLength != h.length {
			t.Errorf("%q is for %s of %q with %d bytes, net/http says %s %s %s %q %d", b, h.route.url.Path, h.host, h.length, req.Method, req.URL, req.Proto, req.Host, req.ContentLength)
		}
		if req.Close || len(req.TransferEncoding) > 0 || len(req.Trailer) > 0 {
			t.Errorf("%q: net/http sees close %v, transfer encoding %q, trailer %v", b, req.Close, req.TransferEncoding, req.Trailer)
		}
		if !maps.EqualFunc(req.Header, h.header, slices.Equal) {
			t.Errorf("%q has the headers\n%q, net/http says\n%q", b, h.header, req.Header)
		}
	})
}

// lanes are two servers of one gateway: with the lane, and net/http alone.
func lanes(t *testing.T, change ...func(*Gateway)) (with, without string, g *Gateway) {
	r := newRig(t, change...)
	r.pool.add("a", serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), `"stream":true`) {
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			io.WriteString(w, evRole+evText("hi")+evFinish+evDone)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, wholeAnswer)
	}))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := r.server(context.Background(), nil)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(corkListener{ln}) }()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return strings.TrimPrefix(r.url, "http://"), ln.Addr().String(), r.Gateway
}

// dialogue sends parts over one connection, waiting for an answer to each but the last, and gives what comes until
// the server closes, or until it has said nothing for a while.
func dialogue(t *testing.T, addr string, parts ...string) (answers []string, closed bool) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		for _, p := range parts {
			io.WriteString(c, p)
			time.Sleep(20 * time.Millisecond) // a segment of its own: nothing waits for it
		}
	}()
	r := bufio.NewReader(c)
	for {
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if len(answers) == strings.Count(strings.Join(parts, ""), " HTTP/1.") {
			c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return answers, !errors.Is(err, os.ErrDeadlineExceeded)
		}
		body, err := io.ReadAll(res.Body)
		res.Header.Del("Date")
		res.Header.Del("X-Request-Id")
		text := fmt.Sprint(res.Status, " ", res.Header, " ", res.ContentLength, " ", res.TransferEncoding, " close ", res.Close, " ", err, "\n")
		answers = append(answers, text+withoutID(string(body)))
		if res.StatusCode == http.StatusContinue {
			return answers, false
		}
	}
}

// withoutID takes the request id, which is another for each request, off an error.
func withoutID(body string) string {
	before, after, ok := strings.Cut(body, `"request_id":"`)
	if !ok {
		return body
	}
	_, after, _ = strings.Cut(after, `"`)
	return before + after
}

// The lane and net/http answer alike, well-formed or not, and keep or close the connection alike.
func TestTheLaneAnswersAsNetHTTPDoes(t *testing.T) {
	head := func(length int, more ...string) string {
		return fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n", length, strings.Join(more, ""))
	}
	plain := func(body string, more ...string) string { return head(len(body), more...) + body }
	long := `{"model":"m","messages":"` + strings.Repeat("x", 20<<10) + `"}`
	huge := `{"model":"m","messages":"` + strings.Repeat("x", 400<<10) + `"}`
	get := "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
	with, without, g := lanes(t, func(g *Gateway) { g.MaxBody = 64 << 10 })
	t.Run("alike", func(t *testing.T) {
		for _, tt := range []struct {
			name  string
			parts []string
		}{
			{"one request", []string{plain(chatBody)}},
			{"a stream", []string{plain(streamBody)}},
			{"several on a connection", []string{plain(chatBody), plain(streamBody), plain(chatBody)}},
			{"pipelined", []string{plain(chatBody) + plain(streamBody) + plain(chatBody)}},
			{"pipelined, the second cut in its head", []string{plain(chatBody) + plain(streamBody)[:30], plain(streamBody)[30:]}},
			{"pipelined, with others between", []string{plain(chatBody) + get + plain(streamBody)}},
			{"another on the same connection", []string{plain(chatBody), get, plain(chatBody)}},
			{"the head in pieces", []string{plain(chatBody)[:5], plain(chatBody)[5:60], plain(chatBody)[60:]}},
			{"the body in pieces", []string{head(len(chatBody)), chatBody[:9], chatBody[9:]}},
			{"a long body", []string{plain(long)}},
			{"a long body in pieces", []string{plain(long)[:9000], plain(long)[9000:]}},
			{"no JSON", []string{plain(`{"model"`), plain(chatBody)}},
			{"an unknown model", []string{plain(`{"model":"no","messages":[]}`), plain(chatBody)}},
			{"an empty body", []string{plain(""), plain(chatBody)}},
			{"a body that is too large", []string{plain(huge)}},
			{"keep-alive", []string{plain(chatBody, "Connection: keep-alive\r\n"), plain(chatBody)}},
			{"close", []string{plain(chatBody, "Connection: close\r\n")}},
			{"HTTP/1.0", []string{strings.Replace(plain(chatBody), "HTTP/1.1", "HTTP/1.0", 1)}},
			{"chunked", []string{strings.Replace(head(0), "Content-Length: 0", "Transfer-Encoding: chunked", 1) + chunk(chatBody) + "0\r\n\r\n", plain(chatBody)}},
			{"length and chunked", []string{head(5, "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n"}},
			{"two lengths", []string{head(2, "Content-Length: 3\r\n") + "{}"}},
			{"two equal lengths", []string{plain(chatBody, fmt.Sprintf("Content-Length: %d\r\n", len(chatBody)))}},
			{"a negative length", []string{strings.Replace(head(9), " 9\r", " -9\r", 1)}},
			{"a length with a sign", []string{strings.Replace(head(9), " 9\r", " +9\r", 1)}},
			{"no length", []string{"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n\r\n"}},
			{"two hosts", []string{plain(chatBody, "Host: y\r\n")}},
			{"no host", []string{strings.Replace(plain(chatBody), "Host: x\r\n", "", 1)}},
			{"a bad host", []string{strings.Replace(plain(chatBody), "Host: x", "Host: x{}", 1)}},
			{"a space before the colon", []string{plain(chatBody, "A : b\r\n")}},
			{"a folded header", []string{plain(chatBody, "A: b\r\n c\r\n")}},
			{"a bare line feed", []string{plain(chatBody, "A: b\n")}},
			{"a bare carriage return", []string{plain(chatBody, "A: b\rc\r\n")}},
			{"a NUL in a header", []string{plain(chatBody, "A: b\x00\r\n")}},
			{"an empty header name", []string{plain(chatBody, ": b\r\n")}},
			{"a head of 20 kB", []string{plain(chatBody, "A: "+strings.Repeat("b", 20<<10)+"\r\n")}},
			{"a head of 100 kB", []string{plain(chatBody, strings.Repeat("A: "+strings.Repeat("b", 1<<10)+"\r\n", 100))}},
			{"many headers", []string{plain(chatBody, strings.Repeat("A: b\r\n", 100))}},
			{"expecting 100", []string{head(len(chatBody), "Expect: 100-continue\r\n")}},
			{"expecting else", []string{plain(chatBody, "Expect: what\r\n")}},
			{"cost as a trailer", []string{plain(streamBody, "X-Vllmdeck-Cost: 1\r\n"), plain(chatBody)}},
			{"a query", []string{strings.Replace(plain(chatBody), "completions ", "completions?a=b ", 1)}},
			{"an escape", []string{strings.Replace(plain(chatBody), "completions ", "%63ompletions ", 1)}},
			{"a wrong method", []string{strings.Replace(plain(chatBody), "POST", "PUT", 1)}},
			{"no HTTP", []string{"hello there\r\n\r\n"}},
			{"HTTP/2 in the open", []string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}},
			{"TLS", []string{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"}},
		} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel() // most of the time is waiting for what does not come
				got, gotClosed := dialogue(t, with, tt.parts...)
				want, wantClosed := dialogue(t, without, tt.parts...)
				if !slices.Equal(got, want) {
					t.Errorf("the lane answers\n%s\nnet/http\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
				if gotClosed != wantClosed {
					t.Errorf("closed = %v, with net/http %v", gotClosed, wantClosed)
				}
			})
		}
	})
	// net/http waits for the rest of a body that nobody wants.
	if got, closed := dialogue(t, with, head(100<<10)); !closed || len(got) != 1 || !strings.HasPrefix(got[0], "413 ") {
		t.Errorf("a body that is too large and not sent: answered %q, closed %v, want 413 and the end", got, closed)
	}
	if n := g.inFlight.Load(); n != 0 {
		t.Errorf("%d requests are left in flight", n)
	}
}

// A connection waits for the next request, or for the first one, only while the engine takes any.
func TestTheLaneStops(t *testing.T) {
	release := make(chan struct{})
	p := newPool()
	p.add("a", serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		<-release
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, wholeAnswer)
	}))
	g := &Gateway{Upstreams: p, Accounts: p}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, ln, nil, time.Minute) }()
	request := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(chatBody), chatBody)
	dial := func(send string) (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(time.Minute))
		io.WriteString(c, send)
		return c, bufio.NewReader(c)
	}
	_, idle := dial(strings.Replace(request, "{", "[", 1))
	if res, err := http.ReadResponse(idle, nil); err != nil || res.StatusCode/100 != 4 {
		t.Fatalf("got %v, %v, want a refusal", res, err)
	} else {
		io.Copy(io.Discard, res.Body)
	}
	fresh, freshReader := dial("")
	_, busy := dial(request)
	until(t, "the gateway has what was sent", func() bool { return g.inFlight.Load() == 1 })
	stop()
	if _, err := idle.ReadByte(); err != io.EOF {
		t.Errorf("an idle connection gives %v, want its end", err)
	}
	// One that has just come may still ask, and is told.
	io.WriteString(fresh, request)
	if res, err := http.ReadResponse(freshReader, nil); err != nil || res.StatusCode != http.StatusServiceUnavailable || !res.Close {
		t.Errorf("a new connection is answered %v, %v, want 503 and the end", res, err)
	}
	close(release)
	res, err := http.ReadResponse(busy, nil)
	if err != nil || res.StatusCode != http.StatusOK || !res.Close {
		t.Fatalf("a request under way is answered %v, %v, want 200 and the end", res, err)
	}
	if body, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(body), "hi") {
		t.Errorf("its answer is %q, %v", body, err)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
}

// A client that goes away ends its request, whether it has sent more or not; a next request that comes early does not.
func TestTheLaneSeesClientsGo(t *testing.T) {
	request := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(chatBody), chatBody)
	gone := make(chan struct{}, 1)
	r := newRig(t)
	r.pool.add("a", serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		select {
		case <-req.Context().Done():
			gone <- struct{}{}
		case <-time.After(100 * time.Millisecond):
			if req.Header.Get("X-Slow") != "" {
				<-req.Context().Done()
				gone <- struct{}{}
				return
			}
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, wholeAnswer)
		}
	}))
	dial := func() *net.TCPConn {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		return c.(*net.TCPConn)
	}
	c := dial()
	in := bufio.NewReader(c)
	for i := range 3 { // the second request comes while the first is served and watched
		io.WriteString(c, request)
		if i == 1 {
			time.Sleep(30 * time.Millisecond)
			io.WriteString(c, request)
		}
	}
	for i := range 4 {
		res, err := http.ReadResponse(in, nil)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("answer %d is %v, %v", i, res, err)
		}
		io.Copy(io.Discard, res.Body)
	}
	io.WriteString(c, strings.Replace(request, "Host: x", "Host: x\r\nX-Slow: 1", 1))
	until(t, "the gateway has what was sent", func() bool { return r.inFlight.Load() == 1 })
	began := time.Now()
	time.Sleep(200 * time.Millisecond)
	c.Close()
	select {
	case <-gone:
	case <-time.After(10 * time.Second):
		t.Fatalf("the worker has not seen the client go after %v", time.Since(began))
	}
	until(t, "the gateway has what was sent", func() bool { return r.inFlight.Load() == 0 })
}

// What breaks off is cut, not ended: a client sees no last chunk.
func TestTheLaneCutsWhatIsNotWhole(t *testing.T) {
	r := newRig(t, func(g *Gateway) { g.Continue = false })
	r.pool.add("a", serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) {
		io.WriteString(c, streamHead+chunk(evRole+evText("hi")))
	}))
	a := r.post(t, "/v1/chat/completions", streamBody)
	if a.err == nil || !strings.Contains(a.body, "hi") {
		t.Errorf("got %q and %v, want the text and an error", a.body, a.err)
	}
}
