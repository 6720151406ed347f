package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// r08 has a thousand clients that read nothing beside ten that do. Those that do must not notice, and the
// others must not keep the worker busy nor fill the engine's memory: each is cut when it has not read for the
// write limit, and comes again.
func r08(ctx context.Context, t *trial) error {
	const (
		stuck, normal = 1000, 10
		span          = time.Minute
		writeLimit    = 30 * time.Second // of the gateway; it has no key in the config
		memoryLimit   = 200 << 20
	)
	s, err := t.server(ctx, "--ttft", "60ms", "--itl", "12ms", "--max-num-seqs", "64")
	if err != nil {
		return err
	}
	f := &flood{closed: make(chan struct{}, 2*stuck)}
	p, err := t.proxy(ctx, s.url, &breaker{}, f.instead)
	if err != nil {
		return err
	}
	e, err := t.engine(ctx, attached([]string{p}))
	if err != nil {
		return err
	}
	if err := e.ready(ctx, 20*time.Second); err != nil {
		return err
	}
	c := t.newClient(2 * normal)
	if a := c.do(ctx, e.url, ask{route: "chat", prompt: "Hello.", tokens: 10, stream: true}); a.verdict != complete {
		return fmt.Errorf("an undisturbed answer is wrong: %s", &a)
	}
	before, _, err := memory(e.pid())
	if err != nil {
		return err
	}

	began := time.Now()
	running, stop := context.WithDeadline(ctx, began.Add(span))
	defer stop()
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			_ = conn.Close()
		}
	}()
	come := func() error {
		conn, err := mute(ctx, e.url)
		if err == nil {
			conns = append(conns, conn)
		}
		return err
	}
	for range stuck {
		if err := come(); err != nil {
			return err
		}
	}
	t.logf("%d clients that do not read have come after %s", stuck, time.Since(began).Round(time.Millisecond))

	var mu sync.Mutex
	var through, direct []answer
	var all sync.WaitGroup
	for i := range 2 * normal {
		all.Go(func() {
			url, list := e.url, &through
			if i >= normal { // as many ask the worker itself: what it takes is no delay of ours
				url, list = s.url, &direct
			}
			for n := 0; running.Err() == nil; n++ {
				a := c.do(ctx, url, ask{route: "chat", prompt: fmt.Sprintf("Tell me story %d of %d.", n, i), tokens: 20, stream: true})
				mu.Lock()
				*list = append(*list, a)
				mu.Unlock()
				if pause(running, 100*time.Millisecond) != nil {
					return
				}
			}
		})
	}
	var peak int64
	all.Go(func() {
		for running.Err() == nil {
			if now, _, err := memory(e.pid()); err == nil {
				peak = max(peak, now)
			}
			_ = pause(running, 100*time.Millisecond)
		}
	})
	cut := 0
	for running.Err() == nil {
		select {
		case <-f.closed:
			cut++
			if err := come(); err != nil {
				return err
			}
		case <-running.Done():
		}
	}
	all.Wait()
	t.logf("a minute is over: %d were cut", cut)
	// The rest are cut, too, each in its time.
	last := time.NewTimer(2 * writeLimit)
	defer last.Stop()
	for ended := false; cut < len(conns) && !ended; {
		select {
		case <-f.closed:
			cut++
		case <-last.C:
			ended = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := e.settled(ctx, 20*time.Second); err != nil {
		return err
	}
	rows, err := e.rows(ctx)
	if err != nil {
		return err
	}

	var lives []time.Duration
	wrong := 0
	for _, r := range rows {
		if r.finish != "" || r.outcome == api.OutcomeOK {
			continue
		}
		lives = append(lives, time.Duration(r.duration))
		if r.outcome != api.OutcomeCancelled || !strings.Contains(r.error, "does not read") || r.output == 0 {
			wrong++
			t.failf("row %s of a client that does not read is %s with %d tokens: %s", r.id, r.outcome, r.output, r.error)
		}
	}
	failed := 0
	var ttft, own []time.Duration
	for _, a := range slices.Concat(through, direct) {
		if a.verdict != complete {
			failed++
			t.failf("%s", &a)
		}
	}
	for _, a := range through {
		ttft = append(ttft, a.ttft())
	}
	for _, a := range direct {
		own = append(own, a.ttft())
	}
	slices.Sort(lives)
	slices.Sort(ttft)
	slices.Sort(own)
	t.note("memory at rest, bytes", before)
	t.atMost("memory of the engine, bytes", peak, memoryLimit)
	t.note("answers to clients that read", len(through))
	t.exactly("answers to clients that read, failed", failed, 0)
	t.note("TTFT of the worker, p50", quantile(own, 0.5))
	t.note("TTFT of the worker, p99", quantile(own, 0.99))
	t.note("TTFT through the gateway, p50", quantile(ttft, 0.5))
	t.within("TTFT p99 over the worker's p50", quantile(ttft, 0.99)-quantile(own, 0.5), 250*time.Millisecond)
	t.exactly("clients that do not read, cut", len(lives), len(conns))
	t.near("cut after, shortest", quantile(lives, 0), writeLimit)
	t.near("cut after, longest", quantile(lives, 1), writeLimit)
	t.exactly("rows unlike that", wrong, 0)
	t.exactly("requests with the worker in the end", f.count(), 0)
	return nil
}

// mute sends a request for a stream and never reads. Its kernel takes 4 KiB and no more.
func mute(ctx context.Context, url string) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
		if cerr != nil {
			return cerr
		}
		return err
	}}
	conn, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		return nil, err
	}
	body := routes[0].request(floodMark, 100000, true)
	_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", routes[0].path, len(body), body)
	return conn, err
}

// flood answers in a worker's place: 128 kB at once, then 2 kB each 50 ms, for ever.
type flood struct {
	mu     sync.Mutex
	open   int
	closed chan struct{} // gets one for each request that has ended
}

const floodMark = "#flood#"

func (f *flood) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open
}

// instead is for proxy.
func (f *flood) instead(next http.Handler) http.Handler {
	event := []byte(`data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"toy","choices":[{"index":0,"delta":{"content":"` + strings.Repeat("word ", 380) + `"},"finish_reason":null}]}` + "\n\n")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if !bytes.Contains(body, []byte(floodMark)) {
			r.Body = io.NopCloser(bytes.NewReader(body))
			next.ServeHTTP(w, r)
			return
		}
		f.mu.Lock()
		f.open++
		f.mu.Unlock()
		defer func() {
			f.mu.Lock()
			f.open--
			f.mu.Unlock()
			f.closed <- struct{}{}
		}()
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		for n := 0; r.Context().Err() == nil; n++ {
			if _, err := w.Write(event); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			if n >= 64 && pause(r.Context(), 50*time.Millisecond) != nil {
				return
			}
		}
	})
}
