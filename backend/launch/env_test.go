package launch

import (
	"slices"
	"strings"
	"testing"
)

func TestCleanEnvDropsSecretsAndKeepsWhatServersNeed(t *testing.T) {
	kept := []string{
		"PATH=/bin", "HOME=/root", "LANG=C", "LD_LIBRARY_PATH=/x", "CUDA_VISIBLE_DEVICES=0", "NCCL_DEBUG=INFO",
		"HF_TOKEN=hf_x", "HUGGING_FACE_HUB_TOKEN=x", "HF_HUB_OFFLINE=1", "HF_HUB_DISABLE_IMPLICIT_TOKEN=1",
		"TOKENIZERS_PARALLELISM=false", "VLLM_LOGGING_LEVEL=INFO", "VLLM_MAX_TOKENS_PER_EXPERT_FUSED_MOE=9",
		"https_proxy=http://user:pw@proxy:3128", "MONKEY=1", "PYTHONPATH=/y", "EMPTY=",
	}
	dropped := []string{
		"OPENAI_API_KEY=x", "ANTHROPIC_API_KEY=x", "VLLM_API_KEY=x", "GITHUB_TOKEN=x", "GITHUBTOKEN=x", "AWS_ACCESS_KEY_ID=x",
		"AWS_SESSION_TOKEN=x", "PGPASSWORD=x", "MYSQL_PWD=x", "DB_DSN=x", "client_secret=x", "SSH_AUTH_SOCK=/s", "NOTIFY_SOCKET=/n",
		"VLLMDECK_CONFIG=/c", "VLLMDECK_WORKER_ID=other/1", "DATABASE_URL=postgres://u:pw@h/db", "INNOCENT=sk-abc", "TEAM_A=x",
		"PWD=/x", "=C:=x", "NOEQUALS",
	}
	got := cleanEnv(append(slices.Clone(kept), dropped...), []string{"TEAM_A"})
	if !slices.Equal(got, kept) {
		t.Errorf("cleanEnv = %q\nwant       %q", got, kept)
	}
}

func TestSetEnvLeavesOneOfEachName(t *testing.T) {
	got := setEnv([]string{"A=1", "B=2", "A=3"}, "A=4", "C=", "broken")
	if want := []string{"B=2", "A=4", "C="}; !slices.Equal(got, want) {
		t.Errorf("setEnv = %q, want %q", got, want)
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"vllm serve m --api-key k1 k2 --port 1":                          "vllm serve m --api-key *** *** --port 1",
		"vllm serve m --api-key=k --port=1":                              "vllm serve m --api-key=*** --port=1",
		"vllm serve m --api_key k":                                       "vllm serve m --api_key ***",
		"vllm serve m --api-k k --hf-tok=h":                              "vllm serve m --api-k *** --hf-tok=***",
		"vllm serve m --hf-token h --max-model-len 8":                    "vllm serve m --hf-token *** --max-model-len 8",
		"vllm --max-num-batched-tokens 8 --tokenizer t":                  "vllm --max-num-batched-tokens 8 --tokenizer t",
		"vllm --long-prefill-token-threshold 4 --ssl-keyfile f":          "vllm --long-prefill-token-threshold 4 --ssl-keyfile f",
		"vllm --enable-prompt-tokens-details --x":                        "vllm --enable-prompt-tokens-details --x",
		`vllm-rs --args-json {"api_key":["a"],"hf_token":"b","n":1}`:     `vllm-rs --args-json {"api_key":"***","hf_token":"***","n":1}`,
		"env OPENAI_API_KEY=k vllm":                                      "env OPENAI_API_KEY=*** vllm",
		"vllm --otlp http://u:p@h:1/x":                                   "vllm --otlp http://u:***@h:1/x",
		"vllm --x hf_abcdefghijklmnopqrstuv --y=sk-abcdefghijklmnopqrst": "vllm --x *** --y=***",
		"vllm serve hf_model --served-model-name sk-small":               "vllm serve hf_model --served-model-name sk-small",
		"": "",
	} {
		if got := strings.Join(Redact(strings.Fields(in)), " "); got != want {
			t.Errorf("Redact(%s) = %s, want %s", in, got, want)
		}
	}
}

func FuzzRedactNeverShowsAKey(f *testing.F) {
	f.Add("vllm serve m", "--port 1")
	f.Fuzz(func(t *testing.T, before, after string) {
		const key = "sk-CANARY"
		argv := append(append(strings.Fields(before), "--api-key", key), strings.Fields(after)...)
		if got := Redact(argv); slices.Contains(got, key) || len(got) != len(argv) {
			t.Errorf("Redact(%q) = %q", argv, got)
		}
	})
}
