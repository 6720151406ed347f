package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// clientConfig has a model that works, one whose streams break after content, one whose only
// server is away.
func clientConfig(state string) string {
	const one = "  - {name: %s, model: %s, gpus: 1, stop_timeout: 500ms, sim: {start: 20ms, ttft: 5ms, itl: 5ms, seed: 1%s}}\n"
	return fmt.Sprintf("listen: 127.0.0.1:0\nstate: %s\ngateway: {queue_wait: 2s}\nmodels: [{name: toy, aliases: [default]}]\nworkers:\n", state) +
		fmt.Sprintf(one, "w0", "toy", "") + fmt.Sprintf(one, "w1", "toy", "") +
		fmt.Sprintf(one, "c0", "cut", ", faults: [\"reset:6\"]") + "  - {name: b0, model: busy, attach: \"http://127.0.0.1:9\"}\n"
}

// clientEngine runs an engine for clients and gives the base URL of its OpenAI routes.
func clientEngine(t *testing.T) (r *rig, base string) {
	t.Helper()
	r = newRig(t, clientConfig)
	r.serve()
	for _, w := range []string{"w0", "w1", "c0"} {
		r.awaitReady(w)
	}
	return r, r.snapshot().Engine.URL + "/v1"
}

// TestOpenAISDKForGo drives the gateway with OpenAI's own Go client, as an application would.
func TestOpenAISDKForGo(t *testing.T) {
	t.Parallel()
	r, base := clientEngine(t)
	c := openai.NewClient(option.WithBaseURL(base), option.WithAPIKey("none"))
	ask := func(model string) openai.ChatCompletionNewParams {
		return openai.ChatCompletionNewParams{
			Model: model, MaxTokens: openai.Int(32),
			Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage("What is the capital of France?")},
		}
	}

	t.Run("chat", func(t *testing.T) {
		a, err := c.Chat.Completions.New(t.Context(), ask("toy"))
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Choices[0].Message.Content; !strings.Contains(got, "Paris") || a.Choices[0].FinishReason != "stop" || a.Usage.CompletionTokens == 0 {
			t.Errorf("answer %q, finish %q, usage %+v", got, a.Choices[0].FinishReason, a.Usage)
		}
		if a.JSON.ExtraFields["cost_info"].Raw() == "" {
			t.Error("no cost_info in the answer")
		}
	})

	t.Run("stream, without usage", func(t *testing.T) {
		s := c.Chat.Completions.NewStreaming(t.Context(), ask("default"))
		var acc openai.ChatCompletionAccumulator
		for s.Next() {
			chunk := s.Current()
			if len(chunk.Choices) == 0 {
				t.Errorf("a chunk without choices that nobody asked for: %s", chunk.RawJSON())
			}
			acc.AddChunk(chunk)
		}
		if err := s.Err(); err != nil {
			t.Fatal(err)
		}
		if got := acc.Choices[0].Message.Content; !strings.Contains(got, "Paris") {
			t.Errorf("answer %q", got)
		}
	})

	t.Run("stream, with usage", func(t *testing.T) {
		p := ask("toy")
		p.StreamOptions.IncludeUsage = openai.Bool(true)
		s := c.Chat.Completions.NewStreaming(t.Context(), p)
		var usage int64
		for s.Next() {
			usage = max(usage, s.Current().Usage.CompletionTokens)
		}
		if err := s.Err(); err != nil || usage == 0 {
			t.Errorf("usage %d, error %v", usage, err)
		}
	})

	t.Run("abort frees the worker", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := ask("toy")
		p.MaxTokens = openai.Int(2000)
		p.Messages = []openai.ChatCompletionMessageParamUnion{openai.UserMessage("Write a very long story.")}
		s := c.Chat.Completions.NewStreaming(ctx, p)
		if !s.Next() {
			t.Fatal(s.Err())
		}
		cancel()
		_ = s.Close()
		until(t, 3*time.Second, "nothing is in flight and the row says why", func() bool {
			s := r.snapshot()
			for _, w := range s.Workers {
				if w.InFlight > 0 {
					return false
				}
			}
			return len(s.Requests) > 0 && s.Requests[0].Outcome == api.OutcomeCancelled
		})
	})

	t.Run("errors have their classes", func(t *testing.T) {
		for _, e := range []struct {
			name   string
			params openai.ChatCompletionNewParams
			status int
		}{
			{"unknown model", ask("nope"), http.StatusNotFound},
			{"too many tokens", func() openai.ChatCompletionNewParams {
				p := ask("toy")
				p.MaxTokens = openai.Int(1 << 20)
				return p
			}(), http.StatusBadRequest},
			{"no worker can", ask("busy"), http.StatusServiceUnavailable},
		} {
			_, err := c.Chat.Completions.New(t.Context(), e.params)
			var apiErr *openai.Error
			if !errors.As(err, &apiErr) || apiErr.StatusCode != e.status || apiErr.Message == "" {
				t.Errorf("%s: %v, want HTTP %d with a message", e.name, err, e.status)
			}
		}
	})

	t.Run("a cut stream is an error", func(t *testing.T) {
		s := c.Chat.Completions.NewStreaming(t.Context(), ask("cut"))
		content := false
		for s.Next() {
			if ch := s.Current().Choices; len(ch) > 0 && ch[0].Delta.Content != "" {
				content = true
			}
		}
		if err := s.Err(); err == nil || !content {
			t.Errorf("content %v, error %v: want content and then an error", content, err)
		}
	})

	t.Run("models", func(t *testing.T) {
		page, err := c.Models.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, m := range page.Data {
			ids = append(ids, m.ID)
		}
		if got := strings.Join(ids, " "); got != "toy default cut busy" {
			t.Errorf("models %q", got)
		}
	})
}

// TestOtherClients runs the scripts in testdata/clients: the clients that applications use, in
// Python and JavaScript. "make test-clients" installs them first.
func TestOtherClients(t *testing.T) {
	dir := os.Getenv("VLLMDECK_CLIENTS")
	if dir == "" {
		t.Skip("NOT RUN: OpenAI for Python and Node, Anthropic for Python, Vercel AI SDK; \"make test-clients\" installs and runs them")
	}
	_, base := clientEngine(t)
	for _, c := range []struct{ name, bin, script string }{
		{"OpenAI for Python", filepath.Join(dir, "venv", "bin", "python"), "openai_sdk.py"},
		{"Anthropic for Python", filepath.Join(dir, "venv", "bin", "python"), "anthropic_sdk.py"},
		{"OpenAI for Node", "node", "openai_sdk.mjs"},
		{"Vercel AI SDK", "node", "ai_sdk.mjs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			script, err := filepath.Abs(filepath.Join("testdata", "clients", c.script))
			if err != nil {
				t.Fatal(err)
			}
			// Node looks for packages beside the script.
			if strings.HasSuffix(script, ".mjs") {
				text, err := os.ReadFile(script)
				if err != nil {
					t.Fatal(err)
				}
				script = filepath.Join(dir, c.script)
				if err := os.WriteFile(script, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, c.bin, script)
			cmd.Env = append(os.Environ(), "BASE_URL="+base)
			out, err := cmd.CombinedOutput()
			t.Logf("%s", out)
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
