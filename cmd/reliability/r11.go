package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// r11 cuts recorded streams of all routes into pieces, everywhere: in the gateway's package at every byte, through the
// binary at random. What the client gets must be the worker's bytes, and the usage the recording's. Then it measures
// what the gateway adds to an event's way, and lets the fuzzer look for a stream that is read differently in pieces.
func r11(ctx context.Context, t *trial) error {
	const times, fuzz = 12, time.Minute
	if err := t.virtual(ctx, "./backend/gateway", "TestStreamsSplitAnywhere"); err != nil {
		return err
	}
	recs, err := recordings("backend/gateway/testdata")
	if err != nil {
		return err
	}
	p := &player{recs: recs, sent: map[string][]time.Time{}}
	url, err := t.fake(ctx, p.play)
	if err != nil {
		return err
	}
	e, err := t.engine(ctx, attached([]string{url}))
	if err != nil {
		return err
	}
	if err := e.ready(ctx, 20*time.Second); err != nil {
		return err
	}
	c := t.newClient(16)
	if err := r11bytes(ctx, t, e, c, recs, times); err != nil {
		return err
	}
	if err := r11latency(ctx, t, e, c, p, url); err != nil {
		return err
	}
	return t.fuzz(ctx, "./backend/gateway", "FuzzSSE", fuzz)
}

// recorded is a stream of vLLM, and what it says of its usage.
type recorded struct {
	name, path    string
	body          string
	input, output int64
}

// recordings reads the streams that the gateway's tests have, each with three kinds of line ends, with and without comments.
func recordings(dir string) (recs []recorded, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*_stream*.txt"))
	if err != nil {
		return nil, err
	}
	for _, path := range append(paths, filepath.Join(dir, "chat_stop.txt")) {
		name := strings.TrimSuffix(filepath.Base(path), ".txt")
		if strings.HasPrefix(name, "die_") { // the worker died in the middle
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		first, rest, _ := strings.Cut(string(text), "\n") // > POST PATH
		_, rest, ok := strings.Cut(rest, "HTTP/1.1 200 OK\n")
		_, body, whole := strings.Cut(rest, "\n\n")
		if body, _, _ = strings.Cut(body, "[curl exit"); !ok || !whole || body == "" {
			return nil, fmt.Errorf("%s: not a recording", path)
		}
		r := recorded{name: name, path: strings.TrimPrefix(first, "> POST ")}
		body = strings.TrimRight(body, "\n") + "\n\n"
		a := answer{ids: map[string]bool{}}
		if err := a.readStream(strings.NewReader(body), routeAt(r.path)); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		r.input, r.output = a.input, a.output
		for _, comments := range []bool{false, true} {
			for _, eol := range []string{"\n", "\r\n", "\r"} {
				r.body = body
				if comments {
					r.body = ": hello\n\n" + strings.ReplaceAll(body, "\ndata:", "\n: and\ndata:")
				}
				r.body = strings.ReplaceAll(r.body, "\n", eol)
				recs = append(recs, r)
			}
		}
	}
	if len(recs) < 9*6 {
		return nil, errors.New("too few recordings in " + dir)
	}
	return recs, nil
}

// player plays streams: "rec N SEED" is a recording cut at random, "beat ID N" sends N events, one per 10 ms.
type player struct {
	recs []recorded

	mu   sync.Mutex
	sent map[string][]time.Time // by the ID of a beat: when each event was sent
}

func (p *player) play(w http.ResponseWriter, r *http.Request) {
	f := strings.Fields(r.Header.Get(played))
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	flush := func(b string) {
		_, _ = io.WriteString(w, b)
		_ = http.NewResponseController(w).Flush()
	}
	if f[0] == "beat" {
		n, _ := strconv.Atoi(f[2])
		for i := range n {
			text := "beat "
			finish := "null"
			if i == n-1 {
				finish = `"stop"`
			}
			p.mu.Lock()
			p.sent[f[1]] = append(p.sent[f[1]], time.Now())
			p.mu.Unlock()
			flush(`data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"toy","choices":[{"index":0,"delta":{"content":"` + text + `"},"finish_reason":` + finish + "}]}\n\n")
			if pause(r.Context(), 10*time.Millisecond) != nil {
				return
			}
		}
		flush(`data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"toy","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}` + "\n\ndata: [DONE]\n\n")
		return
	}
	n, _ := strconv.Atoi(f[1])
	seed, _ := strconv.ParseUint(f[2], 10, 64)
	dice := rand.New(rand.NewPCG(seed, 11)) //nolint:gosec // the same pieces each time
	body := p.recs[n].body
	for most := 1 + dice.IntN(800); len(body) > 0; {
		k := min(len(body), 1+dice.IntN(most))
		flush(body[:k])
		body = body[k:]
	}
}

// r11bytes sends every recording through the engine, in other pieces each time.
func r11bytes(ctx context.Context, t *trial, e *engine, c *client, recs []recorded, times int) error {
	var mu sync.Mutex
	changed := 0
	usage := map[string]recorded{} // by request id
	var all sync.WaitGroup
	for lane := range 8 {
		all.Go(func() {
			for i := lane; i < len(recs)*times && ctx.Err() == nil; i += 8 {
				rec := recs[i%len(recs)]
				id, body, err := r11get(ctx, c, e.url+rec.path, fmt.Sprintf("rec %d %d", i%len(recs), i))
				mu.Lock()
				if err != nil || string(body) != rec.body {
					changed++
					t.failf("%s (%q …): %v, %d bytes, want %d unchanged", rec.name, rec.body[:10], err, len(body), len(rec.body))
				}
				usage[id] = rec
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := e.settled(ctx, 20*time.Second); err != nil {
		return err
	}
	rows, err := e.rows(ctx)
	if err != nil {
		return err
	}
	misread := 0
	for id, rec := range usage {
		// A recording without usage is counted by its events.
		if r := rows[id]; r.outcome != "ok" || rec.input > 0 && (r.prompt != rec.input || r.output != rec.output || r.usageSource != "upstream") || rec.input == 0 && r.usageSource != "counted" {
			misread++
			t.failf("%s: its row is %s with %d+%d tokens (%s), want %d+%d", rec.name, r.outcome, r.prompt, r.output, r.usageSource, rec.input, rec.output)
		}
	}
	t.note("streams through the binary", len(usage))
	t.exactly("streams whose bytes changed", changed, 0)
	t.exactly("streams whose usage was misread", misread, 0)
	return nil
}

// r11get posts a request that every route takes and gives the bytes that come back.
func r11get(ctx context.Context, c *client, url, play string) (id string, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader([]byte(
		`{"model":"toy","n":1,"messages":[{"role":"user","content":"x"}],"input":"x","prompt":"x","max_tokens":9,"stream":true,"stream_options":{"include_usage":true}}`)))
	if err != nil {
		return "", nil, err
	}
	req.Header.Set(played, play)
	resp, err := c.http.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.Header.Get("X-Request-Id"), body, err
}

// r11latency compares the way of events through the gateway with the way past it, both at the same time. What the gateway
// adds, it adds in every round; what the machine's other business adds differs: the best round counts.
func r11latency(ctx context.Context, t *trial, e *engine, c *client, p *player, direct string) error {
	const rounds, lanes, events = 20, 8, 60
	best, all := time.Duration(math.MaxInt64), []string{}
	for round := range rounds {
		took := map[string][]time.Duration{}
		var mu sync.Mutex
		var wait sync.WaitGroup
		for lane := range lanes {
			for way, url := range map[string]string{"gateway": e.url, "direct": direct} {
				wait.Go(func() {
					id := fmt.Sprintf("%s%d-%d", way, round, lane)
					times, err := p.beat(ctx, c, url, id, events)
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						t.failf("a stream of beats: %v", err)
					}
					took[way] = append(took[way], times...)
				})
			}
		}
		wait.Wait()
		added := percentile(took["gateway"], 0.99) - percentile(took["direct"], 0.99)
		best = min(best, max(0, added))
		all = append(all, fmt.Sprintf("%.2f", 1000*added.Seconds()))
		if round == 0 {
			t.note("median of an event's way through the gateway", percentile(took["gateway"], 0.5))
			t.note("median of an event's way past it", percentile(took["direct"], 0.5))
		}
	}
	t.note("added latency per event p99 by round, ms", strings.Join(all, " "))
	t.within("added latency per event p99", best, time.Millisecond)
	return ctx.Err()
}

// beat asks for a stream of beats and gives the time that each was under way.
func (p *player) beat(ctx context.Context, c *client, url, id string, events int) ([]time.Duration, error) {
	var got []time.Time
	a := c.do(ctx, url, ask{
		route: "chat", prompt: "x", tokens: events, stream: true, header: map[string]string{played: fmt.Sprintf("beat %s %d", id, events)},
		seen: func(int) { got = append(got, time.Now()) },
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if sent := p.sent[id]; a.verdict != complete || len(got) != len(sent) {
		return nil, fmt.Errorf("%s: %d of %d events", &a, len(got), len(sent))
	}
	took := make([]time.Duration, len(got))
	for i := range got {
		took[i] = got[i].Sub(p.sent[id][i])
	}
	return took, nil
}
