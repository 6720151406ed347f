package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func modelsFetchCmd(g *globals) *cobra.Command {
	var revision string
	var noWait, asJSON bool
	cmd := &cobra.Command{
		Use:   "fetch MODEL",
		Short: "Bring a model from the hub into the cache",
		Long: `Bring a model from the hub into the cache: what vLLM needs of it (safetensors before other weights,
config, tokenizer), each file checked against the hub's hash. What an earlier try left is kept.

The engine goes on with it when this command is interrupted; without an engine it ends with the command.`,
		Example: "vllmdeck models fetch Qwen/Qwen3-8B",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			k, err := g.cacheKeeper(cmd.Context(), false)
			if err != nil {
				return err
			}
			defer k.close()
			if noWait && k.engine == nil {
				return &exitError{code: exitUsage, err: errors.New("--no-wait needs an engine that goes on with it: none runs")}
			}
			before, err := k.downloads(ctx)
			if err != nil {
				return err
			}
			a := api.Action{Verb: api.CacheFetch, Target: args[0]}
			if revision != "" {
				a.Args = map[string]string{"revision": revision}
			}
			if err := k.src.Do(ctx, a); err != nil || noWait {
				return err
			}
			return followDownload(ctx, cmd, k, before, args[0], asJSON)
		},
	}
	cmd.Flags().StringVar(&revision, "revision", "", "branch, tag or commit (default: that of the worker that needs it, else main)")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "leave it to the engine")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the end as JSON, nothing before")
	return cmd
}

// followDownload shows a download until its end. before are those that were known before it began.
func followDownload(ctx context.Context, cmd *cobra.Command, k *cacheKeeper, before []api.Download, name string, asJSON bool) error {
	is := func(d api.Download) bool { return d.Name == name }
	var old time.Time
	if i := slices.IndexFunc(before, is); i >= 0 {
		old = before[i].Started
	}
	out := cmd.OutOrStdout()
	live := term.IsTerminal(os.Stdout.Fd())
	every, end := 10*time.Second, "\n"
	if live {
		every, end = api.Tick, "\x1b[K\r"
	}
	if asJSON {
		out = io.Discard
	}
	tick := time.NewTicker(api.Tick / 2)
	defer tick.Stop()
	var said time.Time
	for {
		list, err := k.downloads(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if i := slices.IndexFunc(list, is); i >= 0 && !list[i].Started.Equal(old) {
			d := list[i]
			if d.State != "running" {
				return downloadEnd(cmd, d, asJSON, live)
			}
			if now := time.Now(); now.Sub(said) >= every {
				said = now
				fmt.Fprintf(out, "%s  %s%s", safe(name), progress(d, now), end)
			}
		}
		select {
		case <-ctx.Done():
			if k.engine != nil {
				return fmt.Errorf("interrupted: the engine goes on with it; \"vllmdeck models cancel %s\" ends it", name)
			}
			return errors.New("interrupted: what is there is kept, fetch it again to go on")
		case <-tick.C:
		}
	}
}

func downloadEnd(cmd *cobra.Command, d api.Download, asJSON, live bool) error {
	out := cmd.OutOrStdout()
	if asJSON {
		if err := printJSON(out, d); err != nil {
			return err
		}
	} else if live {
		fmt.Fprint(out, "\x1b[K")
	}
	switch {
	case d.State == "failed":
		return fmt.Errorf("%s was not fetched: %s", d.Name, d.Error)
	case d.State != "done":
		return fmt.Errorf("%s: %s; what is there is kept", d.Name, d.State)
	case !asJSON:
		fmt.Fprintf(out, "%s  done (%s)\n", safe(d.Name), amount(d.Size))
	}
	return nil
}
