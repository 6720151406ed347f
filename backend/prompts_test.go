package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// newTester is a tester on a gateway that a test plays.
func newTester(h http.HandlerFunc) *tester {
	return &tester{gateway: &inproc{handler: h}, key: "internal", find: func(string) (api.Request, bool) { return api.Request{}, false }}
}

func prompt(id string) api.Action {
	return api.Action{Verb: api.PromptSend, ID: id, Target: "toy", Text: "Hello"}
}

func stateOf(t *testing.T, p *tester, id string) api.Prompt {
	t.Helper()
	for _, s := range p.prompts(func(string) *float64 { return nil }) {
		if s.ID == id {
			return s
		}
	}
	t.Fatalf("no prompt %s", id)
	return api.Prompt{}
}

func awaitPrompt(t *testing.T, p *tester, id string) api.Prompt {
	t.Helper()
	until(t, "prompt "+id+" has ended", func() bool {
		s := stateOf(t, p, id).State
		return s != "waiting" && s != "streaming"
	})
	return stateOf(t, p, id)
}

func textOf(t *testing.T, p *tester, id string) string {
	t.Helper()
	var b strings.Builder
	after := uint64(0)
	for {
		lines, err := p.log(id, after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(lines) == 0 {
			return b.String()
		}
		for _, l := range lines {
			if l.Seq != after+1 {
				t.Fatalf("Seq %d after %d", l.Seq, after)
			}
			after = l.Seq
			b.WriteString(l.Text)
		}
	}
}

func event(w io.Writer, text string) {
	_, _ = fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":%q}}]}\n\n", text)
}

func TestPromptStreams(t *testing.T) {
	p := newTester(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("Authorization") != "Bearer internal" || !strings.Contains(string(body), `"stream":true`) {
			t.Errorf("the gateway is asked with %v %s", r.Header, body)
		}
		w.Header().Set("X-Request-Id", "r1")
		for i := range 5 {
			event(w, fmt.Sprintf("w%d ", i))
		}
		_, _ = io.WriteString(w, "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n")
	})
	p.find = func(id string) (api.Request, bool) {
		return api.Request{ID: id, Worker: "w7", Usage: api.Usage{Input: 3, Output: 6}, UsageSource: api.UsageUpstream}, id == "r1"
	}
	if err := p.send(t.Context(), prompt("a")); err != nil {
		t.Fatal(err)
	}
	s := awaitPrompt(t, p, "a")
	if s.State != "done" || s.Finish != "stop" || s.Worker != "w7" || s.Usage.Output != 6 || s.UsageSource != api.UsageUpstream || s.TTFT <= 0 {
		t.Errorf("state = %+v, want done with the gateway's own figures", s)
	}
	if got := textOf(t, p, "a"); got != "w0 w1 w2 w3 w4 " {
		t.Errorf("text = %q", got)
	}
	p.close()
}

func TestPromptEnds(t *testing.T) {
	for _, tt := range []struct {
		name    string
		gateway http.HandlerFunc
		want    string // of the error
		text    string
	}{
		{"refused", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = io.WriteString(w, `{"error":{"message":"no worker is ready"}}`)
		}, "no worker is ready", ""},
		{"refused without words", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, "HTTP 502", ""},
		{"an error event", func(w http.ResponseWriter, _ *http.Request) {
			event(w, "half")
			_, _ = io.WriteString(w, "data: {\"error\":{\"message\":\"the worker died\"}}\n\n")
			panic(http.ErrAbortHandler)
		}, "the worker died", "half"},
		{"an abort in the middle", func(w http.ResponseWriter, _ *http.Request) {
			event(w, "half")
			panic(http.ErrAbortHandler)
		}, "unexpected EOF", "half"},
		{"a clean end without [DONE]", func(w http.ResponseWriter, _ *http.Request) { event(w, "half") }, "without [DONE]", "half"},
	} {
		p := newTester(tt.gateway)
		if err := p.send(t.Context(), prompt("a")); err != nil {
			t.Fatal(err)
		}
		s := awaitPrompt(t, p, "a")
		if s.State != "failed" || !strings.Contains(s.Error, tt.want) {
			t.Errorf("%s: %s %q, want failed with %q", tt.name, s.State, s.Error, tt.want)
		}
		if got := textOf(t, p, "a"); got != tt.text {
			t.Errorf("%s: text %q, want %q", tt.name, got, tt.text)
		}
		p.close()
	}
}

// endless streams until its client leaves, and says that it has seen that.
func endless(seen chan<- struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		event(w, "on and on")
		<-r.Context().Done()
		seen <- struct{}{}
		panic(http.ErrAbortHandler) // as the gateway does
	}
}

func TestPromptCancel(t *testing.T) {
	seen := make(chan struct{}, 1)
	p := newTester(endless(seen))
	if err := p.send(t.Context(), prompt("a")); err != nil {
		t.Fatal(err)
	}
	until(t, "it streams", func() bool { return stateOf(t, p, "a").State == "streaming" })
	if err := p.cancel("a"); err != nil {
		t.Fatal(err)
	}
	<-seen
	if s := awaitPrompt(t, p, "a"); s.State != "cancelled" {
		t.Errorf("state = %s %q, want cancelled", s.State, s.Error)
	}
	if err := p.cancel("b"); !errors.Is(err, api.ErrUnknown) {
		t.Errorf("cancelling what is not there = %v, want ErrUnknown", err)
	}
	p.close()
}

func TestPromptIsRefused(t *testing.T) {
	p := newTester(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "data: [DONE]\n\n") })
	defer p.close()
	if err := p.send(t.Context(), prompt("a")); err != nil {
		t.Fatal(err)
	}
	for name, a := range map[string]api.Action{
		"an id used before":     prompt("a"),
		"an id with a space":    prompt("a b"),
		"no id":                 prompt(""),
		"an id that is long":    prompt(strings.Repeat("x", 65)),
		"a text that is long":   {ID: "b", Target: "toy", Text: strings.Repeat("x", maxPromptText+1)},
		"max_tokens 0":          {ID: "b", Target: "toy", Text: "x", Args: map[string]string{"max_tokens": "0"}},
		"max_tokens in words":   {ID: "b", Target: "toy", Text: "x", Args: map[string]string{"max_tokens": "many"}},
		"temperature 3":         {ID: "b", Target: "toy", Text: "x", Args: map[string]string{"temperature": "3"}},
		"temperature no number": {ID: "b", Target: "toy", Text: "x", Args: map[string]string{"temperature": "NaN"}},
	} {
		if err := p.send(t.Context(), a); !errors.Is(err, api.ErrRefused) {
			t.Errorf("%s: %v, want ErrRefused", name, err)
		}
	}
}

// TestPromptsAreFew sends more than are kept: the oldest go, and what still ran of them ends.
func TestPromptsAreFew(t *testing.T) {
	seen := make(chan struct{}, maxPrompts+3)
	p := newTester(endless(seen))
	ctx, cancel := context.WithCancel(t.Context())
	for i := range maxPrompts + 3 {
		if err := p.send(ctx, prompt(fmt.Sprint("p", i))); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		<-seen
	}
	kept := p.prompts(func(string) *float64 { return nil })
	if len(kept) != maxPrompts || kept[0].ID != fmt.Sprint("p", maxPrompts+2) {
		t.Errorf("%d are kept, the first is %s; want %d, newest first", len(kept), kept[0].ID, maxPrompts)
	}
	if _, err := p.log("p0", 0, 1); !errors.Is(err, api.ErrUnknown) {
		t.Errorf("the text of one that is not kept = %v, want ErrUnknown", err)
	}
	// The end waits for what the gateway still does for them, and takes no more.
	cancel()
	p.close()
	if got := len(seen); got != maxPrompts {
		t.Errorf("%d handlers had ended when close returned, want all %d", got, maxPrompts)
	}
	if err := p.send(t.Context(), prompt("late")); !errors.Is(err, api.ErrRefused) {
		t.Errorf("a prompt after the end = %v, want ErrRefused", err)
	}
}

func TestPromptAnswerIsBounded(t *testing.T) {
	piece := strings.Repeat("x", 1<<20)
	p := newTester(func(w http.ResponseWriter, _ *http.Request) {
		for range 6 {
			event(w, piece)
		}
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	})
	if err := p.send(t.Context(), prompt("a")); err != nil {
		t.Fatal(err)
	}
	s := awaitPrompt(t, p, "a")
	if got := len(textOf(t, p, "a")); got > maxPromptAnswer || s.State != "failed" || !strings.Contains(s.Error, "4 MiB") {
		t.Errorf("%d bytes are kept of an answer of 6 MB, state %s %q; want a failure that says so", got, s.State, s.Error)
	}
	p.close()
}

func TestHead(t *testing.T) {
	for in, want := range map[string]string{"": "", "abc": "abc", "abcdef": "abcd", "äöüß€": "äöüß", "a\xffb": "a\uFFFDb"} {
		if got := head(in, 4); got != want {
			t.Errorf("head(%q, 4) = %q, want %q", in, got, want)
		}
	}
}
