package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// request is a chat request of about 1.1 kB.
func request(m mode, host string) []byte {
	body := fmt.Sprintf(`{"model":"bench","messages":[{"role":"user","content":"%s"}],"max_tokens":64,"stream":%t}`, strings.Repeat("tell me about it ", 60), m.stream)
	delay := ""
	if m.delay > 0 {
		delay = "X-Bench-Delay: " + m.delay.String() + "\r\n"
	}
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", host, delay, len(body), body)
}

// measure sends requests over keep-alive connections, each as soon as the one before has its
// whole answer, and counts the target's CPU time meanwhile. A hand-written client: it shares
// the cores with what it measures.
func measure(ctx context.Context, m mode, t target, length time.Duration) (figure, error) {
	ctx, cancel := context.WithTimeout(ctx, length+500*time.Millisecond+10*time.Second)
	defer cancel()
	var warm, over atomic.Bool
	var failed atomic.Int64
	var wg sync.WaitGroup
	times := make([][]time.Duration, m.conns)
	errs := make(chan error, m.conns)
	msg := request(m, t.addr)
	for i := range m.conns {
		wg.Go(func() {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", t.addr)
			if err != nil {
				errs <- err
				return
			}
			defer conn.Close()
			deadline, _ := ctx.Deadline()
			_ = conn.SetDeadline(deadline)
			r := bufio.NewReaderSize(conn, 32<<10)
			for !over.Load() {
				began := time.Now()
				if _, err := conn.Write(msg); err != nil {
					errs <- err
					return
				}
				ok, err := answer(r)
				if err != nil {
					errs <- err
					return
				}
				if !warm.Load() {
					continue
				}
				if !ok {
					failed.Add(1)
				}
				times[i] = append(times[i], time.Since(began))
			}
		})
	}
	pause(ctx, 500*time.Millisecond)
	before, _ := usage(t.pids)
	began := time.Now()
	warm.Store(true)
	pause(ctx, length)
	after, rss := usage(t.pids)
	took := time.Since(began)
	over.Store(true)
	wg.Wait()
	select {
	case err := <-errs:
		return figure{}, err
	default:
	}
	all := slices.Concat(times...)
	if len(all) == 0 {
		return figure{}, errors.New("no request ended")
	}
	slices.Sort(all)
	ms := func(q float64) float64 { return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1000 }
	return figure{
		Mode: m.name, Target: t.name, PerSec: float64(len(all)) / took.Seconds(),
		CPU: float64((after - before).Microseconds()) / float64(len(all)), P50: ms(.5), P99: ms(.99),
		Failed: int(failed.Load()), RSS: rss, Seconds: length.Seconds(),
	}, nil
}

var endMark = []byte("data: [DONE]\n\n")

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// answer reads one HTTP answer to its end. ok: status 200 and, for a stream, its [DONE].
func answer(r *bufio.Reader) (ok bool, err error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return false, err
	}
	ok = bytes.Contains(line, []byte(" 200 "))
	length, chunked, stream := 0, false, false
	for {
		line, err = r.ReadSlice('\n')
		if err != nil {
			return false, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch strings.ToLower(string(name)) {
		case "content-length":
			if length, err = strconv.Atoi(strings.TrimSpace(string(value))); err != nil {
				return false, err
			}
		case "transfer-encoding":
			chunked = bytes.Contains(value, []byte("chunked"))
		case "content-type":
			stream = bytes.Contains(value, []byte("event-stream"))
		}
	}
	if !chunked {
		_, err = r.Discard(length)
		return ok, err
	}
	done := false
	for {
		line, err = r.ReadSlice('\n')
		if err != nil {
			return false, err
		}
		size, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return false, err
		}
		if size == 0 {
			break
		}
		if stream && size >= int64(len(endMark)) {
			// Only the end of a chunk is looked at: a proxy may join events into large ones.
			if _, err := r.Discard(int(size) - len(endMark)); err != nil {
				return false, err
			}
			tail, err := r.Peek(len(endMark))
			if err != nil {
				return false, err
			}
			done, size = bytes.Equal(tail, endMark), int64(len(endMark))
		}
		if _, err := r.Discard(int(size) + 2); err != nil {
			return false, err
		}
	}
	for { // trailers
		line, err = r.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if len(bytes.TrimSpace(line)) == 0 {
			return ok && (done || !stream), nil
		}
	}
}
