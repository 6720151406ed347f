package cost

import (
	"regexp"
	"strings"
)

var (
	vendors    = regexp.MustCompile(`^(meta|qwen|mistral|google|deepseek|openai|microsoft|us\.meta|nvidia)\.`)
	revision   = regexp.MustCompile(`(-v\d+)?(:\d+|@\d+)$`)
	precision  = regexp.MustCompile(`[-.](fp8|fp16|bf16|int4|int8|awq|gptq|w4a16|w8a8|w8a16|nvfp4|mxfp4|quantized|dynamic|maas)$`)
	pointed    = regexp.MustCompile(`(\d)p(\d)`)
	llamaGlued = regexp.MustCompile(`^llama(\d)`)
	llamaDash  = regexp.MustCompile(`^llama-v?(\d)-(\d)-`)
	llamaV     = regexp.MustCompile(`^llama-v(\d)`)
	closed     = regexp.MustCompile(`^(gpt-?[345]|chatgpt|o[134](-|$)|codex|davinci|babbage|claude|gemini|grok|nova-|amazon-nova|sonar|command|titan|j2-)`)
)

// Model is the plain name of the model behind a ref, a hub name or a path, by which the same
// weights are known everywhere: meta-llama/Meta-Llama-3.1-8B-Instruct-FP8 and
// accounts/fireworks/models/llama-v3p1-8b-instruct are both llama-3.1-8b-instruct. The
// precision that the weights are served in is not part of it.
func Model(name string) string {
	name = strings.ToLower(strings.TrimRight(name, "/"))
	name = name[strings.LastIndexByte(name, '/')+1:]
	name = revision.ReplaceAllString(name, "")
	name = vendors.ReplaceAllString(name, "")
	name = strings.TrimPrefix(name, "meta-")
	for {
		shorter := precision.ReplaceAllString(name, "")
		if shorter == name {
			break
		}
		name = shorter
	}
	name = pointed.ReplaceAllString(name, "$1.$2")
	name = llamaGlued.ReplaceAllString(name, "llama-$1")
	name = llamaDash.ReplaceAllString(name, "llama-$1.$2-")
	return llamaV.ReplaceAllString(name, "llama-$1")
}

// open reports whether a plain name can be that of a model with open weights: one that
// somebody else may host. A worker may be given the name of a closed model so that its clients
// need not change; the price of the real one says nothing about it then.
func open(model string) bool { return !closed.MatchString(model) }
