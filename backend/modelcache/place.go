package modelcache

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Env gives a variable of an environment; "" if it is not set.
type Env func(name string) string

// over gives an environment in which set wins over e.
func (e Env) over(set map[string]string) Env {
	return func(name string) string {
		if v, ok := set[name]; ok {
			return v
		}
		return e(name)
	}
}

// Need is what one worker of the config reads from the cache.
type Need struct {
	Worker   string
	Models   []string          // as vLLM was told: hub names and folders
	Revision string            // of the first of Models; "" for main
	Env      map[string]string // that it has beside the engine's
	Folder   string            // --download-dir, a hub folder for weights; "" for none
}

// hubFolder is where huggingface_hub keeps models (its constants.py, 2.4); "" if there is no home.
func hubFolder(e Env) string {
	for _, name := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} {
		if v := e(name); v != "" {
			return expand(e, v)
		}
	}
	if home := hfHome(e); home != "" {
		return filepath.Join(home, "hub")
	}
	return ""
}

func hfHome(e Env) string {
	if v := e("HF_HOME"); v != "" {
		return expand(e, v)
	}
	if v := e("XDG_CACHE_HOME"); v != "" {
		return filepath.Join(expand(e, v), "huggingface")
	}
	if v := e("HOME"); v != "" {
		return filepath.Join(v, ".cache", "huggingface")
	}
	return ""
}

// expand replaces ~ and $NAME, as huggingface_hub does in these variables.
func expand(e Env, path string) string {
	path = os.Expand(path, e)
	if path == "~" || strings.HasPrefix(path, "~/") {
		path = filepath.Join(e("HOME"), path[1:])
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return path
}

// offline says whether nothing may be fetched.
func offline(e Env) bool { return truth(e("HF_HUB_OFFLINE")) || truth(e("TRANSFORMERS_OFFLINE")) }

func truth(v string) bool {
	return slices.Contains([]string{"1", "ON", "YES", "TRUE"}, strings.ToUpper(strings.TrimSpace(v)))
}

// endpoint is the hub's base URL.
func endpoint(e Env) (*url.URL, error) {
	text := strings.TrimRight(strings.TrimSpace(e("HF_ENDPOINT")), "/")
	if text == "" {
		text = "https://huggingface.co"
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return nil, errors.New("HF_ENDPOINT is no address of a hub: write it as https://HOST")
	}
	return u, nil
}

// token is the bearer token of a hub. It prints as nothing but its name.
type token struct {
	text string
	from string // for messages: HF_TOKEN, or the file
}

// String keeps the token out of whatever prints it.
func (t token) String() string { return "token from " + t.from }

// GoString does the same for %#v.
func (t token) GoString() string { return t.String() }

// readToken finds the token as huggingface_hub does: HF_TOKEN, else the file that "hf auth login" writes.
func readToken(e Env) token {
	for _, name := range []string{"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"} {
		if v := strings.TrimSpace(e(name)); word(v) {
			return token{v, name}
		}
	}
	if truth(e("HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
		return token{}
	}
	path := expandIf(e, e("HF_TOKEN_PATH"))
	if home := hfHome(e); path == "" && home != "" {
		path = filepath.Join(home, "token")
	}
	if path == "" {
		return token{}
	}
	b, err := os.ReadFile(path)
	if v := strings.TrimSpace(string(b)); err == nil && len(v) < 1<<10 && word(v) {
		return token{v, path}
	}
	return token{}
}

func expandIf(e Env, path string) string {
	if path == "" {
		return ""
	}
	return expand(e, path)
}

// word says whether v can stand in a header.
func word(v string) bool {
	return v != "" && !strings.ContainsFunc(v, func(c rune) bool { return c <= ' ' || c > '~' })
}

var hubName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95})?$`)

// ValidName says whether a text can be a model's name on the hub, such as Qwen/Qwen3-8B or gpt2.
// Such a name is safe as a folder's.
func ValidName(name string) bool {
	return hubName.MatchString(name) && !strings.Contains(name, "--") && !strings.Contains(name, "..") &&
		!strings.HasSuffix(name, ".git") && !strings.HasSuffix(name, ".")
}

const folderPrefix = "models--"

// folderOf is a model's folder in a hub folder.
func folderOf(name string) string { return folderPrefix + strings.ReplaceAll(name, "/", "--") }

// nameOf is the model of a folder in a hub folder; false if it is none.
func nameOf(folder string) (string, bool) {
	rest, ok := strings.CutPrefix(folder, folderPrefix)
	name := strings.Replace(rest, "--", "/", 1)
	return name, ok && ValidName(name)
}

// validRev says whether a text can be a revision: a branch, tag or commit.
func validRev(rev string) bool {
	return revName.MatchString(rev) && !strings.Contains(rev, "..") && !strings.Contains(rev, "//")
}

var (
	revName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}$`)
	commit  = regexp.MustCompile(`^[0-9a-f]{40}$`)
	etagged = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}$`)
)

// validFile says whether a name that the hub gives stays within a snapshot's folder.
func validFile(name string) bool {
	if name == "" || len(name) > 500 || strings.ContainsAny(name, "\\:\x00") || !filepath.IsLocal(name) {
		return false
	}
	if strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return false
	}
	return !slices.ContainsFunc(strings.Split(name, "/"), func(p string) bool { return p == "" || p == "." || p == ".." })
}
