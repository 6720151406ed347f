package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Draft is what "vllmdeck init" found, and what it proposes for it.
type Draft struct {
	Found   []string // what this machine has, a line each; stands at the top as comments
	Models  []Model  // names, aliases
	Workers []DraftWorker
	GPU     bool // a worker has a GPU: cost.gpu_hour is what is missing, else cost.host_hour
}

// DraftWorker is one proposed worker.
type DraftWorker struct {
	Worker
	Note string // comment above it; "" for none
	Off  bool   // written as a comment: possible, not chosen
}

// YAML writes the draft as a commented vllmdeck.yaml that Parse accepts, provided some worker
// is not Off. Keys of a worker that have their default are left out.
func (d Draft) YAML() []byte {
	var b bytes.Buffer
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("# vllmdeck.yaml, written by \"vllmdeck init\". \"vllmdeck config check\" checks it,")
	p("# \"vllmdeck init --example\" prints one with every key and its default.")
	if len(d.Found) > 0 {
		p("#\n# Found on this machine:")
		for _, f := range d.Found {
			p("#   %s", printable(f))
		}
	}
	p("\n# The gateway: point OpenAI clients at http://127.0.0.1:8090/v1. To be reached from other")
	p("# machines listen on 0.0.0.0:8090 and set keys:.")
	p("listen: 127.0.0.1:8090\n")
	if len(d.Models) > 0 {
		p("# What clients may ask for.")
		p("models:")
		for _, m := range d.Models {
			p("  - name: %s", quote(m.Name))
			if len(m.Aliases) > 0 {
				p("    aliases: %s", flow(m.Aliases))
			}
		}
		p("")
	}
	p("workers:")
	for i, w := range d.Workers {
		if i > 0 {
			p("")
		}
		b.WriteString(w.yaml())
	}
	d.cost(p)
	return b.Bytes()
}

func (d Draft) cost(p func(string, ...any)) {
	p("\n# What answers cost here against what they would have cost at the baseline. Until the hour")
	p("# has a price, only the second is known.")
	p("cost:")
	p("  baseline: %s", DefaultBaseline)
	if d.GPU {
		p("  #gpu_hour: 0.34     # USD per GPU and hour: what you pay for it")
	} else {
		p("  #host_hour: 0.10    # USD per hour of this machine: what you pay for it")
	}
}

func (w DraftWorker) yaml() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("- name: %s", quote(w.Name))
	p("  model: %s", quote(w.Model))
	if w.Port != 0 {
		p("  port: %d", w.Port)
	}
	if w.Attach != "" {
		p("  attach: %s", quote(w.Attach))
	}
	if w.APIKey.Ref != "" {
		p("  api_key: %s", quote(w.APIKey.Ref))
	}
	switch {
	case w.NGPUs > 0:
		p("  gpus: %d", w.NGPUs)
	case w.Attach != "":
		p("  #gpus: 1            # how many GPUs it uses, or hour: what it costs; else its cost is not known")
	}
	if v := w.VLLM; v != nil {
		v.yaml(p)
	}
	if w.Sim != nil {
		p("  sim: {seed: %d}", max(w.Sim.Seed, 1))
	}
	var out strings.Builder
	for line := range strings.Lines(w.Note) {
		fmt.Fprintf(&out, "  # %s\n", printable(strings.TrimRight(line, "\n")))
	}
	prefix := "  "
	if w.Off {
		prefix = "  #"
	}
	for line := range strings.Lines(b.String()) {
		out.WriteString(prefix + line)
	}
	return out.String()
}

func (v *VLLM) yaml(p func(string, ...any)) {
	p("  vllm:")
	if v.Bin != "" && v.Bin != "vllm" {
		p("    bin: %s", quote(v.Bin))
	}
	p("    path: %s", quote(v.Path))
	if len(v.Args) > 0 {
		p("    args:")
		for _, a := range v.Args {
			p("      - %s", quote(a))
		}
	}
	if len(v.GPUs) > 0 {
		p("    gpus: %s", flow(v.GPUs))
	}
	if len(v.Env) > 0 {
		p("    env:")
		for _, name := range slices.Sorted(maps.Keys(v.Env)) {
			p("      %s: %s", quote(name), quote(v.Env[name]))
		}
	}
}

// plain is text that means itself in YAML, within [] and {} too. Numbers and the words that
// YAML reads as something else stay out of it, except for what is all digits: an index.
var plain = regexp.MustCompile(`^(?:/?[A-Za-z_][A-Za-z0-9_./@+-]*(?::[A-Za-z0-9_./+-]+)*|-{1,2}[A-Za-z][A-Za-z0-9_./=-]*|[0-9]+)$`)

var words = regexp.MustCompile(`(?i)^(?:true|false|null|yes|no|on|off|y|n|\.?inf|\.?nan)$`)

// quote writes text so that YAML reads the same text back.
func quote(s string) string {
	if plain.MatchString(s) && !words.MatchString(s) {
		return s
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	// A JSON string is a YAML double-quoted one; encoding a string does not fail.
	_ = enc.Encode(s)
	return strings.TrimRight(b.String(), "\n")
}

func flow(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = quote(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}
