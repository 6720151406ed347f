package launch

import (
	"regexp"
	"strings"
)

const hidden = "***"

// jsonSecret finds secrets in JSON that stands on a command line: vLLM's Rust frontend gets
// --args-json with api_key and hf_token in clear.
var jsonSecret = regexp.MustCompile(`(?i)("(?:[a-z_-]*api[_-]?keys?|[a-z_-]*token|[a-z_-]*secret|[a-z_-]*password)"\s*:\s*)("(?:[^"\\]|\\.)*"|\[[^\]]*\])`)

// secretWord is a value that is a secret whatever its name, long enough to be no model's name: OpenAI and Anthropic,
// GitHub, AWS, Hugging Face.
var secretWord = regexp.MustCompile(`^(sk-[\w-]{20,}|gh[pousr]_\w{20,}|github_pat_\w{20,}|AKIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{20,})$`)

// Redact is argv for display, with the values of flags that hold secrets (--api-key,
// --hf-token and whatever is named like them), secret NAME=value words, what looks like a secret by itself, secrets inside JSON
// and passwords in URLs replaced by ***. --api-key takes several values, so all up to the next flag are hidden.
func Redact(argv []string) []string {
	if argv == nil {
		return nil
	}
	out := make([]string, 0, len(argv))
	hiding := false
	for _, a := range argv {
		isFlag := strings.HasPrefix(a, "-")
		name, value, hasValue := strings.Cut(a, "=")
		switch {
		case hiding && !isFlag:
			out = append(out, hidden)
		case isFlag && secretFlag(name):
			hiding = true
			if hasValue {
				a = name + "=" + hidden
			}
			out = append(out, a)
		case !isFlag && hasValue && secretName(name) && !strings.ContainsAny(name, "/ {"):
			out = append(out, name+"="+hidden)
		case secretWord.MatchString(a):
			hiding = false
			out = append(out, hidden)
		case hasValue && secretWord.MatchString(value):
			hiding = false
			out = append(out, name+"="+hidden)
		default:
			hiding = false
			a = jsonSecret.ReplaceAllString(a, `${1}"`+hidden+`"`)
			out = append(out, userinfo.ReplaceAllString(a, `${1}`+hidden+`@`))
		}
	}
	return out
}

// secretFlag also knows what argparse takes for --api-key and --hf-token: underscores and
// unambiguous beginnings.
func secretFlag(flag string) bool {
	name := strings.ReplaceAll(strings.TrimLeft(strings.ToLower(flag), "-"), "_", "-")
	for full, shortest := range map[string]string{"api-key": "api-k", "hf-token": "hf-t"} {
		if strings.HasPrefix(name, shortest) && strings.HasPrefix(full, name) {
			return true
		}
	}
	return secretEnd(name)
}
