package launch

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Check finds, before a start, what would make it fail: no such program, no such model, a
// port that is taken. vLLM itself takes 15 seconds to say so. The error names the setting or
// command that mends it. Nil says nothing about what only vLLM can know.
func Check(s Spec) error {
	if len(s.Argv) == 0 {
		return nil
	}
	env := childEnv(cleanEnv(os.Environ(), nil), s)
	if _, err := lookPath(s, env); err != nil {
		return err
	}
	if s.Kind == "vllm" {
		if err := checkModel(s, env); err != nil {
			return err
		}
	}
	return checkPort(s)
}

// dir is the working directory of the server.
func (s Spec) dir() string {
	if s.Dir != "" {
		return s.Dir
	}
	return s.Folder
}

// lookPath finds the program as a shell in the server's place would: by the PATH of env, or
// relative to its working directory.
func lookPath(s Spec, env []string) (string, error) {
	name := s.Argv[0]
	var candidates []string
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(s.dir(), name)
		}
		candidates = []string{name}
	} else {
		for _, dir := range filepath.SplitList(getEnv(env, "PATH")) {
			if filepath.IsAbs(dir) {
				candidates = append(candidates, filepath.Join(dir, name))
			}
		}
	}
	var denied error
	for _, path := range candidates {
		st, err := os.Stat(path)
		switch {
		case err != nil:
			if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
				denied = err
			}
		case st.IsDir():
			denied = &fs.PathError{Op: "run", Path: path, Err: errors.New("is a folder")}
		case st.Mode()&0o111 == 0:
			denied = &fs.PathError{Op: "run", Path: path, Err: errors.New("not executable: chmod +x it")}
		default:
			return path, nil
		}
	}
	if denied != nil {
		return "", fmt.Errorf("start worker %s: %w", s.Name, denied)
	}
	if strings.Contains(s.Argv[0], "/") {
		return "", fmt.Errorf("start worker %s: %w: set \"bin:\" to where it is", s.Name,
			&fs.PathError{Op: "run", Path: name, Err: fs.ErrNotExist})
	}
	return "", fmt.Errorf("start worker %s: %w: install it, or set \"bin:\" to its path, such as /opt/venv/bin/%s",
		s.Name, &exec.Error{Name: name, Err: exec.ErrNotFound}, name)
}

// startError says why a program that was found did not run.
func startError(s Spec, path string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, syscall.ENOENT) && dirMissing(s.dir()):
		hint = ": its working directory " + s.dir() + " is missing"
	case errors.Is(err, syscall.ENOENT):
		hint = ": the interpreter in its first line is missing; was its virtual environment moved?"
	case errors.Is(err, syscall.ENOEXEC):
		hint = ": neither a program for this machine nor a script with an interpreter in its first line"
	case errors.Is(err, syscall.E2BIG):
		hint = ": its arguments and environment are too long"
	}
	return fmt.Errorf("start worker %s: run %s: %w%s", s.Name, path, err, hint)
}

func dirMissing(dir string) bool {
	st, err := os.Stat(dir)
	return err != nil || !st.IsDir()
}

// modelArg is the model on a vLLM command line; "" if there is none.
func modelArg(argv []string) string {
	for i, a := range argv {
		switch v, ok := strings.CutPrefix(a, "--model="); {
		case ok:
			return v
		case a == "--model" && i+1 < len(argv):
			return argv[i+1]
		case a == "serve" && i+1 < len(argv) && !strings.HasPrefix(argv[i+1], "-"):
			return argv[i+1]
		}
	}
	return ""
}

func checkModel(s Spec, env []string) error {
	model := modelArg(s.Argv)
	switch {
	case model == "" || strings.Contains(model, "://"):
		return nil
	case strings.HasPrefix(model, "~"):
		return fmt.Errorf("model of worker %s: vLLM does not know what ~ is in %q: write the whole path", s.Name, model)
	case strings.HasPrefix(model, "/") || strings.HasPrefix(model, "."):
		dir := model
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(s.dir(), dir)
		}
		return checkModelDir(s, dir)
	}
	return checkHub(s, env, model)
}

func checkModelDir(s Spec, dir string) error {
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("model of worker %s: there is no %s: set \"path:\" to the model's folder or to a hub name", s.Name, dir)
	case err != nil:
		return fmt.Errorf("model of worker %s: %w", s.Name, err)
	case !st.IsDir():
		return nil // a single file: for vLLM to judge
	}
	for _, name := range []string{"config.json", "params.json"} { // the second is Mistral's
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return nil
		}
	}
	return fmt.Errorf("model of worker %s: %s holds no config.json: set \"path:\" to the folder that does", s.Name, dir)
}

// checkHub tells a model that would have to be fetched where fetching is forbidden.
func checkHub(s Spec, env []string, model string) error {
	if st, err := os.Stat(filepath.Join(s.dir(), model)); err == nil && st.IsDir() {
		return nil // a folder of that name wins over the hub
	}
	offline := ""
	for _, name := range []string{"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"} {
		if slices.Contains([]string{"1", "true", "yes", "on"}, strings.ToLower(getEnv(env, name))) {
			offline = name
		}
	}
	if offline == "" || strings.Count(model, "/") > 1 || getEnv(env, "VLLM_USE_MODELSCOPE") != "" {
		return nil
	}
	caches := hubCaches(s, env)
	for _, dir := range caches {
		snapshots, _ := os.ReadDir(filepath.Join(dir, "models--"+strings.ReplaceAll(model, "/", "--"), "snapshots"))
		if len(snapshots) > 0 {
			return nil
		}
	}
	if len(caches) == 0 {
		return nil
	}
	return fmt.Errorf("model of worker %s: %s is not in the cache %s and %s=%s forbids to fetch it: run \"hf download %s\", or set %s=0 in the worker's env",
		s.Name, model, caches[0], offline, getEnv(env, offline), model, offline)
}

// hubCaches are the folders where huggingface_hub and vLLM (--download-dir) look, in their order.
func hubCaches(s Spec, env []string) []string {
	var dirs []string
	for i, a := range s.Argv {
		if v, ok := strings.CutPrefix(a, "--download-dir="); ok {
			dirs = append(dirs, v)
		} else if a == "--download-dir" && i+1 < len(s.Argv) {
			dirs = append(dirs, s.Argv[i+1])
		}
	}
	home, xdg := getEnv(env, "HOME"), getEnv(env, "XDG_CACHE_HOME")
	if xdg == "" && home != "" {
		xdg = filepath.Join(home, ".cache")
	}
	hf := getEnv(env, "HF_HOME")
	if hf == "" && xdg != "" {
		hf = filepath.Join(xdg, "huggingface")
	}
	switch {
	case getEnv(env, "HF_HUB_CACHE") != "":
		dirs = append(dirs, getEnv(env, "HF_HUB_CACHE"))
	case getEnv(env, "HUGGINGFACE_HUB_CACHE") != "":
		dirs = append(dirs, getEnv(env, "HUGGINGFACE_HUB_CACHE"))
	case hf != "":
		dirs = append(dirs, filepath.Join(hf, "hub"))
	}
	return dirs
}

func checkPort(s Spec) error {
	if s.Port == 0 {
		return nil
	}
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))) //nolint:noctx // binding loopback waits for nothing
	if err == nil {
		return ln.Close()
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("port of worker %s: %w", s.Name, err)
	}
	owner := PortOwner(s.Port)
	if owner == "" {
		owner = "another process"
	}
	return fmt.Errorf("port of worker %s: %d is taken by %s: end that, or set another \"port:\"", s.Name, s.Port, owner)
}

// FreePort is a port of loopback that is free now and likely stays so until the server binds
// it, which for vLLM is a quarter of a minute later: it lies outside the range from which the
// kernel takes ports for outgoing connections. It is none of avoid: ports planned for others.
func FreePort(avoid ...int) (int, error) {
	lo, hi := portRange()
	if lo < hi {
		for range 200 {
			port := lo + rand.IntN(hi-lo)
			if slices.Contains(avoid, port) {
				continue
			}
			if ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil { //nolint:noctx // binding loopback waits for nothing
				return port, ln.Close()
			}
		}
	}
	for range 100 {
		ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // binding loopback waits for nothing
		if err != nil {
			return 0, fmt.Errorf("find a free port: %w", err)
		}
		port := ln.Addr().(*net.TCPAddr).Port
		_ = ln.Close()
		if !slices.Contains(avoid, port) {
			return port, nil
		}
	}
	return 0, errors.New("find a free port: none on 127.0.0.1")
}

// portRange is where FreePort looks first, [lo, hi). It is empty if the kernel uses all.
func portRange() (lo, hi int) {
	const first, last = 18000, 32767
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return first, last
	}
	var from, to int
	if _, err := fmt.Sscan(string(b), &from, &to); err != nil {
		return first, last
	}
	if from > first+100 {
		return first, min(from, last)
	}
	if to < 65000 {
		return to + 1, 65536
	}
	return 0, 0
}
