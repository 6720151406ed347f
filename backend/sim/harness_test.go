package sim

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"
)

// TestMain plays the simulator's processes when a test starts this binary as one of them.
func TestMain(m *testing.M) {
	switch os.Getenv("SIM_TEST_ROLE") {
	case "server":
		os.Exit(serverMain())
	case "engine":
		os.Exit(EngineMain())
	}
	goleak.VerifyTestMain(m)
}

// safeBuffer is a log that may be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// box is a server in a synctest bubble.
type box struct {
	t      *testing.T
	srv    *Server
	ln     *Pipe
	c      *http.Client
	cancel context.CancelFunc
	done   chan error
	log    *safeBuffer // stdout and stderr
}

// inBox runs a test against a server in a bubble, on virtual time.
func inBox(t *testing.T, o Options, f func(*box)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &box{t: t, ln: Listen(), log: &safeBuffer{}, done: make(chan error, 1)}
		o.Log, o.Err, o.PID = b.log, b.log, 100
		b.srv = New(o)
		b.c = b.ln.Client()
		ctx, cancel := context.WithCancel(t.Context())
		b.cancel = cancel
		go func() { b.done <- b.srv.Serve(ctx, b.ln) }()
		if o.Start == 0 {
			synctest.Wait()
		}
		f(b)
		cancel()
		b.c.CloseIdleConnections()
		synctest.Wait()
	})
}

func (b *box) post(path, body string) *http.Response {
	b.t.Helper()
	res, err := b.try(path, body)
	if err != nil {
		b.t.Fatalf("POST %s: %v", path, err)
	}
	return res
}

func (b *box) try(path, body string) (*http.Response, error) {
	return b.c.Post("http://sim"+path, "application/json", strings.NewReader(body))
}

// ask sends a chat request and gives its text and usage.
func (b *box) ask(body string) reply {
	b.t.Helper()
	res := b.post("/v1/chat/completions", body)
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		b.t.Errorf("chat = %d %s %v", res.StatusCode, data, err)
		return reply{}
	}
	var r reply
	if err := json.Unmarshal(data, &r); err != nil {
		b.t.Fatal(err)
	}
	return r
}

type reply struct {
	Choices []struct {
		Message struct{ Content string }
		Reason  string `json:"finish_reason"`
	}
	Usage struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Details    struct {
			Cached int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	}
}

func (r reply) text() string {
	if len(r.Choices) == 0 {
		return ""
	}
	return r.Choices[0].Message.Content
}

// metric reads one sample of /metrics by its exact name and labels, {engine="0",model_name="m"}
// if it has none.
func (b *box) metric(name string) float64 {
	b.t.Helper()
	res, err := b.c.Get("http://sim/metrics")
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	if !strings.Contains(name, "{") {
		name += `{engine="0",model_name="m"}`
	}
	sc := bufio.NewScanner(res.Body)
	for sc.Scan() {
		if v, ok := strings.CutPrefix(sc.Text(), name+" "); ok {
			f, err := strconv.ParseFloat(v, 64)
			if err != nil {
				b.t.Fatal(err)
			}
			return f
		}
	}
	b.t.Fatalf("/metrics has no %s", name)
	return 0
}

// prompt is a chat body with a question and more fields.
func chatBody(question, more string) string {
	return fmt.Sprintf(`{"messages":[{"role":"user","content":%s}]%s}`, quote(question), more)
}
