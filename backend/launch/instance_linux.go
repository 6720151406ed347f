package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	treeAge   = 4 * time.Second          // see Instance.Tree
	askLimit  = killBudget + time.Second // a shim that has not answered by then hangs
	buryRetry = 5 * time.Second
)

// instance is a server under a shim, launched or adopted.
type instance struct {
	launcher *Local
	rec      record
	cmd      *exec.Cmd // the shim, where we started it; nil if adopted

	done   chan struct{}
	exit   Exit               // set before done is closed
	cancel context.CancelFunc // of watch
	idle   chan struct{}      // closed when watch has returned
}

// take returns the instance of a running server and watches its shim.
func (l *Local) take(rec record, cmd *exec.Cmd) *instance {
	ctx, cancel := context.WithCancel(context.Background())
	i := &instance{
		launcher: l, rec: rec, cmd: cmd,
		done: make(chan struct{}), cancel: cancel, idle: make(chan struct{}),
	}
	l.mu.Lock()
	if l.mine == nil {
		l.mine = map[string]*instance{}
	}
	l.mine[rec.Marker] = i
	l.mu.Unlock()
	go i.watch(ctx)
	return i
}

// forget says that the server is gone or let go: it is no longer looked after here.
func (l *Local) forget(i *instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mine[i.rec.Marker] == i {
		delete(l.mine, i.rec.Marker)
	}
}

func (i *instance) Spec() Spec            { return i.rec.Spec }
func (i *instance) PID() int              { return i.rec.Child.PID }
func (i *instance) Started() time.Time    { return i.rec.Started }
func (i *instance) Done() <-chan struct{} { return i.done }
func (i *instance) LogPath() string       { return filepath.Join(i.rec.Spec.Folder, logName) }

func (i *instance) Exit() Exit {
	select {
	case <-i.done:
		return i.exit
	default:
		return Exit{Code: -1}
	}
}

// Close stops watching. The server goes on, and so does its shim.
func (i *instance) Close() error {
	i.cancel()
	<-i.idle
	return nil
}

// watch waits for the end of the shim, which is the end of the server: if it was killed
// first, the server is ended here.
func (i *instance) watch(ctx context.Context) {
	defer close(i.idle)
	defer i.launcher.forget(i)
	err := i.rec.Shim.wait(ctx)
	if i.cmd != nil {
		reaped := make(chan struct{})
		go func() { // in its own time, if the server lives on: else a zombie would stay
			_ = i.cmd.Wait()
			close(reaped)
		}()
		if err == nil {
			<-reaped
		}
	}
	if err != nil {
		return // closed
	}
	for {
		e, err := readExit(i.rec.Spec.Folder)
		if err == nil && e.Marker == i.rec.Marker {
			i.exit = e.exit()
			break
		}
		if err := i.bury(ctx); err == nil {
			i.exit = Exit{Code: -1}
			break
		} else if ctx.Err() == nil {
			i.launcher.log().Error("end server of a dead shim", "worker", i.rec.Spec.Name, "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(buryRetry):
		}
	}
	close(i.done)
}

// bury ends what the dead shim left. Another engine may be at it too, or a new server may run
// in the folder already: then its lock is taken, and what is ours is found by its own marks.
func (i *instance) bury(ctx context.Context) error {
	lock, err := lockFolder(ctx, i.rec.Spec.Folder, 0)
	if err != nil {
		k := i.rec.kin()
		return k.end(ctx)
	}
	defer lock.Close()
	_, err = i.launcher.bury(ctx, i.rec.Spec.Folder, i.rec)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// Terminate sends SIGTERM to the leader, by a handle, so that it cannot hit a later process of
// the same pid.
func (i *instance) Terminate() error {
	id := i.rec.Child
	fd, err := unix.PidfdOpen(id.PID, 0)
	if err == nil {
		defer unix.Close(fd)
	}
	if err == unix.ESRCH || !id.alive() {
		return nil
	}
	if err == nil {
		err = unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0)
	}
	if err != nil && err != unix.ESRCH { // a kernel before 5.3, or a sandbox that forbids handles
		err = unix.Kill(id.PID, unix.SIGTERM)
	}
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("terminate worker %s: %w", i.rec.Spec.Name, err)
	}
	return nil
}

// Kill asks the shim to end the tree. If the shim does not answer, it is done from here.
func (i *instance) Kill(ctx context.Context) error {
	res, err := ask(ctx, i.rec.Socket, "kill", askLimit)
	switch {
	case i.ended():
		return nil
	case err == nil && res.Marker == i.rec.Marker && res.Error != "":
		return fmt.Errorf("kill worker %s: %s", i.rec.Spec.Name, res.Error)
	case err != nil || res.Marker != i.rec.Marker:
		if i.rec.Shim.alive() && ctx.Err() == nil {
			i.launcher.log().Warn("shim does not answer: its server is ended from outside", "worker", i.rec.Spec.Name, "shim", i.rec.Shim.PID, "err", err)
			if errors.Is(err, context.DeadlineExceeded) { // it hangs, so it would not notice
				_ = unix.Kill(i.rec.Shim.PID, unix.SIGKILL)
			}
		}
		if err := i.rec.kin().end(ctx); err != nil {
			return fmt.Errorf("kill worker %s: %w", i.rec.Spec.Name, err)
		}
	}
	select {
	case <-i.done:
		return nil
	case <-i.idle: // closed: nobody watches
		if err := i.rec.Shim.wait(ctx); err != nil {
			return fmt.Errorf("kill worker %s: %w", i.rec.Spec.Name, err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kill worker %s: %w", i.rec.Spec.Name, errors.Join(ctx.Err(), stays(i.rec.kin().members(scan(), true))))
	}
}

func (i *instance) ended() bool {
	select {
	case <-i.done:
		return true
	default:
		return false
	}
}

// Tree lists the server's processes.
func (i *instance) Tree() []Process {
	if i.ended() {
		return nil
	}
	k := i.rec.kin()
	known := k.members(i.launcher.scanner.recent(treeAge), false)
	if !slices.ContainsFunc(known, func(s stat) bool { return s.ident == k.child }) {
		known = k.members(i.launcher.scanner.recent(0), false) // the scan is from before the start
	}
	var out []Process
	for _, was := range known {
		if s, ok := readStat(was.PID); ok && s.ident == was.ident && !s.dead() {
			out = append(out, s.process())
		}
	}
	return out
}

// wait returns nil when the process has ended, or the context's error. It does not reap.
func (id ident) wait(ctx context.Context) error {
	fd, err := unix.PidfdOpen(id.PID, 0)
	if err == nil {
		err = id.waitFD(ctx, fd)
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
	}
	// No pidfd: a kernel before 5.3, or a sandbox that forbids it.
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for id.alive() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}

// waitFD waits until the pidfd is readable, which it is once the process has ended. It takes
// over fd.
func (id ident) waitFD(ctx context.Context, fd int) error {
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return err
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer f.Close()
	if !id.alive() { // the handle may be of a later process of this pid
		return nil
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	return raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return n > 0 && err == nil
	})
}
