package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func workerCmd(g *globals) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "worker",
		Short: "List, start, stop, restart, drain and mend workers, let them sleep",
	})
	cmd.AddCommand(
		workerListCmd(g),
		workerOrderCmd(g, "start", "Start a worker, also one that was given up", api.WorkerStart, api.Ready),
		workerOrderCmd(g, "stop", "Let a worker end its requests, then stop it", api.WorkerStop, api.Stopped),
		workerOrderCmd(g, "restart", "Stop a worker and start it again", api.WorkerRestart, api.Ready),
		workerOrderCmd(g, "drain", "Send a worker no new requests; its process stays", api.WorkerDrain, api.Draining),
		workerOrderCmd(g, "resume", "Send a drained worker requests again", api.WorkerResume, api.Ready),
		workerSleepCmd(g),
		workerOrderCmd(g, "wake", "Wake a worker that sleeps, in its turn", api.WorkerWake, api.Ready),
		workerCrashesCmd(g),
		workerFixCmd(g),
		workerUnfixCmd(g),
		workerRollCmd(g),
		workerUnrollCmd(g),
		workerStraysCmd(g),
		workerEndStrayCmd(g),
	)
	return cmd
}

func workerListCmd(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the workers",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, s, err := g.snapshot(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s.Workers)
			}
			var b strings.Builder
			workerTable(&b, s)
			_, err = io.WriteString(cmd.OutOrStdout(), b.String())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the workers as JSON")
	return cmd
}

func workerOrderCmd(g *globals, name, short string, verb api.Verb, want api.State) *cobra.Command {
	var wait time.Duration
	var noGate bool
	cmd := &cobra.Command{
		Use:               name + " WORKER…",
		Short:             short,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: g.completeWorkers,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, s, err := g.snapshot(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			for _, w := range args {
				if _, ok := findWorker(s, w); !ok {
					return unknownWorker(s, w)
				}
			}
			order := api.Action{Verb: verb}
			if noGate {
				order.Args = map[string]string{"gate": "off"}
			}
			if f := cmd.Flags().Lookup("level"); f != nil && f.Changed {
				if level := f.Value.String(); level != "1" && level != "2" {
					return &exitError{code: exitUsage, err: fmt.Errorf("--level %s: want 1 or 2", level)}
				}
				order.Args = map[string]string{"level": f.Value.String()}
			}
			return orderEach(cmd, c, s, args, order, want, wait)
		},
	}
	if verb == api.WorkerStart {
		cmd.Flags().BoolVar(&noGate, "no-gate", false, "do not wait for other starts on its GPUs, nor for their memory")
	}
	cmd.Flags().DurationVar(&wait, "wait", orderLimit, "how long to wait for it; 0: not at all")
	return cmd
}

// workerSleepCmd is workerOrderCmd with a level.
func workerSleepCmd(g *globals) *cobra.Command {
	cmd := workerOrderCmd(g, "sleep", "Take a worker's weights off the GPU; a request for its model wakes it", api.WorkerSleep, api.Asleep)
	cmd.Long = `Unroute a worker, let its requests end, and take its weights off the GPU; its process stays. A request
for its model, or "vllmdeck worker wake", brings them back in seconds.

It needs sleep: of the worker in the config. Level 1 keeps the weights in host memory, level 2 reads
them from disk again.`
	cmd.Flags().Int("level", 0, "depth of the sleep, 1 or 2 (default: that of the config)")
	return cmd
}

// orderLimit is how long an order to a worker may take: a large model loads for long.
const orderLimit = 30 * time.Minute

// orderWorkers gives one order to each worker and then waits for all of them. s was seen before.
func orderWorkers(cmd *cobra.Command, c *api.Client, s *api.Snapshot, names []string, verb api.Verb, want api.State, limit time.Duration) error {
	return orderEach(cmd, c, s, names, api.Action{Verb: verb}, want, limit)
}

// orderEach is orderWorkers for an order with arguments; its target is filled in.
func orderEach(cmd *cobra.Command, c *api.Client, s *api.Snapshot, names []string, order api.Action, want api.State, limit time.Duration) error {
	for _, name := range names {
		order.Target = name
		err := c.Do(cmd.Context(), order)
		if w, _ := findWorker(s, name); errors.Is(err, api.ErrRefused) && w.State == want {
			return &exitError{code: exitRunning, err: err} // it is that already
		}
		if err != nil {
			return err
		}
	}
	if limit <= 0 {
		return nil
	}
	s, err := fetch(cmd.Context(), c)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := waitWorker(cmd, c, s, name, want, limit); err != nil {
			return err
		}
	}
	return nil
}

// waitWorker follows one worker, a line per change, until it is in the state or has failed. s
// was asked for after the order; it may still be from before it, as the one after it may be,
// which was perhaps being made then.
func waitWorker(cmd *cobra.Command, c api.Source, s *api.Snapshot, name string, want api.State, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), limit)
	defer cancel()
	tick := time.NewTicker(api.Tick / 2)
	defer tick.Stop()
	first, engine := s.Seq+2, s.Engine.Started
	last := ""
	for {
		if s.Seq >= first || !s.Engine.Started.Equal(engine) {
			w, ok := findWorker(s, name)
			if !ok {
				return fmt.Errorf("wait for %s: it is gone from the config", name)
			}
			line := string(w.State)
			switch {
			case w.Blocked != "":
				line += ", waits: " + w.Blocked
			case w.Phase != "":
				line += ": " + w.Phase
			case w.InFlight > 0 && w.State == api.Draining:
				line += ": requests"
			}
			if line != last {
				fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", safe(name), safe(line))
				last = line
			}
			switch {
			case w.State == want && (want != api.Draining || w.InFlight == 0):
				return nil
			case w.State == api.Failed && w.NextStart.IsZero():
				return fmt.Errorf("%s failed: %s\n%s", name, w.Error, w.Remedy)
			}
		}
		select {
		case <-ctx.Done():
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			return fmt.Errorf("wait for %s: still %s after %s", name, last, limit)
		case <-tick.C:
		}
		var err error
		if s, err = fetch(ctx, c); err != nil && ctx.Err() == nil {
			return err
		} else if err != nil {
			s = &api.Snapshot{Engine: api.Engine{Started: engine}} // the limit is said above
		}
	}
}

func findWorker(s *api.Snapshot, name string) (api.Worker, bool) {
	for _, w := range s.Workers {
		if w.Name == name {
			return w, true
		}
	}
	return api.Worker{}, false
}

func unknownWorker(s *api.Snapshot, name string) error {
	names := make([]string, len(s.Workers))
	for i, w := range s.Workers {
		names[i] = w.Name
	}
	return &exitError{code: exitUsage, err: fmt.Errorf("no worker is called %q; there are: %s", name, strings.Join(names, ", "))}
}

// completeWorkers offers worker names to the shell.
func (g *globals) completeWorkers(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	c, s, err := g.snapshot(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer c.Close()
	var names []string
	for _, w := range s.Workers {
		if !slices.Contains(args, w.Name) {
			names = append(names, w.Name+"\t"+w.Model)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
