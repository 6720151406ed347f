package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/worker"
	"github.com/vllmdeck/vllmdeck/config"
)

func workerFixCmd(g *globals) *cobra.Command {
	var f api.Fix
	var yes bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "fix WORKER",
		Short: "Start a worker with the remedy of its failure, or with other flags of yours",
		Long: `Change the command line of a worker and (re)start it. Without flags it takes the remedy that the
diagnosis of its failure offers ("vllmdeck status" shows it).

It shows the new command line and asks; without a terminal it needs --yes. The change outlives the engine
and is kept until "vllmdeck worker unfix", or until the config says something else of the worker's command
line. What to write into the config to keep it for good is printed.`,
		Example: "vllmdeck worker fix w0\nvllmdeck worker fix w0 --set --max-model-len=8192 --unset --enable-sleep-mode --yes",
		Args:    cobra.ExactArgs(1), ValidArgsFunction: g.completeWorkers,
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			c, s, err := g.snapshot(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			w, ok := findWorker(s, name)
			if !ok {
				return unknownWorker(s, name)
			}
			own := len(f.Set)+len(f.Unset)+len(f.Env) == 0
			if own && w.Fix == nil {
				return fmt.Errorf("%s has no remedy that is a flag: name one, as --set --max-model-len=4096", name)
			}
			order := api.Action{Verb: api.WorkerFix, Target: name}
			if own {
				f = *w.Fix
			} else {
				f.Command = worker.Changed(w.Command, f.Set, f.Unset)
			}
			// Given by its words, so that what is done is what was shown.
			order.Args = map[string]string{"set": strings.Join(f.Set, "\n"), "unset": strings.Join(f.Unset, "\n"), "env": strings.Join(f.Env, "\n")}
			if err := confirm(cmd, fixPlan(w, f), yes); err != nil {
				return err
			}
			if err := c.Do(cmd.Context(), order); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), safe(worker.InConfig(name, &f)))
			return followWorker(cmd, c, name, wait)
		},
	}
	cmd.Flags().StringArrayVar(&f.Set, "set", nil, "a flag of vllm serve, as --flag=value or --flag; again for more")
	cmd.Flags().StringArrayVar(&f.Unset, "unset", nil, "a flag that goes, as --flag")
	cmd.Flags().StringArrayVar(&f.Env, "env", nil, "a variable of its environment, as NAME=value")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().DurationVar(&wait, "wait", orderLimit, "how long to wait until it is ready; 0: not at all")
	return cmd
}

func workerUnfixCmd(g *globals) *cobra.Command {
	var yes bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:               "unfix WORKER",
		Short:             "Restart a worker as its config says, without what was fixed",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: g.completeWorkers,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, s, err := g.snapshot(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			w, ok := findWorker(s, args[0])
			if !ok {
				return unknownWorker(s, args[0])
			}
			if len(w.Fixed) == 0 {
				return &exitError{code: exitRunning, err: fmt.Errorf("nothing of %s was changed by order", args[0])}
			}
			plan := fmt.Sprintf("This restarts %s (%s) as its config says, no more %s\n", safe(w.Name), w.State, safe(strings.Join(w.Fixed, ", ")))
			if err := confirm(cmd, plan, yes); err != nil {
				return err
			}
			if err := c.Do(cmd.Context(), api.Action{Verb: api.WorkerUnfix, Target: args[0]}); err != nil {
				return err
			}
			return followWorker(cmd, c, args[0], wait)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().DurationVar(&wait, "wait", orderLimit, "how long to wait until it is ready; 0: not at all")
	return cmd
}

// followWorker waits for a worker that an order has started.
func followWorker(cmd *cobra.Command, c api.Source, name string, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	s, err := fetch(cmd.Context(), c)
	if err != nil {
		return err
	}
	return waitWorker(cmd, c, s, name, api.Ready, wait)
}

// fixPlan says what a fix does.
func fixPlan(w api.Worker, f api.Fix) string {
	var b strings.Builder
	verb := "restarts"
	if w.State == api.Failed || w.State == api.Stopped {
		verb = "starts"
	}
	fmt.Fprintf(&b, "This %s %s (%s", verb, safe(w.Name), w.State)
	if w.InFlight > 0 {
		fmt.Fprintf(&b, ", %d requests in flight", w.InFlight)
	}
	b.WriteString(")")
	if f.Why != "" {
		fmt.Fprintf(&b, " to mend: %s", safe(f.Why))
	}
	b.WriteString("\n")
	line := func(what string, args []string) {
		for _, a := range args {
			fmt.Fprintf(&b, "  %s %s%s\n", what, safe(a), unknownHint(what, a))
		}
	}
	line("with", f.Set)
	line("without", f.Unset)
	line("env", f.Env)
	if len(f.Command) > 0 {
		fmt.Fprintf(&b, "The new command line:\n  %s\n", safe(strings.Join(f.Command, " ")))
	}
	return b.String()
}

// unknownHint warns of a flag that vLLM does not have, as far as is known.
func unknownHint(what, arg string) string {
	flag := config.Flag(arg)
	if what != "with" || config.KnownFlag(flag) {
		return ""
	}
	if near := config.NearestFlag(flag); near != "" {
		return " (vLLM 0.32 has no such flag: did you mean " + near + "?)"
	}
	return " (vLLM 0.32 has no such flag)"
}
