package launch

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startLimit = 30 * time.Second // for a shim to start its server, on a loaded host
	adoptLimit = 10 * time.Second // for a shim of another engine that is just starting
)

// local is what a Local keeps of Linux.
type local struct {
	scanner scanner

	mu     sync.Mutex
	mine   map[string]*instance // servers that are looked after here, by marker
	traits map[ident]trait      // of every process at the last census
}

func (l *Local) log() *slog.Logger {
	if l.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l.Log
}

// Launch starts s under a shim. Its folder is made if need be. It fails if a server runs in
// that folder; what a dead shim left there is ended first.
func (l *Local) Launch(ctx context.Context, s Spec) (Instance, error) {
	if err := valid(s); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Folder, 0o700); err != nil {
		return nil, fmt.Errorf("start worker %s: %w", s.Name, err)
	}
	if err := os.Chmod(s.Folder, 0o700); err != nil {
		return nil, fmt.Errorf("start worker %s: %w", s.Name, err)
	}
	if err := l.clear(ctx, s.Folder); errors.Is(err, errLocked) {
		return nil, runs(s)
	} else if err != nil {
		return nil, fmt.Errorf("start worker %s: %w", s.Name, err)
	}
	marker := s.Name + "/" + token()
	cmd, rec, err := l.startShim(ctx, order{Marker: marker, Spec: s, Runtime: l.Runtime})
	if err != nil {
		return nil, err
	}
	l.log().Info("server started", "worker", s.Name, "pid", rec.Child.PID, "shim", rec.Shim.PID)
	return l.take(rec, cmd), nil
}

// Adopt takes hold of the server that runs in s.Folder.
func (l *Local) Adopt(ctx context.Context, s Spec) (Instance, error) {
	err := l.clear(ctx, s.Folder)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case !errors.Is(err, errLocked):
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, adoptLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		rec, err := readRecord(s.Folder)
		if err == nil && rec.Child.PID != 0 && rec.proven() {
			l.log().Info("server adopted", "worker", rec.Spec.Name, "pid", rec.Child.PID, "shim", rec.Shim.PID)
			return l.take(rec, nil), nil
		}
		select {
		case <-ctx.Done():
			return nil, runs(s)
		case <-tick.C: // a shim that starts, or one that ends
		}
		if err := l.clear(ctx, s.Folder); !errors.Is(err, errLocked) {
			return nil, err
		}
	}
}

// proven says whether the record's shim is the process that runs under its pid.
func (r record) proven() bool {
	boot, err := bootID()
	return err == nil && r.BootID == boot && r.Shim.alive() &&
		getEnv(procEnv(r.Shim.PID), shimEnv) == r.Marker
}

// clear makes sure that nothing of an earlier shim runs or lies in the folder. It is errLocked
// if a shim lives there.
func (l *Local) clear(ctx context.Context, folder string) error {
	if _, err := os.Stat(folder); err != nil {
		return err
	}
	lock, err := lockFolder(ctx, folder, 0)
	if err != nil {
		return err
	}
	defer lock.Close()
	rec, err := readRecord(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		l.log().Warn("worker record unreadable: removed", "folder", folder, "err", err)
		return os.Remove(filepath.Join(folder, recordName))
	}
	left, err := l.bury(ctx, folder, rec)
	if left > 0 && l.Buried != nil {
		l.Buried(rec.Spec.Name, left)
	}
	return err
}

// bury ends what a dead shim left running, how many processes it says, and takes away its record.
// Who calls holds the folder's lock.
func (l *Local) bury(ctx context.Context, folder string, rec record) (processes int, err error) {
	if boot, err := bootID(); err != nil {
		return 0, err
	} else if boot == rec.BootID {
		k := rec.kin()
		k.shim = ident{} // whoever has its pid now
		left := k.members(scan(), true)
		if processes = len(left); processes > 0 {
			l.log().Warn("shim is dead: its server is ended", "worker", rec.Spec.Name, "processes", processes)
		}
		if err := k.end(ctx); err != nil { // also for none: one may just be on its way from fork to exec
			return processes, fmt.Errorf("end what worker %s left: %w", rec.Spec.Name, err)
		}
	}
	if e, err := readExit(folder); err != nil || e.Marker != rec.Marker {
		_ = writeJSON(filepath.Join(folder, exitName), exitRecord{Marker: rec.Marker, Code: -1})
	}
	_ = os.Remove(rec.Socket)
	return processes, os.Remove(filepath.Join(folder, recordName))
}

// startShim starts a shim and waits for its answer. After an error nothing of it is left.
func (l *Local) startShim(ctx context.Context, o order) (*exec.Cmd, record, error) {
	s := o.Spec
	fail := func(err error) (*exec.Cmd, record, error) {
		return nil, record{}, fmt.Errorf("start worker %s: %w", s.Name, err)
	}
	if len(l.Shim) == 0 {
		return fail(errors.New("no command for its shim"))
	}
	path, err := exec.LookPath(l.Shim[0])
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return fail(err)
	}
	in, err := json.Marshal(o)
	if err != nil {
		return fail(err)
	}
	errs, err := openShimLog(filepath.Join(s.Folder, shimLog))
	if err != nil {
		return fail(err)
	}
	defer errs.Close()
	answer, theirs, err := os.Pipe()
	if err != nil {
		return fail(err)
	}
	defer answer.Close()

	cmd := exec.Command(path, append(l.Shim[1:len(l.Shim):len(l.Shim)], s.Name)...) //nolint:noctx // the shim outlives this process
	var secrets []string
	if l.Secrets != nil {
		secrets = l.Secrets()
	}
	cmd.Env = setEnv(cleanEnv(os.Environ(), secrets), shimEnv+"="+o.Marker)
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(in) // a pipe: what is in it never lies on a disk
	cmd.Stderr = errs
	cmd.ExtraFiles = []*os.File{theirs} // becomes replyFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return fail(err)
	}

	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = answer.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var r reply
	b, err := io.ReadAll(io.LimitReader(answer, 16<<20))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err == nil && r.Error == "" {
		return cmd, r.Record, nil
	}
	if err == nil {
		_ = cmd.Wait() // it ends by itself
		return nil, record{}, errors.New(r.Error)
	}
	// No answer: it hangs, or died on the way. The marker finds what it has started.
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if ctx.Err() != nil {
		err = fmt.Errorf("shim did not answer: %w", context.Cause(ctx))
	} else {
		err = fmt.Errorf("shim died, see %s", filepath.Join(s.Folder, shimLog))
	}
	end, cancelEnd := context.WithTimeout(context.WithoutCancel(ctx), 2*killBudget)
	defer cancelEnd()
	err = errors.Join(err, kin{marker: o.Marker}.end(end))
	return fail(errors.Join(err, l.clear(end, s.Folder)))
}

// openShimLog appends to the shim's own log, and starts it anew when it has grown.
func openShimLog(path string) (*os.File, error) {
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if st, err := os.Stat(path); err == nil && st.Size() > 1<<20 {
		flags |= os.O_TRUNC
	}
	return os.OpenFile(path, flags, 0o600)
}

func valid(s Spec) error {
	switch {
	case s.Name == "" || strings.Trim(s.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		return fmt.Errorf("start worker %q: its name may hold a-z, 0-9 and -", s.Name)
	case len(s.Argv) == 0:
		return fmt.Errorf("start worker %s: nothing to run", s.Name)
	case !filepath.IsAbs(s.Folder):
		return fmt.Errorf("start worker %s: its folder %q is not a whole path", s.Name, s.Folder)
	}
	return cleanupAllowed(s)
}

func token() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// forkExec starts a program in a session of its own: its shim alone reaps it.
func forkExec(path string, argv []string, dir string, env []string, files []uintptr) (int, error) {
	return syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir: dir, Env: env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
}
