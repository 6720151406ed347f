package launch

import (
	"regexp"
	"slices"
	"strings"
)

const (
	// markerEnv is in the environment of every process of a launched server: its value,
	// NAME/RANDOM, finds the ones that left the tree. It must not begin with VLLM_: vLLM warns
	// about names of that prefix which it does not know.
	markerEnv = "VLLMDECK_WORKER_ID"
	// shimEnv is in the environment of the shim alone, with the same value.
	shimEnv = "VLLMDECK_SHIM_ID"
)

// keptSecrets are secrets that a server has a use for: gated models need the first three.
var keptSecrets = []string{"HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN"}

// dropped are names that mean the engine and would mislead or empower its workers: systemd's
// handshake, sockets of agents, what a shell keeps for itself.
var dropped = []string{
	"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC",
	"INVOCATION_ID", "JOURNAL_STREAM", "MAINPID", "CREDENTIALS_DIRECTORY",
	"SSH_AUTH_SOCK", "SSH_AGENT_PID", "SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY", "GPG_AGENT_INFO",
	"DBUS_SESSION_BUS_ADDRESS", "PWD", "OLDPWD", "SHLVL", "_", "TMUX", "TMUX_PANE", "STY",
}

// secretWords end a part of a name (parts lie between underscores or dashes) that says secret.
var secretWords = []string{
	"APIKEY", "TOKEN", "SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIAL", "CREDENTIALS",
}

// secretParts are such parts as a whole: as an end of a word they would hit too much (MONKEY).
var secretParts = []string{"KEY", "KEYS", "PASS", "PWD", "AUTH", "DSN", "COOKIE", "PAT"}

var (
	// Values that are secrets whatever their name: OpenAI and Anthropic, GitHub, AWS, Slack, PEM.
	secretValue = regexp.MustCompile(`^(sk-|gh[pousr]_|github_pat_|AKIA|xox[abp]-|-----BEGIN )`)
	userinfo    = regexp.MustCompile(`(://[^/@\s:]*:)[^/@\s]+@`)
)

// secretName says whether a variable of this name holds a secret: some part of it says so.
func secretName(name string) bool {
	return slices.ContainsFunc(nameParts(name), secretPart)
}

// secretEnd is secretName by the last part alone, for names of which the middle speaks of the
// tokens that models count: --long-prefill-token-threshold.
func secretEnd(name string) bool {
	parts := nameParts(name)
	return len(parts) > 0 && secretPart(parts[len(parts)-1])
}

func nameParts(name string) []string {
	return strings.FieldsFunc(strings.ToUpper(name), func(r rune) bool { return r == '_' || r == '-' || r == '.' })
}

func secretPart(part string) bool {
	return slices.Contains(secretParts, part) ||
		slices.ContainsFunc(secretWords, func(w string) bool { return strings.HasSuffix(part, w) })
}

// cleanEnv is what a server inherits: everything of ours (PATH, HOME, LANG, proxies, CUDA_*,
// NCCL_*, HF_*, VLLM_*, whatever a site needs) but our own VLLMDECK_*, the names in dropped,
// and what looks like a secret by name or by value or is named in secrets. The Hugging Face
// token stays, and so does the password in a proxy's URL: downloads need them. VLLM_API_KEY
// does not: a key that the engine does not know would shut it out; Spec.Env sets it.
func cleanEnv(environ, secrets []string) []string {
	var out []string
	for _, kv := range environ {
		name, value, ok := strings.Cut(kv, "=")
		switch {
		case !ok || name == "":
		case strings.HasPrefix(name, "VLLMDECK_"):
		case slices.Contains(dropped, name), slices.Contains(secrets, name):
		case slices.Contains(keptSecrets, name):
			out = append(out, kv)
		case strings.HasPrefix(name, "HF_") && !strings.HasSuffix(name, "_KEY"):
			out = append(out, kv) // HF_HUB_DISABLE_IMPLICIT_TOKEN and the like are switches
		case strings.HasPrefix(name, "VLLM_") && !secretEnd(name):
			out = append(out, kv)
		case secretName(name) || secretValue.MatchString(value):
		case userinfo.MatchString(value) && !strings.HasSuffix(strings.ToLower(name), "_proxy"):
		default:
			out = append(out, kv)
		}
	}
	return out
}

// childEnv is what the server gets of base, which is clean or ours, and of its Spec.
func childEnv(base []string, s Spec) []string {
	base = slices.DeleteFunc(slices.Clone(base), func(kv string) bool { return strings.HasPrefix(kv, shimEnv+"=") })
	return setEnv(setEnv(base, "PWD="+s.dir()), s.Env...)
}

// setEnv is base with the variables of add put in or replaced: with two of one name, getenv
// would give the first.
func setEnv(base []string, add ...string) []string {
	out := slices.Clone(base)
	for _, kv := range add {
		name, _, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			continue
		}
		out = slices.DeleteFunc(out, func(old string) bool { return strings.HasPrefix(old, name+"=") })
		out = append(out, kv)
	}
	return out
}

// getEnv is the value of name, "" if it is not set.
func getEnv(env []string, name string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}
