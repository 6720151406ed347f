package sim

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// startUp plays the start: the phases in vLLM's order and with its lines, their lengths scaled
// to Options.Start. A fail-start fault ends it where the real one fails.
func (s *Server) startUp(ctx context.Context) error {
	l, o := s.log, s.o
	begun := time.Now()
	// share sleeps until a share of the whole start has passed; false: the start was called off.
	share := func(x float64) bool {
		wait(ctx, time.Until(begun.Add(time.Duration(x*float64(o.Start)))))
		return ctx.Err() == nil
	}
	what := ""
	if f := o.fault("fail-start"); f != nil {
		what = f.Arg
	}

	l.raw(l.out, "SIMULATED vLLM: no model is loaded, texts and timings are made up (vllmdeck sim)\n")
	if !share(0.30) { // imports: silence
		return nil
	}
	l.api("api_utils.py:347", "vLLM server version %s, serving model %s", Version, o.Model)
	l.api("api_utils.py:286", "non-default args: {'model_tag': '%s', 'enable_prompt_tokens_details': True, 'enable_request_id_headers': True, 'max_model_len': %d, 'served_model_name': ['%s'], 'max_num_seqs': %d, 'shutdown_timeout': %.0f}",
		o.Model, o.MaxLen, strings.Join(o.Names, "', '"), o.MaxSeqs, o.ShutdownTimeout.Seconds())
	switch what {
	case "port":
		return s.startFailed(portTaken)
	case "model":
		return s.startFailed(traceback(
			"huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name' or 'namespace/repo_name': '"+o.Model+"'. Use `repo_type` argument if needed.",
			`  File "vllm/engine/arg_utils.py", line 914, in __post_init__`, "    self.model = get_model_path(self.model, self.revision)"))
	case "maxlen":
		return s.startFailed(traceback(fmt.Sprintf("pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n  Value error, User-specified max_model_len (%d) is greater than the derived max_model_len (max_position_embeddings=%d.0 or model_max_length=None in model's config.json). To allow overriding this maximum, set the env var VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. [type=value_error, input_value=ArgsKwargs((), {'model': ...nderer_num_workers': 1}), input_type=ArgsKwargs]\n    For further information visit https://errors.pydantic.dev/2.14/v/value_error", o.MaxLen, o.MaxLen/2),
			`  File "vllm/engine/arg_utils.py", line 2240, in create_engine_config`, "    model_config = self.create_model_config()"))
	}
	l.api("model.py:733", "Resolved architecture: LlamaForCausalLM")
	l.api("model.py:2152", "Using max model len %d", o.MaxLen)
	if !share(0.40) {
		return nil
	}
	l.engine("core.py:133", "Initializing a V1 LLM engine (v%s) with config: model='%s', speculative_config=None, tokenizer='%s', dtype=torch.bfloat16, max_seq_len=%d, tensor_parallel_size=1, pipeline_parallel_size=1, data_parallel_size=1, quantization=None, enable_prefix_caching=True, enable_chunked_prefill=True",
		Version, o.Model, o.Model, o.MaxLen)
	l.engine("gpu_model_runner.py:5127", "Starting to load model %s...", o.Model)
	if what == "oom" {
		return s.engineFailed("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 896.00 MiB. GPU 0 has a total capacity of 23.52 GiB of which 512.19 MiB is free. Including non-PyTorch memory, this process has 23.01 GiB memory in use.",
			"gpu_model_runner.py", "load_model", "self.model = model_loader.load_model(")
	}
	const shards = 4
	for i := range shards + 1 {
		if !share(0.45 + 0.25*float64(i)/shards) {
			return nil
		}
		took := 0.25 * o.Start.Seconds() * float64(i) / shards
		rate := "?it/s"
		if i > 0 {
			rate = fmt.Sprintf("%.2fs/it", took/float64(i))
		}
		l.raw(l.err, fmt.Sprintf("\rLoading safetensors checkpoint shards: %3d%% Completed | %d/%d [00:%02d<00:00, %s]", 100*i/shards, i, shards, int(took), rate))
	}
	l.raw(l.err, "\n\n")
	l.engine("default_loader.py:501", "Loading weights took %.2f seconds", 0.25*o.Start.Seconds())
	l.engine("gpu_model_runner.py:5148", "Model loading took 1.24 GiB memory and %.6f seconds", 0.26*o.Start.Seconds())
	if !share(0.80) {
		return nil
	}
	if what == "kv" {
		return s.engineFailed(fmt.Sprintf("ValueError: To serve at least one request with the model's max seq len (%d), (2.00 GiB KV cache is needed, which is larger than the available KV cache memory (0.61 GiB). Based on the available memory, the estimated maximum model length is %d. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.", o.MaxLen, o.MaxLen*3/10),
			"kv_cache_utils.py", "get_kv_cache_configs", "_check_enough_kv_cache_memory(")
	}
	l.engine("gpu_worker.py:512", "Available KV cache memory: %.2f GiB", float64(o.KVTokens)*128e3/(1<<30))
	l.engine("kv_cache_utils.py:2327", "GPU KV cache size: %s tokens, Maximum concurrency for %s tokens per request: %.2fx",
		thousands(o.KVTokens), thousands(o.MaxLen), float64(o.KVTokens)/float64(o.MaxLen))
	if !share(0.95) {
		return nil
	}
	l.engine("core.py:402", "init engine (profile, create kv cache, warmup model) took %.2f s", 0.25*o.Start.Seconds())
	l.api("entry.py:136", "Supported tasks: ['generate']")
	l.api("entry.py:140", "Starting vLLM server on %s", o.Addr)
	l.api("launcher.py:186", "Available routes are:")
	for _, r := range listedRoutes {
		path, method, _ := strings.Cut(r, " ")
		l.api("launcher.py:195", "Route: %s, Methods: %s", path, method)
	}
	if !share(1) {
		return nil
	}
	l.uvicorn(fmt.Sprintf("Started server process [%d]", o.PID))
	l.uvicorn("Waiting for application startup.")
	l.uvicorn("Application startup complete.")
	return nil
}

// listedRoutes are those of a real start that this server answers.
var listedRoutes = []string{
	"/load GET", "/version GET", "/kv_event_sources GET", "/health GET", "/metrics GET", "/tokenize POST", "/detokenize POST",
	"/v1/models GET", "/ping GET", "/ping POST", "/v1/chat/completions POST", "/v1/responses POST", "/v1/responses/{response_id} GET",
	"/v1/responses/{response_id}/cancel POST", "/v1/completions POST", "/v1/messages POST", "/v1/messages/count_tokens POST",
	"/is_scaling_elastic_ep POST", "/v1/chat/completions/render POST", "/v1/completions/render POST", "/inference/v1/generate POST",
	"/inference/v1/abort_requests POST",
}

// portTaken is how a start ends whose port is not free.
var portTaken = traceback("OSError: [Errno 98] Address already in use",
	`  File "vllm/entrypoints/launchers/launcher.py", line 348, in create_server_socket`, "    sock.bind(addr)")

func traceback(last string, frames ...string) []string {
	t := []string{"Traceback (most recent call last):", `  File "vllm/entrypoints/launchers/api_server/entry.py", line 232, in main`, "    uvloop.run(run_server(args))"}
	return append(append(t, frames...), last)
}

func (s *Server) startFailed(trace []string) error {
	s.log.trace(trace...)
	return &ExitError{1, trace[len(trace)-1]}
}

// engineFailed is a start that fails in the engine: its root cause stands in the middle of the
// log, the last line only says that there is one.
func (s *Server) engineFailed(cause, file, fn, code string) error {
	for _, t := range []string{
		"EngineCore failed to start.",
		"Traceback (most recent call last):",
		`  File "vllm/v1/engine/core.py", line 1371, in run_engine_core`,
		"    engine_core = EngineCoreProc(*args, engine_index=dp_rank, **kwargs)",
		`  File "vllm/` + file + `", line 1203, in ` + fn,
		"    " + code,
		cause,
	} {
		s.log.line(engineProc, "ERROR", "core.py:1383", "%s", t)
	}
	return s.startFailed(traceback("RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}",
		`  File "vllm/v1/engine/utils.py", line 1431, in wait_for_engine_startup`, "    raise RuntimeError("))
}

// thousands writes 1048576 as 1,048,576.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
