package gateway

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// priced is a rig whose requests cost 1 nano-dollar per token and would cost 10.
func priced(t *testing.T, url string, change ...func(*Gateway)) *rig {
	t.Helper()
	r := newRig(t, change...)
	r.pool.share = 2 * time.Second
	r.pool.price = func(q *api.Request) {
		n := api.Nanos(q.Usage.Prompt() + q.Usage.Completion())
		q.Actual, q.Would, q.Baseline, q.Basis, q.PriceDate = new(n), new(10*n), "openai/gpt-4o-mini", api.BasisGPUTime, "2026-11-01"
	}
	r.pool.add("a", url)
	return r
}

const costJSON = `{"prompt_tokens":14,"cached_tokens":8,"completion_tokens":4,"actual_usd":0.000000018,"would_have_cost_usd":0.00000018,"savings_usd":0.000000162,"savings_percent":90,"baseline":"openai/gpt-4o-mini","price_date":"2026-11-01","basis":"gpu_time"}`

func TestCostInfoInWholeAnswers(t *testing.T) {
	r := priced(t, goodAnswer(t))
	with := strings.TrimSuffix(wholeAnswer, "}") + `,"cost_info":` + costJSON + "}"
	for _, tt := range []struct {
		name, want string
		header     []string
	}{
		{"by default", with, nil},
		{"asked for", with, []string{"X-Vllmdeck-Cost", "1"}},
		{"declined", wholeAnswer, []string{"X-Vllmdeck-Cost", "0"}},
	} {
		got := r.post(t, "/v1/chat/completions", chatBody, tt.header...)
		if got.body != tt.want || got.err != nil {
			t.Errorf("%s: got %s (%v), want %s", tt.name, got.body, got.err, tt.want)
		}
		row := r.pool.row(t)
		if *row.Actual != 18 || row.Usage != (api.Usage{Input: 6, CacheRead: 8, Output: 4}) || time.Duration(row.Attempts[0].Share) != 2*time.Second {
			t.Errorf("%s: row cost %v for %+v with a share of %v, want 18 nano-dollars, 6+8+4 tokens, 2s", tt.name, row.Actual, row.Usage, row.Attempts[0].Share)
		}
	}
	r.pool.add("a", goodAnswer(t))
	if got := r.post(t, "/v1/embeddings", `{"model":"m"}`); got.body != wholeAnswer {
		t.Errorf("embeddings: got %s, want the worker's bytes", got.body)
	}
	r.pool.row(t)
	r = priced(t, goodAnswer(t), func(g *Gateway) { g.CostInfo = false })
	if got := r.post(t, "/v1/chat/completions", chatBody); got.body != wholeAnswer {
		t.Errorf("switched off: got %s, want the worker's bytes", got.body)
	}
	r.pool.row(t)
}

func TestCostInfoInStreams(t *testing.T) {
	r := priced(t, good(t))
	content := evRole + evText("good") + evText(" one") + evFinish
	withCost := strings.TrimSuffix(evUsage, "}\n\n") + `,"cost_info":` + costJSON + "}\n\n"
	asking := strings.Replace(streamBody, `"stream":true`, `"stream":true,"stream_options":{"include_usage":true}`, 1)
	for _, tt := range []struct {
		name, body, want, trailer string
		header                    []string
	}{
		{"usage not asked for", streamBody, content + evDone, "", nil},
		{"usage asked for", asking, content + evUsage + evDone, "", nil},
		{"cost asked for, usage not", streamBody, content + evDone, costJSON, []string{"X-Vllmdeck-Cost", "1"}},
		{"both asked for", asking, content + withCost + evDone, costJSON, []string{"X-Vllmdeck-Cost", "1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := r.post(t, "/v1/chat/completions", tt.body, tt.header...)
			if got.body != tt.want || got.err != nil {
				t.Errorf("got %s (%v), want %s", got.body, got.err, tt.want)
			}
			if v := got.trailer.Get("X-Vllmdeck-Cost-Info"); v != tt.trailer {
				t.Errorf("trailer = %s, want %s", v, tt.trailer)
			}
			row := r.pool.row(t)
			if *row.Actual != 18 || row.UsageSource != api.UsageUpstream || row.Outcome != api.OutcomeOK {
				t.Errorf("row %s cost %v from %s, want ok, 18 nano-dollars, upstream", row.Outcome, row.Actual, row.UsageSource)
			}
		})
	}
}

func TestUnknownCostIsNull(t *testing.T) {
	r := api.Request{UsageSource: api.UsageUnknown}
	if got, want := string(costValue(&r)), `{"prompt_tokens":null,"cached_tokens":null,"completion_tokens":null,"actual_usd":null,"would_have_cost_usd":null,"savings_usd":null,"savings_percent":null,"usage_source":"unknown"}`; got != want {
		t.Errorf("cost_info = %s, want %s", got, want)
	}
	r = api.Request{UsageSource: api.UsageCounted, Usage: api.Usage{Output: 3}, Actual: new(api.Nanos(5)), Would: new(api.Nanos(0)), Simulated: true}
	var m map[string]any
	if err := json.Unmarshal(costValue(&r), &m); err != nil {
		t.Fatal(err)
	}
	if m["usage_source"] != "counted" || m["simulated"] != true || m["savings_percent"] != nil || m["savings_usd"] != -5e-9 {
		t.Errorf("cost_info = %v, want counted, simulated, no percentage of 0, a loss of 5 nano-dollars", m)
	}
}

func usageMissing(t *testing.T) {
	r := priced(t, events(t, evRole, evText("a"), evText("b"), evFinish, evDone))
	if got := r.post(t, "/v1/chat/completions", streamBody); got.err != nil {
		t.Fatal(got.err)
	}
	if row := r.pool.row(t); row.UsageSource != api.UsageCounted || row.Usage.Output != 2 {
		t.Errorf("usage = %+v from %s, want 2 counted", row.Usage, row.UsageSource)
	}
	r.pool.add("a", serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}]}`)
	}))
	r.post(t, "/v1/chat/completions", chatBody)
	if row := r.pool.row(t); row.UsageSource != api.UsageUnknown || row.Usage != (api.Usage{}) {
		t.Errorf("usage = %+v from %s, want unknown", row.Usage, row.UsageSource)
	}
}

func TestFailedLegKeepsItsShare(t *testing.T) {
	r := second(t, events(t, evOops, evDone), good(t))
	r.pool.share = 3 * time.Second
	r.post(t, "/v1/chat/completions", streamBody)
	row := r.pool.row(t)
	if len(row.Attempts) != 2 || time.Duration(row.Attempts[0].Share) != 3*time.Second || row.Attempts[0].Error == "" || time.Duration(row.Attempts[1].Share) != 3*time.Second {
		t.Errorf("attempts = %+v, want two with their shares and the first one's error", row.Attempts)
	}
	if r.pool.opened != 1 {
		t.Errorf("opened %d times, want once", r.pool.opened)
	}
}

func TestSimulatedIsItsOwnClass(t *testing.T) {
	r := priced(t, goodAnswer(t))
	r.pool.sim = true
	r.post(t, "/v1/chat/completions", chatBody)
	if row := r.pool.row(t); row.Class != api.ClassSimulated || !row.Simulated {
		t.Errorf("class %s, simulated %v; want simulated", row.Class, row.Simulated)
	}
}

func TestAnswersAreRatedAndTokensCounted(t *testing.T) {
	type rated struct{ id, prompt, answer string }
	var mu sync.Mutex
	var got []rated
	tokens := 0
	var wanted atomic.Bool
	wanted.Store(true)
	r := newRig(t, func(g *Gateway) {
		g.Rated = func(r *api.Request, prompt, answer string) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, rated{r.ID, prompt, answer})
		}
		g.Rates = wanted.Load
		g.Tokens = func(n int) { mu.Lock(); defer mu.Unlock(); tokens += n }
	})
	r.pool.add("a", good(t))
	r.post(t, "/v1/chat/completions", streamBody)
	first := r.pool.row(t)
	r.pool.add("a", goodAnswer(t))
	r.post(t, "/v1/chat/completions", chatBody)
	second := r.pool.row(t)
	r.pool.add("a", events(t, evText("x"), evError))
	r.post(t, "/v1/chat/completions", streamBody)
	r.pool.row(t)
	wanted.Store(false)
	r.pool.add("a", goodAnswer(t))
	r.post(t, "/v1/chat/completions", chatBody)
	r.pool.row(t)
	until(t, "two are rated", func() bool { mu.Lock(); defer mu.Unlock(); return len(got) >= 2 })
	if want := []rated{{first.ID, "Hello there", "good one"}, {second.ID, "Hello there", "hi"}}; !slices.Equal(got, want) {
		t.Errorf("rated %v, want %v: whole answers alone, and only while they are wanted", got, want)
	}
	if tokens != 4+4+1+4 && tokens != 4+4+4 { // the lost one may fail before its content was sent
		t.Errorf("%d tokens were told of, want 4 as usage says for each whole answer", tokens)
	}
}

func TestLiveView(t *testing.T) {
	release := make(chan struct{})
	r := newRig(t)
	r.pool.add("a", serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) {
		io.WriteString(c, streamHead+chunk(evRole)+chunk(evText("a"))+chunk(evText("b")))
		<-release
		io.WriteString(c, chunk(evFinish)+chunk(evDone)+"0\r\n\r\n")
	}))
	done := make(chan answer, 1)
	go func() { done <- r.post(t, "/v1/chat/completions", streamBody) }()
	var live []api.Request
	until(t, "both tokens show", func() bool {
		live = r.InFlight(live[:0])
		return len(live) == 1 && live[0].Usage.Output == 2
	})
	if q := live[0]; q.Outcome != api.OutcomeOpen || q.Model != "m" || q.Worker != "a" || q.UsageSource != api.UsageCounted || q.TTFT <= 0 || q.Route != "chat" || !q.Stream || len(q.Attempts) != 1 {
		t.Errorf("live view = %+v", q)
	}
	if tr := r.Traffic(); tr.InFlight != 1 || tr.Total != 0 {
		t.Errorf("traffic = %+v, want one in flight", tr)
	}
	close(release)
	<-done
	r.pool.row(t)
	until(t, "nothing in flight", func() bool { return len(r.InFlight(nil)) == 0 && r.Traffic().InFlight == 0 && r.Traffic().Total == 1 })
}

func TestLargeAnswerIsPassedOn(t *testing.T) {
	body := `{"object":"list","data":["` + strings.Repeat("0.1,", 5<<20) + `"],"usage":{"prompt_tokens":7,"total_tokens":7}}`
	chunked := true
	r := newRig(t)
	r.pool.add("a", serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if chunked {
			w.(http.Flusher).Flush()
		}
		io.WriteString(w, body)
	}))
	for _, chunked = range []bool{true, false} {
		got := r.post(t, "/v1/embeddings", `{"model":"m"}`)
		if got.err != nil || got.body != body {
			t.Fatalf("got %d bytes (%v), want %d unchanged", len(got.body), got.err, len(body))
		}
		if row := r.pool.row(t); row.Usage != (api.Usage{Input: 7}) || row.UsageSource != api.UsageUpstream || row.Outcome != api.OutcomeOK {
			t.Errorf("row %s with %+v from %s, want ok with 7 prompt tokens", row.Outcome, row.Usage, row.UsageSource)
		}
	}
	r.pool.add("a", serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"+chunk(body[:len(body)-100]))
	}))
	got := r.post(t, "/v1/embeddings", `{"model":"m"}`)
	if got.err == nil {
		t.Error("client saw a clean end of a large answer that was cut")
	}
	if row := r.pool.row(t); row.Outcome != api.OutcomeLost {
		t.Errorf("row %s, want upstream_lost", row.Outcome)
	}
}

func TestHealthyStreamIsNotHeldBack(t *testing.T) {
	next := make(chan struct{})
	r := newRig(t)
	r.pool.add("a", serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) {
		io.WriteString(c, streamHead+chunk(evRole))
		for range 3 {
			io.WriteString(c, chunk(evText("x")))
			<-next
		}
		io.WriteString(c, chunk(evFinish)+chunk(evDone)+"0\r\n\r\n")
	}))
	req, _ := http.NewRequest(http.MethodPost, r.url+"/v1/chat/completions", strings.NewReader(streamBody))
	res, err := r.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	want := len(evRole)
	for range 3 {
		want += len(evText("x"))
		if _, err := io.CopyN(io.Discard, res.Body, int64(want)); err != nil { // blocks if an event is held back
			t.Fatal(err)
		}
		want = 0
		next <- struct{}{}
	}
	if b, err := io.ReadAll(res.Body); err != nil || string(b) != evFinish+evDone {
		t.Errorf("the rest is %q (%v)", b, err)
	}
	if h := res.Header; h.Get("Cache-Control") != "no-cache" || h.Get("X-Accel-Buffering") != "no" || h.Get("Content-Type") != "text/event-stream; charset=utf-8" {
		t.Errorf("header = %v, want one that no proxy buffers", h)
	}
	r.pool.row(t)
}
