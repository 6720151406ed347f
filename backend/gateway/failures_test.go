package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// What is tested here was seen broken in other gateways. What needs an engine around the gateway has its test of the
// same name in package backend (a burst of 4xx, a fast-failing backend, the price table), the death of the supervisor in cmd/vllmdeck.

func TestUsage(t *testing.T) {
	t.Run("usage chunk with choices", usageChunkWithChoices)
	t.Run("usage missing", usageMissing)
}

func TestUpstreamStreams(t *testing.T) {
	t.Run("upstream cut after k tokens", lossAfterContent)
	t.Run("stall after headers", silenceBeforeContent)
	t.Run("stall after k tokens", silenceAfterContent)
}

func TestStatusCodes(t *testing.T) {
	t.Run("500, 429, 503 with and without Retry-After", retryAfterIsHonoured)
	t.Run("a burst of 4xx must not open a breaker", ownRefusalIsPassedThrough)
}

func TestClientAbort(t *testing.T) { clientLeaves(t) } // before headers, before the first token, mid-stream, non-stream

func TestSizeAndConcurrency(t *testing.T) {
	t.Run("small bodies", func(t *testing.T) { bodyOnTheWire(t, 1, 1<<10) })
	t.Run("body 1 MB", func(t *testing.T) { bodyOnTheWire(t, 1<<20) })
	t.Run("body 20 MB", func(t *testing.T) { bodyOnTheWire(t, 20<<20) })
	t.Run("more connections than the pool size", moreConnectionsThanAnyPool)
}

func TestTransparency(t *testing.T) {
	t.Run("unknown vLLM fields, both ways", unknownFields)
}

// usageChunkWithChoices is servers that put the usage into an event with choices: the last one of text, the one of the
// finish_reason, or each (continuous_usage_stats). It counts, and the event with its text goes on as it is.
func usageChunkWithChoices(t *testing.T) {
	usage := func(ev string, out string) string {
		return strings.TrimSuffix(ev, "}\n\n") + `,"usage":{"prompt_tokens":14,"total_tokens":99,"completion_tokens":` + out + `,"prompt_tokens_details":{"cached_tokens":8}}}` + "\n\n"
	}
	lastText := strings.Replace(evText(" end"), `"finish_reason":null`, `"finish_reason":"length"`, 1)
	for name, evs := range map[string][]string{
		"with the finish_reason":     {evRole, evText("a"), evText("b"), usage(evFinish, "4"), evDone},
		"with the last text":         {evRole, evText("a"), evText("b"), usage(lastText, "4"), evDone},
		"in each event":              {usage(evRole, "0"), usage(evText("a"), "1"), usage(evText("b"), "2"), usage(evFinish, "4"), evDone},
		"in each event, and alone":   {usage(evRole, "0"), usage(evText("a"), "1"), usage(evFinish, "3"), evUsage, evDone},
		"with null choices, at last": {evRole, evText("a"), evFinish, strings.Replace(evUsage, `"choices":[]`, `"choices":null`, 1), evDone},
	} {
		for _, asked := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				r := priced(t, events(t, evs...))
				body, want := streamBody, strings.Join(evs, "")
				if asked {
					body = strings.TrimSuffix(streamBody, "}") + `,"stream_options":{"include_usage":true}}`
				} else { // an event of usage and nothing else is ours: the client did not ask
					want = strings.NewReplacer(evUsage, "", strings.Replace(evUsage, `"choices":[]`, `"choices":null`, 1), "").Replace(want)
				}
				got := r.post(t, "/v1/chat/completions", body)
				if got.err != nil || got.body != want {
					t.Errorf("the client got (%v)\n%s, want\n%s", got.err, got.body, want)
				}
				row := r.pool.row(t)
				if row.UsageSource != api.UsageUpstream || row.Usage != (api.Usage{Input: 6, CacheRead: 8, Output: 4}) || *row.Actual != 18 {
					t.Errorf("row has %s usage %+v for %v, want the worker's last word, 6+8+4, for 18", row.UsageSource, row.Usage, row.Actual)
				}
			})
		}
	}
}

// unknownFields is what vLLM has beyond OpenAI, and what nobody has yet: all of it goes through, byte by byte.
func unknownFields(t *testing.T) {
	const fields = `"chat_template_kwargs":{"enable_thinking":false},"top_k":5,"min_p":0.1,"guided_json":{"type":"object"},"structured_outputs":{"regex":"a+"},` +
		`"vllm_xargs":{"x":1},"cache_salt":"s","return_token_ids":true,"prompt_logprobs":1,"ignore_eos":true,"bad_words":["x"],"kv_transfer_params":{"a":[1,{"b":null}]},"some_future_field":[1.50,"é\u00e9",1e400]`
	const extra = `"prompt_logprobs":[null,{"1":{"logprob":-0.5}}],"prompt_token_ids":[1,2],"kv_transfer_params":{"a":1},"service_tier":null,"some_future_field":{"x":1.50}`
	answer := strings.TrimSuffix(strings.Replace(wholeAnswer, `"finish_reason":"stop"`, `"finish_reason":"stop","stop_reason":128001,"token_ids":[5,6]`, 1), "}") + "," + extra + "}"
	event := strings.TrimSuffix(evText("x"), "}\n\n") + "," + extra + "}\n\n"
	bodies := make(chan string, 1)
	r := newRig(t, func(g *Gateway) { g.CostInfo = false })
	r.pool.add("a", serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		bodies <- string(b)
		if gjson.GetBytes(b, "stream").Bool() {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, evRole+event+evFinish+evDone)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, answer)
	}))
	plain := strings.TrimSuffix(chatBody, "}") + "," + fields + "}"
	if got := r.post(t, "/v1/chat/completions", plain); got.body != answer {
		t.Errorf("the client got\n%s, want\n%s", got.body, answer)
	}
	if got := <-bodies; got != plain {
		t.Errorf("the worker got\n%s, want\n%s", got, plain)
	}
	r.pool.row(t)
	stream := strings.TrimSuffix(streamBody, "}") + "," + fields + "}"
	if got := r.post(t, "/v1/chat/completions", stream); got.body != evRole+event+evFinish+evDone {
		t.Errorf("the client got\n%s, want the worker's events", got.body)
	}
	if got, want := <-bodies, `{"stream_options":{"include_usage":true},`+stream[1:]; got != want {
		t.Errorf("the worker got\n%s, want\n%s", got, want)
	}
	r.pool.row(t)
}
