package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func modelsCmd(g *globals) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "models",
		Short: "List, fetch and remove models of the Hugging Face cache",
		Long: `The Hugging Face cache of the engine's host, in which vLLM finds models by their name on the hub.

A model that is fetched before its worker starts costs that start no download. Its folder, the hub
and the token are found as huggingface_hub does: HF_HUB_CACHE, HF_HOME, HF_ENDPOINT, HF_TOKEN or the
file of "hf auth login", in the environment of the engine and of the worker that needs the model.
Where no engine runs, the command does it itself.`,
	})
	cmd.AddCommand(modelsListCmd(g), modelsFetchCmd(g), modelsRemoveCmd(g), modelsCancelCmd(g))
	return cmd
}

func modelsListCmd(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the models of the cache, who needs them and what is missing",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, err := g.cacheKeeper(cmd.Context(), false)
			if err != nil {
				return err
			}
			defer k.close()
			c, err := k.look(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), c)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), modelTable(c, time.Now()))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the cache as JSON")
	return cmd
}

// modelTable is the cache as text.
func modelTable(c *api.Cache, now time.Time) string {
	if c.Path == "" && len(c.Models) == 0 && len(c.Downloads) == 0 && c.Error == "" {
		return "no model is in the cache, and no worker needs one: \"vllmdeck models fetch ORG/NAME\" brings one\n"
	}
	var b strings.Builder
	w := newTable(&b)
	fmt.Fprintln(w, "MODEL\tSIZE\tUSED\tWORKERS\tSTATE")
	for _, m := range c.Models {
		used := "-"
		if !m.Used.IsZero() {
			used = m.Used.Local().Format(time.DateOnly)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", safe(m.Name), amount(m.Size), used, cmp.Or(safe(strings.Join(m.Workers, ", ")), "-"), safe(modelState(c, m, now)))
	}
	_ = w.Flush() // into memory
	for _, d := range c.Downloads {
		if d.State == "failed" {
			fmt.Fprintf(&b, "\n%s was not fetched: %s\n", safe(d.Name), safe(d.Error))
		}
	}
	fmt.Fprintf(&b, "\n%s: %s, %s free", safe(c.Path), amount(c.Size), amount(c.Free))
	if c.Offline {
		b.WriteString(", offline (HF_HUB_OFFLINE): nothing is fetched")
	}
	b.WriteString("\n")
	if c.Error != "" {
		fmt.Fprintf(&b, "%s\n", safe(c.Error))
	}
	return b.String()
}

func modelState(c *api.Cache, m api.CacheModel, now time.Time) string {
	for _, d := range c.Downloads {
		if d.Name == m.Name && d.State == "running" {
			return progress(d, now)
		}
	}
	var parts []string
	switch {
	case m.Size == 0 && m.Partial == 0:
		parts = append(parts, `not there: "vllmdeck models fetch `+m.Name+`"`)
	case len(m.Missing) > 0:
		parts = append(parts, "missing "+strings.Join(m.Missing, ", "))
	default:
		parts = append(parts, "ok")
	}
	if m.Partial > 0 {
		parts = append(parts, amount(m.Partial)+" of a broken download")
	}
	if m.Path != "" {
		parts = append(parts, "in "+m.Path)
	}
	return strings.Join(parts, "; ")
}

// progress is how far a download is, in words.
func progress(d api.Download, now time.Time) string {
	if d.Size == 0 {
		return "asking the hub"
	}
	text := fmt.Sprintf("%d %%, %s of %s", d.Done*100/d.Size, amount(d.Done), amount(d.Size))
	if d.Rate > 0 {
		left := time.Duration(float64(d.Size-d.Done) / d.Rate * float64(time.Second))
		text += fmt.Sprintf(", %s/s, %s left", amount(int64(d.Rate)), left.Round(time.Second))
	} else if now.Sub(d.Started) > time.Minute {
		text += ", nothing comes"
	}
	return text
}

func modelsCancelCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "cancel MODEL",
		Short: "End a download; what is there is kept, and fetch goes on from it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Do(cmd.Context(), api.Action{Verb: api.CacheCancel, Target: args[0]}); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s  cancelled\n", safe(args[0]))
			return nil
		},
	}
}

func modelsRemoveCmd(g *globals) *cobra.Command {
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use:   "remove MODEL",
		Short: "Remove a model from the cache",
		Long: `Remove a model from the cache: all its revisions, broken downloads and locks, and what no other
model shares with it. It names what goes and asks; without a terminal it needs --yes. A model
that a worker of the config needs stays.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			k, err := g.cacheKeeper(cmd.Context(), true)
			if err != nil {
				return err
			}
			defer k.close()
			c, err := k.look(cmd.Context())
			if err != nil {
				return err
			}
			at := slices.IndexFunc(c.Models, func(m api.CacheModel) bool { return m.Name == args[0] && m.Size+m.Partial > 0 })
			if at < 0 {
				return &exitError{code: exitUsage, err: fmt.Errorf("%s has no model %q: \"vllmdeck models list\" lists them", c.Path, args[0])}
			}
			m := c.Models[at]
			if len(m.Workers) > 0 {
				return fmt.Errorf("%s is needed by %s: take that out of the config first", m.Name, strings.Join(m.Workers, ", "))
			}
			plan := fmt.Sprintf("This removes from %s:\n  %s (%s)\n", safe(c.Path), safe(m.Name), amount(m.Size+m.Partial))
			if err := confirm(cmd, plan, yes); err != nil {
				return err
			}
			if err := k.src.Do(cmd.Context(), api.Action{Verb: api.CacheRemove, Target: m.Name}); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), m)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s  removed (%s)\n", safe(m.Name), amount(m.Size+m.Partial))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print what was removed as JSON")
	return cmd
}
