package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// search looks for every canary in one place.
func (w *watch) search(place string, text []byte) {
	w.searched++
	w.bytes += int64(len(text))
	for _, c := range w.canaries {
		at := bytes.Index(text, []byte(c.text))
		switch {
		case at < 0:
		case slices.ContainsFunc(c.places, func(p string) bool { return strings.HasPrefix(place, p) }):
			w.found[c.name] = true
		default:
			w.hits++
			w.t.failf("%s: found in %s: … %q …", c.name, place, text[max(0, at-60):min(len(text), at+len(c.text)+20)])
		}
	}
}

func (w *watch) rightly() int { return len(w.found) }

// look searches everything: what can be asked for, the screens, the processes, then, after the engine has been made to crash,
// its last words and the files.
func (w *watch) look(ctx context.Context) error {
	s, err := w.e.snapshot(ctx)
	if err != nil {
		return err
	}
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	w.search("snapshot", text)
	names := []string{"engine"}
	for _, wk := range s.Workers {
		names = append(names, wk.Name)
	}
	for _, p := range s.Prompts {
		names = append(names, "prompt/"+p.ID)
	}
	for _, name := range names {
		lines, err := w.e.control.Log(ctx, name, 1)
		if err != nil && !strings.Contains(name, "a0") {
			return fmt.Errorf("log of %s: %w", name, err)
		}
		text, err := json.Marshal(lines)
		if err != nil {
			return err
		}
		w.search("log of "+name, text)
	}
	rows, err := w.e.control.Spend(ctx, api.Query{By: []string{"model", "worker", "class", "key", "route", "outcome"}})
	if err != nil {
		return err
	}
	if text, err = json.Marshal(rows); err != nil {
		return err
	}
	w.search("history", text)
	for _, args := range [][]string{{"status", "--json"}, {"status"}, {"worker", "list"}, {"worker", "list", "--json"}, {"keys", "list"}, {"keys", "list", "--json"}, {"logs", "engine"}, {"logs", "w0"}, {"config", "check"}, {"prompt", "--help"}} {
		out, err := w.e.run(ctx, args...)
		if err != nil {
			return err
		}
		w.search(strings.Join(args, " "), []byte(out))
	}
	for _, path := range []string{"/metrics", "/health", "/cost-comparison", "/v1/models"} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.e.url+path, nil)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+w.text("a client key of the config"))
		resp, err := w.c.http.Do(req)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: HTTP %d, %w", path, resp.StatusCode, err)
		}
		w.search(path, text)
	}
	if err := w.screens(ctx); err != nil {
		return err
	}
	if err := w.processes(s); err != nil {
		return err
	}
	if err := w.crash(ctx); err != nil {
		return err
	}
	return w.files()
}

// screens goes through every view, tab and dialog of the console.
func (w *watch) screens(ctx context.Context) error {
	x, err := w.t.console(w.e, 60, 200)
	if err != nil {
		return err
	}
	if err := x.await(ctx, "w1"); err != nil {
		return err
	}
	keys := []string{"1", "2", "\r", "]", "]", "]", "]", "[", "q", "2", "j", "\r", "]", "]", "]", "q", "2", "j", "j", "\r", "]", "]", "]", "q", "2", "G", "\r", "]", "]", "]", "q", "3", "\r"}
	for range 60 { // every request that is kept, one after the other
		keys = append(keys, "j")
	}
	keys = append(keys, "q", "4", "5", "6", "7", "8", "\t", "9", "1", "v", "l", "w", "q", "E", "q", "?", "q", ":", "\x1b", "z", "q")
	for _, k := range keys {
		x.press(k)
		if err := pause(ctx, 60*time.Millisecond); err != nil {
			return err
		}
		w.search("screen", []byte(x.sees()))
	}
	x.press("qqqq")
	w.search("screen", []byte(x.wrote()))
	w.t.logf("%d bytes of screens", len(x.wrote()))
	return nil
}

// processes searches environment and command line of every process but the engine's, whose environment was given to it.
func (w *watch) processes(s *api.Snapshot) error {
	owner := map[int]string{}
	for _, wk := range s.Workers {
		for _, pid := range append(children(wk.PID), wk.PID) {
			owner[pid] = wk.Name
		}
	}
	pids := marked("XDG_RUNTIME_DIR=" + filepath.Join(w.e.dir, "run"))
	for _, pid := range pids {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue // it has ended
		}
		name := owner[pid]
		if name == "" {
			name = fmt.Sprintf("pid %d (%.60q)", pid, cmdline)
		}
		w.search("command line of "+name, cmdline)
		if bytes.Contains(cmdline, []byte("\x00shim")) || owner[pid] != "" {
			env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			if err != nil {
				return err
			}
			w.search("environment of "+name, env)
		}
	}
	w.t.atLeast("processes searched", len(pids), 7) // engine, three shims, three servers and their engines
	return nil
}

// crash ends the engine by SIGQUIT, which makes it write what all of it is doing, while requests are under way.
func (w *watch) crash(ctx context.Context) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.c.do(ctx, w.e.url, ask{route: "chat", prompt: w.text("the prompt of a death"), tokens: 2000, stream: true, header: map[string]string{"Authorization": "Bearer " + w.text("a client key of the config")}})
	}()
	if err := pause(ctx, 200*time.Millisecond); err != nil {
		return err
	}
	if err := w.e.signal(syscall.SIGQUIT); err != nil {
		return err
	}
	if err := w.e.ended(ctx, 10*time.Second); err != nil {
		return err
	}
	<-done
	said, err := os.ReadFile(filepath.Join(w.e.dir, "serve.out"))
	if err != nil {
		return err
	}
	if !bytes.Contains(said, []byte("SIGQUIT: quit")) || !bytes.Contains(said, []byte("goroutine ")) {
		w.t.failf("SIGQUIT leaves no traces to search")
	}
	return nil
}

// files searches everything below the engine's folder but the config: state, logs, records, temporary files.
func (w *watch) files() error {
	n := 0
	err := filepath.WalkDir(w.e.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || path == w.e.config {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n++
		name, _ := filepath.Rel(w.e.dir, path)
		w.search("file "+name, text)
		return nil
	})
	w.t.note("files searched", n)
	return err
}
