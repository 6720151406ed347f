package config

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

//go:embed vllmflags.txt
var flagText string

// vllmFlags is every flag of vllm serve that is known here: a set that a newer vLLM may have
// outgrown, so that an unknown flag is only ever a warning.
var vllmFlags = sync.OnceValue(func() map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(flagText) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "-") {
			out[line] = true
		}
	}
	return out
})

// refused are flags that would take a worker out of our hands, with what to do instead.
var refused = map[string]string{
	"--host":         "drop it: a worker listens on 127.0.0.1, the gateway is what others reach",
	"--port":         "write port: beside vllm:, or leave it out for a free one",
	"--uds":          "drop it: the gateway reaches a worker by its port",
	"--api-key":      "write api_key: env:NAME beside vllm:; a command line is readable by every user of the host",
	"--hf-token":     "write env: {HF_TOKEN: env:HF_TOKEN}; a command line is readable by every user of the host",
	"--model":        "write path: instead",
	"--ssl-keyfile":  "drop it: the worker is reached over loopback; the gateway's own tls: is for clients",
	"--ssl-certfile": "drop it: the worker is reached over loopback; the gateway's own tls: is for clients",
	"--headless":     "drop it: a worker without an HTTP server cannot serve",
	"--grpc":         "drop it: the gateway speaks HTTP",
	"--root-path":    "drop it: requests bring their own path",
}

// canonical gives the long flag of an argument as vLLM reads it: _ is -, what follows = or .
// belongs to the value, --no- is the same switch, and a beginning that only one flag has stands
// for that flag.
func canonical(arg string) string {
	name := arg
	if i := strings.IndexAny(name, "=. "); i >= 0 {
		name = name[:i]
	}
	if !strings.HasPrefix(name, "--") {
		return strings.TrimRight(name, "0123456789") // -O3
	}
	name = strings.ReplaceAll(name, "_", "-")
	flags := vllmFlags()
	if flags[name] {
		return name
	}
	if on := "--" + strings.TrimPrefix(name, "--no-"); on != name && flags[on] {
		return on
	}
	var match string
	for f := range flags {
		if strings.HasPrefix(f, name) && len(name) > 2 {
			if match != "" {
				return name
			}
			match = f
		}
	}
	if match != "" {
		return match
	}
	return name
}

// args checks the command line of a launched server. vLLM itself takes 14 s to refuse one.
func (r *report) args(v *VLLM, p string) {
	if len(v.Args) > 0 && !strings.HasPrefix(v.Args[0], "-") {
		r.problem(p+"[0]", `"vllm serve PATH" is put in front by vllmdeck; args are the flags after it`, "the arguments begin with %q", v.Args[0])
	}
	gpus := 1
	for i, a := range v.Args {
		at := fmt.Sprintf("%s[%d]", p, i)
		if a == "" || strings.ContainsRune(a, 0) {
			r.problem(at, "fill it in or leave it out", "an empty argument")
			continue
		}
		if _, err := strconv.ParseFloat(a, 64); err == nil || !strings.HasPrefix(a, "-") {
			continue // a value
		}
		flag := canonical(a)
		if name, rest, ok := strings.Cut(a, " "); ok && !strings.Contains(name, "=") && strings.HasPrefix(a, "--") {
			r.problem(at, fmt.Sprintf("write %s=%s", name, strings.TrimSpace(rest)), "flag and value in one argument, with a space between")
		}
		if flag == "--api-key" || flag == "--hf-token" {
			r.hide(value(v.Args, i))
		}
		if why, bad := refused[flag]; bad {
			r.problem(at, why, "%s cannot be set here", flag)
			continue
		}
		if flag == "--disable-log-stats" {
			r.warn(at, "drop it", "without its metrics this worker shows no load, no cache use and no progress")
		}
		if n, err := strconv.Atoi(value(v.Args, i)); err == nil && n > 0 && n < 1024 && multiplies(flag) {
			gpus *= n
		}
		r.unknownFlag(flag, at)
	}
	if n := len(v.GPUs); n > 0 && gpus > n {
		r.warn(p, fmt.Sprintf("give it %d GPUs, or lower the parallel size", gpus), "the arguments ask for %d GPUs, gpus names %d", gpus, n)
	}
}

func multiplies(flag string) bool {
	switch flag {
	case "--tensor-parallel-size", "-tp", "--pipeline-parallel-size", "-pp", "--data-parallel-size", "-dp":
		return true
	}
	return false
}

// value gives the value of the flag at i, wherever it stands.
func value(args []string, i int) string {
	if _, v, ok := strings.Cut(args[i], "="); ok {
		return v
	}
	if i+1 < len(args) {
		return args[i+1]
	}
	return ""
}

func (r *report) unknownFlag(flag, at string) {
	flags := vllmFlags()
	if flags[flag] {
		return
	}
	hint := "a newer vLLM may know it"
	if near := NearestFlag(flag); near != "" {
		hint = "did you mean " + near + "?"
	}
	r.warn(at, hint, "vLLM 0.32 has no flag %s", flag)
}

// Flag gives the flag that an argument of vllm serve is, in its long form and as vLLM reads it:
// --max_model_len=5 is --max-model-len, -tp is --tensor-parallel-size, --no-X is --X.
func Flag(arg string) string {
	name := canonical(arg)
	if long, ok := short[name]; ok {
		return long
	}
	return name
}

var short = map[string]string{"-tp": "--tensor-parallel-size", "-pp": "--pipeline-parallel-size", "-dp": "--data-parallel-size", "-q": "--quantization"}

// Refused says why a flag cannot be set for a worker, "" if it can.
func Refused(arg string) string { return refused[canonical(arg)] }

// KnownFlag says whether vllm serve is known to have a flag. A newer one may have more.
func KnownFlag(flag string) bool { return vllmFlags()[flag] }

// NearestFlag gives the flag of vllm serve that was likely meant; "" if none is near.
func NearestFlag(flag string) string { return Nearest(flag, slices.Collect(maps.Keys(vllmFlags()))) }

// Nearest gives the one of some names that a word was likely meant to be; "" if none is near.
func Nearest(word string, names []string) string { return nearest(word, names) }
