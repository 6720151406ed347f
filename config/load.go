package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Lookup gives the value of an environment variable and whether it is set, as os.LookupEnv does.
type Lookup func(name string) (value string, ok bool)

// PriceLookup says whether a price is known for provider/model, and if not, which known
// names are nearest to it.
type PriceLookup func(ref string) (ok bool, nearest []string)

// KeyLookup says whether client keys were made in a state folder ("vllmdeck keys"). They count
// where a config may listen only with keys.
type KeyLookup func(state string) bool

// Reader reads configs. The zero Reader is ready to use.
type Reader struct {
	Env    Lookup      // nil: the environment of this process
	Prices PriceLookup // nil: baselines are not checked
	Keys   KeyLookup   // nil: no keys but those of the config
}

// Load reads the config at path with the environment of this process.
func Load(path string) (*Config, error) { return Reader{}.Load(path) }

// Parse reads a config from text. name is the file it came from: it stands in messages, and
// relative paths in the text are relative to its folder.
func Parse(name string, text []byte, env Lookup) (*Config, error) {
	return Reader{Env: env}.Parse(name, text)
}

// maxText is the largest config that is read, in bytes. A worker takes about 300.
const maxText = 256 << 10

// Load reads the config at path. A config that can be read but is wrong gives an Errors.
func (r Reader) Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	return r.Parse(path, text)
}

// Parse is Load on text that was read already. The error is an Errors with every mistake.
func (r Reader) Parse(name string, text []byte) (*Config, error) {
	if r.Env == nil {
		r.Env = os.LookupEnv
	}
	rep := &report{file: name, places: map[string]place{}, broken: map[string]bool{}}
	root := rep.read(text)
	if root == nil {
		return nil, rep.err()
	}
	c := Default()
	c.Path = name
	d := &decoder{report: rep, surroundings: surroundings{env: r.Env, folder: folderOf(name)}}
	d.decodeRoot(root, c)
	d.paths(c)
	c.fill()
	rep.made = r.Keys
	rep.validate(c, r.Prices)
	if err := rep.err(); err != nil {
		return nil, err
	}
	for _, w := range rep.finish(rep.warnings) {
		c.Warnings = append(c.Warnings, w.String())
	}
	return c, nil
}

// Validate checks a Config that was made in code: everything that Parse checks of a file but
// for secrets and paths. prices may be nil: baselines are then not checked.
func Validate(c *Config, prices PriceLookup) error {
	r := &report{}
	r.validate(c, prices)
	return r.err()
}

// folderOf gives the absolute folder of a config file.
func folderOf(name string) string {
	abs, err := filepath.Abs(name)
	if err != nil {
		return filepath.Dir(name)
	}
	return filepath.Dir(abs)
}

// Places lists where a config is looked for when none is named, in order.
func Places() []string { return placesFor(os.LookupEnv) }

func placesFor(env Lookup) []string {
	places := []string{"vllmdeck.yaml"}
	if path := userPath(env); path != "" {
		places = append(places, path)
	}
	return append(places, "/etc/vllmdeck/vllmdeck.yaml")
}

// UserPath gives where this user's own config lies, found from every directory:
// $XDG_CONFIG_HOME/vllmdeck/vllmdeck.yaml or the same under ~/.config; "" without a home.
func UserPath() string { return userPath(os.LookupEnv) }

func userPath(env Lookup) string {
	if dir := xdg(env, "XDG_CONFIG_HOME", ".config"); dir != "" {
		return filepath.Join(dir, "vllmdeck", "vllmdeck.yaml")
	}
	return ""
}

// Find gives the path of the config: explicit (the --config flag) if there is one, else
// $VLLMDECK_CONFIG, else the first of Places that exists. ok is false if there is none. A
// path that was named and cannot be read is an error.
func Find(explicit string) (path string, ok bool, err error) { return find(explicit, os.LookupEnv) }

func find(explicit string, env Lookup) (path string, ok bool, err error) {
	if explicit != "" {
		return named(explicit, "--config", env)
	}
	if p, _ := env("VLLMDECK_CONFIG"); p != "" {
		return named(p, "VLLMDECK_CONFIG", env)
	}
	for _, p := range placesFor(env) {
		info, err := os.Stat(p)
		switch {
		case err == nil && !info.IsDir():
			return p, true, nil
		case err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR): // HOME=/dev/null
			// A config that we may not look at is not the same as none: going on would
			// start something else than what was set up here.
			return "", false, fmt.Errorf("look for a config: %w; name another with --config", err)
		}
	}
	return "", false, nil
}

func named(path, by string, env Lookup) (string, bool, error) {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		path = filepath.Join(home(env), rest) // a quoted ~ is not expanded by the shell
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", false, fmt.Errorf("%s names %s, which does not exist; \"vllmdeck init --output %s\" writes one", by, path, path)
	case err != nil:
		return "", false, fmt.Errorf("%s: %w", by, err)
	case info.IsDir():
		return "", false, fmt.Errorf("%s names %s, which is a folder; name the file in it", by, path)
	}
	return path, true, nil
}
