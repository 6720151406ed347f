package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func workerRollCmd(g *globals) *cobra.Command {
	var yes, noWait, alone bool
	cmd := &cobra.Command{
		Use:   "roll MODEL",
		Short: "Restart a model's workers one after the other, without losing a request",
		Long: `Restart the workers of a model one after the other: each gets no new requests, ends those it has, is
restarted and must be ready before the next one's turn. Those that do not serve come first. It stops, with
the rest untouched, when one does not come back, and never restarts the last one that serves.

Workers that are stopped, drained or asleep stay as they are; attached ones are not ours. ctrl+c leaves it
running; "vllmdeck worker unroll MODEL" ends it after the present worker.`,
		Example: "vllmdeck reload; vllmdeck worker roll llama-3.1-8b --yes",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: g.completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, s, err := g.snapshot(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			model, ok := findModel(s, args[0])
			if !ok {
				return unknownModel(s, args[0])
			}
			plan, single := rollPlan(s, model)
			if single && yes && !alone {
				return &exitError{code: exitUsage, err: fmt.Errorf("%s has one worker: nobody serves it while that restarts; say --alone too", model)}
			}
			if err := confirm(cmd, plan, yes); err != nil {
				return err
			}
			order := api.Action{Verb: api.ModelRoll, Target: model, Args: map[string]string{}}
			if single {
				order.Args["alone"] = "true"
			}
			if err := c.Do(cmd.Context(), order); err != nil {
				return err
			}
			if noWait {
				return nil
			}
			return followRoll(cmd, c, model)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait until it is done")
	cmd.Flags().BoolVar(&alone, "alone", false, "with --yes: also if there is only one worker, and nobody serves while it restarts")
	return cmd
}

func workerUnrollCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:               "unroll MODEL",
		Short:             "End a rolling restart after the worker whose turn it is",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: g.completeModels,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, s, err := g.snapshot(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			model, ok := findModel(s, args[0])
			if !ok {
				return unknownModel(s, args[0])
			}
			return c.Do(cmd.Context(), api.Action{Verb: api.ModelUnroll, Target: model})
		},
	}
}

// findModel resolves a name or an alias.
func findModel(s *api.Snapshot, name string) (string, bool) {
	for _, m := range s.Models {
		if m.Name == name || slices.Contains(m.Aliases, name) {
			return m.Name, true
		}
	}
	return "", false
}

func unknownModel(s *api.Snapshot, name string) error {
	names := make([]string, len(s.Models))
	for i, m := range s.Models {
		names[i] = m.Name
	}
	return &exitError{code: exitUsage, err: fmt.Errorf("no model is called %q; there are: %s", name, strings.Join(names, ", "))}
}

func (g *globals) completeModels(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	c, s, err := g.snapshot(cmd.Context())
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer c.Close()
	var names []string
	for _, m := range s.Models {
		names = append(names, m.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// rollPlan says what a rolling restart does; single, that nobody else serves meanwhile.
func rollPlan(s *api.Snapshot, model string) (plan string, single bool) {
	var b strings.Builder
	fmt.Fprintf(&b, "This restarts the workers of %s, one after the other:\n", safe(model))
	p := s.RollPlan(model)
	for _, w := range p.Workers {
		flight := ""
		if w.InFlight > 0 {
			flight = fmt.Sprintf(", %d in flight", w.InFlight)
		}
		fmt.Fprintf(&b, "  %s (%s%s)\n", safe(w.Name), w.State, flight)
	}
	for _, w := range p.Stay {
		if w.Kind == "attach" {
			fmt.Fprintf(&b, "  (%s is not ours: it goes on)\n", safe(w.Name))
		} else {
			fmt.Fprintf(&b, "  (%s stays %s)\n", safe(w.Name), w.State)
		}
	}
	if p.Alone {
		b.WriteString("It is the only one that serves the model: until it is ready again, requests wait or fail.\n")
	}
	return b.String(), p.Alone
}

// followRoll prints a line per change until a rolling restart is over.
func followRoll(cmd *cobra.Command, c api.Source, model string) error {
	s, err := fetch(cmd.Context(), c)
	if err != nil {
		return err
	}
	first, engine := s.Seq+2, s.Engine.Started // the order may not be in the first two
	tick := time.NewTicker(api.Tick / 2)
	defer tick.Stop()
	last := ""
	for {
		i := slices.IndexFunc(s.Rolls, func(r api.Roll) bool { return r.Model == model })
		switch {
		case !s.Engine.Started.Equal(engine):
			return fmt.Errorf("the engine was restarted, which ended the rolling restart of %s", model)
		case s.Seq < first || i < 0:
		default:
			r := s.Rolls[i]
			line := fmt.Sprintf("%d of %d", r.Done, len(r.Workers))
			if r.Done < len(r.Workers) {
				w, _ := findWorker(s, r.Workers[r.Done])
				line += "  " + w.Name + "  " + string(w.State)
				if w.Phase != "" {
					line += ": " + w.Phase
				}
			}
			if line != last {
				fmt.Fprintln(cmd.OutOrStdout(), safe(line))
				last = line
			}
			switch r.State {
			case "done":
				return nil
			case "failed":
				return fmt.Errorf("rolling restart of %s stopped after %d of %d workers: %s", model, r.Done, len(r.Workers), r.Error)
			case "cancelled":
				return fmt.Errorf("rolling restart of %s was ended by order after %d of %d workers", model, r.Done, len(r.Workers))
			}
		}
		select {
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		case <-tick.C:
		}
		if s, err = fetch(cmd.Context(), c); err != nil {
			return err
		}
	}
}
