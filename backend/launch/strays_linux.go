package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

const (
	strayTerm = 5 * time.Second // between SIGTERM and SIGKILL of a stray
	strayKill = 5 * time.Second // … and until it is given up
)

// Strays lists the processes of servers that nobody looks after any more: those that carry our
// marker without a live shim, or with one whose folder has been removed, so that no engine can take
// the server over; and VLLM::* processes whose API server is gone (killed, it leaves EngineCore and
// workers behind for ever). It sees the processes of our user.
func Strays() ([]Stray, error) {
	c, err := new(Local).Census()
	if err != nil {
		return nil, err
	}
	return c.Strays, nil
}

// Census looks at every process of the host once. It is meant for every few seconds: what does not change of
// a process is read once.
func (l *Local) Census() (*Census, error) { return l.census(time.Second, false) }

func (l *Local) census(age time.Duration, afresh bool) (*Census, error) {
	if _, err := bootID(); err != nil {
		return nil, err
	}
	c := &Census{marked: marked{byPID: map[int]stat{}, known: map[int]trait{}, shims: map[string]int{}}}
	all := l.scanner.recent(age)
	l.mu.Lock()
	defer l.mu.Unlock()
	up := uptime()
	traits := make(map[ident]trait, len(all))
	for _, s := range all {
		t, ok := l.traits[s.ident]
		if !ok || afresh || !t.settled || t.comm != s.comm {
			t = readTrait(s, up, t.started)
		}
		traits[s.ident] = t
		c.byPID[s.PID], c.known[s.PID] = s, t
		if t.shim != "" {
			c.shims[t.shim] = s.PID
		}
	}
	l.traits = traits
	c.mine = make(map[string]string, len(l.mine))
	for marker, i := range l.mine {
		spec := i.rec.Spec
		c.mine[marker] = spec.Name
		if _, err := os.Stat(filepath.Join(spec.Folder, lockName)); errors.Is(err, os.ErrNotExist) {
			c.Lost = append(c.Lost, spec.Name)
		}
	}
	for _, s := range all {
		if c.stray(s) {
			t := c.known[s.PID]
			c.Strays = append(c.Strays, Stray{
				PID: s.PID, Name: s.comm, Worker: t.marker, Started: t.started, Age: time.Since(t.started).Seconds(), RSS: s.rss,
			})
		}
	}
	return c, nil
}

// trait is what does not change of a process, once it has become what it is to be.
type trait struct {
	comm    string
	marker  string // of the server that it belongs to
	shim    string // marker of the server that it is the shim of
	uid     int
	started time.Time
	settled bool
}

// settleAge is how old a process is before its environment is taken for its own: between fork and exec it
// shows that of its parent.
const settleAge = 10 * time.Second

func readTrait(s stat, up time.Duration, started time.Time) trait {
	born := time.Duration(s.Start) * time.Second / ticksPerSecond
	t := trait{comm: s.comm, uid: -1, started: started, settled: up-born > settleAge}
	if started.IsZero() { // the same for as long as the process lives: it tells it from a later one of its pid
		t.started = time.Now().Add(born - up).Truncate(time.Second / ticksPerSecond)
	}
	var st unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(s.PID), &st) == nil {
		t.uid = int(st.Uid)
	}
	env := procEnv(s.PID)
	if t.shim = getEnv(env, shimEnv); t.shim == "" {
		t.marker = getEnv(env, markerEnv)
	}
	return t
}

// marked is what a Census knows of each process.
type marked struct {
	byPID map[int]stat
	known map[int]trait
	shims map[string]int    // markers of live shims: their pid
	mine  map[string]string // markers of this launcher's servers: their worker
}

func (c *Census) stray(s stat) bool {
	t := c.known[s.PID]
	switch {
	case t.shim != "" || t.uid != os.Getuid():
		return false
	case t.marker == "":
		return c.orphaned(s)
	case c.mine[t.marker] != "":
		return false // this engine sees to it
	}
	shim, alive := c.shims[t.marker]
	return !alive || folderLost(shim)
}

// folderLost says whether the folder of a shim has been removed: its lock, which it holds open, has no
// name any more.
func folderLost(shim int) bool {
	dir := "/proc/" + strconv.Itoa(shim) + "/fd"
	fds, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if target, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && strings.HasSuffix(target, "/"+lockName+" (deleted)") {
			return true
		}
	}
	return false
}

// orphaned says whether a VLLM::* process is below no API server: going up from it, the first
// process that is not VLLM::* is no shim and runs neither Python nor vLLM. An offline user of
// the LLM class is a Python process, so its engine is no orphan.
func (c *Census) orphaned(s stat) bool {
	if !strings.HasPrefix(s.comm, "VLLM::") || strings.HasPrefix(s.comm, "VLLM::API") {
		return false
	}
	for range c.byPID {
		parent, ok := c.byPID[s.ppid]
		switch {
		case !ok:
			return true
		case c.known[parent.PID].shim != "", strings.HasPrefix(parent.comm, "VLLM::API"):
			return false
		case strings.HasPrefix(parent.comm, "VLLM::"):
			s = parent
			continue
		}
		argv := cmdline(parent.PID)
		if len(argv) > 0 && filepath.Base(argv[0]) == "vllmdeck" {
			return true // an engine that is pid 1 of its container
		}
		line := strings.ToLower(strings.Join(argv, " "))
		return !strings.Contains(line, "python") && !strings.Contains(line, "vllm")
	}
	return false
}

// Who says whose a process is; false if there is none of this pid that can be seen.
func (c *Census) Who(pid int) (Owner, bool) {
	s, ok := c.byPID[pid]
	if !ok {
		return Owner{}, false
	}
	t := c.known[pid]
	o := Owner{Name: s.comm, User: userName(t.uid), Worker: c.mine[t.marker], Stray: c.stray(s)}
	argv := cmdline(pid)
	for i, a := range argv {
		// "vllm preload", also as python -m vllm… preload.
		if a == "preload" && i > 0 && strings.Contains(strings.Join(argv[:i], " "), "vllm") {
			o.Preload = true
		}
	}
	return o, true
}

// EndStray prepares the end of a stray: it is held by a handle, and looked at once more, so that neither a
// later process of its pid nor one that is no stray can be hit. It is refused for whatever is none.
// The function that comes back ends it: SIGTERM, and SIGKILL after 5 s.
func (l *Local) EndStray(pid int, started time.Time) (end func(context.Context) error, err error) {
	refuse := func(format string, args ...any) (func(context.Context) error, error) {
		return nil, fmt.Errorf("%w: pid %d %s", api.ErrRefused, pid, fmt.Sprintf(format, args...))
	}
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case errors.Is(err, unix.ESRCH) || pid <= 1:
		return nil, fmt.Errorf("%w: no process has the pid %d", api.ErrUnknown, pid)
	case err != nil:
		fd = -1 // a kernel before 5.3, or a sandbox that forbids handles
	}
	defer func() {
		if err != nil && fd >= 0 {
			_ = unix.Close(fd)
		}
	}()
	c, err := l.census(0, true)
	if err != nil {
		return nil, err
	}
	s, ok := c.byPID[pid]
	if !ok || !s.alive() {
		return nil, fmt.Errorf("%w: no process has the pid %d", api.ErrUnknown, pid)
	}
	if !c.stray(s) {
		o, _ := c.Who(pid)
		switch {
		case o.Worker != "":
			return refuse("is part of worker %s: \"vllmdeck worker stop %s\" ends it", o.Worker, o.Worker)
		default:
			return refuse("(%s, user %s) is no stray: somebody looks after it", display(pid), o.User)
		}
	}
	// Engines may differ by a tick in what they take for the same start.
	if at := c.known[pid].started; at.Sub(started).Abs() > time.Second {
		return refuse("is another process by now, started %s", at.Format(time.RFC3339Nano))
	}
	return func(ctx context.Context) error {
		if fd >= 0 {
			defer unix.Close(fd)
		}
		return s.end(ctx, fd)
	}, nil
}

// end ends one process, by its handle if there is one.
func (s stat) end(ctx context.Context, fd int) error {
	for _, step := range []struct {
		sig  unix.Signal
		wait time.Duration
	}{{unix.SIGTERM, strayTerm}, {unix.SIGKILL, strayKill}} {
		if !s.alive() {
			return nil
		}
		var err error
		if fd >= 0 {
			err = unix.PidfdSendSignal(fd, step.sig, nil, 0)
		} else {
			err = unix.Kill(s.PID, step.sig)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("end stray %d: %w", s.PID, err)
		}
		wait, cancel := context.WithTimeout(ctx, step.wait)
		err = s.wait(wait)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("end stray %d: %w", s.PID, ctx.Err())
		}
	}
	now, _ := readStat(s.PID)
	return fmt.Errorf("end stray: %w", stays([]stat{now}))
}
