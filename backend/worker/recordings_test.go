package worker

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// The logs in testdata were written by vLLM 0.32.0 on CPU; route lists are left out.

func recording(t *testing.T, name string) []api.Line {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "logs", name))
	if err != nil {
		t.Fatal(err)
	}
	var log Log
	var s splitter
	take := func(text string) { log.add(api.Line{Level: parse(text).level, Text: text}) }
	s.feed(b, take)
	if rest := s.take(); rest != "" {
		take(rest)
	}
	return log.After(0, keptLines)
}

func TestPhasesOfRecordedStarts(t *testing.T) {
	whole := []string{api.PhaseImports, api.PhaseEngine, api.PhaseWeights, api.PhaseKV, api.PhaseGraphs, api.PhaseServer}
	for name, want := range map[string][]string{
		"admission.txt":          whole,
		"die_EngineCor.txt":      whole,
		"die_Worker.txt":         whole,
		"fail_kv.txt":            whole, // a start that went well after all
		"hang.txt":               whole,
		"normal_before_stop.txt": whole,
		"sigkill_api.txt":        whole,
		"sigkill_core.txt":       whole,
		"sigkill_worker.txt":     whole,
		"sigterm_default.txt":    whole,
		"smollm2_start.txt":      whole,
		"devmode.txt":            whole[:2],
		"fail_badflag.txt":       whole[:1],
		"fail_badmodel.txt":      whole[:2],
		"fail_hubmodel.txt":      whole[:2],
		"fail_maxlen.txt":        whole[:2],
		"fail_memory.txt":        whole[:2],
		"fail_port.txt":          whole[:2],
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			tr := newTracker(api.PhaseImports, now)
			up := false // some recordings have lost their middle
			for _, l := range recording(t, name) {
				up = up || strings.Contains(l.Text, "Application startup complete")
				now = now.Add(time.Second)
				tr.line(l.Text, now)
			}
			var got []string
			for _, p := range tr.list(now) {
				got = append(got, p.Name)
			}
			if !slices.Equal(got, want) {
				t.Errorf("phases = %q, want %q", got, want)
			}
			if tr.version != "0.32.0" && name != "fail_badflag.txt" {
				t.Errorf("version = %q, want 0.32.0", tr.version)
			}
			if len(want) == len(whole) {
				if tr.up != up {
					t.Errorf("up = %v, want %v", tr.up, up)
				}
				if tr.kvTokens == 0 || tr.maxLen == 0 || tr.maxSeqs == 0 {
					t.Errorf("kv = %d tokens, max len = %d, max seqs = %d, want all known", tr.kvTokens, tr.maxLen, tr.maxSeqs)
				}
			}
		})
	}
}

func TestPhasesOfAGPUStart(t *testing.T) {
	// Composed from the texts of vLLM 0.32's source: no recording of a GPU is at hand.
	now := time.Now()
	tr := newTracker(api.PhaseImports, now)
	for _, step := range []struct {
		line, phase string
		progress    float64 // -1: not known
	}{
		{"INFO 11-23 15:00:04 [importing.py:17] Triton is available", api.PhaseImports, -1},
		{"(APIServer pid=1) INFO 11-23 15:00:04 [api_utils.py:347] vLLM server version 0.32.0, serving model m", api.PhaseEngine, -1},
		{"(EngineCore pid=2) INFO 11-23 15:00:04 [gpu_model_runner.py:1] Loading model from scratch...", api.PhaseWeights, -1},
		{"(EngineCore pid=2) Loading safetensors checkpoint shards (eager):  25% Completed | 1/4 [00:01<00:03,  1.1s/it]", api.PhaseWeights, .25},
		{"Multi-thread loading shards:  75% Completed | 3/4 [00:01<00:03,  1.1s/it]", api.PhaseWeights, .75},
		{"(EngineCore pid=2) INFO 11-23 15:00:04 [x.py:1] Model loading took 14.99 GiB memory and 5.1 seconds", api.PhaseKV, -1},
		{"(EngineCore pid=2) INFO 11-23 15:00:04 [x.py:1] Using cache directory: /root/.cache/vllm/torch_compile_cache/x for vLLM's torch.compile", api.PhaseGraphs, -1},
		{"(EngineCore pid=2) INFO 11-23 15:00:04 [x.py:1] torch.compile took 41.20 s in total", api.PhaseGraphs, -1},
		{"(EngineCore pid=2) INFO 11-23 15:00:04 [x.py:1] GPU KV cache size: 43,984 tokens", api.PhaseGraphs, -1},
		{"Capturing CUDA graphs (PIECEWISE):  49%|████▉     | 33/67 [00:10<00:09,  3.50it/s]", api.PhaseGraphs, .49},
		{"(EngineCore pid=2) INFO 11-23 15:00:04 [x.py:1] init engine (profile, create kv cache, warmup model) took 60.12 s (compilation: 41.20 s)", api.PhaseServer, -1},
	} {
		tr.line(step.line, now)
		got := -1.0
		if tr.progress != nil {
			got = *tr.progress
		}
		if tr.phase() != step.phase || got != step.progress {
			t.Errorf("after %q: phase %q, progress %v; want %q, %v", step.line, tr.phase(), got, step.phase, step.progress)
		}
	}
	if tr.kvTokens != 43984 {
		t.Errorf("kv tokens = %d, want 43984", tr.kvTokens)
	}
}

func TestDiagnosesOfRecordedFailures(t *testing.T) {
	for _, c := range []struct {
		name          string
		exit          launch.Exit
		ready         bool
		class         class
		cause, remedy string
	}{
		{
			"fail_badflag.txt",
			launch.Exit{Code: 2, Known: true},
			false, classConfig,
			"vLLM does not know the flag --no-such-flag", "under args:",
		},
		{
			"fail_badmodel.txt",
			launch.Exit{Code: 1, Known: true},
			false, classConfig,
			"model folder /models/nothere does not exist", "path:",
		},
		{
			"fail_hubmodel.txt",
			launch.Exit{Code: 1, Known: true},
			false, classConfig,
			"not in the local cache", "hf download",
		},
		{
			"fail_maxlen.txt",
			launch.Exit{Code: 1, Known: true},
			false, classConfig,
			"max-model-len 999999999 is more than the model allows (2048)", "--max-model-len=2048",
		},
		{
			"fail_memory.txt",
			launch.Exit{Code: 1, Known: true},
			false, classResource,
			"memory node 0 has 13.87 of 15.84 GiB free, 14.57 GiB are wanted (utilization 0.92)", "VLLM_CPU_KVCACHE_SPACE",
		},
		{
			"fail_port.txt",
			launch.Exit{Code: 1, Known: true},
			false, classResource,
			"a port is taken", "port:",
		},
		{
			"devmode.txt",
			launch.Exit{Code: 1, Known: true},
			false, classConfig,
			"this platform has no sleep mode", "remove --enable-sleep-mode",
		},
		{
			"die_EngineCor.txt",
			launch.Exit{Code: 0, Known: true},
			true, classCrash,
			"the engine process died", "dmesg",
		},
		{
			"sigkill_core.txt",
			launch.Exit{Code: 0, Known: true},
			true, classCrash,
			"the engine process died", "dmesg",
		},
		{
			"sigkill_worker.txt",
			launch.Exit{Code: 0, Known: true},
			true, classCrash,
			"the engine process died", "dmesg",
		},
		{
			"sigkill_api.txt",
			launch.Exit{Code: -1, Signal: "killed", Known: true},
			true, classCrash,
			"killed by SIGKILL", "out-of-memory",
		},
		{
			"fail_kv.txt",
			launch.Exit{Code: 0, Known: true},
			true, classCrash,
			"ended by itself, unasked, with status 0", "engine died",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := explain(recording(t, c.name), c.exit, c.ready)
			if v.class != c.class || !strings.Contains(v.cause, c.cause) || !strings.Contains(v.remedy, c.remedy) {
				t.Errorf("explain = %s: %q; %q\nwant %s: %q; %q", v.class, v.cause, v.remedy, c.class, c.cause, c.remedy)
			}
		})
	}
}

func TestDiagnosesOfGPUFailures(t *testing.T) {
	for _, c := range []struct{ line, cause string }{
		{
			"(EngineCore pid=2) ERROR 11-23 15:00:04 [core.py:1510] ValueError: Free memory on device cuda:0 (3.1/23.5 GiB) on startup is less than desired GPU memory utilization (0.92, 21.6 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
			"GPU cuda:0 has 3.1 of 23.5 GiB free, 21.6 GiB are wanted (utilization 0.92)",
		},
		{
			"ValueError: To serve at least one request with the model's max seq len (131072), (16.00 GiB KV cache is needed, which is larger than the available KV cache memory (5.51 GiB). Based on the available memory, the estimated maximum model length is 45120.",
			"a context of 131072 tokens needs 16.00 GiB of KV cache, 5.51 GiB are free",
		},
		{
			"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has a total capacity of 23.5 GiB",
			"out of GPU memory: 224.00 MiB more were wanted",
		},
		{
			"(EngineCore pid=2) ERROR 11-23 15:00:04 [multiproc_executor.py:1] Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting down executor.",
			"the worker process VllmWorker-1 was killed by SIGKILL",
		},
		{
			"  Value error, World size (4) is larger than the number of available GPUs (2) in this node. [type=value_error, input_value=x]",
			"4 GPUs are asked for, 2 are visible",
		},
		{"OSError: You are trying to access a gated repo.", "the model is gated"},
		{"RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': -9}", "killed by SIGKILL while it started"},
	} {
		// A healthy start prints the first as INFO: that is no diagnosis.
		lines := []api.Line{
			{Text: "(EngineCore pid=2) INFO 11-23 15:00:04 [x.py:1] Free memory on device (20.1/23.5 GiB) on startup. Desired GPU memory utilization is (0.92, 21.6 GiB)."},
			{Text: "(APIServer pid=1) WARNING 11-23 15:00:04 [system_utils.py:255] This can cause fd limit errors like `OSError: [Errno 24] Too many open files`."},
			{Text: c.line},
		}
		if v := explain(lines, launch.Exit{Code: 1, Known: true}, false); !strings.Contains(v.cause, c.cause) {
			t.Errorf("explain(%q) = %q, want %q", c.line, v.cause, c.cause)
		}
	}
}

func TestUnknownFailureShowsFirstErrorAndLastTraceback(t *testing.T) {
	lines := []api.Line{
		{Text: "Traceback (most recent call last):"},
		{Text: "  File \"x.py\", line 1, in <module>"},
		{Text: "frobnicate.errors.FrobError: the frob is bent"},
		{Text: "Traceback (most recent call last):"},
		{Text: "RuntimeError: could not go on"},
	}
	v := explain(lines, launch.Exit{Code: 1, Known: true}, false)
	if v.cause != "frobnicate.errors.FrobError: the frob is bent" || !strings.Contains(v.remedy, "RuntimeError: could not go on") {
		t.Errorf("explain = %q; %q", v.cause, v.remedy)
	}
	if v.exit != "exit 1" {
		t.Errorf("exit = %q", v.exit)
	}
}

// What a client writes into a request can end up in the log. It must not look like a
// configuration error, which would keep a crashed worker down.
func TestRequestTextIsNoConfigError(t *testing.T) {
	lines := []api.Line{{Text: "(APIServer pid=1) ERROR 11-23 15:02:08 [serving.py:274] Error with model error=ErrorInfo(message='The model `error: unrecognized arguments: x` does not exist.')"}}
	if v := explain(lines, launch.Exit{Code: 0, Known: true}, true); v.class == classConfig {
		t.Errorf("explain = %s: %q, want a class that is retried", v.class, v.cause)
	}
}

// A request that failed an hour before the death is not its cause.
func TestOldErrorsDoNotExplainADeath(t *testing.T) {
	now := time.Now()
	lines := []api.Line{
		{Time: now.Add(-time.Hour), Text: "vllm.exceptions.QueueOverflowError: The engine is currently busy"},
		{Time: now, Text: "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue."},
	}
	if v := explain(lines, launch.Exit{Code: 0, Known: true}, true); v.cause != "the engine process died, and the log names no error" {
		t.Errorf("cause = %q", v.cause)
	}
}

func FuzzExplain(f *testing.F) {
	for _, name := range []string{"fail_memory.txt", "fail_maxlen.txt"} {
		b, err := os.ReadFile(filepath.Join("testdata", "logs", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[len(b)-2000:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s splitter
		var lines []api.Line
		tr := newTracker(api.PhaseImports, time.Now())
		take := func(text string) {
			if len(text) > lineLimit+len("…") || text == "" || strings.ContainsAny(text, "\r\n") {
				t.Fatalf("line of %d bytes: %q", len(text), text)
			}
			tr.line(text, time.Now())
			lines = append(lines, api.Line{Text: text})
		}
		s.feed(b, take)
		for _, ready := range []bool{false, true} {
			v := explain(lines, launch.Exit{Code: 1, Known: true}, ready)
			if v.cause == "" || len(v.cause) > errorLimit+len("…") {
				t.Fatalf("cause of %d bytes", len(v.cause))
			}
			if ready && v.class == classConfig {
				t.Fatal("a worker that was ready cannot have a configuration error")
			}
		}
		if tr.progress != nil && (*tr.progress < 0 || *tr.progress > 1) {
			t.Fatalf("progress = %v", *tr.progress)
		}
	})
}
