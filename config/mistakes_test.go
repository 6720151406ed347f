package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMistakesAreNamedWithTheWayOut(t *testing.T) {
	const w = "workers:\n" // what follows is a list of workers, from line 2
	for name, c := range map[string]struct {
		text      string
		line, col int
		path      string
		msg, hint string
	}{
		"empty":                {"# nothing\n", 0, 0, "", "empty", "vllmdeck init"},
		"no workers":           {"listen: 127.0.0.1:1\n", 0, 0, "", "nothing here can serve", "vllmdeck init"},
		"list":                 {"- a\n", 1, 1, "", "want keys with values, got a list", ""},
		"no space":             {"listen:8090\n", 1, 1, "", "got text", "colon and a space"},
		"tab":                  {"a:\n\tb: 1\n", 2, 1, "", "not valid YAML", "no tabs"},
		"two documents":        {tiny + "---\na: 1\n", 4, 1, "", "second YAML document", "one document"},
		"UTF-16":               {"\xff\xfea\x00", 1, 1, "", "UTF-16", "UTF-8"},
		"not UTF-8":            {"listen: \"\xe9\"\n", 1, 10, "", "not UTF-8", ""},
		"control":              {"listen: a\x1b[0m\n", 1, 10, "", "control character", ""},
		"control by escape":    {w + `  - {name: "w\e[1m", model: m, sim: {}}`, 2, 12, "workers[0].name", "control character", ""},
		"tag":                  {w + "  - {name: !!str w0, model: m, sim: {}}", 2, 12, "workers[0].name", "tag", "leave it out"},
		"unknown anchor":       {w + "  - {name: *x, model: m, sim: {}}", 2, 12, "workers[0].name", "no anchor", ""},
		"key at top":           {tiny + "lisen: a\n", 3, 1, "lisen", `unknown key "lisen"`, `"listen"`},
		"key of another place": {tiny + "host_hour: 1\n", 3, 1, "host_hour", "unknown key", "belongs under cost"},
		"key with dash":        {tiny + "gateway: {max-body: 1MiB}\n", 3, 11, "gateway.max-body", "unknown key", `"max_body"`},
		"key twice":            {tiny + "listen: a:1\nlisten: b:1\n", 4, 1, "listen", "is here twice", "line 3"},
		"list for text":        {tiny + "listen: [a]\n", 3, 9, "listen", "want text, got a list", ""},
		"text for list":        {"workers: w0\n", 1, 10, "workers", "want a list", "- "},
		"text for struct":      {w + "  - {name: w0, model: m, sim: {}, restart: never}", 2, 44, "workers[0].restart", "want keys", "policy: never"},
		"path for vllm":        {w + "  - {name: w0, model: m, vllm: /models/m}", 2, 32, "workers[0].vllm", "want keys", "vllm: {path: /models/m}"},
		"empty entry":          {w + "  -\n  - {name: w0, model: m, sim: {}}", 2, 4, "workers[0]", "empty entry", ""},
		"duration":             {tiny + "grace: 30\n", 3, 8, "grace", "30 has no unit", "30s"},
		"negative duration":    {tiny + "grace: -3s\n", 3, 8, "grace", "negative", ""},
		"size":                 {tiny + "logs: {size: 20M}\n", 3, 14, "logs.size", "want a size", "MiB"},
		"dollar sign":          {tiny + "cost: {gpu_hour: $0.34}\n", 3, 18, "cost.gpu_hour", "want an amount", "0.34"},
		"comma":                {tiny + "cost: {gpu_hour: \"0,34\"}\n", 3, 18, "cost.gpu_hour", "want an amount", "0.34"},
		"number":               {tiny + "gateway: {queue: many}\n", 3, 18, "gateway.queue", "whole number", ""},
		"bool":                 {tiny + "gateway: {cost_info: yes}\n", 3, 22, "gateway.cost_info", "true or false", "write true"},
		"target":               {tiny + "health: {target: 80}\n", 3, 18, "health.target", "share", "0.8"},
		"timeout of zero":      {tiny + "gateway: {ttft_timeout: 0s}\n", 3, 25, "gateway.ttft_timeout", "more than 0", ""},

		"sleep in short":     {w + "  - {name: w0, model: m, sim: {}, sleep: 10m}", 2, 42, "workers[0].sleep", "want keys", "sleep: {after: "},
		"level of sleep":     {w + "  - {name: w0, model: m, sim: {}, sleep: {level: 3}}", 2, 50, "workers[0].sleep.level", "1 or 2", "host memory"},
		"share of sleep":     {w + "  - {name: w0, model: m, sim: {}, sleep: {share: a b}}", 2, 50, "workers[0].sleep.share", "cannot be used", "gpu0"},
		"sleep without flag": {w + "  - {name: w0, model: m, sleep: {}, vllm: {path: o/m, args: [--no-enable-sleep-mode]}}", 2, 33, "workers[0].sleep", "needs --enable-sleep-mode", "drop"},
		"sleep without mode": {w + "  - {name: w0, model: m, sleep: {}, vllm: {path: o/m, env: {VLLM_SERVER_DEV_MODE: \"0\"}}}", 2, 33, "workers[0].sleep", "VLLM_SERVER_DEV_MODE=1", "drop"},

		"listen port alone":       {tiny + "listen: 8090\n", 3, 9, "listen", "HOST:PORT", "127.0.0.1:8090"},
		"listen host alone":       {tiny + "listen: 127.0.0.1\n", 3, 9, "listen", "HOST:PORT", "127.0.0.1:8090"},
		"listen port":             {tiny + "listen: 127.0.0.1:70000\n", 3, 9, "listen", "0 to 65535", ""},
		"exposed without keys":    {tiny + "listen: 0.0.0.0:8090\n", 3, 9, "listen", "without keys", "keys:"},
		"capture for ever":        {tiny + "capture: {keep: 0s}\n", 3, 17, "capture.keep", "more than 0", ""},
		"keep alive":              {tiny + "gateway: {keep_alive: 10ms}\n", 3, 23, "gateway.keep_alive", "no silence", "15s"},
		"ttft target":             {tiny + "gateway: {ttft_target: -1s}\n", 3, 24, "gateway.ttft_target", "negative", ""},
		"all hosts without keys":  {tiny + "listen: \":8090\"\n", 3, 9, "listen", "without keys", "keys:"},
		"half of tls":             {tiny + "tls: {cert: a}\n", 3, 6, "tls", "belong together", ""},
		"literal key":             {tiny + "keys: [{name: a, key: sk-0123456789}]\n", 3, 23, "keys[0].key", "never written", "env:NAME"},
		"shell style key":         {tiny + "keys: [{name: a, key: $TOKEN}]\n", 3, 23, "keys[0].key", "want env:NAME", "env:TOKEN"},
		"unset key":               {tiny + "keys: [{name: a, key: env:NOPE}]\n", 3, 23, "keys[0].key", "NOPE is not set", "export NOPE"},
		"no key file":             {tiny + "keys: [{name: a, key: file:/no/such}]\n", 3, 23, "keys[0].key", "no file /no/such", "0600"},
		"key from a device":       {tiny + "keys: [{name: a, key: file:/dev/zero}]\n", 3, 23, "keys[0].key", "is not a file", ""},
		"key without name":        {tiny + "keys: [{key: env:K}]\n", 3, 8, "keys[0].name", "name is missing", ""},
		"two keys of one name":    {tiny + "keys: [{name: a, key: env:K}, {name: a, key: env:L}]\n", 3, 38, "keys[1].name", "has the name", ""},
		"two keys of one secret":  {tiny + "keys: [{name: a, key: env:K}, {name: b, key: env:K}]\n", 3, 46, "keys[1].key", "same secret", ""},
		"media domain with a URL": {tiny + "media_domains: [\"https://x\"]\n", 3, 17, "media_domains[0]", "not a host", ""},

		"no name":           {w + "  - {model: m, sim: {}}", 2, 5, "workers[0].name", "name is missing", ""},
		"bad name":          {w + "  - {name: W_0, model: m, sim: {}}", 2, 12, "workers[0].name", "cannot be used", "lower-case"},
		"reserved name":     {w + "  - {name: engine, model: m, sim: {}}", 2, 12, "workers[0].name", "engine's own log", ""},
		"name twice":        {tiny + "  - {name: w0, model: n, sim: {}}", 3, 12, "workers[1].name", "has the name", "differently"},
		"no model":          {w + "  - {name: w0, sim: {}}", 2, 5, "workers[0].model", "model is missing", ""},
		"no kind":           {w + "  - {name: w0, model: m}", 2, 5, "workers[0]", "neither vllm nor attach nor sim", "sim: {}"},
		"empty sim":         {w + "  - name: w0\n    model: m\n    sim:\n", 4, 5, "workers[0].sim", "sim is empty", "sim: {}"},
		"two kinds":         {w + "  - {name: w0, model: m, sim: {}, attach: \"http://h:1\"}", 2, 31, "workers[0].sim", "both attach and sim", ""},
		"port in use":       {w + "  - {name: w0, model: m, port: 9, sim: {}}\n  - {name: w1, model: m, port: 9, sim: {}}", 3, 32, "workers[1].port", "belongs to w0", ""},
		"port of gateway":   {w + "  - {name: w0, model: m, port: 8090, sim: {}}", 2, 32, "workers[0].port", "the gateway", ""},
		"port out of range": {w + "  - {name: w0, model: m, port: 70000, sim: {}}", 2, 32, "workers[0].port", "1 to 65535", ""},
		"policy":            {w + "  - {name: w0, model: m, sim: {}, restart: {policy: on_failure}}", 2, 53, "workers[0].restart.policy", "unknown policy", "on-failure"},
		"tries":             {w + "  - {name: w0, model: m, sim: {}, restart: {tries: 0}}", 2, 52, "workers[0].restart.tries", "at least 1", "never"},

		"attach without scheme": {w + "  - {name: w0, model: m, attach: \"127.0.0.1:1\"}", 2, 34, "workers[0].attach", "http or https", "http://127.0.0.1:1"},
		"attach with path":      {w + "  - {name: w0, model: m, attach: \"http://h:1/v1\"}", 2, 34, "workers[0].attach", "path /v1", "http://h:1"},
		"attach with user":      {w + "  - {name: w0, model: m, attach: \"http://u:p@h:1\"}", 2, 34, "workers[0].attach", "user or password", "api_key"},
		"attach with query":     {w + "  - {name: w0, model: m, attach: \"http://h:1?x=1\"}", 2, 34, "workers[0].attach", "query", ""},
		"attach with port":      {w + "  - {name: w0, model: m, attach: \"http://h:1\", port: 3}", 2, 54, "workers[0].port", "beside attach", ""},
		"attach to the gateway": {w + "  - {name: w0, model: m, attach: \"http://localhost:8090\"}", 2, 34, "workers[0].attach", "address of the gateway", ""},
		"attach twice":          {w + "  - {name: w0, model: m, attach: \"http://h:1\"}\n  - {name: w1, model: m, attach: \"http://h:1/\"}", 3, 34, "workers[1].attach", "w0 attaches", "count twice"},
		"attach with gpu list":  {w + "  - {name: w0, model: m, attach: \"http://h:1\", gpus: [0]}", 2, 54, "workers[0].gpus", "whole number", "under vllm"},

		"no path":           {w + "  - {name: w0, model: m, vllm: {args: []}}", 2, 32, "workers[0].vllm.path", "path is missing", "hub name"},
		"gpus of worker":    {w + "  - {name: w0, model: m, gpus: 1, vllm: {path: o/m}}", 2, 32, "workers[0].gpus", "gpus beside vllm", "vllm: {gpus: [0]}"},
		"gpus in one text":  {w + "  - {name: w0, model: m, vllm: {path: o/m, gpus: \"0,1\"}}", 2, 50, "workers[0].vllm.gpus[0]", "several GPUs", "[0, 1]"},
		"no gpu":            {w + "  - {name: w0, model: m, vllm: {path: o/m, gpus: [cuda]}}", 2, 51, "workers[0].vllm.gpus[0]", "not a GPU", "nvidia-smi -L"},
		"gpu twice":         {w + "  - {name: w0, model: m, vllm: {path: o/m, gpus: [0, 0]}}", 2, 54, "workers[0].vllm.gpus[1]", "twice", ""},
		"args host":         {w + "  - {name: w0, model: m, vllm: {path: o/m, args: [--host, 0.0.0.0]}}", 2, 51, "workers[0].vllm.args[0]", "--host cannot be set", "127.0.0.1"},
		"args port":         {w + "  - {name: w0, model: m, vllm: {path: o/m, args: [--port=1]}}", 2, 51, "workers[0].vllm.args[0]", "--port cannot be set", "port:"},
		"args key":          {w + "  - {name: w0, model: m, vllm: {path: o/m, args: [--api_key=x]}}", 2, 51, "workers[0].vllm.args[0]", "--api-key cannot be set", "api_key: env:"},
		"args with a space": {w + "  - {name: w0, model: m, vllm: {path: o/m, args: [--max-model-len 9]}}", 2, 51, "workers[0].vllm.args[0]", "in one argument", "--max-model-len=9"},
		"args with command": {w + "  - {name: w0, model: m, vllm: {path: o/m, args: [serve, o/m]}}", 2, 51, "workers[0].vllm.args[0]", `begin with "serve"`, ""},
		"env of ours":       {w + "  - {name: w0, model: m, vllm: {path: o/m, env: {VLLM_DECK_X: 1}}}", 2, 63, "workers[0].vllm.env.VLLM_DECK_X", "kept for vllmdeck", ""},
		"env multiproc":     {w + "  - {name: w0, model: m, vllm: {path: o/m, env: {PROMETHEUS_MULTIPROC_DIR: /t}}}", 2, 76, "workers[0].vllm.env.PROMETHEUS_MULTIPROC_DIR", "dead processes", "drop it"},
		"env and gpus":      {w + "  - {name: w0, model: m, vllm: {path: o/m, gpus: 0, env: {CUDA_VISIBLE_DEVICES: 1}}}", 2, 81, "workers[0].vllm.env.CUDA_VISIBLE_DEVICES", "twice", "keep gpus"},

		"alias of a model":       {"models: [{name: a}, {name: b, aliases: [a]}]\n" + w + "  - {name: w0, model: a, sim: {}}\n  - {name: w1, model: b, sim: {}}", 1, 41, "models[1].aliases[0]", "taken by models[0].name", ""},
		"alias twice":            {"models: [{name: a, aliases: [x]}, {name: b, aliases: [x]}]\n" + w + "  - {name: w0, model: a, sim: {}}\n  - {name: w1, model: b, sim: {}}", 1, 55, "models[1].aliases[0]", "taken by models[0].aliases[0]", ""},
		"alias of worker model":  {"models: [{name: a, aliases: [b]}]\n" + w + "  - {name: w0, model: a, sim: {}}\n  - {name: w1, model: b, sim: {}}", 1, 30, "models[0].aliases[0]", "taken by workers[1].model", ""},
		"model twice":            {"models: [{name: a}, {name: a}]\n" + w + "  - {name: w0, model: a, sim: {}}", 1, 28, "models[1].name", "taken", ""},
		"model with space":       {w + "  - {name: w0, model: a b, sim: {}}", 2, 23, "workers[0].model", "holds a space", ""},
		"simulated beside real":  {w + "  - {name: w0, model: m, vllm: {path: o/m}}\n  - {name: w1, model: m, sim: {}}", 3, 31, "workers[1].sim", "never mixed with real", "m-sim"},
		"simulated and provider": {tiny + "providers: [{name: p, url: \"https://x/v1\", models: {m: n}, spend_cap: {day: 1}}]", 2, 31, "workers[0].sim", "the provider p serves m too", ""},

		"provider name":         {tiny + "providers: [{name: w0, url: \"https://x/v1\", models: {m: n}}]", 3, 20, "providers[0].name", "a worker is called", ""},
		"provider url":          {tiny + "providers: [{name: p, url: x.com, models: {m: n}}]", 3, 28, "providers[0].url", "http or https", ""},
		"provider no models":    {tiny + "providers: [{name: p, url: \"https://x\"}]", 3, 13, "providers[0].models", "models is missing", ""},
		"provider of no model":  {w + "  - {name: w0, model: llama, vllm: {path: o/m}}\nproviders: [{name: p, url: \"https://x\", models: {lama: n}}]", 3, 56, "providers[0].models.lama", "no worker", `"llama"`},
		"way to fail over":      {"models: [{name: m, failover: always}]\n" + tiny, 1, 30, "models[0].failover", "not a way", "never, down or overload"},
		"nobody may serve":      {"models: [{name: m, failover: never}]\nproviders: [{name: p, url: \"https://x\", models: {m: n}}]", 1, 30, "models[0].failover", "nobody may serve", ""},
		"price of no model":     {tiny + "providers: [{name: p, url: \"https://x\", models: {m: n}, prices: {o: x/y}}]", 3, 69, "providers[0].prices.o", "does not have the model", ""},
		"negative cap":          {tiny + "providers: [{name: p, url: \"https://x\", models: {m: n}, spend_cap: {day: -1}}]", 3, 74, "providers[0].spend_cap.day", "negative", ""},
		"per_token and hours":   {tiny + "cost: {gpu_hour: 1, per_token: {input: 1, output: 1}}", 3, 18, "cost.gpu_hour", "contradict", "keep"},
		"per_token by half":     {tiny + "cost: {per_token: {input: 1}}", 3, 19, "cost.per_token.output", "output is missing", ""},
		"negative rate":         {tiny + "cost: {gpu_hour: -1}", 3, 18, "cost.gpu_hour", "negative", ""},
		"sim without sequences": {w + "  - {name: w0, model: m, sim: {max_num_seqs: 0}}", 2, 46, "workers[0].sim.max_num_seqs", "at least 1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			errs := mistakes(t, c.text, "K", "0123456789abcdef", "L", "fedcba9876543210")
			for _, p := range errs {
				if p.Path == c.path && strings.Contains(p.Msg, c.msg) {
					if p.Line != c.line || p.Col != c.col {
						t.Errorf("%v is at %d:%d, want %d:%d", p, p.Line, p.Col, c.line, c.col)
					}
					if !strings.Contains(p.Hint, c.hint) {
						t.Errorf("hint = %q, want %q in it", p.Hint, c.hint)
					}
					return
				}
			}
			t.Errorf("mistakes are\n%v\nwant %s: %s", errs, c.path, c.msg)
		})
	}
}

func TestEveryMistakeIsReportedInOrder(t *testing.T) {
	errs := mistakes(t, `lisen: a
grace: 5
workers:
  - {name: W0, modle: m, vllm: {args: [--port=1], gpus: [x]}}
cost: {gpu_hour: cheap}
`)
	var got []string
	for _, p := range errs {
		got = append(got, p.Path)
	}
	want := "lisen grace workers[0].name workers[0].modle workers[0].vllm.path workers[0].vllm.args[0] workers[0].vllm.gpus[0] cost.gpu_hour"
	if strings.Join(got, " ") != want {
		t.Errorf("paths = %s\n want %s", strings.Join(got, " "), want)
	}
	text := errs.Error()
	for _, part := range []string{"vllmdeck.yaml:4:16: workers[0].modle: unknown key \"modle\"\n    4 |   - {name: W0, modle: m", "\n      |                ^", "\n      = did you mean \"model\"?"} {
		if !strings.Contains(text, part) {
			t.Errorf("Error() =\n%s\nwant in it\n%s", text, part)
		}
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	const secret = "sk-Zm9vYmFyMTIz"
	for _, text := range []string{
		tiny + "keys: [{name: a, key: " + secret + ", bogus: 1}]\n",
		tiny + "keys: [{name: a, key: \"" + secret + "\", bogus: 1}]\n",
		tiny + "keys:\n  - {name: a b, key: |\n     " + secret + "\n  }\n",
		tiny + "keys:\n  - name: a\n    key: " + secret + ": x\n", // not even YAML
		tiny + "keys: [" + secret + "]\n" + "providers: [{key: '" + secret + "'}]\n",
		"workers:\n  - {name: w0, model: m, api_key: " + secret + ", sim: {}, port: x}\n",
		"workers:\n  - {name: W0, model: m, vllm: {path: o/m, env: {HF_TOKEN: " + secret + ", PROMETHEUS_MULTIPROC_DIR: x}}}\n",
		"workers:\n  - {name: W0, model: m, vllm: {path: o/m, args: [--api-key=" + secret + "]}}\n",
		"workers:\n  - {name: W0, model: m, vllm: {path: o/m, args: [--hf-token, " + secret + "]}}\n",
		"workers:\n  - {name: W0, model: m, attach: \"http://u:" + secret + "@h\"}\n",
	} {
		_, err := Parse("c", []byte(text), env())
		if err == nil {
			t.Errorf("no error for\n%s", text)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("the secret is shown:\n%v", err)
		}
	}
	if err := mistakes(t, tiny+"keys: [{name: a, key: env:NOPE}]\n"); !strings.Contains(err.Error(), "key: env:NOPE}") {
		t.Errorf("a reference is no secret, it must be shown:\n%v", err)
	}
	c := mustParse(t, tiny+"keys: [{name: a, key: env:K}]\n", "K", secret)
	if c.Keys[0].Key.Val != secret {
		t.Errorf("key = %q, want the value of K", c.Keys[0].Key.Val)
	}
}

func TestSecretFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("good", "0123456789abcdef\n", 0o600)
	write("wide", "0123456789abcdeg\n", 0o644)
	write("empty", " \n", 0o600)
	write("two", "a\nb\n", 0o600)
	load := func(name string) (*Config, error) {
		return Parse(filepath.Join(dir, "c.yaml"), []byte(tiny+"keys: [{name: a, key: file:"+name+"}]\n"), env())
	}
	c, err := load("good")
	if err != nil || c.Keys[0].Key.Val != "0123456789abcdef" || len(c.Warnings) > 0 {
		t.Errorf("good: %v %v", c, err)
	}
	if c, err = load("wide"); err != nil || len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "chmod 600") {
		t.Errorf("wide: %v, want a warning that says chmod 600", err)
	}
	for _, name := range []string{"empty", "two"} {
		if _, err := load(name); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestWarnings(t *testing.T) {
	for name, c := range map[string][2]string{
		"flag":        {"workers: [{name: w0, model: m, vllm: {path: o/m, args: [--max_modle_len=1]}}]", "has no flag --max-modle-len; did you mean --max-model-len?"},
		"far flag":    {"workers: [{name: w0, model: m, vllm: {path: o/m, args: [--zzz-qqq]}}]", "a newer vLLM may know it"},
		"gpu overlap": {"workers: [{name: w0, model: m, vllm: {path: o/m, gpus: 0}}, {name: w1, model: m, vllm: {path: o/m, gpus: [1, 0]}}]", "GPU 0 is given to w0 and to w1"},
		"parallel":    {"workers: [{name: w0, model: m, vllm: {path: o/m, gpus: [0], args: [--tensor-parallel-size=2, -pp, 2]}}]", "ask for 4 GPUs, gpus names 1"},
		"log stats":   {"workers: [{name: w0, model: m, vllm: {path: o/m, args: [--disable-log-stats]}}]", "without its metrics"},
		"token":       {"workers: [{name: w0, model: m, vllm: {path: o/m, env: {HF_TOKEN: hf_abc}}}]", "HF_TOKEN looks like a secret"},
		"visible":     {"workers: [{name: w0, model: m, vllm: {path: o/m, env: {CUDA_VISIBLE_DEVICES: 1}}}]", "gpus: [1]"},
		"free":        {tiny + "cost: {gpu_hour: 0}", "0 says that the hour is free"},
		"dear":        {tiny + "cost: {gpu_hour: 25000}", "a lot"},
		"per token":   {tiny + "cost: {per_token: {input: 0.00000015, output: 0.6}}", "not per token"},
		"unserved":    {"models: [{name: other}]\n" + tiny, `no worker and no provider serves "other"`},
		"near model":  {"models: [{name: llama-8b}]\nworkers: [{name: w0, model: llama-8B, sim: {}}, {name: w1, model: llama-8b, sim: {}}]", "is it the same one?"},
		"no cap":      {"workers: [{name: w0, model: m, vllm: {path: o/m}}]\nproviders: [{name: p, url: \"https://x\", models: {m: n}}]", "no spending limit"},
		"short key":   {tiny + "keys: [{name: a, key: env:K}]", "only 5 characters"},
	} {
		t.Run(name, func(t *testing.T) {
			c2 := mustParse(t, c[0], "K", "short")
			if got := strings.Join(c2.Warnings, "\n"); !strings.Contains(got, c[1]) || !strings.Contains(got, "vllmdeck.yaml:") {
				t.Errorf("warnings = %q, want %q with its place", got, c[1])
			}
		})
	}
}

// A flag that vLLM has must be known, in every way that it may be written.
func TestKnownFlagsAreNotWarnedOf(t *testing.T) {
	c := mustParse(t, `
workers:
  - name: w0
    model: m
    vllm:
      path: o/m
      args: [--max-model-len, -1, --no-enable-prefix-caching, --tensor_parallel_size=1, -tp=1, -O3, -O.mode=3, -asc, 1, --enforce-eager,
        --compilation-config.mode=3, --kv-cache-memory=1, "--speculative-config={\"method\": \"mtp\"}", --served-model-name, a, b,
        --shutdown-timeout=10, --enable-prompt-tokens-details, --enable-request-id-headers, "--custom-histogram-buckets={}", --device-ids=0]
`)
	if len(c.Warnings) > 0 {
		t.Errorf("warnings = %q, want none", c.Warnings)
	}
}

func TestBaselinesAreLookedUp(t *testing.T) {
	r := Reader{Env: env("HOME", "/h"), Prices: func(ref string) (bool, []string) {
		return ref == "openai/gpt-4o-mini", []string{"openai/gpt-4o", "openai/gpt-4o-mini"}
	}}
	if _, err := r.Parse("c", []byte(tiny)); err != nil {
		t.Errorf("the default baseline: %v", err)
	}
	_, err := r.Parse("c", []byte("models: [{name: m, baseline: openai/gpt-4o-nano}]\n"+tiny+"cost: {baseline: x, hostile: y/z}\n"))
	for _, part := range []string{`c:1:30: models[0].baseline: no price is known for "openai/gpt-4o-nano"`, "did you mean openai/gpt-4o, openai/gpt-4o-mini?", "cost.baseline", "cost.hostile", "vllmdeck prices"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error = %v\nwant in it %s", err, part)
		}
	}
}

func TestWhatIsCappedMustHaveAPrice(t *testing.T) {
	r := Reader{Env: env("HOME", "/h"), Prices: func(ref string) (bool, []string) {
		return ref == "openai/gpt-4o-mini", []string{"openai/gpt-4o-mini"}
	}}
	provider := func(rest string) []byte {
		return []byte("workers: [{name: w0, model: m, vllm: {path: o/m}}]\nproviders: [{name: mine, url: \"https://x\", models: {m: gpt-4o-mini}" + rest + "}]\n")
	}
	_, err := r.Parse("c", provider(", spend_cap: {day: 1}"))
	for _, part := range []string{`c:2:56: providers[0].models.m: no price is known for "mine/gpt-4o-mini", so that spend_cap cannot be kept`, "prices: {m: PROVIDER/MODEL}", "openai/gpt-4o-mini"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error = %v\nwant in it %s", err, part)
		}
	}
	if _, err := r.Parse("c", provider(", prices: {m: openai/gpt-4}, spend_cap: {month: 1}")); err == nil || !strings.Contains(err.Error(), "providers[0].prices.m") {
		t.Errorf("error = %v, want one about the price that is named", err)
	}
	if c, err := r.Parse("c", provider(", prices: {m: openai/gpt-4o-mini}, spend_cap: {day: 1}")); err != nil {
		t.Errorf("a price that is known: %v", err)
	} else if got := c.Providers[0].PriceRef("m"); got != "openai/gpt-4o-mini" {
		t.Errorf("PriceRef = %q, want openai/gpt-4o-mini", got)
	}
	c, err := r.Parse("c", provider(""))
	if err != nil || !strings.Contains(strings.Join(c.Warnings, "\n"), "will not be known") {
		t.Errorf("without a cap: error %v, want a warning that the cost will not be known", err)
	}
}

func TestFailoverIsForOutagesUnlessTheConfigSaysOtherwise(t *testing.T) {
	c := mustParse(t, "models: [{name: a, failover: overload}, {name: b}]\nworkers: [{name: w0, model: a, vllm: {path: o/m}}, {name: w1, model: b, vllm: {path: o/m}}, {name: w2, model: c, vllm: {path: o/m}}]")
	for model, want := range map[string]string{"a": FailoverOverload, "b": FailoverDown, "c": FailoverDown} {
		if got := c.Model(model).Failover; got != want {
			t.Errorf("failover of %s = %q, want %q", model, got, want)
		}
	}
}

func TestTheNameOfAnAnswersLimitIsThatOfTheProvider(t *testing.T) {
	for url, want := range map[string]string{
		"https://api.openai.com/v1": LimitCompletion, "https://eu.api.openai.com/v1": LimitCompletion, "https://api.deepinfra.com/v1/openai": LimitAsSent, "https://api.openai.com.example.org/v1": LimitAsSent,
	} {
		text := "models: [{name: m}]\nproviders: [{name: p, url: \"" + url + "\", models: {m: x}, spend_cap: {day: 1}%s}]\n"
		if got := mustParse(t, fmt.Sprintf(text, "")).Providers[0].OutputLimit; got != want {
			t.Errorf("at %s it is %q, want %q", url, got, want)
		}
		if got := mustParse(t, fmt.Sprintf(text, ", output_limit: max_tokens")).Providers[0].OutputLimit; got != LimitTokens {
			t.Errorf("at %s, told max_tokens, it is %q", url, got)
		}
	}
	errs := mistakes(t, "models: [{name: m}]\nproviders: [{name: p, url: \"https://x.org/v1\", models: {m: x}, spend_cap: {day: 1}, output_limit: tokens}]\n")
	if len(errs) != 1 || errs[0].Path != "providers[0].output_limit" {
		t.Errorf("mistakes = %v, want one of output_limit", errs)
	}
}

func TestJunkEndsSoonWithAnError(t *testing.T) {
	bomb := "workers:\n  - &w {name: w0, model: m, vllm: &v {path: p, args: &a [" + strings.Repeat("x, ", 1000) + "]}}\n" + strings.Repeat("  - *w\n", 10_000)
	loop := "workers:\n  - &w {<<: *w, name: w0}\n"
	for name, text := range map[string]string{
		"a megabyte":  strings.Repeat("workers: x\n", 100_000),
		"keys":        strings.Repeat("bogus: 1\n", 5_000),
		"brackets":    strings.Repeat("[", 250_000),
		"braces":      strings.Repeat("{a: ", 60_000),
		"closing":     strings.Repeat("]", 250_000),
		"dashes":      strings.Repeat("- ", 100_000),
		"questions":   strings.Repeat("? ", 100_000),
		"anchors":     strings.Repeat("&a ", 80_000),
		"tags":        strings.Repeat("!a ", 80_000),
		"quotes":      strings.Repeat(`"`, 250_000),
		"zeros":       strings.Repeat("\x00", 250_000),
		"bomb":        bomb,
		"merge loop":  loop,
		"alias loop":  "workers: &a [*a]\n",
		"alias only":  "workers: &a *a\n",
		"long line":   "listen: " + strings.Repeat("é", 100_000),
		"nested keys": nested(2000),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			errs := mistakes(t, text)
			if len(errs.Error()) > 20_000 {
				t.Errorf("the error is %d bytes long", len(errs.Error()))
			}
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// nested is a mapping in a mapping in a mapping.
func nested(depth int) string {
	var b strings.Builder
	for i := range min(depth, 600) {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		string(Example), uncommented(), tiny, "a: &a [*a]", "<<: *x", "workers: [{<<: &b {name: w0}}]", "? [a]\n: b", "a: !!binary x",
		"workers:\n  - name: w0\n    vllm: {path: ~, args: [--port 1], env: {A: env:B}}\n", "listen: \"\\e[0m\"\n", "\ufeffa: |\n  b\n", "%YAML 1.2\n---\na: 1\n",
		"cost: {gpu_hour: 1e999999999}", "grace: 9999999999999h", "workers: {a: b}", "keys: [{key: file:/dev/stdin}]", "- - - a", "'", "a: >-\n\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("fuzz.yaml", text, env("HOME", "/home/me", "B", "b"))
		if (c == nil) == (err == nil) {
			t.Fatalf("Parse = %v, %v: want one of the two", c, err)
		}
		if err != nil {
			if strings.ContainsAny(err.Error(), "\x1b\x07\r\x00") {
				t.Errorf("a control character in %q", err)
			}
			return
		}
		if c.State == "" || c.Cost.Baseline == "" && !strings.Contains(string(text), "baseline") {
			t.Errorf("a default is missing in %+v", c)
		}
		if err := Validate(c, nil); err != nil {
			t.Errorf("what Parse took, Validate refuses: %v", err)
		}
	})
}

func TestThoseThatSleepMayShareAGPU(t *testing.T) {
	text := "workers: [{name: w0, model: m, sleep: {}, vllm: {path: o/m, gpus: 0}}, {name: w1, model: n, sleep: {after: 5m, level: 2}, vllm: {path: o/n, gpus: 0}}]"
	c, err := Reader{}.Parse("a.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(strings.Join(c.Warnings, " "), "is given to") {
		t.Errorf("warnings = %q: they take turns", c.Warnings)
	}
	if got, want := *c.Workers[0].Sleep, (Sleep{Level: 1, Stay: 5 * time.Second}); got != want {
		t.Errorf("sleep: {} is %+v, want %+v", got, want)
	}
	if got, want := *c.Workers[1].Sleep, (Sleep{After: 5 * time.Minute, Level: 2, Stay: 5 * time.Second}); got != want {
		t.Errorf("sleep is %+v, want %+v", got, want)
	}
}

func TestASleepThatIsSwitchedOnIsToldItsDefaults(t *testing.T) {
	for _, word := range []string{"yes", "true", "off"} {
		_, err := Parse("c", []byte("workers:\n  - {name: w, model: m, sim: {}, sleep: "+word+"}\n"), env("HOME", "/h"))
		if err == nil || !strings.Contains(err.Error(), "sleep: {} for its defaults") {
			t.Errorf("sleep: %s: %v, want it told to write sleep: {}", word, err)
		}
	}
}
