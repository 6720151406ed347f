package main

import (
	"os"
	"strings"
	"testing"
)

// verdictOf checks a config made of text with a price table of one model.
func verdictOf(t *testing.T, text string) (v verdict, out, errs string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("c.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	v = checkConfig("c.yaml", func(ref string) (bool, []string) {
		return ref == "openai/gpt-4o-mini", []string{"openai/gpt-4o-mini"}
	})
	var o, e strings.Builder
	v.print(&o, &e)
	return v, o.String(), e.String()
}

func TestConfigCheckSaysWhichMoneyIsKnown(t *testing.T) {
	const worker = "workers: [{name: w0, model: m, vllm: {path: o/m, gpus: [0]}}, {name: w1, model: m, vllm: {path: o/m}}]\n"
	for text, want := range map[string]string{
		worker: "-- money   the cost of some workers is not known: set cost.gpu_hour, cost.host_hour; would-have-cost is known for every model",
		worker + "cost: {gpu_hour: 0.34, host_hour: 0.1}\n":       "OK money   the cost of every worker is known; would-have-cost is known for every model",
		worker + "cost: {per_token: {input: 0.1, output: 0.2}}\n": "OK money   cost at flat rates per token, an assumption; would-have-cost is known for every model",
	} {
		if _, out, _ := verdictOf(t, text); !strings.Contains(out, want) {
			t.Errorf("config check of\n%s\nsays\n%s\nwant %s", text, out, want)
		}
	}
}

func TestConfigCheckAsksThePriceTable(t *testing.T) {
	v, out, errs := verdictOf(t, "workers: [{name: w0, model: m, sim: {}}]\ncost: {baseline: openai/gpt-4o-mni}\n")
	if v.OK || out != "" || !strings.Contains(errs, `no price is known for "openai/gpt-4o-mni"`) || !strings.Contains(errs, "did you mean openai/gpt-4o-mini?") {
		t.Errorf("ok %v, out %q, errs\n%s", v.OK, out, errs)
	}
}

func TestConfigCheckWithoutAConfigNamesTheWayOut(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("VLLMDECK_CONFIG", "")
	if _, err := os.Stat("/etc/vllmdeck/vllmdeck.yaml"); err == nil {
		t.Skip("this machine has a config of its own")
	}
	if v := checkConfig("", nil); v.OK || !strings.Contains(v.Error, "vllmdeck init") || !strings.Contains(v.Error, "/etc/vllmdeck") {
		t.Errorf("verdict = %+v", v)
	}
}
