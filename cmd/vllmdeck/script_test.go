package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/capture"
)

// TestScripts runs every command as a user would type it. Each script has folders of its own,
// and whatever it leaves running is ended.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			dir := shortDir(t)
			env.Vars = ownEnv(dir, env.Vars)
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("D", dir)
			env.Defer(func() {
				killMarked(t, dir)
				_ = os.RemoveAll(dir)
			})
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name != "space" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			free, ok := freeSpace(os.TempDir())
			return !ok || free >= cpuDiskBytes, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"rc": cmdRC, "await": cmdAwait, "pid": cmdPID, "alive": cmdAlive, "signal": cmdSignal, "get": cmdGet, "ask": cmdAsk, "mode": cmdMode,
		},
	})
}

// cmdRC runs a command and wants an exit code: rc 3 vllmdeck status.
func cmdRC(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if neg || err != nil || len(args) < 2 {
		ts.Fatalf("usage: rc CODE COMMAND…")
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// engineOf reads the snapshot of the newest engine of a script.
func engineOf(ts *testscript.TestScript) (*api.Snapshot, error) {
	found, err := filepath.Glob(filepath.Join(ts.Getenv("XDG_RUNTIME_DIR"), "vllmdeck", "engine-*.json"))
	if err != nil || len(found) == 0 {
		return nil, errors.New("no engine is recorded")
	}
	var rec engineRecord
	for _, path := range found {
		var r engineRecord
		if text, err := os.ReadFile(path); err == nil && json.Unmarshal(text, &r) == nil && r.Started.After(rec.Started) {
			rec = r
		}
	}
	c, err := api.Dial("unix:" + rec.Socket)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return fetch(context.Background(), c)
}

// cmdAwait waits for what will be: "await engine", "await w0 ready", "await w0 gone",
// "await prompt cancelled" (the newest), "await used KEY REQUESTS", "await captured KEY REQUESTS", "await file PATH REGEXP".
func cmdAwait(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: await engine | WORKER STATE | prompt STATE | crashes N | roll STATE | file PATH REGEXP | dead PID")
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		why := awaited(ts, args)
		if why == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("await %v: %v", args, why)
		}
		<-time.After(30 * time.Millisecond)
	}
}

func awaited(ts *testscript.TestScript, args []string) error {
	if args[0] == "file" {
		text, err := os.ReadFile(ts.MkAbs(args[1]))
		if err == nil && !regexp.MustCompile("(?m)"+args[2]).Match(text) {
			err = fmt.Errorf("not yet in\n%s", text)
		}
		return err
	}
	if args[0] == "dead" {
		if pid, err := strconv.Atoi(args[1]); err != nil || processBirth(pid) != "" {
			return errors.New("it runs, or is no pid")
		}
		return nil
	}
	s, err := engineOf(ts)
	if err != nil || args[0] == "engine" {
		return err
	}
	if args[0] == "prompt" {
		if len(s.Prompts) == 0 || s.Prompts[0].State != args[1] {
			return fmt.Errorf("prompts are %+v", s.Prompts)
		}
		return nil
	}
	if args[0] == "captured" {
		list, err := capture.Read(context.Background(), s.Engine.State, args[1], 1000)
		if err == nil && strconv.Itoa(len(list)) != args[2] {
			err = fmt.Errorf("%d are kept", len(list))
		}
		return err
	}
	if args[0] == "used" {
		for _, k := range s.Keys {
			if k.Name == args[1] && strconv.FormatInt(k.Use.Requests, 10) == args[2] {
				return nil
			}
		}
		return fmt.Errorf("keys are %+v", s.Keys)
	}
	if args[0] == "roll" {
		for _, r := range s.Rolls {
			if r.State != args[1] {
				return fmt.Errorf("rolls are %+v", s.Rolls)
			}
		}
		return nil
	}
	if args[0] == "crashes" {
		if got := len(s.Crashes); strconv.Itoa(got) != args[1] {
			return fmt.Errorf("%d crashes", got)
		}
		return nil
	}
	w, ok := findWorker(s, args[0])
	switch {
	case args[1] == "gone" && !ok:
		return nil
	case !ok:
		return errors.New("no such worker")
	case string(w.State) != args[1]:
		return fmt.Errorf("it is %s %s", w.State, w.Error)
	}
	return nil
}

// cmdPID sets a variable to a pid: "pid W w0", "pid E engine".
func cmdPID(ts *testscript.TestScript, _ bool, args []string) {
	s, err := engineOf(ts)
	ts.Check(err)
	pid := s.Engine.PID
	if args[1] != "engine" {
		w, ok := findWorker(s, args[1])
		if !ok || w.PID == 0 {
			ts.Fatalf("no process of worker %s", args[1])
		}
		pid = w.PID
	}
	ts.Setenv(args[0], strconv.Itoa(pid))
}

// cmdAlive asks whether processes run: "alive $W", "! alive $W".
func cmdAlive(ts *testscript.TestScript, neg bool, args []string) {
	for _, arg := range args {
		pid, err := strconv.Atoi(arg)
		ts.Check(err)
		if runs := processBirth(pid) != ""; runs == neg {
			ts.Fatalf("process %d runs: %v", pid, runs)
		}
	}
}

// cmdSignal sends a signal: "signal HUP $E".
func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	sig := map[string]syscall.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "KILL": syscall.SIGKILL}[args[0]]
	pid, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(syscall.Kill(pid, sig))
}

// cmdGet prints what a route of the gateway answers: "get /health".
func cmdGet(ts *testscript.TestScript, _ bool, args []string) {
	s, err := engineOf(ts)
	ts.Check(err)
	resp, err := http.Get(s.Engine.URL + args[0])
	ts.Check(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("answer"), text, 0o600))
	ts.Logf("HTTP %d\n%s", resp.StatusCode, text)
}

// cmdAsk sends a prompt with the key in a file ("-": none) and wants a status: "ask 200 KEYFILE".
func cmdAsk(ts *testscript.TestScript, _ bool, args []string) {
	s, err := engineOf(ts)
	ts.Check(err)
	req, err := http.NewRequest(http.MethodPost, s.Engine.URL+"/v1/chat/completions", strings.NewReader(`{"messages":[{"role":"user","content":"hi"}],"max_tokens":4}`))
	ts.Check(err)
	req.Header.Set("Content-Type", "application/json")
	if args[1] != "-" {
		text, err := os.ReadFile(ts.MkAbs(args[1]))
		ts.Check(err)
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(text)))
	}
	resp, err := http.DefaultClient.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("answer"), text, 0o600))
	if got := strconv.Itoa(resp.StatusCode); got != args[0] {
		ts.Fatalf("HTTP %s, want %s: %s", got, args[0], text)
	}
}

// cmdMode wants a file mode: "mode 0700 PATH".
func cmdMode(ts *testscript.TestScript, _ bool, args []string) {
	st, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", st.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// TestEveryCommandHasHelp walks the commands that help lists, so that a new one cannot be
// forgotten in the script that calls them.
func TestEveryCommandHasHelp(t *testing.T) {
	script, err := os.ReadFile("testdata/script/help.txtar")
	if err != nil {
		t.Fatal(err)
	}
	eachCommand(rootCmd(), func(cmd *cobra.Command) {
		name := cmd.CommandPath()
		if cmd.Short == "" {
			t.Errorf("%s has no short help", name)
		}
		if !cmd.Hidden && !strings.Contains(string(script), "exec "+name+" --help\n") {
			t.Errorf("testdata/script/help.txtar does not call %q", name+" --help")
		}
	})
}
