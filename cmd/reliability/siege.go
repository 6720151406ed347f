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
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

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
