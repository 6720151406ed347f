package gateway

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
	"github.com/vllmdeck/vllmdeck/backend/sim"
)

// simulated starts a simulated vLLM and gives its address.
func simulated(t testing.TB, o sim.Options) string {
	t.Helper()
	o.Model, o.Seed = "m", 7
	if o.TTFT == 0 {
		o.TTFT, o.ITL = time.Millisecond, 100*time.Microsecond
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := sim.New(o)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("simulated server: %v", err)
		}
	})
	return "http://" + ln.Addr().String()
}

// knife stands before a worker and cuts its streams.
type knife struct {
	after  int    // content events that pass; negative: all
	finish bool   // the event with the finish_reason passes too
	how    string // see blade
	times  int    // cuts in all; 0: every stream
	cuts   counter
	bodies chan string // of generating requests
	rig    *rig        // to see what the client has: a worker that is lost before that is simply replaced
}

// passed is how many content events of the only request the client has.
func (k *knife) passed() int64 {
	if k.rig == nil {
		return 0
	}
	for _, r := range k.rig.InFlight(nil) {
		return r.Usage.Output
	}
	return 0
}

// blades are the ways in which a stream can end before its time.
var blades = []string{"closed", "reset", "clean end", "error event", "engine died", "half an event", "[DONE] without finish_reason", "aborted", "silent"}

// before starts a proxy with the knife in front of the worker at url.
func (k *knife) before(t testing.TB, url string) string {
	k.bodies = make(chan string, 100)
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if r.URL.Path != "/tokenize" {
			k.bodies <- string(b)
		}
		req, err := http.NewRequestWithContext(r.Context(), r.Method, url+r.URL.Path, bytes.NewReader(b))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header = r.Header.Clone()
		res, err := tr.RoundTrip(req)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer res.Body.Close()
		for name := range res.Header {
			w.Header()[name] = res.Header[name]
		}
		w.WriteHeader(res.StatusCode)
		if !strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") || k.times > 0 && int(k.cuts.Load()) >= k.times {
			io.Copy(w, res.Body)
			return
		}
		k.cut(t, w, r, res.Body)
	})
}

func (k *knife) cut(t testing.TB, w http.ResponseWriter, r *http.Request, body io.Reader) {
	var split splitter
	var b []byte
	contents, base := 0, k.passed()
	space := make([]byte, 4096)
	send := func(s string) {
		io.WriteString(w, s)
		w.(http.Flusher).Flush()
	}
	for {
		n, err := body.Read(space)
		split.saw(space[:n])
		b = append(b, space[:n]...)
		for {
			n := split.next(b)
			if n == 0 {
				break
			}
			ev := string(b[:n])
			b = b[n:]
			data, _ := fields([]byte(ev))
			content := gjson.GetBytes(data, "choices.0.delta.content").Str != "" || gjson.GetBytes(data, "choices.0.text").Str != ""
			finish := gjson.GetBytes(data, "choices.0.finish_reason").Str != ""
			switch {
			case k.after < 0:
				send(ev)
				continue
			case k.finish:
				if !gjson.GetBytes(data, "usage").IsObject() && string(data) != "[DONE]" {
					send(ev)
					continue
				}
			case contents < k.after && content && finish:
				// The text comes; the reason for its end does not. Several tokens may come in one event, so that
				// the end can be here before its time.
				contents++
				send(strings.Replace(ev, `"finish_reason":"`+gjson.GetBytes(data, "choices.0.finish_reason").Str+`"`, `"finish_reason":null`, 1))
			case contents < k.after && !finish, !content && !finish && contents == 0:
				send(ev)
				if content {
					contents++
				}
				continue
			}
			for k.rig != nil && k.passed() < base+int64(contents) && r.Context().Err() == nil {
				time.Sleep(100 * time.Microsecond)
			}
			k.cuts.Add(1)
			k.blow(t, w, r, ev, send)
			return
		}
		if err != nil {
			return
		}
	}
}

func (k *knife) blow(t testing.TB, w http.ResponseWriter, r *http.Request, ev string, send func(string)) {
	switch k.how {
	case "closed":
		panic(http.ErrAbortHandler)
	case "reset":
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	case "clean end":
	case "error event":
		send(evOops + evDone)
	case "engine died":
		send(evError + evDone)
	case "half an event":
		send(ev[:len(ev)/2])
		panic(http.ErrAbortHandler)
	case "[DONE] without finish_reason":
		send(evDone)
	case "aborted":
		send(strings.Replace(evFinish, `"stop"`, `"abort"`, 1) + evDone)
	case "silent":
		send(": keep-alive\n\n")
		<-r.Context().Done()
	default:
		t.Errorf("there is no blade %q", k.how)
	}
}

// streamed is what a client makes of a stream.
type streamed struct {
	text, finish         string
	ids, models, created []string // distinct
	roles, usages, dones int
	contents             int
	prompt, completion   int64
	errors               []string
	err                  error // of the connection
}

func readStreamed(t testing.TB, a answer) streamed {
	t.Helper()
	s := streamed{err: a.err}
	note := func(list *[]string, v string) {
		if !slices.Contains(*list, v) {
			*list = append(*list, v)
		}
	}
	for ev := range strings.SplitSeq(a.body, "\n\n") {
		data, ok := strings.CutPrefix(ev, "data: ")
		switch {
		case !ok:
			continue
		case data == "[DONE]":
			s.dones++
			continue
		case !gjson.Valid(data):
			t.Fatalf("an event is no JSON: %q", data)
		}
		v := gjson.Parse(data)
		if e := v.Get("error"); e.Exists() {
			s.errors = append(s.errors, e.Get("message").Str)
			continue
		}
		note(&s.ids, v.Get("id").Str)
		note(&s.models, v.Get("model").Str)
		note(&s.created, v.Get("created").Raw)
		c := v.Get("choices.0")
		if c.Get("delta.role").Exists() {
			s.roles++
		}
		if text := c.Get("delta.content").Str + c.Get("text").Str; text != "" {
			s.text += text
			s.contents++
		}
		if f := c.Get("finish_reason").Str; f != "" {
			s.finish += f
		}
		if u := v.Get("usage"); u.IsObject() {
			s.usages++
			s.prompt, s.completion = u.Get("prompt_tokens").Int(), u.Get("completion_tokens").Int()
		}
	}
	return s
}

const storyBody = `{"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Tell me about bridges \"now\" – é"}],"temperature":0,"stream":true,"stream_options":{"include_usage":true}%s}`

func story(extra string) string { return fmt.Sprintf(storyBody, extra) }

// impatient makes the idle limit end when a worker has sent a comment and nothing more, for the one blade that needs
// it. A limit that is short would end other waits too: a busy machine is silent, as well.
func impatient(how string) func(*Gateway) {
	return func(g *Gateway) {
		if how == "silent" {
			g.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
				return &hushed{Conn: c}, err
			}
		}
	}
}

// hushed is a connection whose read limit is over once a comment has come.
type hushed struct {
	net.Conn
	over bool
}

func (h *hushed) Read(p []byte) (int, error) {
	if h.over {
		return 0, os.ErrDeadlineExceeded
	}
	n, err := h.Conn.Read(p)
	h.over = bytes.Contains(p[:n], []byte(": keep-alive\n\n"))
	return n, err
}

func continuing(g *Gateway) { g.Continue = true }

// uncut is the answer of the simulated server to body that nobody cuts.
func uncut(t testing.TB, url, body string) streamed {
	t.Helper()
	res, err := http.Post(url+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	s := readStreamed(t, answer{body: string(b), err: err})
	if err != nil || s.dones != 1 || s.text == "" {
		t.Fatalf("the uncut answer is %+v", s)
	}
	return s
}

// wantWhole checks that a client saw one answer, the same as want, although it was continued.
func wantWhole(t testing.TB, got, want streamed) {
	t.Helper()
	if got.text != want.text || got.finish != want.finish {
		t.Errorf("the client got %q finished by %q,\nwant %q finished by %q", got.text, got.finish, want.text, want.finish)
	}
	if got.err != nil || len(got.errors) != 0 || got.dones != 1 {
		t.Errorf("the client saw error %v, error events %q and %d [DONE], want a clean end", got.err, got.errors, got.dones)
	}
	if len(got.ids) != 1 || len(got.models) != 1 || len(got.created) != 1 || got.roles != 1 {
		t.Errorf("the client saw ids %q, models %q, created %q, %d roles; want one of each", got.ids, got.models, got.created, got.roles)
	}
	if got.usages != want.usages || got.prompt != want.prompt || got.completion != want.completion {
		t.Errorf("the client was told %d times of %d+%d tokens, want %d times %d+%d", got.usages, got.prompt, got.completion, want.usages, want.prompt, want.completion)
	}
}

func TestLostAnswerGoesOnElsewhere(t *testing.T) {
	url := simulated(t, sim.Options{})
	want := uncut(t, url, story(""))
	last := want.contents
	for _, how := range blades {
		for _, after := range []int{1, last / 2, last} {
			t.Run(fmt.Sprintf("%s after %d events of %d", how, after, last), func(t *testing.T) {
				k := &knife{after: after, how: how}
				r := second(t, k.before(t, url), url, continuing, impatient(how))
				k.rig = r
				got := readStreamed(t, r.post(t, "/v1/chat/completions", story("")))
				wantWhole(t, got, want)
				row := r.pool.row(t)
				if after == 1 && row.UsageSource == api.UsageUpstream && len(row.Attempts) == 2 && row.Attempts[0].Outcome == api.OutcomeError && row.Outcome == api.OutcomeOK {
					return // the blade fell into the same read as the first event: the client had nothing yet, and the request moved
				}
				if row.Outcome != api.OutcomeOK || row.UsageSource != api.UsageTokenized || row.Usage.Prompt() != want.prompt || row.Usage.Completion() != want.completion || row.Finish != want.finish {
					t.Errorf("row = %s with %s usage %+v, want ok with tokenized usage %d+%d", row.Outcome, row.UsageSource, row.Usage, want.prompt, want.completion)
				}
				if len(row.Attempts) != 2 || row.Attempts[0].Upstream != "a" || row.Attempts[0].Outcome != api.OutcomeLost || row.Attempts[0].Error == "" || row.Attempts[1].Upstream != "b" || row.Attempts[1].Outcome != api.OutcomeOK {
					t.Errorf("attempts = %+v, want a lost one on a and a good one on b", row.Attempts)
				}
				if res := r.pool.results["a"]; len(res) != 1 || res[0] != route.Failed {
					t.Errorf("the breaker of a was told %v, want one failure", res)
				}
				if got := r.Traffic().Moved; got != 1 {
					t.Errorf("moved = %d, want 1", got)
				}
			})
		}
	}
}

// TestContinuationIsAskedForAsPlanned looks at the request of the second leg.
func TestContinuationIsAskedForAsPlanned(t *testing.T) {
	url := simulated(t, sim.Options{})
	extra := `,"max_tokens":40,"max_completion_tokens":30,"min_tokens":2,"add_generation_prompt":true,"priority":3`
	body := story(extra)
	want := uncut(t, url, strings.Replace(body, `,"priority":3`, "", 1))
	k, watch := &knife{after: 5, how: "closed"}, &knife{after: -1}
	r := second(t, k.before(t, url), watch.before(t, url), continuing)
	k.rig = r
	got := readStreamed(t, r.post(t, "/v1/chat/completions", body, "X-Request-Id", "abc-1", "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
	wantWhole(t, got, want)
	if want.finish != "length" || want.completion != 30 {
		t.Fatalf("the uncut answer has %d tokens and ends by %q, want one that its limit ends", want.completion, want.finish)
	}
	first, next := gjson.Parse(<-k.bodies), gjson.Parse(<-watch.bodies)
	if first.Get("priority").Exists() || next.Get("priority").Exists() {
		t.Error("the client's priority went to a worker")
	}
	m := next.Get("messages").Array()
	if len(m) != 3 || m[0].Raw != first.Get("messages.0").Raw || m[1].Raw != first.Get("messages.1").Raw {
		t.Fatalf("messages = %s, want the client's and one more", next.Get("messages"))
	}
	text := m[2].Get("content").Str
	if m[2].Get("role").Str != "assistant" || text == "" || !strings.HasPrefix(want.text, text) || len(m[2].Map()) != 2 {
		t.Errorf("last message = %s, want the assistant's text so far", m[2])
	}
	if next.Get("add_generation_prompt").Raw != "false" || next.Get("continue_final_message").Raw != "true" || next.Get("min_tokens").Raw != "0" {
		t.Errorf("the continuation is %s, want add_generation_prompt false, continue_final_message true, min_tokens 0", next)
	}
	if left := next.Get("max_tokens").Int(); left > 25 || left < 15 || next.Get("max_completion_tokens").Int() != left { // an event may hold several tokens
		t.Errorf("max_tokens = %d and max_completion_tokens = %s, want 30 less at least 5 in both", left, next.Get("max_completion_tokens"))
	}
	if !strings.HasSuffix(got.ids[0], "abc-1") {
		t.Errorf("id = %q, want that of the client's request", got.ids[0])
	}
}

// TestAnswerWithoutUsageGoesOn is the client that asks for no usage: it sees none.
func TestAnswerWithoutUsageGoesOn(t *testing.T) {
	url := simulated(t, sim.Options{})
	body := strings.Replace(story(""), `,"stream_options":{"include_usage":true}`, "", 1)
	want := uncut(t, url, body)
	for _, k := range []*knife{{after: 3, how: "closed"}, {finish: true, how: "closed"}} {
		r := second(t, k.before(t, url), url, continuing)
		k.rig = r
		wantWhole(t, readStreamed(t, r.post(t, "/v1/chat/completions", body)), want)
		if row := r.pool.row(t); row.UsageSource != api.UsageTokenized || row.Usage.Completion() == 0 || row.Usage.Prompt() == 0 {
			t.Errorf("row has %s usage %+v, want tokenized", row.UsageSource, row.Usage)
		}
	}
}

// TestFinishedAnswerOnlyLacksItsEnd is a worker that is lost between the finish_reason and [DONE]: nothing is generated again.
func TestFinishedAnswerOnlyLacksItsEnd(t *testing.T) {
	url := simulated(t, sim.Options{})
	want := uncut(t, url, story(""))
	for _, how := range []string{"closed", "clean end", "engine died", "silent"} {
		t.Run(how, func(t *testing.T) {
			k, watch := &knife{finish: true, how: how}, &knife{after: -1}
			r := second(t, k.before(t, url), watch.before(t, url), continuing, impatient(how))
			k.rig = r
			got := readStreamed(t, r.post(t, "/v1/chat/completions", story("")))
			wantWhole(t, got, want)
			if n := len(watch.bodies); n != 0 {
				t.Errorf("the second worker was asked to generate %d times, want never", n)
			}
			if row := r.pool.row(t); row.Outcome != api.OutcomeOK || row.UsageSource != api.UsageTokenized || row.Usage.Completion() != want.completion {
				t.Errorf("row = %s with %s usage %+v, want ok and tokenized", row.Outcome, row.UsageSource, row.Usage)
			}
		})
	}
	t.Run("with nobody left it is lost", func(t *testing.T) {
		k := &knife{finish: true, how: "closed"}
		r := newRig(t, continuing, func(g *Gateway) { g.QueueWait = 50 * time.Millisecond })
		k.rig = r
		r.pool.add("a", k.before(t, url))
		got := readStreamed(t, r.post(t, "/v1/chat/completions", story("")))
		if got.err == nil || got.dones != 0 || len(got.errors) != 1 {
			t.Errorf("the client saw %+v, want one error event and a broken connection", got)
		}
	})
}

// TestAnswerIsContinuedTwiceAtMost loses an answer again and again.
func TestAnswerIsContinuedTwiceAtMost(t *testing.T) {
	url := simulated(t, sim.Options{})
	want := uncut(t, url, story(""))
	for cuts := 1; cuts <= 4; cuts++ {
		t.Run(fmt.Sprint(cuts, " cuts"), func(t *testing.T) {
			k := &knife{after: 3, how: "closed", times: cuts}
			cutter := k.before(t, url)
			r := second(t, cutter, cutter, continuing)
			k.rig = r
			got := readStreamed(t, r.post(t, "/v1/chat/completions", story("")))
			row := r.pool.row(t)
			if cuts <= maxLegs {
				wantWhole(t, got, want)
				if len(row.Attempts) != cuts+1 {
					t.Errorf("%d attempts, want %d", len(row.Attempts), cuts+1)
				}
				return
			}
			if got.err == nil || got.dones != 0 || len(got.errors) != 1 || !strings.Contains(got.errors[0], "continued 2 times") || !strings.HasPrefix(want.text, got.text) {
				t.Errorf("the client saw %+v, want the beginning, one error event and a broken connection", got)
			}
			if row.Outcome != api.OutcomeLost || len(row.Attempts) != 3 || row.UsageSource != api.UsageCounted || row.Usage.Output != int64(got.contents) {
				t.Errorf("row = %s with %d attempts and %s usage %+v, want lost with 3, counted", row.Outcome, len(row.Attempts), row.UsageSource, row.Usage)
			}
		})
	}
}

// TestLegThatFailsBeforeItsContentIsReplacedUnseen is the retry table once more, in the middle of an answer.
func TestLegThatFailsBeforeItsContentIsReplacedUnseen(t *testing.T) {
	url := simulated(t, sim.Options{})
	want := uncut(t, url, story(""))
	for _, tt := range []struct {
		name string
		next func(t testing.TB) string
	}{
		{"refuses connections", func(t testing.TB) string {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			return "http://" + ln.Addr().String()
		}},
		{"dies before content", func(t testing.TB) string { return (&knife{after: 0, how: "closed"}).before(t, url) }},
		{"is busy", func(t testing.TB) string {
			return simulated(t, sim.Options{Faults: []sim.Fault{{Name: "status", N: 503, P: 1}}})
		}},
		{"is busy after 200", func(t testing.TB) string {
			return simulated(t, sim.Options{Faults: []sim.Fault{{Name: "busy-event", P: 1}}})
		}},
		{"has no /tokenize", func(t testing.TB) string { return good(t) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := &knife{after: 4, how: "closed"}
			r := newRig(t, continuing)
			k.rig = r
			r.pool.add("a", k.before(t, url))
			r.pool.set(route.Candidate{ID: "b", Ready: true, Waiting: 5}, tt.next(t))
			r.pool.set(route.Candidate{ID: "c", Ready: true, Waiting: 50}, url)
			wantWhole(t, readStreamed(t, r.post(t, "/v1/chat/completions", story(""))), want)
			if row := r.pool.row(t); row.Outcome != api.OutcomeOK || len(row.Attempts) != 3 || row.Attempts[1].Outcome != api.OutcomeError {
				t.Errorf("row = %s with attempts %+v, want ok after one lost and one failed", row.Outcome, row.Attempts)
			}
		})
	}
}

// TestWhatCannotBeContinuedIsLost is the exceptions: an error event and a broken connection, as without continuing.
func TestWhatCannotBeContinuedIsLost(t *testing.T) {
	url := simulated(t, sim.Options{})
	for _, tt := range []struct{ name, extra, why string }{
		{"logprobs", `,"logprobs":true`, "has logprobs"},
		{"top_logprobs", `,"logprobs":true,"top_logprobs":2`, "logprobs"},
		{"tools", `,"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"none"`, "has tools"},
		{"JSON mode", `,"response_format":{"type":"json_object"}`, "has response_format"},
		{"structured outputs", `,"structured_outputs":{"regex":"a+"}`, "has structured_outputs"},
		{"frequency penalty", `,"frequency_penalty":0.5`, "has frequency_penalty"},
		{"presence penalty", `,"presence_penalty":-0.5`, "has presence_penalty"},
		{"min_tokens not reached", `,"min_tokens":12`, "min_tokens was not reached"},
		{"a stop of several characters", `,"stop":["END"]`, "has stop"},
		{"echo", `,"echo":true`, "has echo"},
		{"token ids", `,"return_token_ids":true`, "has return_token_ids"},
		{"a field that nobody knows", `,"frobnicate":1`, "has frobnicate"},
		{"a field twice", `,"seed":1,"seed":2`, "twice"},
		{"hidden reasoning", `,"include_reasoning":false`, "has include_reasoning"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := &knife{after: 3, how: "closed"}
			r := second(t, k.before(t, url), url, continuing)
			k.rig = r
			wantLost(t, r, story(tt.extra), tt.why)
		})
	}
	usage := `"include_usage":true,"continuous_usage_stats":true`
	t.Run("usage in each event", func(t *testing.T) {
		k := &knife{after: 3, how: "closed"}
		r := second(t, k.before(t, url), url, continuing)
		k.rig = r
		wantLost(t, r, strings.Replace(story(""), `"include_usage":true`, usage, 1), "has stream_options")
	})
	t.Run("several choices", func(t *testing.T) {
		k := &knife{after: 3, how: "closed"}
		r := second(t, k.before(t, url), url, continuing)
		k.rig = r
		wantLost(t, r, strings.Replace(story(`,"n":2`), `"temperature":0`, `"temperature":1`, 1), "one choice")
	})
	t.Run("a paid API", func(t *testing.T) {
		k := &knife{after: 3, how: "closed"}
		r := newRig(t, continuing)
		k.rig = r
		r.pool.set(route.Candidate{ID: "p", Ready: true, Provider: true}, k.before(t, url))
		wantLost(t, r, story(""), "worker of ours")
	})
	t.Run("by a paid API", func(t *testing.T) {
		k := &knife{after: 3, how: "closed"}
		r := newRig(t, continuing, func(g *Gateway) { g.QueueWait = 50 * time.Millisecond })
		k.rig = r
		r.pool.add("a", k.before(t, url))
		r.pool.set(route.Candidate{ID: "p", Ready: true, Provider: true}, url)
		wantLost(t, r, story(""), "worker a")
		if n := r.pool.acquired["p"]; n != 0 {
			t.Errorf("the provider was asked %d times, want never", n)
		}
	})
	t.Run("switched off", func(t *testing.T) {
		k := &knife{after: 3, how: "closed"}
		r := second(t, k.before(t, url), url)
		k.rig = r
		wantLost(t, r, story(""), "")
	})
	head := strings.Replace(evRole, `"content":""`, `"content":null`, 1)
	thought := strings.Replace(evText("hm"), `"content"`, `"reasoning"`, 1)
	t.Run("unfinished reasoning", func(t *testing.T) {
		r := second(t, (&knife{after: -1}).before(t, events(t, head, thought)), url, continuing)
		wantLost(t, r, story(""), "reasoning was not finished")
	})
	t.Run("a tool call", func(t *testing.T) {
		call := strings.Replace(evText("x"), `"content":"x"`, `"tool_calls":[{"index":0,"function":{"name":"f"}}]`, 1)
		r := second(t, events(t, evRole, evText("so"), call), url, continuing)
		wantLost(t, r, story(""), "not plain text")
	})
}

// wantLost sends a request and checks that its answer was cut off in all honesty.
func wantLost(t *testing.T, r *rig, body, why string) {
	t.Helper()
	got := readStreamed(t, r.post(t, "/v1/chat/completions", body))
	if got.err == nil || got.dones != 0 || len(got.errors) != 1 || !strings.Contains(got.errors[0], why) {
		t.Errorf("the client saw error events %q, %d [DONE] and %v; want one that says %q, and a broken connection", got.errors, got.dones, got.err, why)
	}
	if row := r.pool.row(t); row.Outcome != api.OutcomeLost {
		t.Errorf("outcome = %s, want upstream_lost", row.Outcome)
	}
}

// TestWorkerThatBeginsAnewIsNotBelieved is a server that thinks again in the middle of an answer, and a template that trims.
func TestWorkerThatBeginsAnewIsNotBelieved(t *testing.T) {
	counting := func(t testing.TB, trims bool, evs ...string) string {
		return serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if r.URL.Path == "/tokenize" {
				w.Header().Set("Content-Type", "application/json")
				n, last := gjson.GetBytes(b, "messages.#").Int(), gjson.GetBytes(b, "messages|@reverse|0.content").Str
				if trims {
					last = strings.TrimSpace(last)
				}
				// However the text ends, there are as many tokens: blanks are a part of the one before them.
				fmt.Fprintf(w, `{"count":%d,"max_model_len":100,"tokens":[%d]}`, 10+3*n, len(last))
				return
			}
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			for _, e := range evs {
				io.WriteString(w, e)
			}
		})
	}
	thought := strings.Replace(evText("hm"), `"content"`, `"reasoning"`, 1)
	t.Run("it thinks again", func(t *testing.T) {
		a := events(t, evRole, thought, evText("So"))
		b := counting(t, false, evRole, thought, evText("So it is"), evFinish, evUsage, evDone)
		wantLost(t, second(t, a, b, continuing), story(""), "began the answer anew")
	})
	t.Run("it goes on after its reasoning", func(t *testing.T) {
		a := events(t, evRole, thought, evText("So"))
		b := counting(t, false, evRole, evText(" it is"), evFinish, evUsage, evDone)
		r := second(t, a, b, continuing)
		got := readStreamed(t, r.post(t, "/v1/chat/completions", story("")))
		if got.text != "So it is" || got.err != nil || got.dones != 1 {
			t.Errorf("the client saw %+v, want the whole answer", got)
		}
	})
	t.Run("its template trims the answer so far", func(t *testing.T) {
		a := events(t, evRole, evText("So"), evText(":\n\n"))
		b := counting(t, true, evRole, evText(" it is"), evFinish, evUsage, evDone)
		wantLost(t, second(t, a, b, continuing), story(""), "template cuts off")
	})
	t.Run("its template does not", func(t *testing.T) {
		a := events(t, evRole, evText("So"), evText(":\n\n"))
		b := counting(t, false, evRole, evText("it is"), evFinish, evUsage, evDone)
		got := readStreamed(t, second(t, a, b, continuing).post(t, "/v1/chat/completions", story("")))
		if got.text != "So:\n\nit is" || got.err != nil || got.dones != 1 {
			t.Errorf("the client saw %+v, want the whole answer", got)
		}
	})
}

// TestContinuedCompletion adds the answer so far to the prompt.
func TestContinuedCompletion(t *testing.T) {
	url := simulated(t, sim.Options{})
	k, watch := &knife{after: 3, how: "closed"}, &knife{after: -1}
	r := second(t, k.before(t, url), watch.before(t, url), continuing)
	k.rig = r
	got := readStreamed(t, r.post(t, "/v1/completions", `{"model":"m","prompt":"Bridges \"are\"","stream":true}`))
	if got.err != nil || got.dones != 1 || len(got.ids) != 1 || got.finish != "length" || got.roles != 0 {
		t.Fatalf("the client saw %+v, want one whole answer", got)
	}
	next := gjson.Parse(<-watch.bodies)
	prompt := next.Get("prompt").Str
	so, ok := strings.CutPrefix(prompt, `Bridges "are"`)
	if !ok || so == "" || !strings.HasPrefix(got.text, so) || next.Get("max_tokens").Int() > 13 || next.Get("max_tokens").Int() < 6 || next.Get("messages").Exists() {
		t.Errorf("the continuation is %s, want the prompt with the text so far and 16 less at least 3 tokens", next)
	}
	if row := r.pool.row(t); row.Usage.Completion() != 16 || row.UsageSource != api.UsageTokenized {
		t.Errorf("usage = %s %+v, want 16 tokenized", row.UsageSource, row.Usage)
	}
	t.Run("not with a list of prompts", func(t *testing.T) {
		r := second(t, k.before(t, url), url, continuing)
		k.rig = r
		got := readStreamed(t, r.post(t, "/v1/completions", `{"model":"m","prompt":["Bridges"],"stream":true}`))
		if got.err == nil || len(got.errors) != 1 || !strings.Contains(got.errors[0], "not a single text") {
			t.Errorf("the client saw %+v, want it cut off", got)
		}
	})
}

// TestCostOfAContinuedStream shows that cost_info says where its token counts are from.
func TestCostOfAContinuedStream(t *testing.T) {
	url := simulated(t, sim.Options{})
	want := uncut(t, url, story(""))
	for _, k := range []*knife{{after: 3, how: "closed"}, {finish: true, how: "closed"}} {
		r := second(t, k.before(t, url), url, continuing)
		k.rig = r
		a := r.post(t, "/v1/chat/completions", story(""), "X-Vllmdeck-Cost", "1")
		wantWhole(t, readStreamed(t, a), want)
		info := a.trailer.Get("X-Vllmdeck-Cost-Info")
		if gjson.Get(info, "usage_source").Str != api.UsageTokenized || gjson.Get(info, "completion_tokens").Int() != want.completion {
			t.Errorf("trailer = %s, want tokenized usage", info)
		}
		if !strings.Contains(a.body, `"cost_info":{`) {
			t.Errorf("no cost_info in %q", a.body)
		}
	}
}

// TestClientThatLeavesIsNotContinuedFor ends a call whose client has gone while its answer was to go on.
func TestClientThatLeavesIsNotContinuedFor(t *testing.T) {
	url := simulated(t, sim.Options{})
	k := &knife{after: 3, how: "closed"}
	r := newRig(t, continuing)
	k.rig = r
	r.pool.add("a", k.before(t, url))
	r.pool.set(route.Candidate{ID: "b", Ready: true, MaxSeqs: 1, InFlight: 1}, url)
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/v1/chat/completions", strings.NewReader(story("")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := r.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for r.Traffic().Queued == 0 {
		time.Sleep(time.Millisecond)
	}
	leave()
	row := r.pool.idleRow(t)
	if row.Outcome != api.OutcomeCancelled || len(row.Attempts) != 1 {
		t.Errorf("row = %s with %d attempts, want client_cancelled with 1", row.Outcome, len(row.Attempts))
	}
}

func TestTrimEnd(t *testing.T) {
	for in, want := range map[string]string{`a`: `a`, `a \n\n`: `a`, `a\\n`: `a\\n`, `a\\\n`: `a\\`, ` `: ``, `\n`: ``, `é\t `: `é`, `n`: `n`} {
		if got := string(trimEnd([]byte(in))); got != want {
			t.Errorf("trimEnd(%q) = %q, want %q", in, got, want)
		}
	}
}
