package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
	"github.com/vllmdeck/vllmdeck/config"
)

// change is what an operator has ordered of a worker's command line, beside or instead of its config.
type change struct {
	Set   []string `json:"set,omitempty"`   // "--flag=value" or "--flag"
	Unset []string `json:"unset,omitempty"` // "--flag"
	Env   []string `json:"env,omitempty"`   // "NAME=value", where a value may be env:NAME or file:PATH as in the config
}

func (c change) empty() bool { return len(c.Set)+len(c.Unset)+len(c.Env) == 0 }

// What an order may hold.
const (
	changesMost = 32
	changeBytes = 2048
)

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// check refuses what would take a worker out of our hands, or is no flag at all.
func (c change) check() error {
	if len(c.Set)+len(c.Unset)+len(c.Env) > changesMost {
		return refused("more than %d changes at once: write them into the config", changesMost)
	}
	for _, a := range slices.Concat(c.Set, c.Unset, c.Env) {
		if len(a) > changeBytes || strings.ContainsAny(a, "\x00\r\n") {
			return refused("%.40q is too long or has more than one line", a)
		}
	}
	for _, a := range slices.Concat(c.Set, c.Unset) {
		name, _, _ := strings.Cut(a, "=")
		if !strings.HasPrefix(name, "--") || len(name) < 4 || strings.ContainsAny(name, " \t\"'") {
			return refused("%q is no flag: write --flag=value or --flag", a)
		}
		if why := config.Refused(name); why != "" {
			return refused("%s cannot be changed here: %s", name, why)
		}
	}
	for _, a := range c.Unset {
		if strings.Contains(a, "=") {
			return refused("%q: a flag that is to go has no value", a)
		}
	}
	for _, a := range c.Env {
		name, value, ok := strings.Cut(a, "=")
		switch {
		case !ok || !envName.MatchString(name):
			return refused("%.40q is no variable: write NAME=value", a)
		case len(value) >= 8 && !strings.HasPrefix(value, "env:") && !strings.HasPrefix(value, "file:") && launch.Redact([]string{a})[0] != a:
			return refused("%s looks like a secret, and is kept: write %s=env:%s, or file:PATH", name, name, name)
		}
	}
	return nil
}

// and gives c with a later change on top of it.
func (c change) and(d change) change {
	out := change{Set: slices.Clone(c.Set), Unset: slices.Clone(c.Unset), Env: slices.Clone(c.Env)}
	same := func(a string) func(string) bool {
		return func(b string) bool { return config.Flag(a) == config.Flag(b) }
	}
	for _, a := range d.Unset {
		out.Set = slices.DeleteFunc(out.Set, same(a))
		out.Unset = append(slices.DeleteFunc(out.Unset, same(a)), a)
	}
	for _, a := range d.Set {
		out.Unset = slices.DeleteFunc(out.Unset, same(a))
		out.Set = append(slices.DeleteFunc(out.Set, same(a)), a)
	}
	for _, a := range d.Env {
		name, _, _ := strings.Cut(a, "=")
		out.Env = append(slices.DeleteFunc(out.Env, func(b string) bool { return strings.HasPrefix(b, name+"=") }), a)
	}
	return out
}

// over gives the config as changed.
func (c change) over(w config.Worker) config.Worker {
	if w.VLLM == nil || c.empty() {
		return w
	}
	v := *w.VLLM
	v.Args = changed(v.Args, c.Set, c.Unset)
	if len(c.Env) > 0 {
		v.Env = maps.Clone(v.Env)
		if v.Env == nil {
			v.Env = map[string]string{}
		}
		for _, e := range c.Env {
			name, value, _ := strings.Cut(e, "=")
			v.Env[name] = value
		}
	}
	w.VLLM = &v
	return w
}

// lines says it for an operator, secrets redacted.
func (c change) lines(redact func([]string) []string) []string {
	out := redact(slices.Clone(c.Set))
	for _, a := range c.Unset {
		out = append(out, "without "+a)
	}
	for _, e := range redact(slices.Clone(c.Env)) {
		out = append(out, "env "+e)
	}
	return out
}

// changed gives arguments with some flags replaced and others gone, each with all its values.
func changed(args, set, unset []string) []string {
	out := withoutAny(args, append(slices.Clone(unset), set...))
	return append(out, set...)
}

// withoutAny leaves out flags and whatever follows them as their values.
func withoutAny(args, flags []string) []string {
	gone := map[string]bool{}
	for _, f := range flags {
		gone[config.Flag(f)] = true
	}
	var out []string
	skipping := false
	for _, a := range args {
		if isFlag(a) {
			skipping = gone[config.Flag(a)]
		}
		if !skipping {
			out = append(out, a)
		}
	}
	return out
}

// isFlag tells a flag from a value, which may be a negative number.
func isFlag(a string) bool {
	return len(a) > 1 && a[0] == '-' && (a[1] == '-' || a[1] >= 'A' && a[1] <= 'Z' || a[1] >= 'a' && a[1] <= 'z')
}

// Changed gives a command line of vllm serve with some flags replaced and others gone, as an order of WorkerFix
// would make it.
func Changed(argv, set, unset []string) []string { return changed(argv, set, unset) }

// InConfig says what to write into the config of a worker to keep a change for good.
func InConfig(worker string, f *api.Fix) string {
	var parts []string
	if len(f.Set) > 0 {
		parts = append(parts, "under args: write "+strings.Join(f.Set, ", "))
	}
	if len(f.Unset) > 0 {
		parts = append(parts, "under args: leave out "+strings.Join(f.Unset, ", "))
	}
	for _, e := range f.Env {
		name, value, _ := strings.Cut(e, "=")
		parts = append(parts, fmt.Sprintf("under env: write %s: %q", name, value))
	}
	return fmt.Sprintf("to keep it, in the config of %s %s", worker, strings.Join(parts, "; "))
}

// kept is a change as it lies in the worker's folder. It is good for as long as the config says what it
// said then.
type kept struct {
	Base string `json:"base"` // hash of what the config says of the command line
	change
}

func fixedPath(folder string) string { return filepath.Join(folder, "fixed.json") }

// baseOf hashes what the config says of a worker's command line.
func baseOf(w config.Worker) string {
	p := plan{kind: "base", cfg: w}
	if v := w.VLLM; v != nil {
		p.argv = slices.Concat([]string{v.Bin, v.Path}, v.Args)
		for _, name := range slices.Sorted(maps.Keys(v.Env)) {
			p.spec.Env = append(p.spec.Env, name+"="+v.Env[name])
		}
	}
	return p.sum()
}

// readKept gives the change that lies in a worker's folder; ok says that it is about the present config.
func readKept(folder string, w config.Worker) (c change, ok bool) {
	b, err := os.ReadFile(fixedPath(folder))
	if err != nil {
		return change{}, true
	}
	var k kept
	if json.Unmarshal(b, &k) != nil || k.check() != nil {
		return change{}, false
	}
	return k.change, k.Base == baseOf(w)
}

// keep writes c down, so that it outlives the engine. An empty one removes what was there.
func (c change) keep(folder string, w config.Worker) error {
	if c.empty() {
		if err := os.Remove(fixedPath(folder)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget fix: %w", err)
		}
		return nil
	}
	b, err := json.Marshal(kept{Base: baseOf(w), change: c})
	if err == nil {
		err = os.MkdirAll(folder, 0o700)
	}
	if err == nil {
		err = launch.Replace(fixedPath(folder), b)
	}
	if err != nil {
		return fmt.Errorf("keep fix: %w", err)
	}
	return nil
}
