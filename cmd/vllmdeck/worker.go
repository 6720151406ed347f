package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func workerCmd(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "List, start, stop, restart and drain workers",
		Args:  cobra.NoArgs,
	}
	cmd.AddCommand(
		workerListCmd(g),
		workerOrderCmd(g, "start", "Start a worker, also one that was given up", api.WorkerStart, api.Ready),
		workerOrderCmd(g, "stop", "Stop a worker: its requests end first, then its whole process tree", api.WorkerStop, api.Stopped),
		workerOrderCmd(g, "restart", "Stop a worker and start it again", api.WorkerRestart, api.Ready),
		workerOrderCmd(g, "drain", "Send a worker no new requests; its process stays", api.WorkerDrain, api.Draining),
		workerOrderCmd(g, "resume", "Send a drained worker requests again", api.WorkerResume, api.Ready),
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
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(s.Workers)
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), statusText(&api.Snapshot{Time: s.Time, Engine: s.Engine, Workers: s.Workers, Traffic: s.Traffic, Money: s.Money}))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the workers as JSON")
	return cmd
}

func workerOrderCmd(g *globals, name, short string, verb api.Verb, want api.State) *cobra.Command {
	var wait time.Duration
	var noWait bool
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
			for _, w := range args {
				if err := c.Do(cmd.Context(), api.Action{Verb: verb, Target: w}); err != nil {
					return err
				}
			}
			if noWait {
				return nil
			}
			for _, w := range args {
				if err := waitWorker(cmd, c, w, want, wait); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&wait, "wait", 30*time.Minute, "how long to wait for it")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "return once the order is accepted")
	return cmd
}

// waitWorker follows one worker, a line per change, until it is in the state or has failed.
func waitWorker(cmd *cobra.Command, c api.Source, name string, want api.State, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), limit)
	defer cancel()
	tick := time.NewTicker(api.Tick)
	defer tick.Stop()
	last, seen := "", time.Now()
	for {
		// The order is carried out by the worker's own loop: its first effect may take a tick.
		select {
		case <-ctx.Done():
			if cmd.Context().Err() != nil {
				return cmd.Context().Err()
			}
			return fmt.Errorf("wait for %s: still %s after %s", name, last, limit)
		case <-tick.C:
		}
		s, err := fetch(ctx, c)
		if err != nil {
			return err
		}
		w, ok := findWorker(s, name)
		if !ok {
			return fmt.Errorf("wait for %s: it is gone from the config", name)
		}
		line := string(w.State)
		if w.Phase != "" {
			line += ": " + w.Phase
		}
		if line != last {
			fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", safe(name), line)
			last = line
		}
		switch {
		case w.State == want:
			return nil
		case w.State == api.Failed && w.NextStart.IsZero() && time.Since(seen) > 2*api.Tick:
			return fmt.Errorf("%s failed: %s\n%s", name, safe(w.Error), safe(w.Remedy))
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
	return &exitError{code: exitUsage, err: fmt.Errorf("no worker is called %q; there are: %v", name, names)}
}

// completeWorkers offers worker names to the shell.
func (g *globals) completeWorkers(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	c, s, err := g.snapshot(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer c.Close()
	names := make([]string, len(s.Workers))
	for i, w := range s.Workers {
		names[i] = w.Name + "\t" + w.Model
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
