package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/charmbracelet/x/term"
)

// r04 lets consoles die in every way while clients are served: no client may notice, and the next console shows what the
// last one did, within a second. Where a console can still do so, it leaves its terminal as it was.
func r04(ctx context.Context, t *trial) error {
	e, err := t.engine(ctx, simulated(2, "ttft: 5ms, itl: 3ms, max_num_seqs: 64"))
	if err != nil {
		return err
	}
	if err := e.ready(ctx, 20*time.Second); err != nil {
		return err
	}
	v := &visitors{t: t, e: e, c: t.newClient(32)}
	deaths := []death{
		{"kill -9", func(_ context.Context, x *console) error { return x.cmd.Process.Signal(syscall.SIGKILL) }, false, false},
		{"a crash", func(_ context.Context, x *console) error { return x.cmd.Process.Signal(syscall.SIGABRT) }, false, false},
		{"SIGHUP", func(_ context.Context, x *console) error { return x.cmd.Process.Signal(syscall.SIGHUP) }, true, false},
		{"SIGTERM", func(_ context.Context, x *console) error { return x.cmd.Process.Signal(syscall.SIGTERM) }, true, false},
		{"a lost connection", func(_ context.Context, x *console) error { x.hangUp(); return nil }, false, false},
		{"a storm of sizes", v.storm, true, true},
		{"q", func(_ context.Context, x *console) error { x.press("q"); return nil }, true, false},
	}
	for _, d := range deaths {
		if err := v.die(ctx, d); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	if _, err := exec.LookPath("tmux"); err != nil {
		t.note("tmux", "is not here")
	} else {
		for _, how := range []string{"kill-session", "kill-server"} {
			if err := v.tmux(ctx, how); err != nil {
				return fmt.Errorf("tmux %s: %w", how, err)
			}
		}
	}
	t.note("consoles that died", v.died)
	t.note("requests meanwhile", v.requests)
	t.exactly("requests that failed", v.failed, 0)
	t.exactly("terminals not left as they were", v.modes, 0)
	t.exactly("totals unlike before", v.unlike, 0)
	t.within("the same totals shown after, longest", percentile(v.shown, 1), time.Second)
	s, err := e.snapshot(ctx)
	if err != nil {
		return err
	}
	t.exactly("restarts of workers", s.Workers[0].Restarts+s.Workers[1].Restarts, 0)
	return nil
}

// death is a way in which a console ends.
type death struct {
	name     string
	do       func(ctx context.Context, x *console) error
	restores bool // the terminal is as it was afterwards
	lives    bool // the console does not end by it: it is then left with q
}

// visitors is the state of r04.
type visitors struct {
	t *trial
	e *engine
	c *client

	died, requests, failed, modes, unlike int
	shown                                 []time.Duration
}

const rows04, cols04 = 50, 160

// die lets one console die under load, and looks at what is left.
func (v *visitors) die(ctx context.Context, d death) error {
	x, err := v.t.console(v.e, rows04, cols04)
	if err != nil {
		return err
	}
	if err := x.await(ctx, "w1"); err != nil {
		return err
	}
	l := v.t.load(ctx, v.c, v.e.url, 12, 30)
	if err := pause(ctx, 700*time.Millisecond); err != nil {
		return err
	}
	if err := d.do(ctx, x); err != nil {
		return err
	}
	if d.lives {
		x.press("q")
	}
	if err := x.ended(ctx, 10*time.Second); err != nil {
		return err
	}
	if err := pause(ctx, 500*time.Millisecond); err != nil {
		return err
	}
	v.count(d.name, l)
	if d.restores {
		if text := x.leftOver(); text != "" {
			v.modes++
			v.t.failf("%s: the terminal is left %s", d.name, text)
		}
	}
	return v.again(ctx, d.name)
}

// count ends a load.
func (v *visitors) count(what string, l *load) {
	answers := l.end()
	v.died++
	v.requests += len(answers)
	v.failed += v.t.failures("a console dies by "+what, answers)
}

var counted = regexp.MustCompile(`([0-9,.]+[kM]?) requests count`)

// again starts a console while nothing moves and compares its totals with the engine's.
func (v *visitors) again(ctx context.Context, what string) error {
	if err := v.e.settled(ctx, 20*time.Second); err != nil {
		return err
	}
	want := ""
	err := until(ctx, 5*time.Second, "the totals have all", func() bool {
		s, err := v.e.snapshot(ctx)
		if err != nil || s.Money.Requests != s.Traffic.Total {
			return false
		}
		want = strconv.FormatInt(s.Money.Requests, 10)
		return true
	})
	if err != nil {
		return err
	}
	began := time.Now()
	x, err := v.t.console(v.e, rows04, cols04)
	if err != nil {
		return err
	}
	got := ""
	err = until(ctx, 20*time.Second, "the console shows totals", func() bool {
		m := counted.FindStringSubmatch(x.sees())
		if m == nil {
			return false
		}
		got = strings.ReplaceAll(m[1], ",", "")
		return true
	})
	if err != nil {
		return err
	}
	v.shown = append(v.shown, time.Since(began))
	if got != want {
		v.unlike++
		v.t.failf("after %s a console shows %s requests, want %s", what, got, want)
	}
	x.press("q")
	return x.ended(ctx, 10*time.Second)
}

// storm changes the terminal's size some hundred times, between 80x24 and 10x3, and then back to what it was.
func (v *visitors) storm(ctx context.Context, x *console) error {
	dice := rand.New(rand.NewPCG(4, 4)) //nolint:gosec // the same sizes each time
	for i := range 400 {
		rows, cols := 3+dice.IntN(22), 10+dice.IntN(71)
		switch i % 4 {
		case 0:
			rows, cols = 24, 80
		case 2:
			rows, cols = 3, 10
		}
		if err := x.resize(rows, cols); err != nil {
			return err
		}
		if err := pause(ctx, 4*time.Millisecond); err != nil {
			return err
		}
	}
	if err := x.resize(rows04, cols04); err != nil {
		return err
	}
	return x.await(ctx, "requests count")
}

// tmux runs a console in tmux, under load, and ends that.
func (v *visitors) tmux(ctx context.Context, how string) error {
	run := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "tmux", append([]string{"-S", filepath.Join(v.e.dir, "tmux"), "-f", "/dev/null"}, args...)...)
		cmd.Env = append(slices.Clone(v.e.env), "TERM=xterm-256color")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	defer func() { _, _ = run("kill-server") }()
	if out, err := run("new-session", "-d", "-x", "160", "-y", "50", v.t.bin); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	err := until(ctx, 20*time.Second, "tmux shows the console", func() bool {
		out, err := run("capture-pane", "-p")
		return err == nil && strings.Contains(out, "w1")
	})
	if err != nil {
		return err
	}
	pane, err := run("display-message", "-p", "#{pane_pid}")
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(pane))
	if err != nil {
		return err
	}
	l := v.t.load(ctx, v.c, v.e.url, 12, 30)
	if err := pause(ctx, 700*time.Millisecond); err != nil {
		return err
	}
	if out, err := run(how); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if err := until(ctx, 10*time.Second, "the console has ended", func() bool { return !living(pid) }); err != nil {
		return err
	}
	v.count("tmux "+how, l)
	return v.again(ctx, "tmux "+how)
}

var modeSequence = regexp.MustCompile(`\x1b\[\?([0-9;]+)([hl])`)

// leftOver says in what a program has left its terminal unlike it was: its line modes, or what it has switched on
// by escape sequences and not off again.
func (x *console) leftOver() string {
	// Its last words may still be on their way.
	for range 50 {
		if strings.Contains(x.wrote(), "\x1b[?1049l") {
			break
		}
		<-time.After(tick)
	}
	var wrong []error
	now, err := term.GetState(x.tty.Fd())
	if err != nil {
		return err.Error()
	}
	if *now != *x.was {
		wrong = append(wrong, fmt.Errorf("with the line modes %+v, want %+v", *now, *x.was))
	}
	all := x.wrote()
	modes := map[string]string{}
	for _, m := range modeSequence.FindAllStringSubmatch(all, -1) {
		for mode := range strings.SplitSeq(m[1], ";") {
			modes[mode] = m[2]
		}
	}
	for mode, state := range modes {
		usual := "l"
		if mode == "25" || mode == "7" { // the cursor shows and lines wrap
			usual = "h"
		}
		if state != usual {
			wrong = append(wrong, fmt.Errorf("with mode %s%s", mode, state))
		}
	}
	if len(modes) == 0 {
		wrong = append(wrong, errors.New("without ever being used"))
	}
	if err := errors.Join(wrong...); err != nil {
		return strings.ReplaceAll(err.Error(), "\n", ", ")
	}
	return ""
}
