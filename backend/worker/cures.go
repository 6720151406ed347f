package worker

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/config"
)

// known is what a cure may look at beside the line itself.
type known struct {
	args  []string // the command line as it was run
	env   []string // NAME=value, as the worker was given it by us
	model string   // folder or hub name
	phase string   // of the start that failed; "" if it had been ready
}

// cure makes a row's remedy a change of the command line: m is what the row's pattern captured. An empty
// change means that there is none to be had.
type cure func(m []string, k known) change

func (k known) value(flag string) string { return flagValue(k.args, flag) }

func (k known) has(flag string) bool {
	return slices.ContainsFunc(k.args, func(a string) bool { return isFlag(a) && config.Flag(a) == "--"+flag })
}

func (k known) getenv(name string) string {
	for _, e := range k.env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// utilization is the share of the GPU's memory that vLLM takes.
func (k known) utilization() float64 {
	if u, err := strconv.ParseFloat(k.value("gpu-memory-utilization"), 64); err == nil && u > 0 && u <= 1 {
		return u
	}
	return 0.92 // vLLM 0.32's default
}

func setting(args ...string) cure {
	return func(m []string, _ known) change { return change{Set: filled(args, m)} }
}

func unsetting(flags ...string) cure {
	return func(m []string, _ known) change { return change{Unset: filled(flags, m)} }
}

// filled puts what was captured in the place of $1 ….
func filled(args, m []string) []string {
	out := slices.Clone(args)
	for i := range out {
		for n := len(m) - 1; n > 0; n-- {
			out[i] = strings.ReplaceAll(out[i], "$"+strconv.Itoa(n), m[n])
		}
	}
	return out
}

// unknownFlags takes out what vLLM does not know. A flag that is only misspelt keeps its value under its name.
func unknownFlags(m []string, k known) change {
	var c change
	words := strings.Fields(m[1])
	for i, w := range words {
		flag, value, hasValue := strings.Cut(w, "=")
		if !strings.HasPrefix(flag, "--") || len(flag) < 4 {
			continue
		}
		c.Unset = append(c.Unset, flag)
		if !hasValue && i+1 < len(words) && !isFlag(words[i+1]) {
			value, hasValue = words[i+1], true
		}
		near := config.NearestFlag(flag)
		if config.KnownFlag(config.Flag(flag)) || near == "" || k.has(strings.TrimPrefix(near, "--")) {
			continue // an older vLLM, which has it not yet
		}
		if hasValue {
			near += "=" + value
		}
		c.Set = append(c.Set, near)
	}
	return c
}

var choices = regexp.MustCompile(`invalid choice: '?([^'\s]+)'? \(choose from (.+)\)`)

// otherChoice takes the nearest of the values that a flag may have.
func otherChoice(m []string, _ known) change {
	c := choices.FindStringSubmatch(m[2])
	// argparse names a flag with all its forms: --tensor-parallel-size/-tp.
	flags := strings.FieldsFunc(m[1], func(r rune) bool { return strings.ContainsRune("/, ", r) })
	i := slices.IndexFunc(flags, func(f string) bool { return strings.HasPrefix(f, "--") })
	if c == nil || i < 0 {
		return change{}
	}
	if near := config.Nearest(c[1], names(c[2])); near != "" {
		return change{Set: []string{flags[i] + "=" + near}}
	}
	return change{}
}

// names reads a list as Python prints one.
func names(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return strings.ContainsRune("[]{}()'\", ", r) })
}

var parserChoices = regexp.MustCompile(`^['"]?([\w.-]+)['"]?.*?\{([^}]*)\}`)

// otherToolParser takes the nearest of the parsers that there are; without one the server serves without them.
func otherToolParser(m []string, _ known) change {
	if c := parserChoices.FindStringSubmatch(m[1]); c != nil {
		if near := config.Nearest(c[1], names(c[2])); near != "" {
			return change{Set: []string{"--tool-call-parser=" + near}}
		}
	}
	return change{Unset: []string{"--tool-call-parser", "--enable-auto-tool-choice"}}
}

// toolParsers are the parsers of well-known models, as vLLM's documentation of tool calling names them. The first
// whose word is in a model's name is taken.
var toolParsers = []struct{ word, parser string }{
	{"qwen3-coder", "qwen3_coder"},
	{"qwen", "hermes"},
	{"hermes", "hermes"},
	{"mistral", "mistral"},
	{"llama-4", "llama4_pythonic"},
	{"llama-3", "llama3_json"},
	{"deepseek-v3", "deepseek_v3"},
	{"granite", "granite"},
}

func toolParser(_ []string, k known) change {
	name := strings.ToLower(k.model)
	for _, p := range toolParsers {
		if strings.Contains(name, p.word) {
			return change{Set: []string{"--tool-call-parser=" + p.parser}}
		}
	}
	return change{Unset: []string{"--enable-auto-tool-choice"}}
}

// fewerGPUs splits the heads over the most GPUs that divide them.
func fewerGPUs(m []string, _ known) change {
	heads, _ := strconv.Atoi(m[1]) // digits, or too many of them
	n, _ := strconv.Atoi(m[2])
	for n = min(n-1, 1024); n > 0 && heads > 0; n-- {
		if heads%n == 0 {
			return change{Set: []string{fmt.Sprintf("--tensor-parallel-size=%d", n)}}
		}
	}
	return change{}
}

// visibleGPUs splits the model over as many GPUs as there are, a power of two: that divides the heads of most models.
func visibleGPUs(m []string, k known) change {
	n, err := strconv.Atoi(m[2])
	if err != nil || n < 1 || k.has("pipeline-parallel-size") || k.has("data-parallel-size") {
		return change{}
	}
	p := 1
	for p*2 <= n {
		p *= 2
	}
	return change{Set: []string{fmt.Sprintf("--tensor-parallel-size=%d", p)}}
}

// fittingLength sets the longest context that fits, where that is one.
func fittingLength(m []string, _ known) change {
	if n, err := strconv.Atoi(m[4]); err != nil || n < 1 {
		return change{Set: []string{"--kv-cache-dtype=fp8"}}
	}
	return change{Set: []string{"--max-model-len=" + m[4]}}
}

// leastUtilization is the least share of a GPU that a fix asks for: below it something else has the card.
const leastUtilization = 0.2

// fittingUtilization asks for what is free, less one percent.
func fittingUtilization(free, total string) change {
	f, ferr := strconv.ParseFloat(free, 64)
	t, terr := strconv.ParseFloat(total, 64)
	if ferr != nil || terr != nil || t <= 0 {
		return change{}
	}
	u := math.Floor(f/t*100-1) / 100
	if u < leastUtilization || u >= 1 {
		return change{}
	}
	return change{Set: []string{utilization(u)}}
}

func utilization(u float64) string {
	return "--gpu-memory-utilization=" + strconv.FormatFloat(u, 'f', 2, 64)
}

func lessOfGPU(m []string, _ known) change { return fittingUtilization(m[2], m[3]) }

// lessOfHost gives the KV cache a fixed size; where it has one, it asks for less of the memory.
func lessOfHost(m []string, k known) change {
	if k.getenv("VLLM_CPU_KVCACHE_SPACE") == "" {
		return change{Env: []string{"VLLM_CPU_KVCACHE_SPACE=1"}}
	}
	return fittingUtilization(m[2], m[3])
}

// moreForKV gives vLLM more of the GPU; where it has nearly all, fewer requests at once.
func moreForKV(_ []string, k known) change {
	if u := k.utilization(); u < 0.94 {
		return change{Set: []string{utilization(min(u+0.04, 0.96))}}
	}
	return fewerSeqs(k, 128)
}

// fewerSeqs halves how many requests run at once; without a figure it is n.
func fewerSeqs(k known, n int) change {
	if v, err := strconv.Atoi(k.value("max-num-seqs")); err == nil && v > 0 {
		n = v / 2
	}
	if n < 1 {
		return change{}
	}
	return change{Set: []string{fmt.Sprintf("--max-num-seqs=%d", n)}}
}

func fewerWarm(m []string, k known) change {
	n, err := strconv.Atoi(m[2])
	if err != nil {
		return change{}
	}
	return fewerSeqs(k, n/2)
}

// roomOnGPU leaves more of the GPU to what is not planned for. While the weights load there is nothing to leave:
// they do not fit.
func roomOnGPU(_ []string, k known) change {
	u := k.utilization() - 0.05
	if k.phase == api.PhaseWeights || u < leastUtilization {
		return change{}
	}
	return change{Set: []string{utilization(u)}}
}

// lessForKV halves the KV cache of a server on the CPU.
func lessForKV(_ []string, k known) change {
	if n, err := strconv.Atoi(k.getenv("VLLM_CPU_KVCACHE_SPACE")); err == nil && n > 1 {
		return change{Env: []string{fmt.Sprintf("VLLM_CPU_KVCACHE_SPACE=%d", n/2)}}
	}
	return change{}
}

func longerStart(m []string, _ known) change {
	n, err := strconv.Atoi(m[1])
	if err != nil || n < 1 || n > 24*3600 {
		return change{}
	}
	return change{Env: []string{fmt.Sprintf("VLLM_ENGINE_READY_TIMEOUT_S=%d", 2*n)}}
}

func withoutP2P(_ []string, k known) change {
	if k.getenv("NCCL_P2P_DISABLE") == "1" {
		return change{}
	}
	return change{Env: []string{"NCCL_P2P_DISABLE=1"}}
}
