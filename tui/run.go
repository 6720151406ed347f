package tui

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// Result says how a console was left.
type Result struct {
	Stopped bool   // the engine was ordered to stop and took the order
	Kept    bool   // of Stopped: the workers go on
	URL     string // the gateway's, for the line that says serving goes on; "" if never seen
	Workers int    // ready ones when last seen
	Frame   string // the last screen, if the user asked to leave it (Q)
}

// Run shows a console on the terminal until the user leaves it, and restores the terminal. On a
// terminal that cannot move its cursor (TERM=dumb) it prints one line per change instead.
func Run(ctx context.Context, opt Options, extra ...tea.ProgramOption) (Result, error) {
	opt = opt.suited(os.Getenv)
	if os.Getenv("TERM") == "dumb" {
		return runPlain(ctx, opt, os.Stdout)
	}
	// A killed terminal must end the program, and with its modes restored.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP, syscall.SIGTERM)
	defer stop()
	c := New(opt)
	opts := append([]tea.ProgramOption{tea.WithContext(ctx), tea.WithFPS(framesPerSec), tea.WithFilter(coalesceWheel())}, extra...)
	_, err := tea.NewProgram(c, opts...).Run()
	c.result.fill(c.live)
	if err != nil && (errors.Is(err, tea.ErrProgramKilled) || errors.Is(err, tea.ErrInterrupted)) && !errors.Is(err, tea.ErrProgramPanic) {
		err = nil
	}
	if err != nil {
		err = fmt.Errorf("run console: %w", err)
	}
	return c.result, err
}

// suited fits options to the terminal that the environment tells of.
func (opt Options) suited(env func(string) string) Options {
	if env("NO_COLOR") != "" {
		opt.Theme = "mono"
	}
	if opt.Graph == "" && env("TERM") == "linux" { // the font of the Linux console has 256 glyphs, few of ours among them
		opt.ASCII = true
	}
	return opt
}

func (r *Result) fill(s *api.Snapshot) {
	if s == nil {
		return
	}
	r.URL = s.Engine.URL
	for i := range s.Workers {
		if s.Workers[i].State == api.Ready {
			r.Workers++
		}
	}
}

// coalesceWheel drops wheel events that come faster than frames, so that keys never queue behind a
// flick of the wheel.
func coalesceWheel() func(tea.Model, tea.Msg) tea.Msg {
	var last time.Time
	return func(_ tea.Model, msg tea.Msg) tea.Msg {
		if _, ok := msg.(tea.MouseWheelMsg); ok {
			if t := time.Now(); t.Sub(last) < 16*time.Millisecond {
				return nil
			} else {
				last = t
			}
		}
		return msg
	}
}
