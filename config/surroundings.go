package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
)

// surroundings is what a config may refer to: the environment, files, the home folder.
type surroundings struct {
	env    Lookup
	folder string // of the config file: relative paths start here, wherever the engine was started
}

// home gives the home folder; "" if there is none.
func home(env Lookup) string {
	if dir, _ := env("HOME"); dir != "" {
		return dir
	}
	// Under systemd HOME may be missing although the user has one.
	if u, err := user.Current(); err == nil {
		return u.HomeDir
	}
	return ""
}

// xdg gives a base folder of the XDG specification, or the fallback under home. The
// specification says that a relative value must be ignored.
func xdg(env Lookup, name, fallback string) string {
	if dir, _ := env(name); filepath.IsAbs(dir) {
		return dir
	}
	if h := home(env); h != "" {
		return filepath.Join(h, fallback)
	}
	return ""
}

func defaultState() string { return stateFor(os.LookupEnv) }

func stateFor(env Lookup) string {
	if dir := xdg(env, "XDG_STATE_HOME", ".local/state"); dir != "" {
		return filepath.Join(dir, "vllmdeck")
	}
	return "/var/lib/vllmdeck"
}

var variable = regexp.MustCompile(`\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))`)

// expand replaces a leading ~/ and $NAME or ${NAME} in a path.
func (s surroundings) expand(path string) (_ string, hint string, _ error) {
	var missing string
	path = variable.ReplaceAllStringFunc(path, func(m string) string {
		name := strings.Trim(m, "${}")
		v, ok := s.env(name)
		if (!ok || v == "") && missing == "" {
			missing = name
		}
		return v
	})
	switch {
	case missing != "":
		return "", "export it, or write the path out", fmt.Errorf("$%s is not set", missing)
	case strings.ContainsFunc(path, unicode.IsControl):
		return "", "", errors.New("a path cannot hold control characters")
	case path == "~" || strings.HasPrefix(path, "~/"):
		h := home(s.env)
		if h == "" {
			return "", "write the path out", errors.New("this user has no home folder")
		}
		path = filepath.Join(h, strings.TrimPrefix(path, "~"))
	case strings.HasPrefix(path, "~"):
		return "", "write the path out", errors.New("only ~/ is known, not the home of another user")
	}
	return path, "", nil
}

// abs is expand for what must be a path: relative ones start in the config's folder.
func (s surroundings) abs(path string) (string, string, error) {
	path, hint, err := s.expand(path)
	if err == nil && !filepath.IsAbs(path) {
		path = filepath.Join(s.folder, path)
	}
	return path, hint, err
}

// paths expands every path of the config in place and looks at the files that must be there.
func (d *decoder) paths(c *Config) {
	if at, ok := d.places["state"]; !ok || at.line == 0 || c.State == "" {
		c.State = stateFor(d.env)
	}
	d.path(&c.State, "state")
	if t := c.TLS; t != nil {
		d.path(&t.Cert, "tls.cert")
		d.path(&t.Key, "tls.key")
		d.certificate(t)
	}
	for i := range c.Workers {
		v := c.Workers[i].VLLM
		if v == nil {
			continue
		}
		p := fmt.Sprintf("workers[%d].vllm", i)
		if strings.ContainsAny(v.Bin, "/~$") { // else it is looked up in PATH
			d.path(&v.Bin, p+".bin")
		}
		d.modelPath(v, p+".path")
		for name, value := range v.Env {
			if isRef(value) {
				// The reference stays: whoever starts the server reads it, and no Config holds
				// the secret. A variable may hold any text; a Secret is one word.
				at := join(p+".env", name)
				if val, ok := d.refer(value, at); ok {
					d.hide(val)
				}
				if file, ok := strings.CutPrefix(value, "file:"); ok {
					if abs, _, err := d.abs(file); err == nil {
						v.Env[name] = "file:" + abs
					}
				}
				continue
			}
			if looksLikeSecretName(name) && value != "" {
				d.hide(value)
				d.warn(join(p+".env", name), fmt.Sprintf("write %s: env:%s", name, name), "%s looks like a secret that is written out", name)
			}
		}
	}
}

func (d *decoder) path(p *string, path string) {
	if *p == "" {
		return
	}
	abs, hint, err := d.abs(*p)
	if err != nil {
		d.problem(path, hint, "%v", err)
		return
	}
	*p = filepath.Clean(abs)
}

// modelPath makes a folder absolute and leaves a hub name as it is: "org/name" is a hub name
// unless the config has such a folder beside it, as vLLM itself decides.
func (d *decoder) modelPath(v *VLLM, path string) {
	if v.Path == "" {
		return
	}
	p, hint, err := d.expand(v.Path)
	if err != nil {
		d.problem(path, hint, "%v", err)
		return
	}
	asFolder := filepath.Join(d.folder, p)
	switch {
	case filepath.IsAbs(p):
		v.Path = filepath.Clean(p)
	case strings.HasPrefix(p, "./"), strings.HasPrefix(p, "../"), isDir(asFolder):
		v.Path = asFolder
	default:
		v.Path = p
		return
	}
	if !isDir(v.Path) {
		// Not an error: the config may be checked on another machine than the one it is for.
		d.warn(path, "vLLM takes 14 s to say so; correct it, or put the model there", "there is no folder %s", v.Path)
	}
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func (d *decoder) certificate(t *TLS) {
	switch {
	case t.Cert == "" || t.Key == "":
		if !d.broken["tls.cert"] && !d.broken["tls.key"] && !d.broken["tls"] {
			d.problem("tls", "tls: {cert: FILE, key: FILE}", "cert and key belong together")
		}
	case !d.broken["tls.cert"] && !d.broken["tls.key"]:
		if _, err := tls.LoadX509KeyPair(t.Cert, t.Key); err != nil {
			d.problem("tls", "both are PEM files, the key unencrypted", "the certificate cannot be used: %v", err)
		}
	}
}

// isRef says whether a value is a reference to a secret.
func isRef(value string) bool {
	return strings.HasPrefix(value, "env:") || strings.HasPrefix(value, "file:")
}

var secretName = regexp.MustCompile(`(?i)(^|_)(KEY|TOKEN|SECRET|PASSWORD)$`)

func looksLikeSecretName(name string) bool { return secretName.MatchString(name) }

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// secret reads a key or token. One that is written out is refused: configs are committed,
// copied and shown.
func (d *decoder) secret(text, path string) Secret {
	ref := strings.TrimSpace(text)
	bare := strings.Trim(ref, "${}")
	switch {
	case ref == "":
		d.problem(path, "write env:NAME or file:PATH, or leave the key out", "the secret is empty")
	case isRef(ref):
		val, ok := d.refer(ref, path)
		if ok && strings.ContainsFunc(val, func(c rune) bool { return c <= ' ' || c > '~' }) {
			d.problem(path, "it goes into an HTTP header: one line, no spaces", "%s holds more than one plain word", ref)
			ok = false
		}
		if ok {
			return Secret{Ref: ref, Val: val}
		}
	case strings.HasPrefix(ref, "$") && envName.MatchString(bare):
		d.problem(path, "write env:"+bare, "want env:NAME or file:PATH")
	default:
		d.problem(path, "export it as a variable and write env:NAME, or store it in a file (mode 0600) and write file:PATH",
			"a secret is never written into the config")
	}
	return Secret{}
}

// refer reads what env:NAME or file:PATH names, without the space around it.
func (d *decoder) refer(ref, path string) (string, bool) {
	if file, ok := strings.CutPrefix(ref, "file:"); ok {
		val, hint, err := d.secretFile(file, path)
		if err != nil {
			d.problem(path, hint, "%v", err)
		}
		return val, err == nil
	}
	name := strings.TrimPrefix(ref, "env:")
	if !envName.MatchString(name) {
		d.problem(path, "write env:NAME with the name of an environment variable", "that is no name of a variable")
		return "", false
	}
	val, _ := d.env(name)
	if val = strings.TrimSpace(val); val == "" {
		d.problem(path, "export "+name+" for the engine, or name a file: file:PATH", "the environment variable %s is not set", name)
	}
	return val, val != ""
}

// maxSecret is the largest secret file that is read, in bytes.
const maxSecret = 64 << 10

func (d *decoder) secretFile(name, path string) (val, hint string, err error) {
	name, hint, err = d.abs(name)
	if err != nil {
		return "", hint, err
	}
	info, err := os.Stat(name) // follows links, as mounted Kubernetes secrets are
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", "create it with mode 0600, or correct the path", fmt.Errorf("there is no file %s", name)
	case err != nil:
		return "", "", err
	case !info.Mode().IsRegular():
		// Reading a pipe or a device could block for ever.
		return "", "name a regular file", fmt.Errorf("%s is not a file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return "", "let the engine's user read it", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	switch {
	case err != nil:
		return "", "", err
	case len(text) > maxSecret:
		return "", "is it the right file?", fmt.Errorf("%s is too long for a secret", name)
	case len(strings.TrimSpace(string(text))) == 0:
		return "", "write the secret into it", fmt.Errorf("%s is empty", name)
	}
	if wide := info.Mode().Perm() &^ 0o600; wide != 0 {
		d.warn(path, "chmod 600 "+name, "others than its owner may use %s (mode %04o)", name, info.Mode().Perm())
	}
	return strings.TrimSpace(string(text)), "", nil
}
