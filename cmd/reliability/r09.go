package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// r09 sends what no client should: 10,000 mangled requests over raw sockets while 2,000 connections dribble their
// headers and honest clients are served; after that bodies of 20 MB, fifty at a time, valid and not.
func r09(ctx context.Context, t *trial) error {
	const requests, slow, honest, bodies = 10_000, 2_000, 10, 50
	server, err := t.server(ctx, "--ttft", "5ms", "--itl", "5ms", "--max-num-seqs", "64")
	if err != nil {
		return err
	}
	rec, err := t.recorder(ctx, server.url)
	if err != nil {
		return err
	}
	e, err := t.engine(ctx, attached([]string{rec.url}))
	if err != nil {
		return err
	}
	if err := e.ready(ctx, 20*time.Second); err != nil {
		return err
	}
	addr := strings.TrimPrefix(e.url, "http://")
	s := &siege{t: t, addr: addr, client: t.newClient(64), answered: map[int]int{}, said: map[string]int{}}

	var all, honests sync.WaitGroup
	asking, stop := context.WithCancel(ctx)
	defer stop()
	for i := range honest {
		honests.Go(func() { s.beHonest(asking, ctx, e.url, i) })
	}
	for i := range slow {
		all.Go(func() { s.dribble(ctx, i) })
		if i%100 == 99 { // the listener's backlog is no part of the trial
			if err := pause(ctx, 10*time.Millisecond); err != nil {
				return err
			}
		}
	}
	t.logf("%d slow connections are open", s.held.Load())
	kinds := mangledKinds()
	var next atomic.Int64
	for range 48 {
		all.Go(func() {
			for n := next.Add(1) - 1; n < requests && ctx.Err() == nil; n = next.Add(1) - 1 {
				dice := rand.New(rand.NewPCG(9, uint64(n))) //nolint:gosec // the same requests each time
				s.send(ctx, kinds[int(n)%len(kinds)], dice)
			}
		})
	}
	all.Wait()
	t.logf("%d mangled requests of %d kinds sent", requests, len(kinds))
	s.flood(ctx, e.url, bodies)
	stop()
	honests.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}

	// It serves as before.
	if a := s.client.do(ctx, e.url, ask{route: "chat", prompt: "Hello", tokens: 5, stream: true}); a.verdict != complete {
		t.failf("afterwards an honest stream is %s: %v", a.verdict, a.err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.note("requests", requests)
	t.note("kinds", len(kinds))
	t.note("answers by status", fmt.Sprint(s.answered))
	t.exactly("answers other than 4xx and 501", s.strange, 0)
	t.exactly("answers not in the error shape", s.unshaped, 0)
	t.exactly("answers that did not come", s.missing, 0)
	t.note("505 to another version of HTTP", s.versions)
	t.within("answer p99", percentile(s.took, 0.99), time.Second)
	t.exactly("slow connections", len(s.closed), slow)
	t.exactly("slow connections that were answered or not closed", s.slowWrong, 0)
	t.near("slow headers closed after, first", percentile(s.closed, 0), 10*time.Second)
	t.near("slow headers closed after, last", percentile(s.closed, 1), 10*time.Second)
	t.note("20 MB bodies by status", fmt.Sprint(s.floods))
	t.exactly("20 MB bodies answered wrongly", s.floodWrong, 0)
	t.exactly("honest answers that were not complete", s.honestBad, 0)
	t.atLeast("honest answers", s.honestGood, 100)
	_, peak, err := memory(e.pid())
	if err != nil {
		return err
	}
	t.atMost("highest RSS of the engine in MB", peak>>20, 400)
	return s.after(t, e, rec)
}

// siege is the state of r09.
type siege struct {
	t      *trial
	addr   string
	client *client
	held   atomic.Int64

	mu                                   sync.Mutex
	took                                 []time.Duration
	answered, floods                     map[int]int
	said                                 map[string]int // failures of a kind
	strange, unshaped, missing, versions int
	closed                               []time.Duration
	slowWrong                            int
	floodWrong                           int
	honestGood, honestBad                int
}

func (s *siege) locked(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

// beHonest sends requests until asking ends.
func (s *siege) beHonest(asking, ctx context.Context, url string, i int) {
	for n := i; asking.Err() == nil; n++ {
		a := s.client.do(ctx, url, ask{route: routes[n%len(routes)].name, prompt: fmt.Sprintf("Tell me story %d.", n%20), tokens: 20, stream: n%3 > 0})
		s.locked(func() {
			if a.verdict == complete {
				s.honestGood++
				return
			}
			s.honestBad++
			s.t.failf("an honest %s request is %s: HTTP %d, %s, %v", a.route, a.verdict, a.status, a.told, a.err)
		})
	}
}

// send sends one mangled request and judges what comes.
func (s *siege) send(ctx context.Context, m mangled, dice *rand.Rand) {
	raw := m.raw(dice)
	bad := func(count *int, format string, args ...any) {
		first := false
		s.locked(func() {
			*count++
			s.said[m.kind]++
			first = s.said[m.kind] < 3
		})
		if !first {
			return
		}
		s.t.failf("%s (%.60q … %q): %s", m.kind, raw, raw[max(0, len(raw)-100):], fmt.Sprintf(format, args...))
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		bad(&s.missing, "%v", err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	began := time.Now()
	_, _ = io.WriteString(conn, raw) // it may be answered and cut off before its end
	if m.leaves {
		_ = conn.(*net.TCPConn).CloseWrite()
	}
	in := bufio.NewReader(conn)
	due := m.due
	if len(due) == 0 {
		due = []int{0}
	}
	method, _, _ := strings.Cut(raw, " ")
	for i, want := range due {
		resp, err := http.ReadResponse(in, &http.Request{Method: method})
		switch {
		case m.mute && err == nil:
			_ = resp.Body.Close()
			bad(&s.strange, "answered with %d, want no answer", resp.StatusCode)
			return
		case m.mute || err != nil && i > 0 && m.any:
			return
		case err != nil:
			bad(&s.missing, "no answer: %v", err)
			return
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		took := time.Since(began)
		s.locked(func() {
			s.took = append(s.took, took)
			s.answered[resp.StatusCode]++
		})
		code := resp.StatusCode
		switch {
		case code == http.StatusHTTPVersionNotSupported && want == code:
			s.locked(func() { s.versions++ })
		case (code/100 != 4 && code != http.StatusNotImplemented) || want != 0 && code != want:
			bad(&s.strange, "answered with %d (%.100q), want %d", code, body, want)
			continue
		}
		if m.bare && len(body) == 0 {
			continue
		}
		if text := shapeless(resp, body); err != nil || text != "" {
			bad(&s.unshaped, "HTTP %d %s: %.200q, %v", code, text, body, err)
		}
	}
}

// shapeless says what is wrong with an error body; "" if nothing is.
func shapeless(resp *http.Response, body []byte) string {
	var v struct {
		Error *struct {
			Message, Type string
			Param, Code   any
		}
	}
	switch {
	case resp.Header.Get("Content-Type") != "application/json":
		return "is " + resp.Header.Get("Content-Type")
	case json.Unmarshal(body, &v) != nil || v.Error == nil:
		return "has no error object"
	case v.Error.Message == "" || v.Error.Type == "":
		return "has no message or type"
	}
	return ""
}

// dribble opens a connection, sends less than a head, and waits for its end: nothing at all, a
// header by the byte, or that behind a whole request.
func (s *siege) dribble(ctx context.Context, i int) {
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		s.locked(func() { s.slowWrong++ })
		s.t.failf("slow connection: %v", err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(40 * time.Second))
	s.held.Add(1)
	began := time.Now()
	in := bufio.NewReader(conn)
	switch i % 3 {
	case 1:
		_, _ = io.WriteString(conn, "POST "+chatPath+" HTTP/1.1\r\nHost: x\r\nX-Slow: ")
	case 2:
		_, _ = io.WriteString(conn, head("GET /v1/models HTTP/1.1"))
		if resp, err := http.ReadResponse(in, nil); err == nil {
			_ = drain(resp)
		}
		began = time.Now()
		_, _ = io.WriteString(conn, "POST "+chatPath+" HTTP/1.1\r\nX-Slow: ")
	}
	over := make(chan struct{})
	if i%3 > 0 {
		go func() {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
					if _, err := conn.Write([]byte{'a'}); err != nil {
						return
					}
				case <-over:
					return
				}
			}
		}()
	}
	b, err := in.ReadByte()
	close(over)
	took := time.Since(began)
	s.locked(func() {
		s.closed = append(s.closed, took)
		if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			s.slowWrong++
			s.t.failf("slow connection of kind %d: %q, %v after %s", i%3, b, err, took)
		}
	})
}

// flood sends bodies of 20 MB all at once: half are a prompt far too long, half are broken at their end; then some that
// are larger than is allowed, without saying so before.
func (s *siege) flood(ctx context.Context, url string, n int) {
	s.floods = map[int]int{}
	var all sync.WaitGroup
	send := func(size int, end string, length int64) {
		begin := `{"model":"toy","messages":[{"role":"user","content":"`
		body := io.MultiReader(strings.NewReader(begin), io.LimitReader(filler{}, int64(size-len(begin)-len(end))), strings.NewReader(end))
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+chatPath, body)
		if err != nil {
			s.t.failf("%v", err)
			return
		}
		req.ContentLength = length
		req.Header.Set(spy, "1")
		req.Header.Set("Content-Type", "application/json")
		resp, err := s.client.http.Do(req)
		if err != nil {
			s.locked(func() {
				// A client that goes on sending may miss the 413 that closes its connection.
				if s.floods[0]++; length >= 0 {
					s.floodWrong++
					s.t.failf("a body of %d bytes: %v", size, err)
				}
			})
			return
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		s.locked(func() {
			s.floods[resp.StatusCode]++
			if code := resp.StatusCode; err != nil || code/100 != 4 || length < 0 && code != http.StatusRequestEntityTooLarge && code != http.StatusTooManyRequests || shapeless(resp, text) != "" {
				s.floodWrong++
				s.t.failf("a body of %d bytes: HTTP %d, %.200q, %v", size, code, text, err)
			}
		})
	}
	for i := range n {
		all.Go(func() {
			end := `"}]}`
			if i%2 > 0 {
				end = `"}]`
			}
			send(20_000_000, end, 20_000_000)
		})
	}
	for range 5 {
		all.Go(func() { send(40_000_000, `"}]}`, -1) })
	}
	all.Wait()
}

// filler is a text without end.
type filler struct{}

func (filler) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = "word "[i%5]
	}
	return len(p), nil
}

// after looks at what the worker was asked for and for panics in the logs.
func (s *siege) after(t *trial, e *engine, rec *recorder) error {
	unlisted, leaked, probes := 0, 0, 0
	calls := rec.got()
	for _, c := range calls {
		switch path, _, _ := strings.Cut(c.target, "?"); {
		case c.method == http.MethodPost && slices.Contains(inference, path):
		case c.own() && c.header.Get(spy) == "":
			probes++
		default:
			unlisted++
			t.failf("the worker was asked for %s %s", c.method, c.target)
		}
		if c.header.Get("Authorization")+c.header.Get("Transfer-Encoding")+c.header.Get("Sec-Fetch-Site") != "" {
			leaked++
			t.failf("the worker got the headers %v", c.header)
		}
	}
	t.note("calls that the worker got", len(calls)-probes)
	t.exactly("calls of other routes that the worker got", unlisted, 0)
	t.exactly("calls with headers that are none of its business", leaked, 0)
	panics := 0
	for _, name := range []string{filepath.Join("state", "logs", "engine.log"), "serve.out"} {
		log, err := os.ReadFile(filepath.Join(e.dir, name))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, "panic") {
				panics++
				t.failf("%s: %s", name, line)
			}
		}
	}
	t.exactly("panics", panics, 0)
	return nil
}
