package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// levels in rising order of alarm. A line without one counts as info.
var levels = map[string]int{"debug": 0, "": 1, "info": 1, "warning": 2, "error": 3, "critical": 3}

func logsCmd(g *globals) *cobra.Command {
	var follow bool
	var level string
	var count int
	cmd := &cobra.Command{
		Use:     "logs WORKER|engine",
		Short:   "Show the log of a worker or of the engine",
		Example: "vllmdeck logs w0 -f\nvllmdeck logs engine --level warning",
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			names, d := g.completeWorkers(cmd, args, prefix)
			return append(names, "engine"), d
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			least, ok := levels[strings.ToLower(level)]
			if !ok {
				return &exitError{code: exitUsage, err: fmt.Errorf("level %q: want debug, info, warning or error", level)}
			}
			c, err := g.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			lines, err := c.Log(cmd.Context(), args[0], 0)
			if errors.Is(err, api.ErrUnknown) {
				return &exitError{code: exitUsage, err: err}
			}
			if err != nil {
				return err
			}
			lines = atLeast(lines, least)
			if count >= 0 && len(lines) > count {
				lines = lines[len(lines)-count:]
			}
			out := cmd.OutOrStdout()
			var after uint64
			after = printLines(out, lines, after)
			if !follow {
				return nil
			}
			tick := time.NewTicker(api.Tick)
			defer tick.Stop()
			for {
				select {
				case <-cmd.Context().Done():
					return nil
				case <-tick.C:
				}
				if after == 0 {
					after = 1 // nothing yet: ask for everything, not for the newest page again
				}
				lines, err := c.Log(cmd.Context(), args[0], after)
				if err != nil {
					return err
				}
				if len(lines) > 0 {
					after = lines[len(lines)-1].Seq
				}
				printLines(out, atLeast(lines, least), after)
			}
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as lines come")
	cmd.Flags().StringVar(&level, "level", "debug", "only lines at least this alarming: debug, info, warning, error")
	cmd.Flags().IntVarP(&count, "lines", "n", 200, "how many lines to begin with; -1: all that are kept")
	return cmd
}

func atLeast(lines []api.Line, least int) []api.Line {
	if least == 0 {
		return lines
	}
	var kept []api.Line
	for _, l := range lines {
		if levels[strings.ToLower(l.Level)] >= least {
			kept = append(kept, l)
		}
	}
	return kept
}

// printLines writes the lines, safe for a terminal, and gives the cursor after them.
func printLines(out io.Writer, lines []api.Line, after uint64) uint64 {
	for _, l := range lines {
		fmt.Fprintln(out, safe(l.Text))
		after = max(after, l.Seq)
	}
	return after
}
