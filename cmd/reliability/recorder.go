package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// call is a request as a worker got it.
type call struct {
	method, target string
	header         http.Header
}

// recorder stands before a worker and keeps what it was asked for; all of it passes.
type recorder struct {
	url string

	mu    sync.Mutex
	calls []call
}

// recorder starts one.
func (t *trial) recorder(ctx context.Context, worker string) (*recorder, error) {
	target, err := url.Parse(worker)
	if err != nil {
		return nil, err
	}
	rec := &recorder{}
	through := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		FlushInterval: -1,
		Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 1024, IdleConnTimeout: 3 * time.Second},
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:      log.New(io.Discard, "", 0),
	}
	rec.url, err = t.listen(ctx, func(w http.ResponseWriter, r *http.Request) {
		rec.mu.Lock()
		rec.calls = append(rec.calls, call{r.Method, r.RequestURI, r.Header.Clone()})
		rec.mu.Unlock()
		// As a whole: net/http closes a request's body once its answer begins, which a worker's may before
		// a transport has seen the body's end.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // its client is gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		through.ServeHTTP(w, r)
	})
	return rec, err
}

// got lists what the worker was asked for.
func (r *recorder) got() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clip(r.calls)
}

// inference are the routes that the gateway passes on, each with POST.
var inference = []string{"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/rerank", "/tokenize", "/detokenize"}

// own reports whether the engine itself asks a worker for this, to see how it is.
func (c call) own() bool {
	return c.method == http.MethodGet && strings.Contains(" /health /v1/models /version /metrics /is_sleeping ", " "+c.target+" ")
}
