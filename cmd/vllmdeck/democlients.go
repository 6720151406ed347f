package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// demoClients are the synthetic applications of the demo. Their seed fixes who asks what and
// when; the answers' timings are what they are.
type demoClients struct {
	url  string
	rnd  *rand.Rand
	http *http.Client
	src  api.Source
	wg   sync.WaitGroup
}

func newDemoClients(url string, seed int64, src api.Source) *demoClients {
	return &demoClients{
		url: url, src: src, rnd: rand.New(rand.NewPCG(uint64(seed), 0xdec)),
		http: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, IdleConnTimeout: 30 * time.Second}},
	}
}

// Requests per second: a slow swell, so that the charts have something to show.
const (
	demoRate  = 6.0
	demoSwell = 0.55
	demoCycle = 75 * time.Second
)

// run sends requests until ctx ends, and kills one simulated worker now and then, so that
// recovery can be seen.
func (d *demoClients) run(ctx context.Context) {
	defer d.wg.Wait()
	defer d.http.CloseIdleConnections()
	if !d.ready(ctx) {
		return
	}
	began := time.Now()
	nextFault := 40 * time.Second
	next := time.Duration(0)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		r := d.request() // here: requests are drawn one after the other
		d.wg.Go(func() { d.send(ctx, r) })
		if next >= nextFault {
			nextFault += 3 * time.Minute
			d.fault(ctx)
		}
		phase := 2 * math.Pi * next.Seconds() / demoCycle.Seconds()
		perSecond := demoRate * (1 + demoSwell*math.Sin(phase))
		next += time.Duration(d.rnd.ExpFloat64() / perSecond * float64(time.Second))
		timer.Reset(time.Until(began.Add(next)))
	}
}

// ready waits for the first worker that can serve.
func (d *demoClients) ready(ctx context.Context) bool {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if s, err := d.src.Snapshot(ctx); err == nil {
			for _, w := range s.Workers {
				if w.State == api.Ready {
					return true
				}
			}
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// demoRequest is one request, all of it drawn before it is sent, so that the order in which
// answers come changes nothing.
type demoRequest struct {
	body  []byte
	path  string
	leave time.Duration // the client hangs up after this; 0: it stays
}

func (d *demoClients) request() demoRequest {
	type message struct {
		Role    string `json:"role"`
		Content string `json:"content"`
	}
	model := "llama-3.1-8b-instruct"
	if d.rnd.Float64() < 0.3 {
		model = "qwen3-8b"
	}
	app := demoApps[d.rnd.IntN(len(demoApps))]
	messages := []message{{"system", app.system}, {"user", app.prompts[d.rnd.IntN(len(app.prompts))]}}
	maxTokens := 60 + int(d.rnd.ExpFloat64()*140)
	stream := d.rnd.Float64() < 0.75
	var leave time.Duration
	switch v := d.rnd.Float64(); {
	case v < 0.02:
		leave = time.Duration(200+d.rnd.IntN(1500)) * time.Millisecond
	case v < 0.028:
		model = "gpt-4" // somebody's config is wrong
	}
	body, err := json.Marshal(map[string]any{
		"model": model, "messages": messages, "stream": stream, "max_tokens": min(maxTokens, 700), "seed": d.rnd.IntN(8),
	})
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return demoRequest{body: body, path: "/v1/chat/completions", leave: leave}
}

func (d *demoClients) send(ctx context.Context, r demoRequest) {
	if r.leave > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.leave)
		defer cancel()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url+r.path, bytes.NewReader(r.body))
	if err != nil {
		return
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := d.http.Do(req)
	if err != nil {
		return // shows in the console, as any client's failure would
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
}

// fault kills the API server of one simulated worker, as an OOM killer would.
func (d *demoClients) fault(ctx context.Context) {
	s, err := d.src.Snapshot(ctx)
	if err != nil {
		return
	}
	for _, w := range s.Workers {
		if w.Name == "w1" && w.Simulated && w.State == api.Ready && w.PID > 0 {
			_ = syscall.Kill(w.PID, syscall.SIGKILL)
		}
	}
}

// demoApps are the applications that the demo plays: each with its own system prompt, so that
// the prefix cache has something to do.
var demoApps = []struct {
	system  string
	prompts []string
}{
	{
		"You are the assistant of a small city's library. Answer kindly, precisely and in plain words. If a question is about opening hours, fines or lending rules, say which desk can help.",
		[]string{
			"Recommend three short novels about the sea.", "How do I find old newspapers from 1950?", "Explain how interlibrary loan works.",
			"Which books would you give to a twelve-year-old who loves space?", "What is the difference between an encyclopedia and an almanac?",
			"Suggest a reading list about the history of computing.", "Summarise what a library catalogue is for.",
		},
	},
	{
		"You are a senior engineer who reviews code and explains trade-offs. Be concrete, name the failure case, prefer small examples.",
		[]string{
			"Write a function in Go that reverses a string.", "Why is a mutex held across a network call a bad idea?", "Explain what a race condition is.",
			"How does a KV cache make decoding faster?", "List the steps to debug a memory leak.", "Write a Python function that counts words.",
			"When should I use a queue instead of a direct call?", "Explain backpressure in one paragraph.",
		},
	},
	{
		"You write short product texts for a shop that sells kitchen tools. Friendly, no exaggeration.",
		[]string{
			"Describe a cast iron pan in four sentences.", "Write a haiku about coffee.", "List five uses of a bench scraper.", "How do I keep a knife sharp?",
			"Give me a recipe for a simple tomato soup.", "What should I cook when it rains?",
		},
	},
	{
		"You help travellers plan days in cities they do not know. Keep answers short enough for a phone.",
		[]string{
			"What is the capital of France?", "Plan one day in Lisbon for two people who like walking.", "What should I pack for a week in Norway in October?",
			"Compare travelling by train and by plane from Berlin to Paris.", "Write a postcard from the mountains.", "Name three museums worth a rainy day.",
		},
	},
	{
		"You answer questions of students about science. One idea at a time, with an everyday example.",
		[]string{
			"Why is the sky blue?", "Explain photosynthesis to a child.", "What is entropy?", "How do vaccines work?", "Why do we have seasons?",
			"What makes a GPU good at matrix multiplication?", "Tell me something surprising about octopuses.",
		},
	},
}
