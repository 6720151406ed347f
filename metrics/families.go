package metrics

// The names on vLLM's metrics page. Sample names are matched whole: vllm:num_requests_waiting
// is a prefix of vllm:num_requests_waiting_by_reason.

// family is one metric that a Sample is read from.
type family struct {
	name string
	// kind is what of it is read: value for gauges and counters, full for a histogram, count
	// for a histogram of which only the number of observations is used.
	kind kind
	// old are names the same thing had in earlier versions. They are read only where name
	// itself is absent: for two versions vLLM exports both.
	old []string
	// always marks what every vLLM with statistics on exports: its absence is worth a word.
	always bool
}

type kind int

const (
	value kind = iota
	full
	count
)

const (
	nameStarted    = "process_start_time_seconds"
	nameCreated    = "vllm:generation_tokens_created"
	nameRunning    = "vllm:num_requests_running"
	nameWaiting    = "vllm:num_requests_waiting"
	nameReasons    = "vllm:num_requests_waiting_by_reason"
	nameKV         = "vllm:kv_cache_usage_perc"
	nameSleep      = "vllm:engine_sleep_state"
	nameConfig     = "vllm:cache_config_info"
	nameGeneration = "vllm:generation_tokens_total"
	namePrompt     = "vllm:prompt_tokens_total"
	nameSources    = "vllm:prompt_tokens_by_source_total"
	nameCached     = "vllm:prompt_tokens_cached_total"
	namePreempt    = "vllm:num_preemptions_total"
	nameQueries    = "vllm:prefix_cache_queries_total"
	nameHits       = "vllm:prefix_cache_hits_total"
	nameHitRate    = "vllm:gpu_prefix_cache_hit_rate"
	nameFinished   = "vllm:request_success_total"
	nameSteps      = "vllm:iteration_tokens_total" // a histogram in spite of its name
	nameTTFT       = "vllm:time_to_first_token_seconds"
	nameITL        = "vllm:inter_token_latency_seconds"
	nameE2E        = "vllm:e2e_request_latency_seconds"
	nameQueue      = "vllm:request_queue_time_seconds"
	nameDrafted    = "vllm:spec_decode_num_draft_tokens_total"
	nameAccepted   = "vllm:spec_decode_num_accepted_tokens_total"
	namePromptLen  = "vllm:request_prompt_tokens"
	nameAnswerLen  = "vllm:request_generation_tokens"
)

// families is everything a Sample is read from.
var families = []family{
	{name: nameStarted},
	{name: nameCreated},
	{name: nameRunning, always: true},
	{name: nameWaiting, always: true},
	{name: nameReasons},
	{name: nameKV, old: []string{"vllm:gpu_cache_usage_perc"}, always: true},
	{name: nameSleep},
	{name: nameConfig},
	{name: nameGeneration, always: true},
	{name: namePrompt, always: true},
	{name: nameSources},
	{name: nameCached},
	{name: namePreempt, always: true},
	{name: nameQueries, old: []string{"vllm:gpu_prefix_cache_queries_total"}},
	{name: nameHits, old: []string{"vllm:gpu_prefix_cache_hits_total"}},
	{name: nameHitRate},
	{name: nameFinished, always: true},
	{name: nameSteps, kind: count, always: true},
	{name: nameTTFT, kind: full, always: true},
	{name: nameITL, kind: full, old: []string{"vllm:time_per_output_token_seconds"}, always: true},
	{name: nameE2E, kind: full, always: true},
	{name: nameQueue, kind: full, old: []string{"vllm:time_in_queue_requests"}},
	{name: nameDrafted},
	{name: nameAccepted},
	{name: namePromptLen, kind: full},
	{name: nameAnswerLen, kind: full},
}

// unused are names that vLLM is known to export and that nothing here needs. What is in
// neither table is new, and is reported as Sample.Unknown.
var unused = []string{
	"vllm:admission_rejections_total",
	"vllm:avg_generation_throughput_toks_per_s",
	"vllm:avg_prompt_throughput_toks_per_s",
	"vllm:corrupted_requests_total",
	"vllm:cpu_cache_usage_perc",
	"vllm:cpu_prefix_cache_hit_rate",
	"vllm:estimated_flops_per_gpu_total",
	"vllm:estimated_read_bytes_per_gpu_total",
	"vllm:estimated_write_bytes_per_gpu_total",
	"vllm:external_prefix_cache_hits_total",
	"vllm:external_prefix_cache_queries_total",
	"vllm:kv_block_idle_before_evict_seconds",
	"vllm:kv_block_lifetime_seconds",
	"vllm:kv_block_reuse_gap_seconds",
	"vllm:lora_requests_info",
	"vllm:mm_cache_hits_total",
	"vllm:mm_cache_queries_total",
	"vllm:num_requests_kv_fetch_by_stage",
	"vllm:num_requests_swapped",
	"vllm:prompt_tokens_cached_by_source_total",
	"vllm:request_decode_time_seconds",
	"vllm:request_inference_time_seconds",
	"vllm:request_max_num_generation_tokens",
	"vllm:request_num_preemptions",
	"vllm:request_params_max_tokens",
	"vllm:request_params_n",
	"vllm:request_prefill_kv_computed_tokens",
	"vllm:request_prefill_time_seconds",
	"vllm:request_time_per_output_token_seconds",
	"vllm:sleep_mode_operation_duration_seconds",
	"vllm:sleep_mode_operations_in_flight",
	"vllm:spec_decode_num_accepted_tokens_per_pos_total",
	"vllm:spec_decode_num_drafts_total",
	"vllm:time_per_prefill_token_request_seconds",
	"vllm:tool_call_parser_invocations_total",
}

// unusedPrefixes are name spaces of optional connectors.
var unusedPrefixes = []string{"vllm:nixl_", "vllm:kv_offload_", "vllm:hf3fs_", "vllm:websocket_"}

// wanted maps each sample name that is kept to the family it belongs to, used holds those
// families, known every family name that is no news.
var wanted, used, known = index()

func index() (wanted map[string]string, used, known map[string]bool) {
	wanted, used, known = map[string]string{}, map[string]bool{}, map[string]bool{}
	for _, f := range families {
		for _, n := range append([]string{f.name}, f.old...) {
			used[n], known[n] = true, true
			switch f.kind {
			case value:
				wanted[n] = n
			case full:
				wanted[n+"_bucket"], wanted[n+"_sum"], wanted[n+"_count"] = n, n, n
			case count:
				wanted[n+"_count"] = n
			}
		}
	}
	for _, n := range unused {
		known[n] = true
	}
	return wanted, used, known
}
