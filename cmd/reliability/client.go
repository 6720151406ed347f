package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// ask is one request of a client.
type ask struct {
	route  string
	prompt string
	tokens int
	stream bool
	header map[string]string
	seen   func(events int) // called after each event with content; may be nil
}

// answer is what a client has of it in the end.
type answer struct {
	ask
	verdict verdict
	status  int
	id      string // of the request, as the gateway says
	text    string
	finish  string
	done    bool // the closing mark came, or the whole body
	events  int  // with content
	roles   int
	ids     map[string]bool // that the events had

	input, output int64 // tokens that the client was told of
	hasUsage      bool

	errors    int    // error events, or an error body
	told      string // what the last of them says
	late      bool   // content came behind an error event
	junk      string // what cannot be read
	cancelled bool   // the client's own context ended
	err       error  // how the body ended; nil: cleanly

	sent, head, first, ended time.Time

	last time.Time     // of the last event with content
	gap  time.Duration // the longest between two of them
}

// ttft is the time to the first content; 0: there was none.
func (a *answer) ttft() time.Duration {
	if a.first.IsZero() {
		return 0
	}
	return a.first.Sub(a.sent)
}

// client is an honest client: it says of each answer what it really is.
type client struct{ http *http.Client }

// newClient makes a client that keeps up to so many connections to a host.
func (t *trial) newClient(conns int) *client {
	tr := &http.Transport{MaxIdleConnsPerHost: conns, DisableCompression: true}
	t.cleanup(tr.CloseIdleConnections)
	return &client{&http.Client{Transport: tr}}
}

// do sends a request to a gateway, or to a worker, and reads the answer.
func (c *client) do(ctx context.Context, url string, q ask) answer {
	a := answer{ask: q, ids: map[string]bool{}}
	r := routeOf(q.route)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+r.path, strings.NewReader(r.request(q.prompt, q.tokens, q.stream)))
	if err != nil {
		a.err, a.verdict = err, dead
		return a
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range q.header {
		req.Header.Set(name, value)
	}
	a.sent = time.Now()
	resp, err := c.http.Do(req)
	a.head = time.Now()
	if err != nil {
		a.err = err
	} else {
		a.status, a.id = resp.StatusCode, resp.Header.Get("X-Request-Id")
		if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
			a.err = a.readStream(resp.Body, r)
		} else {
			a.err = a.readWhole(resp.Body, r)
		}
		_ = resp.Body.Close()
	}
	a.ended = time.Now()
	a.cancelled = a.err != nil && ctx.Err() != nil
	a.verdict = a.judge()
	return a
}

func (a *answer) readWhole(body io.Reader, r route) error {
	b, err := io.ReadAll(body)
	if err == nil {
		a.first = time.Now()
		r.text(a, b)
	}
	return err
}

// readStream reads server-sent events. A line that the end has cut off is junk and no event.
func (a *answer) readStream(body io.Reader, r route) error {
	in := bufio.NewReaderSize(body, 16<<10)
	var data []byte
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			if len(line)+len(data) > 0 {
				a.junk = "half an event"
			}
			if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if rest, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			data = append(append(data, bytes.TrimPrefix(rest, []byte(" "))...), '\n')
			continue
		}
		if len(line) > 0 || len(data) == 0 {
			continue
		}
		if a.done && r.name != "responses" {
			a.junk = "an event behind the closing mark"
		}
		before := a.events
		r.ev(a, string(data[:len(data)-1]))
		data = data[:0]
		if a.events > before {
			now := time.Now()
			if a.first.IsZero() {
				a.first = now
			} else {
				a.gap = max(a.gap, now.Sub(a.last))
			}
			a.last = now
			if a.seen != nil {
				a.seen(a.events)
			}
		}
	}
}

// String says what a client has, for a failure.
func (a *answer) String() string {
	kind := "plain"
	if a.stream {
		kind = "streamed"
	}
	s := fmt.Sprintf("%s %s answer %s: %s, HTTP %d, %d events, %d bytes, finish %q", kind, a.route, a.id, a.verdict, a.status, a.events, len(a.text), a.finish)
	if a.told != "" {
		s += fmt.Sprintf(", told %q", a.told)
	}
	if a.junk != "" {
		s += ", " + a.junk
	}
	if a.err != nil {
		s += fmt.Sprintf(", ended by %v", a.err)
	}
	return s
}
