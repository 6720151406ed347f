package launchtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// Suite is the contract. Shim tells the pid of the process that looks after a server, which
// the tests kill.
type Suite struct {
	New  func() launch.Launcher
	Shim func(t *testing.T, folder string) int
}

// Run checks the launcher.
func (s Suite) Run(t *testing.T) {
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"a server starts, is listed and ends by Terminate", s.starts},
		{"Kill ends a deaf server with all its grandchildren", s.kills},
		{"an exit code is told", s.exitCode},
		{"a signal is told", s.exitSignal},
		{"a dead leader's orphans are gone within 5 seconds", s.orphans},
		{"a server is adopted after its launcher forgot it", s.adopts},
		{"a server survives kill -9 of its engine", s.engineKilled},
		{"a dead server is not adopted, and its exit is kept", s.adoptsDead},
		{"a killed shim takes its server along", s.shimKilled},
		{"a shim that is asked to end lets its server end first", s.shimAsked},
		{"a start that is given up leaves nothing", s.startGivenUp},
		{"what a killed shim left is ended by Adopt", s.shimAndEngineKilled},
		{"a hanging shim does not save its server from Kill", s.shimHangs},
		{"a log rotates under writes and loses nothing", s.rotates},
		{"each start has a log of its own", s.freshLog},
		{"a full disk does not end a server", s.diskFull},
		{"all is gone when the owner of the lease is killed", s.leaseLost},
		{"a server without a held lease does not start", s.noLease},
		{"a missing program is told and leaves nothing", s.notFound},
		{"a script without interpreter is told", s.noInterpreter},
		{"servers have the marker and no secrets", s.environment},
		{"one folder runs one server, whoever starts it", s.oneServer},
		{"a folder with a long path works", s.longPath},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.test(t) })
	}
}

func spec(t *testing.T, mode string, args ...string) launch.Spec {
	return launch.Spec{Name: "w0", Kind: "sim", Argv: argv(mode, args...), Folder: filepath.Join(t.TempDir(), "w0")}
}

// launch starts a server that is ended with the test.
func (s Suite) launch(t *testing.T, sp launch.Spec) launch.Instance {
	t.Helper()
	i, err := s.New().Launch(t.Context(), sp)
	if err != nil {
		t.Fatalf("Launch: %v", err)
	}
	endWith(t, i)
	return i
}

func endWith(t *testing.T, i launch.Instance) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := i.Kill(ctx); err != nil {
			t.Errorf("Kill at the end: %v", err)
		}
		if err := i.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

func (s Suite) starts(t *testing.T) {
	sp := spec(t, "serve")
	sp.Labels = map[string]string{"model": "toy"}
	began := time.Now()
	i := s.launch(t, sp)
	logged(t, i, "ready")
	if got := i.Spec().Labels["model"]; got != "toy" {
		t.Errorf("label model = %q, want toy", got)
	}
	if d := i.Started().Sub(began); d < 0 || d > limit {
		t.Errorf("Started is %v after the call, want a moment", d)
	}
	tree := i.Tree()
	if len(tree) != 1 || tree[0].PID != i.PID() || tree[0].Name == "" || tree[0].RSS < 1<<20 {
		t.Errorf("Tree = %+v, want the leader %d with some memory", tree, i.PID())
	}
	if err := i.Terminate(); err != nil {
		t.Fatalf("Terminate: %v", err)
	}
	e := done(t, i)
	if e.Code != 0 || e.Signal != "" || !e.Known || time.Since(e.At) > limit {
		t.Errorf("Exit = %+v, want a known 0 just now", e)
	}
	if log := output(i.LogPath()); !strings.HasSuffix(log, "bye\n") {
		t.Errorf("log ends with %q, want the last words", log)
	}
	if err := i.Terminate(); err != nil {
		t.Errorf("Terminate after the end = %v, want nil", err)
	}
	if got := i.Tree(); len(got) != 0 {
		t.Errorf("Tree after the end = %v, want none", got)
	}
}

func (s Suite) kills(t *testing.T) {
	i := s.launch(t, spec(t, "family"))
	pids := family(t, i.LogPath())
	until(t, "all four in Tree", func() bool {
		var got []int
		for _, p := range i.Tree() {
			got = append(got, p.PID)
		}
		return len(got) == 4 && got[0] == pids[0] && !slices.ContainsFunc(pids, func(p int) bool { return !slices.Contains(got, p) })
	})
	if err := i.Terminate(); err != nil {
		t.Fatalf("Terminate: %v", err)
	}
	if err := i.Kill(t.Context()); err != nil {
		t.Fatalf("Kill: %v", err)
	}
	if left := living(pids); len(left) > 0 {
		t.Errorf("after Kill %v still live", left)
	}
	if e := done(t, i); e.Signal != "killed" || e.Code != -1 || !e.Known {
		t.Errorf("Exit = %+v, want a known signal killed", e)
	}
	if err := i.Kill(t.Context()); err != nil {
		t.Errorf("second Kill = %v, want nil", err)
	}
}

func (s Suite) exitCode(t *testing.T) {
	sp := spec(t, "exit", "7")
	e := done(t, s.launch(t, sp))
	if e.Code != 7 || e.Signal != "" || !e.Known {
		t.Errorf("Exit = %+v, want a known 7", e)
	}
	if last, ok := launch.LastExit(sp.Folder); !ok || last.Code != 7 {
		t.Errorf("LastExit = %+v, %v, want 7", last, ok)
	}
}

func (s Suite) exitSignal(t *testing.T) {
	i := s.launch(t, spec(t, "named", "idle"))
	logged(t, i, "ready")
	kill(t, i.PID(), syscall.SIGKILL)
	if e := done(t, i); !e.Known || e.Signal != "killed" || e.Code != -1 {
		t.Errorf("Exit = %+v, want a known signal killed", e)
	}
}

func (s Suite) orphans(t *testing.T) {
	i := s.launch(t, spec(t, "family"))
	pids := family(t, i.LogPath())
	began := time.Now()
	kill(t, pids[0], syscall.SIGKILL)
	e := done(t, i)
	if left := living(pids); len(left) > 0 {
		t.Errorf("Done is closed while %v live", left)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("orphans gone after %v, want 5 s at most", d)
	}
	if e.Signal != "killed" || !e.Known {
		t.Errorf("Exit = %+v, want the leader's: killed", e)
	}
}

func (s Suite) adopts(t *testing.T) {
	sp := spec(t, "family")
	sp.Env = []string{"PASSPHRASE=swordfish"}
	sp.Argv = append(sp.Argv, "--api-key", "swordfish")
	sp.Labels = map[string]string{"model": "toy"}
	first := s.launch(t, sp)
	pids := family(t, first.LogPath())
	if err := first.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if left := living(pids); len(left) != len(pids) {
		t.Fatalf("after Close only %v of %v live", left, pids)
	}
	i, err := s.New().Adopt(t.Context(), launch.Spec{Name: "w0", Folder: sp.Folder})
	if err != nil || i == nil {
		t.Fatalf("Adopt = %v, %v, want the server", i, err)
	}
	defer i.Close()
	if i.PID() != first.PID() || !i.Started().Equal(first.Started()) || i.LogPath() != first.LogPath() {
		t.Errorf("adopted pid %d since %v log %s, want %d since %v log %s",
			i.PID(), i.Started(), i.LogPath(), first.PID(), first.Started(), first.LogPath())
	}
	if got := fmt.Sprint(i.Spec()); strings.Contains(got, "swordfish") || i.Spec().Labels["model"] != "toy" {
		t.Errorf("Spec = %s, want the labels and no secret", got)
	}
	for _, f := range files(t, sp.Folder) {
		if strings.Contains(output(f), "swordfish") {
			t.Errorf("%s holds a secret", f)
		}
	}
	if err := i.Kill(t.Context()); err != nil {
		t.Fatalf("Kill: %v", err)
	}
	if left := living(pids); len(left) > 0 {
		t.Errorf("after Kill %v still live", left)
	}
	if e := done(t, i); e.Signal != "killed" || !e.Known {
		t.Errorf("Exit = %+v, want a known killed", e)
	}
}

func (s Suite) engineKilled(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "w0")
	engine := helper(t, "engine", folder)
	kill(t, engine.Process.Pid, syscall.SIGKILL)
	_ = engine.Wait()
	i, err := s.New().Adopt(t.Context(), launch.Spec{Name: "w0", Folder: folder})
	if err != nil || i == nil {
		t.Fatalf("Adopt = %v, %v, want the server", i, err)
	}
	endWith(t, i)
	pids := family(t, i.LogPath())
	if got := i.Spec().Labels["by"]; got != "engine" {
		t.Errorf("label by = %q, want engine", got)
	}
	if len(living(pids)) != 4 || pids[0] != i.PID() {
		t.Errorf("living %v of %v, adopted %d, want all", living(pids), pids, i.PID())
	}
	kill(t, i.PID(), syscall.SIGKILL)
	if e := done(t, i); e.Signal != "killed" || !e.Known {
		t.Errorf("Exit = %+v, want a known killed", e)
	}
	if left := living(pids); len(left) > 0 {
		t.Errorf("Done is closed while %v live", left)
	}
}

// helper starts this binary in a mode that says "launched" when it is ready.
func helper(t *testing.T, mode string, args ...string) *exec.Cmd {
	t.Helper()
	a := argv(mode, args...)
	cmd := exec.CommandContext(t.Context(), a[0], a[1:]...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "launched\n" {
		t.Fatalf("%s said %q (%v), want launched", mode, line, err)
	}
	return cmd
}

func (s Suite) adoptsDead(t *testing.T) {
	sp := spec(t, "exit", "3")
	if i, err := s.New().Adopt(t.Context(), sp); i != nil || err != nil {
		t.Errorf("Adopt of a folder that is not there = %v, %v, want nothing", i, err)
	}
	done(t, s.launch(t, sp))
	if i, err := s.New().Adopt(t.Context(), sp); i != nil || err != nil {
		t.Errorf("Adopt of a dead server = %v, %v, want nothing", i, err)
	}
	if e, ok := launch.LastExit(sp.Folder); !ok || e.Code != 3 || !e.Known {
		t.Errorf("LastExit = %+v, %v, want 3", e, ok)
	}
}

func (s Suite) shimKilled(t *testing.T) {
	sp := spec(t, "family")
	i := s.launch(t, sp)
	pids := family(t, i.LogPath())
	kill(t, s.Shim(t, sp.Folder), syscall.SIGKILL)
	if e := done(t, i); e.Known || e.Code != -1 {
		t.Errorf("Exit = %+v, want an unknown one", e)
	}
	if left := living(pids); len(left) > 0 {
		t.Errorf("Done is closed while %v live", left)
	}
	if e, ok := launch.LastExit(sp.Folder); !ok || e.Known {
		t.Errorf("LastExit = %+v, %v, want an unknown one", e, ok)
	}
	again := s.launch(t, sp)
	family(t, again.LogPath())
}

func (s Suite) shimAsked(t *testing.T) {
	sp := spec(t, "serve")
	i := s.launch(t, sp)
	logged(t, i, "ready")
	shim := s.Shim(t, sp.Folder)
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM} { // deaf to the first two
		kill(t, shim, sig)
	}
	if e := done(t, i); e.Code != 0 || !e.Known {
		t.Errorf("Exit = %+v, want a known 0", e)
	}
}

func (s Suite) startGivenUp(t *testing.T) {
	sp := spec(t, "family")
	sp.Name = fmt.Sprintf("givenup%d", os.Getpid()) // no other run's
	for wait := time.Duration(0); wait < 40*time.Millisecond; wait += 4 * time.Millisecond {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		i, err := s.New().Launch(ctx, sp)
		cancel()
		if err == nil { // it was faster
			if err := errors.Join(i.Kill(t.Context()), i.Close()); err != nil {
				t.Errorf("Kill and Close: %v", err)
			}
		}
		for _, b := range environments(t) {
			if strings.Contains(b, "="+sp.Name+"/") {
				t.Errorf("given up after %v: a process is left: %.200q", wait, b)
			}
		}
	}
	sp.Argv = argv("serve")
	logged(t, s.launch(t, sp), "ready") // and the folder is free
}

// environments are those of every process.
func environments(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil || len(paths) == 0 {
		t.Fatalf("list processes: %v, %v", paths, err)
	}
	var out []string
	for _, p := range paths {
		out = append(out, output(p))
	}
	return out
}

func (s Suite) shimAndEngineKilled(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "w0")
	engine := helper(t, "engine", folder)
	pids := family(t, filepath.Join(folder, "output.log"))
	kill(t, engine.Process.Pid, syscall.SIGKILL)
	_ = engine.Wait()
	shim := s.Shim(t, folder)
	kill(t, shim, syscall.SIGKILL)
	until(t, "a dead shim", func() bool { return len(living([]int{shim})) == 0 })
	if left := living(pids); len(left) != 4 {
		t.Fatalf("only %v of %v live: nothing to prove", left, pids)
	}
	if i, err := s.New().Adopt(t.Context(), launch.Spec{Name: "w0", Folder: folder}); i != nil || err != nil {
		t.Errorf("Adopt = %v, %v, want nothing", i, err)
	}
	if left := living(pids); len(left) > 0 {
		t.Errorf("after Adopt %v still live", left)
	}
}

func (s Suite) shimHangs(t *testing.T) {
	sp := spec(t, "family")
	i := s.launch(t, sp)
	pids := family(t, i.LogPath())
	kill(t, s.Shim(t, sp.Folder), syscall.SIGSTOP)
	if err := i.Kill(t.Context()); err != nil {
		t.Fatalf("Kill: %v", err)
	}
	if left := living(pids); len(left) > 0 {
		t.Errorf("after Kill %v still live", left)
	}
}

func (s Suite) oneServer(t *testing.T) {
	sp := spec(t, "serve")
	var mu sync.Mutex
	var won []launch.Instance
	var lost []error
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			i, err := s.New().Launch(t.Context(), sp)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				lost = append(lost, err)
			} else {
				won = append(won, i)
			}
		})
	}
	wg.Wait()
	for _, i := range won {
		endWith(t, i)
	}
	if len(won) != 1 || len(lost) != 3 {
		t.Fatalf("%d of 4 launches in one folder won, errors %v, want one", len(won), lost)
	}
	logged(t, won[0], "ready")
	for _, err := range lost {
		if !strings.Contains(err.Error(), sp.Folder) {
			t.Errorf("error %q does not name the folder", err)
		}
	}
}

func (s Suite) notFound(t *testing.T) {
	sp := spec(t, "serve")
	sp.Argv = []string{"no-such-vllm"}
	_, err := s.New().Launch(t.Context(), sp)
	if !errors.Is(err, exec.ErrNotFound) && (err == nil || !strings.Contains(err.Error(), "bin:")) {
		t.Errorf("Launch = %v, want not found and what mends it", err)
	}
	if _, err := os.Stat(filepath.Join(sp.Folder, "shim.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a record is left: %v", err)
	}
	sp.Argv = argv("serve")
	logged(t, s.launch(t, sp), "ready") // and the folder is free
}

func (s Suite) noInterpreter(t *testing.T) {
	sp := spec(t, "serve")
	script := filepath.Join(t.TempDir(), "vllm")
	if err := os.WriteFile(script, []byte("#!/no/such/python\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	sp.Argv = []string{script, "serve"}
	if _, err := s.New().Launch(t.Context(), sp); err == nil || !strings.Contains(err.Error(), "interpreter") {
		t.Errorf("Launch = %v, want to hear of the interpreter", err)
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
