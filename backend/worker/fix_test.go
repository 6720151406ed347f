package worker

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
	"github.com/vllmdeck/vllmdeck/config"
)

// What each failure of a start is mended with, by its words.
func TestCures(t *testing.T) {
	for _, c := range []struct {
		name, line string
		known      known
		want       change
	}{
		{
			"a misspelt flag", "api_server.py: error: unrecognized arguments: --max-modle-len=2048",
			known{},
			change{Set: []string{"--max-model-len=2048"}, Unset: []string{"--max-modle-len"}},
		},
		{
			"two unknown flags, one with a value apart", "vllm serve: error: unrecognized arguments: --gpu-memory-utilisation 0.8 --qqqqqqqqqqqq",
			known{},
			change{Set: []string{"--gpu-memory-utilization=0.8"}, Unset: []string{"--gpu-memory-utilisation", "--qqqqqqqqqqqq"}},
		},
		{
			"a flag that an old vLLM has not", "api_server.py: error: unrecognized arguments: --enable-request-id-headers --shutdown-timeout 30",
			known{args: []string{"vllm", "serve", "m", "--enable-request-id-headers"}},
			change{Unset: []string{"--enable-request-id-headers", "--shutdown-timeout"}},
		},
		{
			"a value that there is not", "api_server.py: error: argument --dtype: invalid choice: 'flaot32' (choose from 'auto', 'bfloat16', 'float', 'float16', 'float32', 'half')",
			known{},
			change{Set: []string{"--dtype=float32"}},
		},
		{"a value that is no number", "api_server.py: error: argument --max-model-len: invalid int value: 'lots'", known{}, change{}},
		{
			"more context than the model has", "  Value error, User-specified max_model_len (999999) is greater than the derived max_model_len (max_position_embeddings=2048.0 or model_max_length=None in model's config.json).",
			known{},
			change{Set: []string{"--max-model-len=2048"}},
		},
		{
			"a tool parser that is misspelt", "KeyError: 'invalid tool call parser: hermess (chose from { deepseek_v3,hermes,mistral })'",
			known{},
			change{Set: []string{"--tool-call-parser=hermes"}},
		},
		{
			"no such tool parser", "KeyError: 'invalid tool call parser: zzzzzzzz (chose from { hermes,mistral })'",
			known{},
			change{Unset: []string{"--tool-call-parser", "--enable-auto-tool-choice"}},
		},
		{
			"tools without a parser", "TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser",
			known{model: "Qwen/Qwen3-8B"},
			change{Set: []string{"--tool-call-parser=hermes"}},
		},
		{
			"tools without a parser, for a model nobody knows", "TypeError: Error: --enable-auto-tool-choice requires --tool-call-parser",
			known{model: "/models/x"},
			change{Unset: []string{"--enable-auto-tool-choice"}},
		},
		{"sleep on a CPU", "  Value error, Sleep mode is not supported on current platform. [type=value_error]", known{}, change{Unset: []string{"--enable-sleep-mode"}}},
		{"code of the model", "RuntimeError: Failed to load the model config. … setting `trust_remote_code=True` in LLM or using the `--trust-remote-code` flag", known{}, change{Set: []string{"--trust-remote-code"}}},
		{"an old GPU", "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0.", known{}, change{Set: []string{"--dtype=half"}}},
		{"heads that do not divide", "Value error, Total number of attention heads (28) must be divisible by tensor parallel size (8).", known{}, change{Set: []string{"--tensor-parallel-size=7"}}},
		{"fewer GPUs than asked for", "Value error, World size (4) is larger than the number of available GPUs (3) in this node.", known{}, change{Set: []string{"--tensor-parallel-size=2"}}},
		{"fewer GPUs, split otherwise", "Value error, World size (4) is larger than the number of available GPUs (3) in this node.", known{args: []string{"-pp", "2"}}, change{}},
		{
			"a context that does not fit", "ValueError: To serve at least one request with the model's max seq len (131072), (16.00 GiB KV cache is needed, which is larger than the available KV cache memory (5.51 GiB). Based on the available memory, the estimated maximum model length is 45120.",
			known{},
			change{Set: []string{"--max-model-len=45120"}},
		},
		{
			"no context fits", "ValueError: To serve at least one request with the model's max seq len (131072), (16.00 GiB KV cache is needed, which is larger than the available KV cache memory (0.01 GiB). Based on the available memory, the estimated maximum model length is 0.",
			known{},
			change{Set: []string{"--kv-cache-dtype=fp8"}},
		},
		{"a context that does not fit, without figures", "ValueError: To serve at least one request with the model's max seq len (131072), more is needed", known{}, change{Set: []string{"--max-model-len=auto"}}},
		{
			"a neighbour on the GPU", "ValueError: Free memory on device cuda:0 (17.1/23.5 GiB) on startup is less than desired GPU memory utilization (0.92, 21.6 GiB).",
			known{},
			change{Set: []string{"--gpu-memory-utilization=0.71"}},
		},
		{"a full GPU", "ValueError: Free memory on device cuda:0 (3.1/23.5 GiB) on startup is less than desired GPU memory utilization (0.92, 21.6 GiB).", known{}, change{}},
		{
			"a host that is short of memory", "ValueError: Available memory on node 0 (13.87/15.84 GiB) on startup is less than desired CPU memory utilization (0.92, 14.57 GiB).",
			known{},
			change{Env: []string{"VLLM_CPU_KVCACHE_SPACE=1"}},
		},
		{
			"the same with a fixed KV cache", "ValueError: Available memory on node 0 (13.87/15.84 GiB) on startup is less than desired CPU memory utilization (0.92, 14.57 GiB).",
			known{env: []string{"VLLM_CPU_KVCACHE_SPACE=4"}},
			change{Set: []string{"--gpu-memory-utilization=0.86"}},
		},
		{"nothing left for the KV cache", "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", known{args: []string{"--gpu-memory-utilization=0.85"}}, change{Set: []string{"--gpu-memory-utilization=0.89"}}},
		{"nothing left, at the limit", "ValueError: No available memory for the cache blocks.", known{args: []string{"--gpu_memory_utilization", "0.95", "--max-num-seqs", "64"}}, change{Set: []string{"--max-num-seqs=32"}}},
		{"out of memory warming up", "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests.", known{}, change{Set: []string{"--max-num-seqs=512"}}},
		{"out of memory while it serves", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB.", known{}, change{Set: []string{"--gpu-memory-utilization=0.87"}}},
		{"weights that do not fit", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB.", known{phase: api.PhaseWeights}, change{}},
		{"out of host memory", "MemoryError", known{env: []string{"VLLM_CPU_KVCACHE_SPACE=8"}}, change{Env: []string{"VLLM_CPU_KVCACHE_SPACE=4"}}},
		{"out of host memory with nothing to give", "MemoryError", known{env: []string{"VLLM_CPU_KVCACHE_SPACE=1"}}, change{}},
		{"GPUs that cannot talk", "RuntimeError: NCCL error: unhandled system error (run with NCCL_DEBUG=INFO for details)", known{}, change{Env: []string{"NCCL_P2P_DISABLE=1"}}},
		{"a slow disk", "TimeoutError: Timed out waiting for engine core processes to start. This is often caused by slow weight loading for large models. Waited 600s (configured by VLLM_ENGINE_READY_TIMEOUT_S).", known{}, change{Env: []string{"VLLM_ENGINE_READY_TIMEOUT_S=1200"}}},
		{"nothing that a flag mends", "OSError: You are trying to access a gated repo.", known{}, change{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := explain([]api.Line{{Text: c.line}}, launch.Exit{Code: 1, Known: true}, false)
			var got change
			if v.cure != nil {
				got = v.cure(c.known)
			}
			if !slices.Equal(got.Set, c.want.Set) || !slices.Equal(got.Unset, c.want.Unset) || !slices.Equal(got.Env, c.want.Env) {
				t.Errorf("%s\n got %+v\nwant %+v", v.cause, got, c.want)
			}
			if err := got.check(); err != nil {
				t.Errorf("check = %v", err)
			}
		})
	}
}

func TestChangedArguments(t *testing.T) {
	args := []string{"--max_model_len=10", "-tp", "2", "--seed", "-1", "--enforce-eager", "--no-enable-prefix-caching", "--lora-modules", "a=b", "c=d", "--dtype", "half", "-O3"}
	for _, c := range []struct{ set, unset, want string }{
		{"--max-model-len=5", "", "-tp 2 --seed -1 --enforce-eager --no-enable-prefix-caching --lora-modules a=b c=d --dtype half -O3 --max-model-len=5"},
		{"--tensor-parallel-size=1", "--seed", "--max_model_len=10 --enforce-eager --no-enable-prefix-caching --lora-modules a=b c=d --dtype half -O3 --tensor-parallel-size=1"},
		{"--enable-prefix-caching", "--lora-modules", "--max_model_len=10 -tp 2 --seed -1 --enforce-eager --dtype half -O3 --enable-prefix-caching"},
		{"", "--enforce-eager", "--max_model_len=10 -tp 2 --seed -1 --no-enable-prefix-caching --lora-modules a=b c=d --dtype half -O3"},
	} {
		got := strings.Join(Changed(args, strings.Fields(c.set), strings.Fields(c.unset)), " ")
		if got != c.want {
			t.Errorf("set %q, unset %q:\n got %s\nwant %s", c.set, c.unset, got, c.want)
		}
	}
}

func TestChangesPileUp(t *testing.T) {
	a := change{Set: []string{"--max-model-len=10", "--dtype=half"}, Unset: []string{"--enforce-eager"}, Env: []string{"A=1", "B=2"}}
	got := a.and(change{Set: []string{"--max_model_len=5", "--enforce-eager"}, Unset: []string{"--dtype"}, Env: []string{"A=3"}})
	if strings.Join(got.Set, " ") != "--max_model_len=5 --enforce-eager" || strings.Join(got.Unset, " ") != "--dtype" || strings.Join(got.Env, " ") != "B=2 A=3" {
		t.Errorf("got %+v", got)
	}
	if len(a.Set) != 2 || a.Env[0] != "A=1" {
		t.Errorf("the first was changed: %+v", a)
	}
}

func TestWhatCannotBeChangedByOrder(t *testing.T) {
	for _, c := range []change{
		{Set: []string{"--port=80"}},
		{Set: []string{"--host", "0.0.0.0"}},
		{Set: []string{"--api-key=x"}},
		{Set: []string{"--max-model-len 5"}},
		{Set: []string{"max-model-len=5"}},
		{Set: []string{"--"}},
		{Set: []string{"--x\n--y"}},
		{Set: []string{"--seed=" + strings.Repeat("1", 5000)}},
		{Set: slices.Repeat([]string{"--seed=1"}, 40)},
		{Unset: []string{"--port"}},
		{Unset: []string{"--seed=1"}},
		{Env: []string{"A"}},
		{Env: []string{"A B=1"}},
		{Env: []string{"HF_TOKEN=a-token-in-clear"}},
		{Env: []string{"A=hf_abcdefghijklmnopqrstuv"}},
	} {
		if err := c.check(); !errors.Is(err, api.ErrRefused) {
			t.Errorf("check(%+v) = %v, want it refused", c, err)
		}
	}
	for _, env := range []string{"HF_TOKEN=env:HF_TOKEN", "HF_TOKEN=file:/run/token", "HF_HUB_DISABLE_IMPLICIT_TOKEN=1", "VLLM_LOGGING_LEVEL=DEBUG"} {
		if err := (change{Env: []string{env}}).check(); err != nil {
			t.Errorf("check(%s) = %v, want it taken", env, err)
		}
	}
}

// tooLong is a vLLM that refuses more context than 2048.
func tooLong(p *proc) {
	if n := flagValue(p.spec.Argv, "max-model-len"); n != "2048" {
		failsWith("  Value error, User-specified max_model_len ("+n+") is greater than the derived max_model_len (max_position_embeddings=2048) [type=value_error]\n", 1)(p)
		return
	}
	p.serve()
}

func given(p *Pool, name string) func() bool {
	return func() bool {
		s, _ := p.Status(name)
		return s.State == api.Failed && s.NextStart.IsZero()
	}
}

func TestAFixIsAnOrderThatMends(t *testing.T) {
	state := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.play = tooLong
		c := conf(vllmWorker("w0", "--max-model-len=8192", "--seed", "1"))
		p, stop := h.pool(state, c)
		until(t, time.Minute, "given up", given(p, "w0"))
		s := mustStatus(t, p, "w0")
		if s.Fix == nil || !slices.Equal(s.Fix.Set, []string{"--max-model-len=2048"}) || !slices.Contains(s.Fix.Command, "--max-model-len=2048") || slices.Contains(s.Fix.Command, "--max-model-len=8192") || s.Fix.Why != s.Error {
			t.Fatalf("fix = %+v", s.Fix)
		}
		must(t, p.Fix("w0", nil, nil, nil))
		until(t, time.Minute, "ready", is(p, "w0", api.Ready))
		s = mustStatus(t, p, "w0")
		if !slices.Equal(s.Fixed, []string{"--max-model-len=2048"}) || s.Fix != nil || !slices.Contains(s.Command, "--max-model-len=2048") || slices.Contains(s.Command, "--max-model-len=8192") {
			t.Errorf("fixed %q, fix %+v, command %q", s.Fixed, s.Fix, s.Command)
		}
		if !h.noticed("to keep it, in the config of w0 under args: write --max-model-len=2048") {
			t.Errorf("nobody was told how to keep it: %+v", h.notices)
		}
		// A reload of the same config leaves it alone, and so does another engine.
		must(t, p.Apply(c))
		stop()
		p, stop = h.pool(state, c)
		until(t, time.Minute, "adopted", is(p, "w0", api.Ready))
		if s = mustStatus(t, p, "w0"); h.launches() != 2 || len(s.Fixed) != 1 || h.noticed("older command") {
			t.Errorf("%d launches, fixed %q, %+v; want the running server taken over with its fix", h.launches(), s.Fixed, h.notices)
		}
		// Written into the config it is the config's, and nothing restarts.
		must(t, p.Apply(conf(vllmWorker("w0", "--seed", "1", "--max-model-len=2048"))))
		time.Sleep(time.Minute)
		if s = mustStatus(t, p, "w0"); h.launches() != 2 || len(s.Fixed) != 0 || s.State != api.Ready {
			t.Errorf("%s after %d launches, fixed %q; want it to run on", s.State, h.launches(), s.Fixed)
		}
		if _, err := os.Stat(fixedPath(h.last().spec.Folder)); err == nil {
			t.Error("the fix still lies in the worker's folder")
		}
		wantRefused(t, p.Unfix("w0"))
		stop()
	})
}

func TestUnfixAndFixByHand(t *testing.T) {
	w := vllmWorker("w0", "--max-model-len=8192")
	run(t, conf(w, attachWorker("a0", "http://127.0.0.1:1")), nil, func(t *testing.T, h *host, p *Pool) {
		t.Helper()
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		wantRefused(t, p.Fix("w0", nil, nil, nil))
		wantRefused(t, p.Fix("w0", []string{"--max-model-len=8192"}, nil, nil))
		wantRefused(t, p.Fix("w0", []string{"--port=1"}, nil, nil))
		wantRefused(t, p.Fix("a0", []string{"--seed=1"}, nil, nil))
		if err := p.Fix("nope", nil, nil, nil); !errors.Is(err, api.ErrUnknown) {
			t.Errorf("fix of nobody = %v", err)
		}
		must(t, p.Fix("w0", []string{"--seed=7"}, []string{"--max-model-len", "--enable-request-id-headers", "--shutdown-timeout"}, []string{"HF_TOKEN=hidden", "A=b"}))
		until(t, time.Minute, "ready", func() bool { return is(p, "w0", api.Ready)() && h.launches() == 2 })
		spec := h.last().spec
		for _, flag := range []string{"max-model-len", "enable-request-id-headers", "shutdown-timeout"} {
			if hasFlag(spec.Argv, flag) {
				t.Errorf("--%s is still in %q", flag, spec.Argv)
			}
		}
		if flagValue(spec.Argv, "seed") != "7" || flagValue(spec.Argv, "port") == "" || !slices.Contains(spec.Env, "A=b") || !slices.Contains(spec.Env, "HF_TOKEN=hidden") {
			t.Errorf("command %q, env %q", spec.Argv, spec.Env)
		}
		must(t, p.Fix("w0", []string{"--max-model-len=16"}, nil, nil))
		until(t, time.Minute, "ready", func() bool { return is(p, "w0", api.Ready)() && h.launches() == 3 })
		if got := h.last().spec.Argv; flagValue(got, "seed") != "7" || flagValue(got, "max-model-len") != "16" {
			t.Errorf("after a second fix: %q", got)
		}
		must(t, p.Unfix("w0"))
		until(t, time.Minute, "ready", func() bool { return is(p, "w0", api.Ready)() && h.launches() == 4 })
		if got := h.last().spec.Argv; hasFlag(got, "seed") || flagValue(got, "max-model-len") != "8192" || !hasFlag(got, "shutdown-timeout") {
			t.Errorf("after unfix: %q", got)
		}
		if s := mustStatus(t, p, "w0"); len(s.Fixed) != 0 || s.Crashes != 0 {
			t.Errorf("fixed %q, %d crashes", s.Fixed, s.Crashes)
		}
		// Another config ends a fix.
		must(t, p.Fix("w0", []string{"--seed=9"}, nil, nil))
		until(t, time.Minute, "ready", func() bool { return is(p, "w0", api.Ready)() && h.launches() == 5 })
		must(t, p.Apply(conf(vllmWorker("w0", "--max-model-len=4096"))))
		until(t, time.Minute, "ready", func() bool { return is(p, "w0", api.Ready)() && h.launches() == 6 })
		if got := h.last().spec.Argv; hasFlag(got, "seed") || flagValue(got, "max-model-len") != "4096" || !h.noticed("no longer counts") {
			t.Errorf("after a reload: %q", got)
		}
	})
}

func TestSecretsOfAFixAreNotShown(t *testing.T) {
	o := Options{Redact: launch.Redact}
	got := strings.Join(change{Set: []string{"--seed=1"}, Env: []string{"HF_TOKEN=hidden", "A=b"}}.lines(o.Redact), " ")
	if strings.Contains(got, "hidden") || got != "--seed=1 env HF_TOKEN=*** env A=b" {
		t.Errorf("lines = %q", got)
	}
}

func TestAFixThatWouldChangeNothingIsNotOffered(t *testing.T) {
	line := "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0.\n"
	run(t, conf(vllmWorker("w0", "--dtype=half")), func(h *host) { h.play = failsWith(line, 1) }, func(t *testing.T, _ *host, p *Pool) {
		t.Helper()
		until(t, time.Minute, "given up", given(p, "w0"))
		if s := mustStatus(t, p, "w0"); s.Fix != nil {
			t.Errorf("fix = %+v, want none", s.Fix)
		}
	})
}

func FuzzChanged(f *testing.F) {
	f.Add("--a=1 --b 2 -tp 4 --no-c", "--a=2", "--b")
	f.Fuzz(func(t *testing.T, args, set, unset string) {
		out := Changed(strings.Fields(args), strings.Fields(set), strings.Fields(unset))
		sets := strings.Fields(set)
		if !slices.Equal(out[len(out)-len(sets):], sets) {
			t.Fatalf("what was set is not at the end of %q", out)
		}
		for _, a := range out[:len(out)-len(sets)] {
			if !isFlag(a) {
				continue
			}
			for _, u := range append(sets, strings.Fields(unset)...) {
				if config.Flag(a) == config.Flag(u) {
					t.Fatalf("%q is still in %q", u, out)
				}
			}
		}
	})
}

// A fix must not keep the next engine from starting.
func TestAFixThatCannotBeAppliedAnyMoreIsDropped(t *testing.T) {
	state := t.TempDir()
	t.Setenv("SOME_TOKEN", "x")
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		c := conf(vllmWorker("w0"))
		p, stop := h.pool(state, c)
		until(t, time.Second, "ready", is(p, "w0", api.Ready))
		must(t, p.Fix("w0", nil, nil, []string{"HF_TOKEN=env:SOME_TOKEN"}))
		until(t, time.Minute, "ready", func() bool { return is(p, "w0", api.Ready)() && h.launches() == 2 })
		stop()
		must(t, os.Unsetenv("SOME_TOKEN"))
		p, stop = h.pool(state, c)
		defer stop()
		until(t, time.Minute, "ready", is(p, "w0", api.Ready))
		if s := mustStatus(t, p, "w0"); len(s.Fixed) != 0 || !h.noticed("a variable is gone") {
			t.Errorf("fixed %q, notices %+v", s.Fixed, h.notices)
		}
	})
}
