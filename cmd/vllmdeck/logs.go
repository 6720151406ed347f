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
		Use:     "logs WORKER|engine|crash/ID",
		Short:   "Show the log of a worker, of the engine, or of a crash",
		Example: "vllmdeck logs w0 -f\nvllmdeck logs engine --level warning\nvllmdeck worker crashes; vllmdeck logs crash/20261124-031500.123456-w0",
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
			if count < 0 {
				return &exitError{code: exitUsage, err: fmt.Errorf("--lines %d: want 0 or more", count)}
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
			out := cmd.OutOrStdout()
			show := atLeast(lines, least)
			if len(show) > count {
				show = show[len(show)-count:]
			}
			if err := printLines(out, show); err != nil || !follow {
				return err
			}
			tick := time.NewTicker(api.Tick)
			defer tick.Stop()
			after := lastSeq(lines, 0)
			for {
				select {
				case <-cmd.Context().Done():
					return nil
				case <-tick.C:
				}
				// More than one page, if much came at once.
				for {
					if lines, err = c.Log(cmd.Context(), args[0], after); err != nil {
						return err
					}
					if len(lines) == 0 {
						break
					}
					after = lastSeq(lines, after)
					if err := printLines(out, atLeast(lines, least)); err != nil {
						return err
					}
				}
			}
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as lines come")
	cmd.Flags().StringVar(&level, "level", "debug", "only lines at least this alarming: debug, info, warning, error")
	cmd.Flags().IntVarP(&count, "lines", "n", 200, "how many lines to begin with, 2000 at most; the files in STATE/logs and STATE/workers have all")
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

// printLines writes the lines, safe for a terminal.
func printLines(out io.Writer, lines []api.Line) error {
	for _, l := range lines {
		if _, err := fmt.Fprintln(out, safe(l.Text)); err != nil {
			return err
		}
	}
	return nil
}

// lastSeq is the cursor after some lines.
func lastSeq(lines []api.Line, before uint64) uint64 {
	if len(lines) == 0 {
		return before
	}
	return lines[len(lines)-1].Seq
}
