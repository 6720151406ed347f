package backend

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	maxPrompts      = 16      // kept, newest first
	maxPromptText   = 1 << 20 // bytes of a prompt
	maxPromptAnswer = 4 << 20 // bytes of an answer that are kept
	promptTokens    = 512     // max_tokens where the caller gives none
	promptLimit     = 20 * time.Minute
)

var errLongAnswer = fmt.Errorf("the answer is longer than the %d MiB that are kept", maxPromptAnswer>>20)

var promptID = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// tester sends prompts through the engine's own gateway, as any client would, and keeps their
// answers for consoles.
type tester struct {
	gateway *inproc
	key     string // the gateway's internal key
	find    func(requestID string) (api.Request, bool)

	mu     sync.Mutex
	runs   []*promptRun // newest first
	closed bool         // no more are taken
	wg     sync.WaitGroup
}

type promptRun struct {
	mu     sync.Mutex
	state  api.Prompt
	lines  []api.Line // pieces of the answer
	size   int
	first  time.Time
	events int
	cancel context.CancelFunc
	reqID  string
}

// send starts a prompt test; it goes on until it ends, is cancelled or ctx ends.
func (t *tester) send(ctx context.Context, a api.Action) error {
	if !promptID.MatchString(a.ID) {
		return fmt.Errorf("%w: prompt id %q: want 1 to 64 of A-Z a-z 0-9 _ -", api.ErrRefused, a.ID)
	}
	if len(a.Text) > maxPromptText {
		return fmt.Errorf("%w: prompt has %d bytes, at most %d are taken", api.ErrRefused, len(a.Text), maxPromptText)
	}
	body, err := promptBody(a)
	if err != nil {
		return fmt.Errorf("%w: %w", api.ErrRefused, err)
	}
	ctx, cancel := context.WithTimeout(ctx, promptLimit)
	run := &promptRun{cancel: cancel, state: api.Prompt{
		ID: a.ID, Model: a.Target, Prompt: head(a.Text, 200), Started: time.Now(), State: "waiting",
	}}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		cancel()
		return fmt.Errorf("%w: the engine is ending", api.ErrRefused)
	}
	for _, r := range t.runs {
		if r.state.ID == a.ID {
			cancel()
			return fmt.Errorf("%w: prompt id %q was used before", api.ErrRefused, a.ID)
		}
	}
	t.runs = append([]*promptRun{run}, t.runs...)
	if len(t.runs) > maxPrompts {
		for _, old := range t.runs[maxPrompts:] {
			old.cancel()
		}
		t.runs = t.runs[:maxPrompts]
	}
	t.wg.Go(func() {
		defer cancel()
		err := t.stream(ctx, run, body)
		if err != nil && ctx.Err() != nil {
			err = ctx.Err() // what breaks after a cancel broke because of it
		}
		run.end(err)
	})
	return nil
}

func promptBody(a api.Action) ([]byte, error) {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	var messages []message
	if s := a.Args["system"]; s != "" {
		messages = append(messages, message{"system", s})
	}
	req := map[string]any{
		"model": a.Target, "messages": append(messages, message{"user", a.Text}),
		"stream": true, "stream_options": map[string]bool{"include_usage": true}, "max_tokens": promptTokens,
		"temperature": 0, // the same prompt, the same answer: what one wants of a test
	}
	if v := a.Args["max_tokens"]; v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("max_tokens %q: want a whole number from 1", v)
		}
		req["max_tokens"] = n
	}
	if v := a.Args["temperature"]; v != "" {
		f, err := strconv.ParseFloat(v, 64)
		if err != nil || f < 0 || f > 2 {
			return nil, fmt.Errorf("temperature %q: want 0 to 2", v)
		}
		req["temperature"] = f
	}
	return json.Marshal(req)
}

func (t *tester) stream(ctx context.Context, run *promptRun, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://gateway/v1/chat/completions", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+t.key)
	resp, err := t.gateway.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	run.mu.Lock()
	run.reqID = resp.Header.Get("X-Request-Id")
	run.mu.Unlock()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		if msg := gjson.GetBytes(text, "error.message").String(); msg != "" {
			return errors.New(msg)
		}
		return fmt.Errorf("HTTP %d", resp.StatusCode)
	}
	r := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := r.ReadBytes('\n')
		if data, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("data:")); ok {
			done, evErr := run.event(bytes.TrimSpace(data))
			if errors.Is(evErr, errLongAnswer) {
				return evErr // leaving cancels the rest
			}
			if done || evErr != nil {
				// The gateway ends the row right after its last event: reading to the end
				// makes sure that it has.
				_, _ = io.Copy(io.Discard, r)
				t.settle(run)
				return evErr
			}
		}
		if err != nil {
			t.settle(run)
			if errors.Is(err, io.EOF) {
				return errors.New("the stream ended without [DONE]")
			}
			return err
		}
	}
}

// event takes one event of the stream. It says true at [DONE].
func (r *promptRun) event(data []byte) (bool, error) {
	if string(data) == "[DONE]" {
		return true, nil
	}
	if e := gjson.GetBytes(data, "error"); e.Exists() {
		if msg := e.Get("message").String(); msg != "" {
			return false, errors.New(msg)
		}
		return false, errors.New(e.String())
	}
	delta := gjson.GetBytes(data, "choices.0.delta")
	text := delta.Get("content").String()
	if text == "" {
		if text = delta.Get("reasoning").String(); text == "" {
			text = delta.Get("reasoning_content").String()
		}
	}
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := gjson.GetBytes(data, "choices.0.finish_reason").String(); f != "" {
		r.state.Finish = f
	}
	if text == "" {
		return false, nil
	}
	if r.size+len(text) > maxPromptAnswer {
		return false, errLongAnswer
	}
	if r.events == 0 {
		r.first = now
		r.state.State = "streaming"
		r.state.TTFT = api.Span(now.Sub(r.state.Started))
	}
	r.events++
	r.size += len(text)
	r.state.Duration = api.Span(now.Sub(r.state.Started))
	r.state.Usage.Output = int64(r.events)
	r.state.UsageSource = api.UsageCounted
	r.state.Rate = rate(r.events, now.Sub(r.first))
	r.lines = append(r.lines, api.Line{Seq: uint64(len(r.lines) + 1), Time: now, Text: text})
	return false, nil
}

// rate is tokens per second after the first of n.
func rate(n int, d time.Duration) *float64 {
	if n < 2 || d <= 0 {
		return nil
	}
	return new(float64(n-1) / d.Seconds())
}

// settle takes the figures of the gateway's own record of the request in place of ours.
func (t *tester) settle(run *promptRun) {
	run.mu.Lock()
	id := run.reqID
	run.mu.Unlock()
	row, ok := t.find(id)
	if !ok {
		return
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	s := &run.state
	s.Worker, s.Usage, s.UsageSource, s.Simulated = row.Worker, row.Usage, row.UsageSource, row.Simulated
	s.Actual, s.Would = row.Actual, row.Would
	if row.TTFT > 0 {
		s.TTFT = row.TTFT
	}
	if n := row.Usage.Completion(); n > 1 && row.Duration > row.TTFT && row.TTFT > 0 {
		s.Rate = rate(int(n), time.Duration(row.Duration-row.TTFT))
	}
}

func (r *promptRun) end(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Duration = api.Span(time.Since(r.state.Started))
	switch {
	case err == nil:
		r.state.State = "done"
	case errors.Is(err, context.Canceled):
		r.state.State = "cancelled"
		r.state.Error = "cancelled"
	case errors.Is(err, context.DeadlineExceeded):
		r.state.State = "failed"
		r.state.Error = "no end after " + promptLimit.String()
	default:
		r.state.State = "failed"
		r.state.Error = err.Error()
	}
}

func (t *tester) cancel(id string) error {
	run := t.run(id)
	if run == nil {
		return fmt.Errorf("%w: no prompt %q", api.ErrUnknown, id)
	}
	run.cancel()
	return nil
}

func (t *tester) run(id string) *promptRun {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range t.runs {
		if r.state.ID == id {
			return r
		}
	}
	return nil
}

// log gives the pieces of an answer after a cursor.
func (t *tester) log(id string, after uint64, limit int) ([]api.Line, error) {
	run := t.run(id)
	if run == nil {
		return nil, fmt.Errorf("%w: no prompt %q", api.ErrUnknown, id)
	}
	run.mu.Lock()
	defer run.mu.Unlock()
	if after >= uint64(len(run.lines)) {
		return nil, nil
	}
	lines := run.lines[after:]
	return append([]api.Line(nil), lines[:min(limit, len(lines))]...), nil
}

// prompts lists the tests, newest first. health fills in the rating of an ended one's request.
func (t *tester) prompts(health func(requestID string) *float64) []api.Prompt {
	t.mu.Lock()
	runs := append([]*promptRun(nil), t.runs...)
	t.mu.Unlock()
	out := make([]api.Prompt, 0, len(runs))
	for _, r := range runs {
		r.mu.Lock()
		if r.state.State == "done" && r.state.Health == nil {
			r.state.Health = health(r.reqID)
		}
		p := r.state
		if p.State == "waiting" || p.State == "streaming" {
			p.Duration = api.Span(time.Since(p.Started))
		}
		r.mu.Unlock()
		out = append(out, p)
	}
	return out
}

// close takes no more tests and waits until the running ones, and what the gateway still does
// for them, have ended; cancel their context first.
func (t *tester) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.wg.Wait()
	t.gateway.wait()
}

// head is the first n characters of s.
func head(s string, n int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}
