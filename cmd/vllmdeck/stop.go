package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func stopCmd(g *globals) *cobra.Command {
	var keep, yes bool
	cmd := &cobra.Command{
		Use:   "stop [WORKER…]",
		Short: "Stop the engine and its workers, or some workers",
		Long: `Stop the engine: requests end first (config: grace), then the workers, each with its whole
process tree. --keep-workers leaves them running: the next engine takes them up again.

With names, stop those workers alone; the engine goes on.

It names what will stop and asks; without a terminal it needs --yes.`,
		ValidArgsFunction: g.completeWorkers,
		RunE: func(cmd *cobra.Command, args []string) error {
			if keep && len(args) > 0 {
				return &exitError{code: exitUsage, err: errors.New("--keep-workers is for stopping the engine: leave out the names, or the flag")}
			}
			c, s, err := g.snapshot(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			plan, err := stopPlan(s, args, keep)
			if err != nil {
				return err
			}
			if err := confirm(cmd, plan, yes); err != nil {
				return err
			}
			if len(args) > 0 {
				return orderWorkers(cmd, c, s, args, api.WorkerStop, api.Stopped, orderLimit)
			}
			workers := "stop"
			if keep {
				workers = "keep"
			}
			gone := engineGone(c, s.Engine.PID)
			if err := c.Do(cmd.Context(), api.Action{Verb: api.EngineStop, Args: map[string]string{"workers": workers}}); err != nil {
				return err
			}
			if err := gone(cmd.Context()); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "stopped")
			return nil
		},
	}
	cmd.Flags().BoolVar(&keep, "keep-workers", false, "leave the workers running for the next engine")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// stopPlan says in one line each what will stop.
func stopPlan(s *api.Snapshot, args []string, keep bool) (string, error) {
	var b strings.Builder
	line := func(w api.Worker) {
		fmt.Fprintf(&b, "  worker %s (%s, %s", safe(w.Name), safe(w.Model), w.State)
		if w.PID != 0 {
			fmt.Fprintf(&b, ", pid %d", w.PID)
		}
		if w.InFlight > 0 {
			fmt.Fprintf(&b, ", %d requests in flight", w.InFlight)
		}
		b.WriteString(")\n")
	}
	if len(args) > 0 {
		b.WriteString("This stops:\n")
		for _, name := range args {
			w, ok := findWorker(s, name)
			if !ok {
				return "", unknownWorker(s, name)
			}
			line(w)
		}
		return b.String(), nil
	}
	fmt.Fprintf(&b, "This stops:\n  the engine at %s (pid %d, %d requests in flight)\n", safe(s.Engine.URL), s.Engine.PID, s.Traffic.InFlight)
	if keep {
		b.WriteString("The workers go on.\n")
		return b.String(), nil
	}
	for _, w := range s.Workers {
		switch {
		case w.Kind == "attach":
			fmt.Fprintf(&b, "  (worker %s is not ours: it goes on)\n", safe(w.Name))
		case w.State != api.Stopped && w.State != api.Failed:
			line(w)
		}
	}
	return b.String(), nil
}

// confirm asks on a terminal and needs yes without one.
func confirm(cmd *cobra.Command, plan string, yes bool) error {
	if yes {
		return nil
	}
	if !term.IsTerminal(os.Stdin.Fd()) {
		return &exitError{code: exitUsage, err: fmt.Errorf("%snot on a terminal: say --yes to do it", plan)}
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%sGo on? [y/N] ", plan)
	answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && answer == "" {
		return fmt.Errorf("read answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was done")
}

// engineGone gives a func that waits until an engine has ended, however long its workers take:
// until its process is gone, and where that cannot be seen (another host, a container), until its
// socket is silent.
func engineGone(c *api.Client, pid int) func(context.Context) error {
	birth := ""
	if !strings.HasPrefix(c.Addr(), "ssh://") {
		birth = processBirth(pid)
	}
	return func(ctx context.Context) error {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		var silent time.Time
		for {
			if birth != "" && !processIs(pid, birth) {
				return nil
			}
			_, err := fetch(ctx, c)
			switch {
			case !errors.Is(err, api.ErrAway):
				silent = time.Time{}
			case birth == "":
				return nil
			case silent.IsZero():
				silent = time.Now()
			case time.Since(silent) > 10*time.Second:
				return nil // a process of that number here is not the engine, which is somewhere else
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
		}
	}
}
