package main

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// played is a header that clients send to have a fake worker play something.
const played = "X-Play"

// fake starts a worker that lives as vLLM does and answers requests with the header X-Play as play says. Their bodies
// have been read.
func (t *trial) fake(ctx context.Context, play http.HandlerFunc) (url string, err error) {
	texts := map[string]string{
		"/health": "", "/version": `{"version":"0.32.0"}`,
		"/v1/models":      `{"object":"list","data":[{"id":"` + toy + `","object":"model","max_model_len":8192}]}`,
		"/v1/completions": `{"id":"c","object":"text_completion","created":1,"model":"toy","choices":[{"index":0,"text":"x","finish_reason":"length"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`,
	}
	return t.listen(ctx, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(played) != "" {
			_, _ = io.Copy(io.Discard, r.Body)
			play(w, r)
			return
		}
		text, ok := texts[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, text)
	})
}

// listen serves a handler on a free port until the trial's end and gives its address.
func (t *trial) listen(ctx context.Context, h http.HandlerFunc) (url string, err error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: h, ErrorLog: log.New(io.Discard, "", 0)}
	go func() { _ = s.Serve(ln) }()
	t.cleanup(func() { _ = s.Close() })
	return "http://" + ln.Addr().String(), nil
}
