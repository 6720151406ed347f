package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ways are the ways in which a proxy breaks an answer.
var ways = []string{"clean EOF", "RST", "error event", "no [DONE]", "half UTF-8", "half event"}

// plainWays are those of an answer that is not streamed.
var plainWays = []string{"clean EOF", "clean EOF behind a brace", "short of its length", "RST", "half UTF-8", "error"}

// breaker says which answers are broken, and how. Several proxies may share one: then it is the next answer
// that is broken, whichever worker it comes from.
type breaker struct {
	mu    sync.Mutex
	how   string // one of ways or plainWays
	after int    // events with content that pass before
	left  int    // answers still to break
	done  int    // answers that were broken
}

// set says that the next n answers are broken.
func (b *breaker) set(n int, how string, after int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left, b.how, b.after = n, how, after
}

// broke is how many answers have been broken.
func (b *breaker) broke() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.done
}

// take asks whether an answer is to be broken.
func (b *breaker) take() (how string, after int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left == 0 {
		return "", 0, false
	}
	b.left--
	b.done++
	return b.how, b.after, true
}

// proxy starts a proxy before a worker and gives its address. It cuts connections and answers as told; all else
// passes. wrap, unless it is nil, is given the proxy's handler and may look at each request.
func (t *trial) proxy(ctx context.Context, worker string, b *breaker, wrap func(http.Handler) http.Handler) (string, error) {
	target, err := url.Parse(worker)
	if err != nil {
		return "", err
	}
	through := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		FlushInterval: -1,
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 1024, IdleConnTimeout: 3 * time.Second},
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:      log.New(io.Discard, "", 0), // that a side hung up is no news
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	var handler http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		route := routeAt(r.URL.Path)
		if route.path == "" {
			through.ServeHTTP(w, r)
			return
		}
		how, after, ok := b.take()
		if !ok {
			through.ServeHTTP(w, r)
			return
		}
		out := r.Clone(r.Context())
		out.URL.Scheme, out.URL.Host, out.RequestURI = target.Scheme, target.Host, ""
		resp, err := through.Transport.RoundTrip(out)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		breakOff(r.Context(), w, resp, how, after, route)
	})
	if wrap != nil {
		handler = wrap(handler)
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: handler}
	go func() { _ = s.Serve(ln) }()
	t.cleanup(func() { _ = s.Close() })
	return "http://" + ln.Addr().String(), nil
}

// routeAt is the route of a path; none: the zero route.
func routeAt(path string) route {
	for _, r := range routes {
		if r.path == path {
			return r
		}
	}
	return route{}
}

// breakOff passes an answer on, up to where it is broken.
func breakOff(ctx context.Context, w http.ResponseWriter, resp *http.Response, how string, after int, r route) {
	defer resp.Body.Close()
	for name, values := range resp.Header {
		if name != "Content-Length" {
			w.Header()[name] = values
		}
	}
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		breakPlain(w, resp, how)
		return
	}
	w.WriteHeader(resp.StatusCode)
	send := func(p []byte) {
		_, _ = w.Write(p)
		_ = http.NewResponseController(w).Flush()
	}
	in := bufio.NewReader(resp.Body)
	seen := answer{ids: map[string]bool{}}
	for {
		ev, data, err := readEvent(in)
		if err != nil {
			return
		}
		events := seen.events
		if len(data) > 0 {
			r.ev(&seen, string(data))
		}
		content, end := seen.events > events, seen.finish != "" || seen.done
		switch {
		case how == "no [DONE]" && !seen.done:
			send(ev)
			continue
		case how != "no [DONE]" && !end && (!content || events < after):
			send(ev)
			continue
		}
		// The gateway has passed on what came so far: an answer of which the client has nothing is simply asked for again.
		_ = pause(ctx, 50*time.Millisecond)
		switch how {
		case "error event":
			if r.name == "messages" {
				send([]byte("event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"internal_error\",\"message\":\"EngineCore encountered an issue.\"}}\n\n"))
			} else {
				send([]byte("data: {\"error\":{\"message\":\"EngineCore encountered an issue.\",\"type\":\"InternalServerError\",\"param\":null,\"code\":500}}\n\ndata: [DONE]\n\n"))
			}
		case "RST":
			reset(w)
		case "half UTF-8":
			send(append(bytes.Clone(ev[:len(ev)-len(data)/4-4]), 0xe2, 0x82)) // two of the three bytes of a euro sign
			panic(http.ErrAbortHandler)
		case "half event":
			send(ev[:len(ev)/2])
			panic(http.ErrAbortHandler)
		}
		return // a clean end, of the chunks at least
	}
}

// readEvent reads one server-sent event as it came, and its data.
func readEvent(in *bufio.Reader) (ev, data []byte, err error) {
	for {
		line, err := in.ReadBytes('\n')
		ev = append(ev, line...)
		if err != nil {
			return ev, data, err
		}
		if rest, ok := bytes.CutPrefix(line, []byte("data: ")); ok {
			data = append(data, bytes.TrimRight(rest, "\r\n")...)
		}
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return ev, data, nil
		}
	}
}

// breakPlain breaks an answer that is not streamed.
func breakPlain(w http.ResponseWriter, resp *http.Response, how string) {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return
	}
	half := body[:len(body)/2]
	flush := func(p []byte) {
		w.WriteHeader(resp.StatusCode)
		_, _ = w.Write(p)
		_ = http.NewResponseController(w).Flush() // from here on it is sent in chunks
	}
	switch how {
	case "clean EOF":
		flush(half)
	case "clean EOF behind a brace":
		flush(body[:bytes.LastIndexByte(body[:len(body)-1], '}')+1])
	case "short of its length":
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		flush(half)
		panic(http.ErrAbortHandler)
	case "RST":
		flush(half)
		reset(w)
	case "half UTF-8":
		flush(append(bytes.Clone(half), 0xe2, 0x82))
	case "error":
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, `{"error":{"message":"EngineCore encountered an issue.","type":"InternalServerError","param":null,"code":500}}`)
	}
}

// reset ends a connection by a TCP reset.
func reset(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
