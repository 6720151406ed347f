package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/capture"
)

func keysCapturedCmd(g *globals) *cobra.Command {
	var asJSON, forget bool
	var count int
	cmd := &cobra.Command{
		Use:   "captured NAME",
		Short: "Show the prompts and answers that were kept of a key",
		Long: `Show the prompts and answers of a key for which that is switched on ("vllmdeck keys set NAME --capture on",
or capture: true of a key in the config). They are in prompts.db in the state folder, for as long as
capture.keep in the config says (7 days), at most 64 kB of each; of other keys nothing is kept.
Reasoning and tool calls of answers are not among them. --forget takes out what is there.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: g.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			if count < 1 {
				return &exitError{code: exitUsage, err: fmt.Errorf("--lines: want 1 or more, got %d", count)}
			}
			k, err := g.keeper(cmd.Context(), false)
			if err != nil {
				return err
			}
			defer k.close()
			state := k.folder()
			if state == "" {
				return errors.New("the texts are on the engine's host: run this there")
			}
			if forget {
				n, err := capture.Forget(cmd.Context(), state, args[0])
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "%d captured requests of %s are gone\n", n, args[0])
				return nil
			}
			list, err := capture.Read(cmd.Context(), state, args[0], count)
			if err != nil {
				return err
			}
			if asJSON {
				if list == nil {
					list = []capture.Entry{}
				}
				return printJSON(cmd.OutOrStdout(), list)
			}
			if len(list) == 0 {
				if all, err := k.list(cmd.Context()); err == nil && !slices.ContainsFunc(all, func(o api.Key) bool { return o.Name == args[0] }) {
					return fmt.Errorf("no key is named %q: \"vllmdeck keys list\" lists them", args[0])
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "nothing is kept of %s: what it asks is kept from \"vllmdeck keys set %s --capture on\" on\n", args[0], args[0])
				return nil
			}
			_, err = io.WriteString(cmd.OutOrStdout(), capturedText(list))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print them as JSON")
	cmd.Flags().BoolVar(&forget, "forget", false, "take them out instead")
	cmd.Flags().IntVarP(&count, "lines", "n", 20, "how many requests, the newest")
	return cmd
}

// capturedText writes entries for a terminal. Their text is foreign.
func capturedText(list []capture.Entry) string {
	var b strings.Builder
	for i, e := range list {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s  %s  %s %s  %s", e.Started.Local().Format(time.DateTime), safe(e.ID), safe(e.Route), safe(e.Model), safe(e.Outcome))
		if e.Client != "" {
			fmt.Fprintf(&b, "  client id %s", safe(e.Client))
		}
		if e.Cut {
			b.WriteString("  (cut)")
		}
		b.WriteByte('\n')
		for _, part := range []struct{ name, text string }{{"prompt", e.Prompt}, {"answer", e.Answer}} {
			for j, line := range strings.Split(part.text, "\n") {
				name := part.name
				if j > 0 {
					name = ""
				}
				fmt.Fprintf(&b, "  %-6s  %s\n", name, safe(line))
			}
		}
	}
	return b.String()
}
