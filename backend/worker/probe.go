package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// target is how to reach one server.
type target struct {
	url    string // base
	key    string // bearer token, "" for none
	client *http.Client
}

// answer is what a server said about itself.
type answer struct {
	version string   // "" where it does not say
	models  []string // in its order
	maxLen  int      // of the first model; 0 where it does not say

	canSleep bool // it has the routes of sleep mode
	sleeping bool
}

func (t target) call(ctx context.Context, method, path string, body any) (status int, data []byte, err error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, fmt.Errorf("ask %s: %w", path, err)
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(t.url, "/")+path, r)
	if err != nil {
		return 0, nil, fmt.Errorf("ask %s: %w", path, err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if t.key != "" {
		req.Header.Set("Authorization", "Bearer "+t.key)
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("ask %s: %w", path, err)
	}
	defer func() { _ = resp.Body.Close() }() // only read from
	data, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return 0, nil, fmt.Errorf("read %s: %w", path, err)
	}
	return resp.StatusCode, data, nil
}

// statusError is an answer with a status that is not 200.
type statusError struct {
	path   string
	status int
	text   string
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("%s answers HTTP %d", e.path, e.status)
	if e.text != "" {
		s += ": " + e.text
	}
	if e.status == http.StatusUnauthorized {
		s += `; set api_key: of this worker to the server's key`
	}
	return s
}

func newStatusError(path string, status int, body []byte) error {
	var j struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	_ = json.Unmarshal(body, &j) // not JSON: no text
	return &statusError{path: path, status: status, text: clip(j.Error.Message)}
}

// health asks /health. vLLM answers 200 or 503 when its engine is dead; it refuses the
// connection until it has loaded.
func (t target) health(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, healthLimit)
	defer cancel()
	status, body, err := t.call(ctx, http.MethodGet, "/health", nil)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return newStatusError("/health", status, body)
	}
	return nil
}

// who asks what the server serves and which version it is.
func (t target) who(ctx context.Context) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, healthLimit)
	defer cancel()
	var a answer
	status, body, err := t.call(ctx, http.MethodGet, "/v1/models", nil)
	if err != nil {
		return a, err
	}
	if status != http.StatusOK {
		return a, newStatusError("/v1/models", status, body)
	}
	var models struct {
		Data []struct {
			ID     string `json:"id"`
			MaxLen int    `json:"max_model_len"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &models); err != nil {
		return a, fmt.Errorf("read /v1/models: %w", err)
	}
	for i, m := range models.Data {
		if i == 0 {
			a.maxLen = m.MaxLen
		}
		a.models = append(a.models, m.ID)
	}
	// Other servers than vLLM have no /version: that is no fault.
	if status, body, err = t.call(ctx, http.MethodGet, "/version", nil); err == nil && status == http.StatusOK {
		var v struct {
			Version string `json:"version"`
		}
		if json.Unmarshal(body, &v) == nil {
			a.version = v.Version
		}
	}
	return a, nil
}

// canary asks for one token. A server that does not generate (embeddings) refuses with a 4xx,
// and is as well as it can be.
func (t target) canary(ctx context.Context, model string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	status, body, err := t.call(ctx, http.MethodPost, "/v1/completions", map[string]any{
		"model": model, "prompt": "Hello", "max_tokens": 1, "temperature": 0,
	})
	if err != nil {
		return err
	}
	if status >= 500 || status == http.StatusUnauthorized {
		return newStatusError("/v1/completions", status, body)
	}
	return nil
}

// tooSlow says that err is a time-out: a busy server may be slow, it is not dead for that.
func tooSlow(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// plain words an error of a probe for an operator.
func plain(err error) string {
	var s *statusError
	switch {
	case errors.As(err, &s):
		return s.Error()
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case tooSlow(err):
		return "no answer in time"
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err.Error()
	}
	return err.Error()
}
