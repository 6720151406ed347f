package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/tui"
)

// consoleFlags are how the console looks.
type consoleFlags struct {
	theme, graph string
	ascii        bool
	readOnly     bool
}

func (f *consoleFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.theme, "theme", "auto", "colours: auto, dark, light, mono, tty16 or cvd")
	cmd.Flags().StringVar(&f.graph, "graph", "", "charts: braille, block or ascii (default braille; on the Linux console all is ASCII unless this is given)")
	cmd.Flags().BoolVar(&f.ascii, "ascii", false, "no character beyond ASCII")
	cmd.Flags().BoolVar(&f.readOnly, "read-only", false, "look, give no orders")
}

// run shows the console until its user leaves, or ctx or the terminal ends.
func (f *consoleFlags) run(ctx context.Context, out io.Writer, src api.Source, demo bool) error {
	// On a terminal that cannot move its cursor the console has no keys: ctrl+c leaves it.
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	left, err := tui.Run(ctx, tui.Options{
		Source: src, Demo: demo, Theme: f.theme, Graph: f.graph, ASCII: f.ascii, ReadOnly: f.readOnly, Version: version,
	})
	if err != nil {
		return fmt.Errorf("console: %w", err)
	}
	if left.Frame != "" {
		fmt.Fprintln(out, left.Frame)
	}
	return nil
}

func attachCmd(g *globals) *cobra.Command {
	f := &consoleFlags{}
	cmd := &cobra.Command{
		Use:     "attach [ADDR]",
		Short:   "Open the console on a running engine",
		Long:    "Open the console on the running engine of this user, or on another one: unix:PATH or ssh://HOST\n(there, vllmdeck must be in the PATH of a non-interactive shell).",
		Example: "vllmdeck attach\nvllmdeck attach ssh://gpu-a1",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				g.engine = args[0]
			}
			c, err := g.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			return openConsole(cmd, c, f)
		},
	}
	f.register(cmd)
	return cmd
}

// onTerminal says whether there is a person at both ends.
func onTerminal() bool { return term.IsTerminal(os.Stdin.Fd()) && term.IsTerminal(os.Stdout.Fd()) }

// openConsole runs the console on a source until its user leaves, and says what goes on.
func openConsole(cmd *cobra.Command, c *api.Client, f *consoleFlags) error {
	// An engine that is not there is said here, not on an empty screen.
	s, err := fetch(cmd.Context(), c)
	if err != nil {
		return err
	}
	if !onTerminal() {
		return printStatus(cmd.OutOrStdout(), s, false)
	}
	if err := f.run(cmd.Context(), cmd.OutOrStdout(), c, false); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(cmd.Context()), 2*time.Second)
	defer cancel()
	s, err = c.Snapshot(ctx)
	switch {
	case errors.Is(err, api.ErrAway), err == nil && s.Engine.Stopping:
		fmt.Fprintln(cmd.OutOrStdout(), "the engine has stopped, or is stopping")
	case err != nil:
		return err
	case strings.HasPrefix(c.Addr(), "ssh://"):
		fmt.Fprintf(cmd.OutOrStdout(), "still serving on %s; \"vllmdeck attach %s\" returns\n", safe(s.Engine.URL), c.Addr())
	default:
		fmt.Fprintf(cmd.OutOrStdout(), "still serving on %s; \"vllmdeck\" returns, \"vllmdeck stop\" ends it\n", safe(s.Engine.URL))
	}
	return nil
}
