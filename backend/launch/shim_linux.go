package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	replyFD = 3 // the engine reads there how the start went

	leaseTick = 500 * time.Millisecond
	// termLimit is what the server has left when the shim itself gets SIGTERM, which nobody
	// sends but a host that shuts down.
	termLimit = 30 * time.Second
)

// order is what the engine tells a new shim, on its stdin: never in a file or on the command
// line, because of Env.
type order struct {
	Marker  string `json:"marker"`
	Spec    Spec   `json:"spec"`
	Runtime string `json:"runtime"` // folder for sockets, see listen
}

// reply is what the shim answers, once: the record of the started server, or why there is none.
type reply struct {
	Record record `json:"record"`
	Error  string `json:"error,omitempty"`
}

// shim is the parent of one server. All its state belongs to the goroutine of run.
type shim struct {
	order
	log   *slog.Logger
	rec   record
	lock  *os.File
	lease *lease // nil for none
	ln    *net.UnixListener

	chld   chan os.Signal
	kills  chan killRequest
	ended  chan struct{}  // closed when nothing is left and exit.json is written
	conns  sync.WaitGroup // control connections
	pumped chan struct{}  // closed when the log is complete

	exit    exitRecord // of the leader, once gone
	gone    bool       // the leader is dead
	orphans bool       // the owner of the lease is gone
}

// RunShim is the hidden command "vllmdeck shim": the parent of one local server. It is started
// by Local.Launch in a session of its own, with what to do on its stdin, and ends when the
// server's whole tree has. It returns the exit code of the process.
func RunShim(ctx context.Context, _ []string) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if os.Getenv(shimEnv) == "" {
		log.Error("a shim is started by the engine only: see vllmdeck --help")
		return 2
	}
	unix.CloseOnExec(replyFD)
	s := &shim{
		log:    log.With("pid", os.Getpid()),
		chld:   make(chan os.Signal, 1),
		kills:  make(chan killRequest),
		ended:  make(chan struct{}),
		pumped: make(chan struct{}),
	}
	// Caught, not ignored: a server would inherit that they are ignored, and vLLM needs SIGINT.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	signal.Notify(s.chld, unix.SIGCHLD)
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)

	err := s.start(ctx)
	s.answer(err)
	if err != nil {
		s.log.Error("start failed", "err", err)
		s.dismiss()
		return 1
	}
	s.run(ctx, term)
	return 0
}

// answer tells the engine how the start went. If it is gone meanwhile, the next one reads the
// record.
func (s *shim) answer(err error) {
	r := reply{Record: s.rec}
	if err != nil {
		r = reply{Error: err.Error()}
	}
	f := os.NewFile(replyFD, "reply")
	_ = json.NewEncoder(f).Encode(r)
	_ = f.Close()
}

// start reads the order and does everything up to a running, recorded server.
func (s *shim) start(ctx context.Context) error {
	if err := json.NewDecoder(io.LimitReader(os.Stdin, 16<<20)).Decode(&s.order); err != nil {
		return fmt.Errorf("read what to start: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	if err := unix.Dup3(int(null.Fd()), 0, 0); err != nil {
		return fmt.Errorf("close stdin: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	if s.lock, err = lockFolder(ctx, s.Spec.Folder, 2*time.Second); errors.Is(err, errLocked) {
		return runs(s.Spec)
	} else if err != nil {
		return err
	}
	if s.Spec.Lease != "" {
		if s.lease, err = newLease(s.Spec.Lease); err != nil {
			return err
		}
	}
	s.rec = record{Marker: s.Marker, Spec: s.Spec.public()}
	if s.rec.BootID, err = bootID(); err != nil {
		return err
	}
	if s.rec.Shim, err = identOf(os.Getpid()); err != nil {
		return err
	}
	if s.ln, s.rec.Socket, err = listen(s.Spec.Folder, s.Runtime, s.Marker); err != nil {
		return err
	}
	// Twice: before the child exists, so that it is never without a record, and after.
	if err := s.writeRecord(); err != nil {
		return err
	}
	if err := s.startChild(null); err != nil {
		return err
	}
	if err := s.writeRecord(); err != nil {
		s.end(false)
		return err
	}
	s.conns.Add(1)
	go s.serve()
	return nil
}

func (s *shim) writeRecord() error {
	if err := writeJSON(filepath.Join(s.Spec.Folder, recordName), s.rec); err != nil {
		return fmt.Errorf("record worker %s: %w", s.Spec.Name, err)
	}
	return nil
}

// dismiss undoes start after an error.
func (s *shim) dismiss() {
	if s.ln != nil {
		_ = s.ln.Close() // and removes its file
		_ = os.Remove(filepath.Join(s.Spec.Folder, recordName))
	}
	if s.lock != nil {
		_ = s.lock.Close()
	}
}

// startChild starts the server in a session of its own, its output in a pipe of ours: unlike
// the engine, the shim lives as long as the server, and only a pipe lets a log rotate without
// losing what is written meanwhile.
func (s *shim) startChild(null *os.File) error {
	sp := s.Spec
	// Without SPT_NOENV, setproctitle wipes /proc/PID/environ when vLLM names its processes
	// (seen with vLLM 0.32), and the marker with it.
	env := setEnv(childEnv(os.Environ(), sp), "SPT_NOENV=1", markerEnv+"="+s.Marker)
	path, err := lookPath(sp, env)
	if err != nil {
		return err
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("start %s: %w", sp.Argv[0], err)
	}
	_, _ = unix.FcntlInt(uintptr(p[1]), unix.F_SETPIPE_SZ, 1<<20) // room for a burst; the limit of a user without privileges
	_ = unix.SetNonblock(p[0], true)                              // our end alone: Python does not expect it of stdout
	r := os.NewFile(uintptr(p[0]), "output")
	pid, err := forkExec(path, sp.Argv, sp.dir(), env, []uintptr{null.Fd(), uintptr(p[1]), uintptr(p[1])})
	_ = unix.Close(p[1])
	if err != nil {
		_ = r.Close()
		return startError(sp, path, err)
	}
	s.rec.Started = time.Now()
	// Nobody but run reaps, so the child is there, dead or alive, and its pid is its own.
	st, _ := readStat(pid)
	s.rec.Child = ident{PID: pid, Start: st.Start}
	out := NewLogFile(filepath.Join(sp.Folder, logName), sp.LogSize, sp.LogKeep)
	go func() {
		defer close(s.pumped)
		pump(r, out)
		_ = out.Close()
	}()
	s.log.Info("server started", "worker", sp.Name, "child", pid, "marker", s.Marker)
	return nil
}

// run lives until the server's tree is gone.
func (s *shim) run(ctx context.Context, term <-chan os.Signal) {
	var lease <-chan time.Time
	if s.lease != nil {
		t := time.NewTicker(leaseTick)
		defer t.Stop()
		lease = t.C
	}
	var limit <-chan time.Time
	gentle := true
	var waiting []killRequest
	for s.reap(); !s.gone; s.reap() {
		stop := false
		select {
		case <-s.chld:
		case k := <-s.kills:
			waiting = append(waiting, k)
			stop = true
		case <-ctx.Done():
			stop = true
		case <-term:
			s.log.Warn("got SIGTERM: server is asked to end")
			_ = unix.Kill(s.rec.Child.PID, unix.SIGTERM)
			limit = time.After(termLimit)
		case <-limit:
			stop = true
		case <-lease:
			if s.lease.lost() {
				s.log.Warn("lease lost: tree and records go", "lease", s.lease.path)
				s.orphans, stop = true, true
			}
		}
		if stop {
			gentle = false
			break
		}
	}
	s.end(gentle, waiting...)
	s.log.Info("server ended", "worker", s.Spec.Name, "code", s.exit.Code, "signal", s.exit.Signal)
	if s.orphans || s.lease != nil && s.lease.lost() {
		s.clean()
	}
}

// reap takes the status of every child that has ended, ours by birth or by adoption. It is true
// if there are no children at all. Since a subreaper gets every orphan, that means: nothing
// descends from us any more.
func (s *shim) reap() (none bool) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err == unix.ECHILD:
			return true
		case pid <= 0:
			return false
		case pid == s.rec.Child.PID && !s.gone:
			s.gone = true
			s.exit = exitRecord{Marker: s.Marker, Code: -1, At: time.Now(), Known: true}
			if ws.Signaled() {
				s.exit.Signal = ws.Signal().String()
			} else {
				s.exit.Code = ws.ExitStatus()
			}
		}
	}
}

// end ends what is left of the tree, records how the leader ended, and answers those who
// asked for it. It returns when nothing is left: a process that a driver holds keeps the shim.
func (s *shim) end(gentle bool, waiting ...killRequest) {
	r := reaper{kin: s.rec.kin(), gentle: gentle}
	began := time.Now()
	wait := 10 * time.Millisecond
	for {
		left := r.step()
		if s.reap() && len(left) == 0 {
			break
		}
		if time.Since(began) > killBudget {
			for _, k := range waiting {
				k.left <- stays(left)
			}
			waiting, wait = nil, time.Second
			if s.orphans {
				s.clean()
			}
		}
		select {
		case <-s.chld:
		case k := <-s.kills:
			waiting, r.gentle, began = append(waiting, k), false, time.Now()
		case <-time.After(wait):
			wait = min(wait*3/2, max(wait, 50*time.Millisecond))
		}
	}
	select {
	case <-s.pumped:
	case <-time.After(time.Second): // a stranger holds the pipe
	}
	if err := writeJSON(filepath.Join(s.Spec.Folder, exitName), s.exit); err != nil {
		s.log.Error("record exit", "err", err)
	}
	_ = os.Remove(filepath.Join(s.Spec.Folder, recordName))
	for _, k := range waiting {
		k.left <- nil
	}
	close(s.ended)
	_ = s.ln.Close()
	s.conns.Wait()
}

// clean removes what the shim made, and the owner's whole folder if it is the last one under
// the lease. Others may do the same at the same time.
func (s *shim) clean() {
	folder := s.Spec.Folder
	_ = os.Remove(s.rec.Socket)
	for _, name := range []string{recordName, exitName, shimLog, lockName} {
		_ = os.Remove(filepath.Join(folder, name))
	}
	logs, _ := filepath.Glob(filepath.Join(folder, logName+"*"))
	for _, l := range logs {
		_ = os.Remove(l)
	}
	_ = os.Remove(folder) // if nothing else is in it
	if s.lease.last() && s.Spec.Cleanup != "" && cleanupAllowed(s.Spec) == nil {
		_ = os.RemoveAll(s.Spec.Cleanup)
	}
}
