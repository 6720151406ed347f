package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// env is an environment for tests: only what it names is set.
func env(pairs ...string) Lookup {
	return func(name string) (string, bool) {
		for i := 0; i < len(pairs); i += 2 {
			if pairs[i] == name {
				return pairs[i+1], true
			}
		}
		return "", false
	}
}

const tiny = "workers:\n  - {name: w0, model: m, sim: {}}\n"

// mustParse reads a config that must be right.
func mustParse(t *testing.T, text string, pairs ...string) *Config {
	t.Helper()
	c, err := Parse("vllmdeck.yaml", []byte(text), env(append(pairs, "HOME", "/home/me")...))
	if err != nil {
		t.Fatalf("Parse:\n%v\nof\n%s", err, text)
	}
	return c
}

// mistakes reads a config that must be wrong.
func mistakes(t *testing.T, text string, pairs ...string) Errors {
	t.Helper()
	_, err := Parse("vllmdeck.yaml", []byte(text), env(append(pairs, "HOME", "/home/me")...))
	var errs Errors
	if !errors.As(err, &errs) {
		t.Fatalf("Parse = %v, want Errors, of\n%s", err, text)
	}
	return errs
}

func TestExampleIsRight(t *testing.T) {
	c := mustParse(t, string(Example))
	if len(c.Warnings) > 0 {
		t.Errorf("warnings of the example: %q", c.Warnings)
	}
}

func TestExampleNamesEveryKey(t *testing.T) {
	eachKey(reflect.TypeFor[Config](), "", func(path, key string) {
		if !regexp.MustCompile(`(?m)^ *#?[ -]*` + key + `:`).Match(Example) {
			t.Errorf("example.yaml does not mention %s", join(path, key))
		}
	})
}

// uncommented is the example with everything switched on that is a key in a comment.
func uncommented() string {
	return regexp.MustCompile(`(?m)^( *)#([a-z-]|  )`).ReplaceAllString(string(Example), "$1$2")
}

func TestExampleIsRightWhereItIsCommentedOut(t *testing.T) {
	errs := mistakes(t, uncommented(), "VLLMDECK_KEY", "0123456789abcdef", "VLLM_API_KEY", "k", "HF_TOKEN", "t", "OPENAI_API_KEY", "o")
	for _, p := range errs {
		either := strings.Contains(p.Msg, "per_token and an hourly rate") // the example shows both ways
		if !either && p.Path != "tls" {
			t.Errorf("%v", p)
		}
	}
}

// What stands in the comments as a default must be the default.
func TestExampleShowsTheDefaults(t *testing.T) {
	text := uncommented()
	for _, drop := range []string{`(?m)^  per_token:\n(    .*\n)*`, `(?m)^tls:\n(  .*\n)*`} {
		text = regexp.MustCompile(drop).ReplaceAllString(text, "")
	}
	c := mustParse(t, text, "VLLMDECK_KEY", "0123456789abcdef", "VLLM_API_KEY", "k", "HF_TOKEN", "t", "OPENAI_API_KEY", "o")
	d := Default()
	d.State = "/home/me/.local/state/vllmdeck"
	for _, pair := range [][2]any{
		{c.Listen, d.Listen},
		{c.State, d.State},
		{c.Grace, d.Grace},
		{c.Gateway, d.Gateway},
		{c.Health, d.Health},
		{c.Logs, d.Logs},
		{c.Capture, d.Capture},
		{c.Cost.Baseline, d.Cost.Baseline},
		{c.Workers[0].Restart, DefaultWorker().Restart},
		{c.Workers[0].Start, DefaultWorker().Start},
		{c.Workers[0].StartTimeout, DefaultWorker().StartTimeout},
		{c.Workers[0].StopTimeout, DefaultWorker().StopTimeout},
		{c.Workers[0].VLLM.Bin, "vllm"},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("the example says %+v, the default is %+v", pair[0], pair[1])
		}
	}
	sim := *c.Workers[2].Sim
	sim.Faults = nil
	if !reflect.DeepEqual(sim, *DefaultSim()) {
		t.Errorf("sim: the example says %+v, the default is %+v", sim, *DefaultSim())
	}
}

func TestDefaultsAreFilledIn(t *testing.T) {
	c := mustParse(t, "models: [{name: m}]\n"+tiny+"  - {name: w1, model: n, vllm: {path: org/n}}\n")
	w, s := c.Workers[1], c.Workers[0].Sim
	if c.Listen != "127.0.0.1:8090" || c.Grace != 30*time.Second || c.State != "/home/me/.local/state/vllmdeck" {
		t.Errorf("listen, grace, state = %v %v %v", c.Listen, c.Grace, c.State)
	}
	if !*c.Gateway.CostInfo || c.Gateway.MaxBody != 32<<20 || c.Gateway.Queue != 256 || c.Gateway.TTFTTimeout != 2*time.Minute {
		t.Errorf("gateway = %+v", c.Gateway)
	}
	if !*w.Start || w.VLLM.Bin != "vllm" || w.StartTimeout != 30*time.Minute || w.Restart.Policy != OnFailure || w.Restart.Tries != 3 {
		t.Errorf("worker = %+v", w)
	}
	if s.Seed != 1 || s.MaxSeqs != 32 || s.ITL != 12*time.Millisecond {
		t.Errorf("sim = %+v", s)
	}
	if c.Models[0].Baseline != DefaultBaseline || c.Logs.Keep != 5 || c.Health.Target != 0.8 {
		t.Errorf("baseline, logs, target = %v %v %v", c.Models[0].Baseline, c.Logs, c.Health)
	}
}

func TestZeroThatIsWrittenStaysZero(t *testing.T) {
	c := mustParse(t, tiny+"grace: 0s\ngateway: {queue: 0, cost_info: false}\nlogs: {keep: 0}\n")
	if c.Grace != 0 || c.Gateway.Queue != 0 || c.Logs.Keep != 0 || *c.Gateway.CostInfo {
		t.Errorf("grace %v, queue %d, keep %d, cost_info %v: want 0, 0, 0, false", c.Grace, c.Gateway.Queue, c.Logs.Keep, *c.Gateway.CostInfo)
	}
}

func TestValues(t *testing.T) {
	c := mustParse(t, `
grace: 1m30s
logs: {size: 1.5GiB}
gateway: {max_body: 64 KiB}
models: [{name: m, aliases: default}]
workers:
  - name: w0
    model: m
    start: false
    hour: 0.1
    vllm: {path: org/m, gpus: [0, "1", GPU-295b72d2-e23d], env: {VLLM_CPU_KVCACHE_SPACE: 1, X: true}}
cost: {gpu_hour: 0.34, host_hour: 12}
`)
	if c.Grace != 90*time.Second || c.Logs.Size != 3<<29 || c.Gateway.MaxBody != 64<<10 {
		t.Errorf("grace, size, body = %v %v %v", c.Grace, c.Logs.Size, c.Gateway.MaxBody)
	}
	if *c.Cost.GPUHour != 340_000_000 || *c.Workers[0].Hour != 100_000_000 || *c.Cost.HostHour != 12*api.Dollar {
		t.Errorf("money = %d %d %d nano-dollars", *c.Cost.GPUHour, *c.Workers[0].Hour, *c.Cost.HostHour)
	}
	v := c.Workers[0].VLLM
	if got := strings.Join(v.GPUs, " "); got != "0 1 GPU-295b72d2-e23d" {
		t.Errorf("gpus = %q", got)
	}
	if v.Env["VLLM_CPU_KVCACHE_SPACE"] != "1" || v.Env["X"] != "true" {
		t.Errorf("env = %v", v.Env)
	}
	if *c.Workers[0].Start || c.Models[0].Aliases[0] != "default" {
		t.Errorf("start, aliases = %v %v", *c.Workers[0].Start, c.Models[0].Aliases)
	}
}

func TestMoneyIsExact(t *testing.T) {
	for text, want := range map[string]USD{
		"0.34": 340_000_000, "0.000000001": 1, "1234567890.123456789": 1_234_567_890_123_456_789,
		"0.1": 100_000_000, "5": 5 * api.Dollar, "2.": 2 * api.Dollar, "-1.5": -1_500_000_000,
	} {
		if got, _, err := parseUSD(text); got != want || err != nil {
			t.Errorf("parseUSD(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "1e3", "1/3", "0.0000000001", "99999999999", "NaN", "0x10", "1_000", ".inf", "$1", "1,5", "1 USD"} {
		if got, _, err := parseUSD(text); err == nil {
			t.Errorf("parseUSD(%q) = %d, want an error", text, got)
		}
	}
}

func TestSizesAndTimes(t *testing.T) {
	for text, want := range map[string]Bytes{"512": 512, "1kB": 1000, "64KiB": 64 << 10, "0.5 GiB": 1 << 29, "7B": 7, "1TB": 1e12} {
		if got, _, err := parseBytes(text); got != want || err != nil {
			t.Errorf("parseBytes(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "32M", "-1", "1e3", "0.3B", "9999999TiB", "MiB", "1.5"} {
		if got, _, err := parseBytes(text); err == nil {
			t.Errorf("parseBytes(%q) = %d, want an error", text, got)
		}
	}
	for text, want := range map[Bytes]string{32 << 20: "32MiB", 1500: "1500", 0: "0", 1 << 40: "1TiB"} {
		if got := text.String(); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{"", "30", "-5s", "2d", "5 m", "NaN", "1w"} {
		if got, hint, err := parseDuration(text); err == nil {
			t.Errorf("parseDuration(%q) = %v (%s), want an error", text, got, hint)
		}
	}
	if _, hint, _ := parseDuration("2d"); hint != "write 48h" {
		t.Errorf("hint of 2d = %q, want write 48h", hint)
	}
}

func TestAnchorsAndMerges(t *testing.T) {
	c := mustParse(t, `
workers:
  - &base
    name: w0
    model: org/m
    vllm: &v {path: org/m, args: &args [--max-model-len=2048]}
  - {<<: *base, name: w1, vllm: {<<: *v, gpus: [1]}}
  - {name: w2, model: other, vllm: {path: org/o, args: *args}}
`)
	if w := c.Workers[1]; w.Name != "w1" || w.Model != "org/m" || w.VLLM.Path != "org/m" || len(w.VLLM.GPUs) != 1 {
		t.Errorf("merged worker = %+v", w)
	}
	if got := c.Workers[2].VLLM.Args; len(got) != 1 || got[0] != "--max-model-len=2048" {
		t.Errorf("args = %v", got)
	}
}

func TestBOMAndWindowsLinesAreRead(t *testing.T) {
	c := mustParse(t, "\xef\xbb\xbflisten: 127.0.0.1:9\r\n"+strings.ReplaceAll(tiny, "\n", "\r\n"))
	if c.Listen != "127.0.0.1:9" || len(c.Workers) != 1 {
		t.Errorf("listen %q, %d workers", c.Listen, len(c.Workers))
	}
}

func TestPathsAreExpanded(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "models", "toy"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := `
state: $DATA/deck
workers:
  - {name: w0, model: a, vllm: {bin: ~/venv/bin/vllm, path: models/toy}}
  - {name: w1, model: b, vllm: {path: org/toy}}
  - {name: w2, model: c, vllm: {bin: ./vllm, path: ~/m}}
`
	c, err := Parse(filepath.Join(dir, "vllmdeck.yaml"), []byte(text), env("HOME", dir, "DATA", "/data"))
	if err != nil {
		t.Fatal(err)
	}
	got := []string{c.State, c.Workers[0].VLLM.Bin, c.Workers[0].VLLM.Path, c.Workers[1].VLLM.Bin, c.Workers[1].VLLM.Path, c.Workers[2].VLLM.Bin, c.Workers[2].VLLM.Path}
	want := []string{"/data/deck", dir + "/venv/bin/vllm", dir + "/models/toy", "vllm", "org/toy", dir + "/vllm", dir + "/m"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("paths = %q, want %q", got, want)
	}
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "there is no folder") {
		t.Errorf("warnings = %q, want one: no such model folder", c.Warnings)
	}
	if c := mustParse(t, tiny, "XDG_STATE_HOME", "/xdg"); c.State != "/xdg/vllmdeck" {
		t.Errorf("state = %q, want /xdg/vllmdeck", c.State)
	}
	for _, bad := range []string{"state: ~other/x\n", "state: $NOWHERE/x\n", "state: ${NOWHERE}\n"} {
		if errs := mistakes(t, bad+tiny); errs[0].Path != "state" {
			t.Errorf("%q: %v", bad, errs)
		}
	}
}

func TestFind(t *testing.T) {
	t.Chdir(t.TempDir())
	write := func(path string) string {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(tiny), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	home := t.TempDir()
	if path, ok, err := find("", env("HOME", home)); err != nil || ok && path != "/etc/vllmdeck/vllmdeck.yaml" {
		t.Errorf("find nothing = %q, %v, %v", path, ok, err)
	}
	want := write(filepath.Join(home, ".config/vllmdeck/vllmdeck.yaml"))
	if path, ok, err := find("", env("HOME", home)); path != want || !ok || err != nil {
		t.Errorf("find = %q, %v, %v, want the one under home", path, ok, err)
	}
	xdg := t.TempDir()
	want = write(filepath.Join(xdg, "vllmdeck/vllmdeck.yaml"))
	if path, _, _ := find("", env("HOME", home, "XDG_CONFIG_HOME", xdg)); path != want {
		t.Errorf("find = %q, want the one in XDG_CONFIG_HOME", path)
	}
	write("vllmdeck.yaml")
	if path, _, _ := find("", env("HOME", home, "XDG_CONFIG_HOME", xdg)); path != "vllmdeck.yaml" {
		t.Errorf("find = %q, want vllmdeck.yaml", path)
	}
	named := write(filepath.Join(home, "deck.yaml"))
	if path, _, _ := find("", env("HOME", home, "VLLMDECK_CONFIG", named)); path != named {
		t.Errorf("find = %q, want the one of VLLMDECK_CONFIG", path)
	}
	if path, _, _ := find("~/deck.yaml", env("HOME", home, "VLLMDECK_CONFIG", "other")); path != named {
		t.Errorf("find = %q, want the one of --config", path)
	}
	for _, args := range [][2]string{{"gone.yaml", ""}, {"", "gone.yaml"}, {home, ""}} {
		if path, ok, err := find(args[0], env("HOME", home, "VLLMDECK_CONFIG", args[1])); err == nil || ok {
			t.Errorf("find(%q, VLLMDECK_CONFIG=%q) = %q, %v, want an error", args[0], args[1], path, ok)
		}
	}
}

func TestHelpers(t *testing.T) {
	c := mustParse(t, `
models: [{name: a, baseline: x/y}]
workers:
  - {name: w0, model: a, vllm: {path: o/a, gpus: [0, 1]}}
  - {name: w1, model: b, attach: "http://127.0.0.1:8001/"}
  - {name: w2, model: b, attach: "http://127.0.0.1:8002", gpus: 2}
  - {name: w3, model: a, vllm: {path: o/a}}
  - {name: w4, model: a, hour: 9, vllm: {path: o/a}}
cost: {gpu_hour: 0.34}
`)
	if got := c.ModelNames(); !reflect.DeepEqual(got, []string{"a", "b"}) {
		t.Errorf("ModelNames = %q", got)
	}
	if c.Model("a").Baseline != "x/y" || c.Model("b").Baseline != DefaultBaseline {
		t.Errorf("baselines = %q %q", c.Model("a").Baseline, c.Model("b").Baseline)
	}
	if got := c.Workers[1].Attach; got != "http://127.0.0.1:8001" {
		t.Errorf("attach = %q, want it without the slash", got)
	}
	want := []string{"0.68", "gpus or hour of worker w1", "0.68", "cost.host_hour", "9"}
	for i := range c.Workers {
		rate, missing := c.Hour(&c.Workers[i])
		got := missing
		if rate != nil {
			got = rate.String()
		}
		if got != want[i] {
			t.Errorf("Hour(%s) = %q, want %q", c.Workers[i].Name, got, want[i])
		}
	}
	for listen, want := range map[string]bool{"127.0.0.1:1": false, "localhost:1": false, "[::1]:1": false, "0.0.0.0:1": true, ":1": true, "10.0.0.1:1": true, "host:1": true} {
		if got := (&Config{Listen: listen}).Exposed(); got != want {
			t.Errorf("Exposed of %s = %v, want %v", listen, got, want)
		}
	}
	if (&Config{Listen: ":1", TLS: &TLS{}}).Exposed() {
		t.Error("Exposed with TLS, want not")
	}
}

func TestConfigMadeInCode(t *testing.T) {
	c := Default()
	w := DefaultWorker()
	w.Name, w.Model, w.Sim = "s0", "toy", DefaultSim()
	c.Workers = append(c.Workers, w)
	if err := Validate(c, nil); err != nil {
		t.Errorf("Validate: %v", err)
	}
	c.Workers = append(c.Workers, w)
	if err := Validate(c, nil); err == nil || !strings.Contains(err.Error(), "workers[1].name") {
		t.Errorf("Validate of a name given twice = %v", err)
	}
}

func TestDraftIsRight(t *testing.T) {
	w := DefaultWorker()
	w.Name, w.Model, w.VLLM = "w0", `odd "name": #1`, &VLLM{Bin: "/opt/x y/vllm", Path: "true", Args: []string{"--a={\"b\": 1}", "-1", "0.5"}, GPUs: []string{"0", "GPU-1234abcd"}, Env: map[string]string{"A": "1", "B": "yes: #", "C": ""}}
	a := DefaultWorker()
	a.Name, a.Model, a.Attach = "w1", "-x", "http://[::1]:8000"
	d := Draft{
		Found:   []string{"1 GPU", "evil \x1b[31m\nworkers: []"},
		Models:  []Model{{Name: "m:1", Aliases: []string{"a,b", "[c]", "*d", "&e", "1.0", "null", "~"}}},
		Workers: []DraftWorker{{Worker: w, Note: "one\ntwo \x07"}, {Worker: a}, {Worker: a, Off: true}},
		GPU:     true,
	}
	// Names of this kind are refused by validation; here only the reading back counts.
	rep := &report{places: map[string]place{}, broken: map[string]bool{}}
	root := rep.read(d.YAML())
	c := Default()
	(&decoder{report: rep, surroundings: surroundings{env: env()}}).decodeRoot(root, c)
	if err := rep.err(); err != nil {
		t.Fatalf("%v\nof\n%s", err, d.YAML())
	}
	want := *w.VLLM
	if len(c.Workers) != 2 || !reflect.DeepEqual(*c.Workers[0].VLLM, want) || c.Workers[0].Model != w.Model || c.Workers[1].Model != "-x" || c.Workers[1].Attach != a.Attach {
		t.Errorf("read back %+v %+v\nof\n%s", c.Workers, c.Workers[0].VLLM, d.YAML())
	}
	if !reflect.DeepEqual(c.Models, d.Models) {
		t.Errorf("models = %q, want %q", c.Models, d.Models)
	}
	if bytes.ContainsAny(d.YAML(), "\x1b\x07") {
		t.Error("a control character came through")
	}
}

func TestReferencesOfWorkersStayReferences(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("two words\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Parse(filepath.Join(dir, "c.yaml"), []byte("workers: [{name: w0, model: m, vllm: {path: o/m, env: {A: env:SECRET, B: file:token}}}]"), env("SECRET", "s3cret"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"A": "env:SECRET", "B": "file:" + dir + "/token"}
	if got := c.Workers[0].VLLM.Env; !reflect.DeepEqual(got, want) {
		t.Errorf("env = %v, want %v", got, want)
	}
}

func TestKeysOfTheStateFolderCountWhereKeysAreNeeded(t *testing.T) {
	text := []byte("listen: 0.0.0.0:8090\nstate: /s\nworkers:\n  - {name: w0, model: m, sim: {}}\n")
	for _, there := range []bool{true, false} {
		asked := ""
		r := Reader{Env: env("HOME", "/h"), Keys: func(state string) bool { asked = state; return there }}
		_, err := r.Parse("a.yaml", text)
		if (err == nil) != there || asked != "/s" {
			t.Errorf("with keys there = %v: asked of %q, error %v; want asked of /s, and an error only without", there, asked, err)
		}
		if err != nil && !strings.Contains(err.Error(), "vllmdeck keys create") {
			t.Errorf("error %v does not say how to make a key", err)
		}
	}
}
