package worker

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// Over real connections: what the fake network of the other tests cannot show.
func TestAttachOverLoopback(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer hush" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"m","max_model_len":64}]}`)
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()

	h := newHost(t)
	o := h.options(t.TempDir())
	o.HTTP = nil
	p := NewPool(o)
	w := attachWorker("w1", srv.URL)
	w.APIKey.Val = "hush"
	must(t, p.Apply(conf(w)))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() {
		cancel()
		must(t, <-ended)
	}()
	await := func(what string, ok func(api.Worker) bool) {
		t.Helper()
		limit := time.After(20 * time.Second)
		for {
			changed := p.Changed()
			s, _ := p.Status("w1")
			if ok(s) {
				return
			}
			select {
			case <-changed:
			case <-limit:
				t.Fatalf("%s: not in time, but %s: %s", what, s.State, s.Error)
			}
		}
	}
	await("ready", func(s api.Worker) bool { return s.State == api.Ready && s.MaxLen == 64 && s.Version == "" })
	srv.Close()
	p.Failed("w1")
	await("failed", func(s api.Worker) bool {
		return s.State == api.Failed && strings.Contains(s.Error, "connection refused")
	})
}
