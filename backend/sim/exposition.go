package sim

import (
	"fmt"
	"strconv"
	"time"
)

// expo writes the text format as prometheus_client for Python does, whose order and number
// style differ from Go's client.
type expo struct {
	b       []byte
	labels  string // engine="0",model_name="…"
	created string
}

func (x *expo) head(name, help, kind string) {
	x.b = fmt.Appendf(x.b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func (x *expo) sample(name, labels string, v float64) { x.raw(name, labels, pyFloat(v)) }

func (x *expo) raw(name, labels, v string) {
	x.b = append(x.b, name...)
	if labels != "" {
		x.b = append(x.b, '{')
		x.b = append(x.b, labels...)
		x.b = append(x.b, '}')
	}
	x.b = append(x.b, ' ')
	x.b = append(x.b, v...)
	x.b = append(x.b, '\n')
}

// labelled is one sample of a family, with the labels that come beside the common ones.
type labelled struct {
	labels string
	v      float64
}

func (x *expo) gauge(name, help string, vs ...labelled) {
	x.head(name, help, "gauge")
	for _, l := range vs {
		x.sample(name, l.labels, l.v)
	}
}

// counter writes name_total and its name_created.
func (x *expo) counter(name, help string, vs ...labelled) {
	x.head(name+"_total", help, "counter")
	for _, l := range vs {
		x.sample(name+"_total", l.labels, l.v)
	}
	x.head(name+"_created", help, "gauge")
	for _, l := range vs {
		x.raw(name+"_created", l.labels, x.created)
	}
}

// buckets writes one histogram's samples; before and after are the labels around le, which
// stands in alphabetical order.
func (x *expo) buckets(name string, h *histogram, before, after string) {
	join := func(a, b string) string {
		if a == "" || b == "" {
			return a + b
		}
		return a + "," + b
	}
	sum := 0.0
	for i, b := range h.bounds {
		sum += h.counts[i]
		x.sample(name+"_bucket", join(join(before, `le="`+pyFloat(b)+`"`), after), sum)
	}
	sum += h.inf
	x.sample(name+"_bucket", join(join(before, `le="+Inf"`), after), sum)
	x.sample(name+"_count", join(before, after), sum)
	x.sample(name+"_sum", join(before, after), h.sum)
}

func (x *expo) histogram(name, help string, h *histogram, model string) {
	x.head(name, help, "histogram")
	x.buckets(name, h, `engine="0"`, model)
	x.head(name+"_created", help, "gauge")
	x.raw(name+"_created", x.labels, x.created)
}

func unixSeconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

// exposition is the whole of /metrics.
func (m *metrics) exposition(o Options, kvBlocks int) []byte {
	model := "model_name=" + strconv.Quote(m.name)
	common := `engine="0",` + model
	x := &expo{labels: common, created: pyFloat(unixSeconds(m.born))}
	with := func(l string, v float64) labelled { return labelled{common + "," + l, v} }
	plain := func(v float64) labelled { return labelled{common, v} }

	processMetrics(x, m.born)
	m.mu.Lock()
	defer m.mu.Unlock()
	x.counter("vllm:estimated_flops_per_gpu", "Estimated number of floating point operations per GPU (for Model Flops Utilization calculations).", plain(0))
	x.counter("vllm:estimated_read_bytes_per_gpu", "Estimated number of bytes read from memory per GPU (for Model Flops Utilization calculations).", plain(0))
	x.counter("vllm:estimated_write_bytes_per_gpu", "Estimated number of bytes written to memory per GPU (for Model Flops Utilization calculations).", plain(0))
	x.gauge("vllm:num_requests_running", "Number of requests in model execution batches.", plain(float64(m.running)))
	x.gauge("vllm:num_requests_waiting", "Number of requests waiting to be processed.", plain(float64(m.waiting)))
	x.gauge("vllm:num_requests_waiting_by_reason", "Number of waiting requests by reason. Reason labels: 'capacity' = waiting for scheduling capacity; 'deferred' = deferred by transient constraints (LoRA budget, KV transfer, blocked status). Sum of all reasons equals vllm:num_requests_waiting.",
		with(`reason="capacity"`, float64(m.waiting)), with(`reason="deferred"`, 0))
	awake, offloaded, discarded := m.sleepStates()
	x.gauge("vllm:engine_sleep_state", "Engine sleep state; awake = 0 means engine is sleeping; awake = 1 means engine is awake; weights_offloaded = 1 means sleep level 1; discard_all = 1 means sleep level 2.",
		with(`sleep_state="awake"`, awake), with(`sleep_state="weights_offloaded"`, offloaded), with(`sleep_state="discard_all"`, discarded))
	x.gauge("vllm:kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", plain(m.kvUsage))
	x.counter("vllm:prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens.", plain(m.queries))
	x.counter("vllm:prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.", plain(m.hits))
	x.counter("vllm:external_prefix_cache_queries", "External prefix cache queries from KV connector cross-instance cache sharing, in terms of number of queried tokens.", plain(0))
	x.counter("vllm:external_prefix_cache_hits", "External prefix cache hits from KV connector cross-instance cache sharing, in terms of number of cached tokens.", plain(0))
	x.counter("vllm:mm_cache_queries", "Multi-modal cache queries, in terms of number of queried items.", plain(0))
	x.counter("vllm:mm_cache_hits", "Multi-modal cache hits, in terms of number of cached items.", plain(0))
	x.counter("vllm:num_preemptions", "Cumulative number of preemption from the engine.", plain(float64(m.preemptions.v.Load())))
	x.counter("vllm:prompt_tokens", "Number of prefill tokens processed.", plain(m.prompt))
	x.counter("vllm:prompt_tokens_by_source", "Number of prompt tokens by source.",
		with(`source="local_compute"`, m.prompt-m.cachedP), with(`source="local_cache_hit"`, m.cachedP), with(`source="external_kv_transfer"`, 0))
	x.counter("vllm:prompt_tokens_cached", "Number of cached prompt tokens (local + external).", plain(m.cachedP))
	x.counter("vllm:prompt_tokens_cached_by_source", "Prefix-cache hit tokens by the cache tier that supplied them: device (local HBM), host (offloaded to DRAM), disk, p2p (transferred from another vLLM instance) or external_unspecified. Counted at admission; sums to vllm:prefix_cache_hits + vllm:external_prefix_cache_hits.",
		with(`source="device"`, m.hits), with(`source="host"`, 0), with(`source="p2p"`, 0), with(`source="disk"`, 0), with(`source="external_unspecified"`, 0))
	x.counter("vllm:generation_tokens", "Number of generation tokens processed.", plain(m.generated))
	var fin []labelled
	for _, r := range []string{"stop", "length", "abort", "error", "repetition"} {
		fin = append(fin, labelled{`engine="0",finished_reason="` + r + `",` + model, m.finished[r]})
	}
	x.counter("vllm:request_success", "Count of successfully processed requests.", fin...)
	x.counter("vllm:admission_rejections", "Number of admission attempts rejected by a queue limit, by reason.",
		labelled{model + `,reason="max_num_queued_reqs"`, float64(m.rejected.v.Load())}, labelled{model + `,reason="max_num_queued_tokens"`, 0})
	for _, f := range []struct {
		name, help string
		h          *histogram
	}{
		{"request_prompt_tokens", "Number of prefill tokens processed.", &m.hPrompt},
		{"request_generation_tokens", "Number of generation tokens processed.", &m.hGen},
		{"iteration_tokens_total", "Histogram of number of tokens per engine_step.", &m.hIter},
		{"request_max_num_generation_tokens", "Histogram of maximum number of requested generation tokens.", &m.hMaxGen},
		{"request_params_n", "Histogram of the n request parameter.", &m.hN},
		{"request_params_max_tokens", "Histogram of the max_tokens request parameter.", &m.hMaxTok},
		{"time_to_first_token_seconds", "Histogram of time to first token in seconds.", &m.hTTFT},
		{"inter_token_latency_seconds", "Histogram of inter-token latency in seconds.", &m.hITL},
		{"request_time_per_output_token_seconds", "Histogram of time_per_output_token_seconds per request.", &m.hTPOT},
		{"e2e_request_latency_seconds", "Histogram of e2e request latency in seconds.", &m.hE2E},
		{"request_queue_time_seconds", "Histogram of time spent in WAITING phase for request.", &m.hQueue},
		{"request_inference_time_seconds", "Histogram of time spent in RUNNING phase for request.", &m.hInfer},
		{"request_prefill_time_seconds", "Histogram of time spent in PREFILL phase for request.", &m.hPre},
		{"request_decode_time_seconds", "Histogram of time spent in DECODE phase for request.", &m.hDecode},
		{"request_num_preemptions", "Histogram of the number of times a request was preempted.", &m.hPreempt},
		{"request_prefill_kv_computed_tokens", "Histogram of new KV tokens computed during prefill (excluding cached tokens).", &m.hComputed},
	} {
		x.histogram("vllm:"+f.name, f.help, f.h, model)
	}
	x.gauge("vllm:cache_config_info", "Information of the LLMEngine CacheConfig", labelled{fmt.Sprintf(
		`_block_size_resolved="True",block_size="%d",cache_dtype="auto",effective_attention_block_size="%d",enable_prefix_caching="True",engine="0",gpu_memory_utilization="0.92",hash_block_size="None",is_attention_free="False",kv_cache_layout="None",kv_cache_max_concurrency="%s",kv_cache_memory_bytes="None",kv_cache_size_tokens="%d",kv_offloading_backend="native",num_cpu_blocks="None",num_gpu_blocks="%d",num_gpu_blocks_override="None",prefix_caching_hash_algo="sha256",sliding_window="None",user_specified_block_size="False"`,
		blockSize, blockSize, pyFloat(float64(kvBlocks*blockSize)/float64(o.MaxLen)), kvBlocks*blockSize, kvBlocks), 1})
	m.http.write(x)
	return x.b
}
