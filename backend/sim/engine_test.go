package sim

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestIdleServerKeepsItsMeans(t *testing.T) {
	inBox(t, Options{Model: "m", Seed: 7, TTFT: 60 * time.Millisecond, ITL: 12 * time.Millisecond}, func(b *box) {
		for i := range 40 {
			b.ask(chatBody(fmt.Sprintf("Question %d about the sea", i), `,"max_tokens":30,"ignore_eos":true`))
		}
		ttft := b.metric("vllm:time_to_first_token_seconds_sum") / b.metric("vllm:time_to_first_token_seconds_count")
		itl := b.metric("vllm:inter_token_latency_seconds_sum") / b.metric("vllm:inter_token_latency_seconds_count")
		if math.Abs(ttft-0.060) > 0.012 {
			t.Errorf("mean TTFT = %.1f ms, want 60 within 20 %%", ttft*1e3)
		}
		if math.Abs(itl-0.012) > 0.0012 {
			t.Errorf("mean ITL = %.2f ms, want 12 within 10 %%", itl*1e3)
		}
	})
}

func TestBatchSlowsTokensAndQueuesWhatDoesNotFit(t *testing.T) {
	inBox(t, Options{Model: "m", MaxSeqs: 16}, func(b *box) {
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() { b.ask(chatBody(fmt.Sprint("Topic ", i), `,"max_tokens":100,"ignore_eos":true`)) })
		}
		time.Sleep(500 * time.Millisecond)
		if r, w := b.metric("vllm:num_requests_running"), b.metric("vllm:num_requests_waiting"); r != 16 || w != 24 {
			t.Errorf("running %v, waiting %v; want 16 and 24", r, w)
		}
		if kv := b.metric("vllm:kv_cache_usage_perc"); kv <= 0 || kv > 0.5 {
			t.Errorf("KV usage = %v, want some", kv)
		}
		wg.Wait()
		itl := b.metric("vllm:inter_token_latency_seconds_sum") / b.metric("vllm:inter_token_latency_seconds_count")
		if itl < 0.0125 || itl > 0.018 {
			t.Errorf("ITL of a full batch = %.1f ms, want 12.5 to 18", itl*1e3)
		}
		queued := b.metric("vllm:request_queue_time_seconds_sum")
		if queued < 24 {
			t.Errorf("queue time = %.1f s in all, want over 24: the second and third wave waited", queued)
		}
		if kv := b.metric("vllm:kv_cache_usage_perc"); kv != 0 {
			t.Errorf("KV usage when idle = %v, want 0", kv)
		}
		if n := b.metric("vllm:generation_tokens_total"); n != 4000 {
			t.Errorf("generated %v tokens, want 4000", n)
		}
	})
}

func TestFullCachePreemptsAndLosesNothing(t *testing.T) {
	inBox(t, Options{Model: "m", MaxSeqs: 16, MaxLen: 512, KVTokens: 1024}, func(b *box) {
		want := b.ask(chatBody("Topic 3", `,"max_tokens":300,"ignore_eos":true`)).text()
		var wg sync.WaitGroup
		got := make([]reply, 8)
		for i := range got {
			wg.Go(func() {
				got[i] = b.ask(chatBody(fmt.Sprint("Topic ", i), `,"max_tokens":300,"ignore_eos":true`))
			})
		}
		wg.Wait()
		if n := b.metric("vllm:num_preemptions_total"); n == 0 {
			t.Errorf("no preemption although 8 answers of 300 tokens do not fit into 1024")
		}
		for i, r := range got {
			if r.Usage.Completion != 300 {
				t.Errorf("answer %d has %d tokens, want 300", i, r.Usage.Completion)
			}
		}
		if got[3].text() != want {
			t.Errorf("a preempted answer differs from the same one alone")
		}
		if n := b.metric("vllm:kv_cache_usage_perc"); n != 0 {
			t.Errorf("KV usage when idle = %v, want 0", n)
		}
	})
}

func TestSameRequestSameTextWhateverTheLoad(t *testing.T) {
	body := chatBody("Explain how a GPU batches requests", `,"temperature":0.7,"seed":5`)
	var alone, loaded, other string
	inBox(t, Options{Model: "m", Seed: 3}, func(b *box) {
		alone = b.ask(body).text()
		other = b.ask(chatBody("Explain how a GPU batches requests", `,"temperature":0.7,"seed":6`)).text()
	})
	inBox(t, Options{Model: "m", Seed: 3, MaxSeqs: 4}, func(b *box) {
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() { b.ask(chatBody(fmt.Sprint("Noise ", i), "")) })
		}
		wg.Go(func() { loaded = b.ask(body).text() })
		wg.Wait()
	})
	if alone != loaded {
		t.Errorf("alone:  %q\nloaded: %q", alone, loaded)
	}
	if alone == other {
		t.Errorf("another seed gives the same text: %q", other)
	}
}

func TestPrefixCacheMakesFirstTokenFaster(t *testing.T) {
	var long strings.Builder
	for i := range 300 {
		fmt.Fprintf(&long, "Fact %d about railways. ", i)
	}
	inBox(t, Options{Model: "m"}, func(b *box) {
		time0 := time.Now()
		first := b.ask(chatBody(long.String(), `,"max_tokens":1`))
		cold := time.Since(time0)
		time0 = time.Now()
		second := b.ask(chatBody(long.String(), `,"max_tokens":1`))
		warm := time.Since(time0)
		if first.Usage.Details.Cached > 16 || second.Usage.Details.Cached < first.Usage.Prompt-2*blockSize {
			t.Errorf("cached %d then %d of %d", first.Usage.Details.Cached, second.Usage.Details.Cached, first.Usage.Prompt)
		}
		if warm > cold*2/3 {
			t.Errorf("TTFT %v cold, %v warm; want a clear gain", cold, warm)
		}
		if hits := b.metric("vllm:prefix_cache_hits_total"); int(hits) != first.Usage.Details.Cached+second.Usage.Details.Cached {
			t.Errorf("prefix_cache_hits_total = %v, usages say %d", hits, first.Usage.Details.Cached+second.Usage.Details.Cached)
		}
	})
}

// Ten minutes of traffic at about three quarters of what the server can take.
func TestTenMinutesOfTraffic(t *testing.T) {
	inBox(t, Options{Model: "m", Seed: 2, MaxSeqs: 8}, func(b *box) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		prompt, completion, n := 0, 0, 0
		end := time.Now().Add(10 * time.Minute)
		for i := 0; time.Now().Before(end); i++ {
			wg.Go(func() {
				r := b.ask(chatBody(fmt.Sprintf("Tell me about number %d", i), fmt.Sprintf(`,"max_tokens":%d,"temperature":0`, 20+i%160)))
				mu.Lock()
				defer mu.Unlock()
				prompt += r.Usage.Prompt
				completion += r.Usage.Completion
				n++
			})
			time.Sleep(time.Duration(200+i*37%400) * time.Millisecond)
		}
		wg.Wait()
		for name, want := range map[string]int{
			"vllm:prompt_tokens_total": prompt, "vllm:generation_tokens_total": completion,
			"vllm:request_generation_tokens_sum": completion, "vllm:e2e_request_latency_seconds_count": n, "vllm:num_requests_running": 0,
		} {
			if got := b.metric(name); int(got) != want {
				t.Errorf("%s = %v, the answers' usages say %d", name, got, want)
			}
		}
		if n < 1200 {
			t.Errorf("%d requests in ten minutes, want over 1200", n)
		}
	})
}

func TestAbandonedRequestFreesItsPlace(t *testing.T) {
	inBox(t, Options{Model: "m", MaxSeqs: 1}, func(b *box) {
		res := b.post("/v1/chat/completions", chatBody("Long", `,"max_tokens":5000,"ignore_eos":true,"stream":true`))
		if _, err := io.ReadFull(res.Body, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		time.Sleep(100 * time.Millisecond)
		if n := b.metric("vllm:num_requests_running"); n != 0 {
			t.Errorf("running = %v 100 ms after the client went, want 0", n)
		}
		if n := b.metric("vllm:kv_cache_usage_perc"); n != 0 {
			t.Errorf("KV usage = %v, want 0", n)
		}
	})
}

func TestQueueLimitRefusesWith503(t *testing.T) {
	inBox(t, Options{Model: "m", MaxQueued: 3}, func(b *box) {
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { b.ask(chatBody("x", `,"max_tokens":50,"ignore_eos":true`)) })
		}
		synctest.Wait()
		res := b.post("/v1/chat/completions", chatBody("x", ""))
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		want := `{"error":{"message":"The engine is currently busy and cannot accept new requests. Please try again later or on a different instance.","type":"Service Unavailable","param":null,"code":503}}`
		if res.StatusCode != http.StatusServiceUnavailable || string(body) != want {
			t.Errorf("over the limit = %d %s\nwant 503 %s", res.StatusCode, body, want)
		}
		if n := b.metric(`vllm:admission_rejections_total{model_name="m",reason="max_num_queued_reqs"}`); n != 1 {
			t.Errorf("admission_rejections_total = %v, want 1", n)
		}
		wg.Wait()
		b.ask(chatBody("x", `,"max_tokens":1`))
	})
}
