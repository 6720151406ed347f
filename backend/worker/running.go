package worker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// running is what is written down of a server while it runs and nobody has asked it to end. An engine
// that finds this and no server knows that one died while no engine was there to see it.
type running struct {
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	Boot    string    `json:"boot"` // of the kernel that it ran under
	Model   string    `json:"model"`
	Command []string  `json:"command"` // secrets redacted
	Version string    `json:"version,omitempty"`
	Ready   bool      `json:"ready"` // it has been
	Log     string    `json:"log"`
}

const runningName = "running.json"

// bootID names the present run of the kernel; "" where that is not told.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// onDisk does something with files off the loop, one after the other in the order of the calls.
func (w *worker) onDisk(f func()) {
	before, done := w.disk, make(chan struct{})
	w.disk = done
	w.wg.Go(func() {
		defer close(done)
		if before != nil {
			<-before
		}
		f()
	})
}

// writeRunning notes a server that has started, or become ready.
func (w *worker) writeRunning(folder string, r running) {
	b, err := json.Marshal(r)
	if err == nil {
		err = os.MkdirAll(folder, 0o700)
	}
	if err == nil {
		err = launch.Replace(filepath.Join(folder, runningName), b)
	}
	if err != nil {
		w.log.Warn("running server not noted: its end would not be known to the next engine", "error", err)
	}
}

// forgetRunning removes the note of a server.
func (w *worker) forgetRunning(folder string) {
	if err := os.Remove(filepath.Join(folder, runningName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		w.log.Warn("note of a server not removed", "error", err)
	}
}

func readRunning(folder string) *running {
	b, err := os.ReadFile(filepath.Join(folder, runningName))
	if err != nil {
		return nil
	}
	var r running
	if json.Unmarshal(b, &r) != nil {
		return nil
	}
	return &r
}

// note gives what is written down of l now.
func (w *worker) note(l *life) running {
	return running{
		PID: l.inst.PID(), Started: l.inst.Started(), Boot: bootID(), Model: l.plan.cfg.Model, Command: w.st.Command,
		Version: w.st.Version, Ready: l.ready, Log: l.inst.LogPath(),
	}
}

// noteRunning writes down that l runs.
func (w *worker) noteRunning(l *life) {
	if l.plan.kind == kindAttach {
		return
	}
	r, folder := w.note(l), l.spec.Folder
	w.onDisk(func() { w.writeRunning(folder, r) })
}

// asked says that l is to end: whatever becomes of it is no crash, even if the engine is gone by then.
func (w *worker) asked(l *life) {
	if l.plan.kind == kindAttach || l.inst == nil {
		return
	}
	folder := l.plan.spec.Folder
	w.onDisk(func() { w.forgetRunning(folder) })
}

// over is a life's last entry: the crash, if it was one, goes into the book, and then the note that it
// runs goes. In this order: an engine that dies in between leaves the crash to be found by the next one.
func (w *worker) over(l *life) {
	if l.plan.kind == kindAttach {
		return
	}
	crash, folder := l.crash, l.plan.spec.Folder
	if crash == nil && l.inst == nil {
		return
	}
	w.onDisk(func() {
		if crash != nil {
			w.opts.book.add(crash.Crash, crash.lines)
		}
		w.forgetRunning(folder)
	})
}

// crash is an entry of the book on its way there.
type crash struct {
	api.Crash
	lines []api.Line
}

// crashed says that l's end is one that nobody asked for.
func (w *worker) crashed(l *life, v verdict, at time.Time) {
	if l == nil || l.plan.kind == kindAttach || l.crash != nil || v.adopt {
		return // what is attached ends unseen; what cannot be taken over may well live
	}
	c := &crash{lines: w.lines.After(l.lastSeq, crashLines)}
	c.Worker, c.Model, c.Time = w.name, l.plan.cfg.Model, at
	c.Exit, c.Cause, c.Remedy = v.exit, v.cause, v.remedy
	c.Version, c.Command = w.st.Version, w.st.Command
	switch {
	case l.inst != nil:
		c.Up = api.Span(max(at.Sub(started(l.inst, at)), 0))
	default:
		c.Command = w.opts.Redact(l.plan.at(l.plan.cfg.Port).Argv)
		c.Exit = "not started"
	}
	if !l.ready {
		c.Phase = l.phases.phase()
	}
	l.crash = c
}

// autopsy looks whether a server died while no engine was there, and gives its crash; nil if none did.
func (w *worker) autopsy(p plan) *crash {
	if p.kind == kindAttach {
		return nil
	}
	folder := p.spec.Folder
	r := readRunning(folder)
	if r == nil {
		return nil
	}
	exit, ok := launch.LastExit(folder)
	if !ok || !exit.At.IsZero() && exit.At.Before(r.Started) {
		exit = launch.Exit{Code: -1}
	}
	at := exit.At
	if at.IsZero() { // its last word is the last that is known of it
		if info, err := os.Stat(r.Log); err == nil && info.ModTime().After(r.Started) {
			at = info.ModTime()
		}
	}
	if at.IsZero() {
		at = time.Now()
	}
	lines, err := lastLinesOf(r.Log, at)
	if err != nil {
		w.log.Warn("log not read", "path", r.Log, "error", err)
	}
	v := explain(lines, exit, r.Ready)
	if boot := bootID(); r.Boot != boot && r.Boot != "" {
		v.cause, v.remedy = "the host was restarted while it ran", "nothing is to be mended here: it is started again with the engine"
	}
	c := &crash{lines: lines}
	c.Worker, c.Model, c.Time, c.Up = w.name, r.Model, at, api.Span(max(at.Sub(r.Started), 0))
	c.Exit, c.Cause, c.Remedy, c.Version, c.Command = v.exit, v.cause, v.remedy, r.Version, r.Command
	if !r.Ready {
		t := newTracker(api.PhaseImports, r.Started)
		for _, l := range lines {
			t.line(l.Text, at)
		}
		c.Phase = t.phase()
	}
	return c
}

// lastLinesOf reads the end of a log file.
func lastLinesOf(path string, at time.Time) ([]api.Line, error) {
	f := &follower{path: path, tail: true}
	defer f.close()
	var log Log
	take := func(text string) {
		p := parse(text)
		log.add(api.Line{Time: p.at(at), Level: p.level, Text: text})
	}
	if err := f.read(take); err != nil {
		return nil, fmt.Errorf("read last words: %w", err)
	}
	if rest := f.rest(); rest != "" {
		take(rest)
	}
	return log.After(0, keptLines), nil
}

// foundDead enters a crash that no engine saw, then goes on.
func (w *worker) foundDead(c *crash) {
	w.log.Warn("worker ended while no engine was there", "cause", c.Cause, "exit", c.Exit, "at", c.Time)
	w.notice("warning", fmt.Sprintf("%s ended at %s, while no engine was there to see it: %s", w.name, c.Time.Local().Format("2006-01-02 15:04:05"), c.Cause))
	folder := w.plan.spec.Folder
	w.onDisk(func() {
		w.opts.book.add(c.Crash, c.lines)
		w.forgetRunning(folder)
	})
}
