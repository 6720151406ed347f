package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	plainAnswer = `{"id":"chatcmpl-b4341a542f7deab4","object":"chat.completion","created":1795446107,"model":"bench","choices":[{"index":0,` +
		`"message":{"role":"assistant","content":"%s","refusal":null,"annotations":null,"audio":null,"function_call":null,"reasoning":null},` +
		`"logprobs":null,"finish_reason":"stop","stop_reason":null,"token_ids":null}],"service_tier":null,"system_fingerprint":"vllm-0.32.0-6bcded73",` +
		`"usage":{"prompt_tokens":214,"total_tokens":278,"completion_tokens":64,"prompt_tokens_details":{"cached_tokens":96}},"prompt_logprobs":null}`
	streamEvent = `data: {"id":"chatcmpl-b4341a542f7deab4","object":"chat.completion.chunk","created":1795446107,"model":"bench",` +
		`"choices":[{"index":0,"delta":{%s},"logprobs":null,"finish_reason":%s,"token_ids":null}]}` + "\n\n"
	usageEvent = `data: {"id":"chatcmpl-b4341a542f7deab4","object":"chat.completion.chunk","created":1795446107,"model":"bench","choices":[],` +
		`"usage":{"prompt_tokens":214,"total_tokens":278,"completion_tokens":64,"prompt_tokens_details":{"cached_tokens":96}}}` + "\n\n"
	models = `{"object":"list","data":[{"id":"bench","object":"model","created":1795446107,"owned_by":"vllm","root":"bench","parent":null,"max_model_len":8192}]}`
)

// upstream is a server that answers as vLLM does, at no cost of its own: what is measured is
// the way to it.
func upstream(addr string) error {
	answer := fmt.Sprintf(plainAnswer, strings.Repeat("word ", 64))
	events := make([]string, 0, 66)
	events = append(events, fmt.Sprintf(streamEvent, `"role":"assistant","content":""`, "null"))
	for i := range 64 {
		finish := "null"
		if i == 63 {
			finish = `"stop"`
		}
		events = append(events, fmt.Sprintf(streamEvent, `"content":" word"`, finish))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"version":"0.32.0"}`) })
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, models)
	})
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if d := r.Header.Get("X-Bench-Delay"); d != "" {
			if delay, err := time.ParseDuration(d); err == nil {
				select {
				case <-time.After(delay):
				case <-r.Context().Done():
					return
				}
			}
		}
		text := string(body)
		if !strings.Contains(text, `"stream":true`) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, answer)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		rc := http.NewResponseController(w)
		for _, e := range events {
			_, _ = io.WriteString(w, e)
			_ = rc.Flush()
		}
		if strings.Contains(text, "include_usage") {
			_, _ = io.WriteString(w, usageEvent)
		}
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	})
	srv := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return srv.ListenAndServe()
}
