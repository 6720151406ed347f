package modelcache

import (
	"path"
	"slices"
	"strings"
)

// elsewhere are folders of a repository that hold the model for other programs.
var elsewhere = []string{"original", "onnx", "openvino", "coreml", "metal", "tflite", "gguf", "rust", "flax", "runs", "logs", "checkpoints", ".git"}

// kinds of weights, the one that vLLM prefers first (0.32: load_format auto takes consolidated*
// where there is one, then safetensors, then bin).
var weightKinds = []func(name string) bool{
	func(n string) bool {
		return strings.HasPrefix(n, "consolidated") && strings.HasSuffix(n, ".safetensors")
	},
	func(n string) bool { return strings.HasSuffix(n, ".safetensors") },
	func(n string) bool { return strings.HasSuffix(n, ".bin") && !strings.HasPrefix(n, "training_args") },
	func(n string) bool { return strings.HasSuffix(n, ".pt") },
}

// small are the endings of what a model needs beside its weights: config, tokenizer, templates, code.
var small = []string{".json", ".jsonl", ".txt", ".model", ".tiktoken", ".jinja", ".py", ".vocab", ".merges", ".spm", ".yaml"}

// wanted chooses of a repository's files those that vLLM needs. weights is false if there are
// none that it can load.
func wanted(files []string) (out []string, weights bool) {
	kind := func(string) bool { return false }
	for _, k := range weightKinds {
		if slices.ContainsFunc(files, func(f string) bool { return !strings.Contains(f, "/") && k(f) }) {
			kind, weights = k, true
			break
		}
	}
	for _, f := range files {
		dir, base := path.Split(f)
		switch top, _, _ := strings.Cut(dir, "/"); {
		case dir != "" && slices.Contains(elsewhere, strings.ToLower(top)), strings.HasPrefix(base, "."):
		case slices.ContainsFunc(small, func(end string) bool { return strings.HasSuffix(strings.ToLower(base), end) }):
			out = append(out, f)
		case kind(base):
			out = append(out, f)
		}
	}
	return out, weights
}

// listed leaves out the weights that an index does not name where it names others of the same
// kind: vLLM loads those of the index alone.
func listed(files, index []string) []string {
	if len(index) == 0 {
		return files
	}
	return slices.DeleteFunc(slices.Clone(files), func(f string) bool {
		if strings.Contains(f, "/") || slices.Contains(index, f) || path.Ext(f) != path.Ext(index[0]) {
			return false
		}
		return strings.HasPrefix(f, "model") || strings.HasPrefix(f, "pytorch_model") || strings.HasPrefix(f, "consolidated")
	})
}

// indexOf is the weight index among the chosen files; "" if there is none.
func indexOf(files []string) string {
	for _, kind := range []string{"consolidated.safetensors", "model.safetensors", "pytorch_model.bin"} {
		has := slices.ContainsFunc(files, func(f string) bool {
			return path.Ext(f) == path.Ext(kind) && strings.HasPrefix(f, strings.TrimSuffix(kind, path.Ext(kind)))
		})
		if has && slices.Contains(files, kind+".index.json") {
			return kind + ".index.json"
		}
	}
	return ""
}
