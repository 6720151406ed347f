package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func workerCrashesCmd(g *globals) *cobra.Command {
	var asJSON bool
	var count int
	cmd := &cobra.Command{
		Use:   "crashes [WORKER]",
		Short: "Show the crash book: every end that nobody asked for, every start that failed",
		Long: `Show the crash book, newest first: when a worker ended that nobody had asked to end, or a start that
failed, with its cause and what mends it. It is kept for ever, also for workers that are no longer in the
config, and knows of those that died while no engine ran.

"vllmdeck logs crash/ID" shows the last lines of its log.`,
		Example:           "vllmdeck worker crashes\nvllmdeck worker crashes w0 --json | jq '.[0].command'",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: g.completeWorkers,
		RunE: func(cmd *cobra.Command, args []string) error {
			if count < 0 {
				return &exitError{code: exitUsage, err: fmt.Errorf("--lines %d: want 0 or more", count)}
			}
			c, err := g.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			all, err := crashBook(cmd.Context(), c)
			if err != nil {
				return err
			}
			if len(args) > 0 {
				all = slices.DeleteFunc(all, func(x api.Crash) bool { return x.Worker != args[0] })
			}
			slices.Reverse(all)
			if count > 0 && len(all) > count {
				all = all[:count]
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), all)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), crashText(all))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the entries as JSON, with their command lines")
	cmd.Flags().IntVarP(&count, "lines", "n", 20, "how many entries, the newest; 0: all")
	return cmd
}

// crashBook reads the whole book, oldest first.
func crashBook(ctx context.Context, c api.Source) ([]api.Crash, error) {
	all := []api.Crash{}
	newest, err := c.Log(ctx, "crashes", 0)
	if err != nil || len(newest) == 0 {
		return all, err
	}
	var lines []api.Line
	// With 0 the newest page comes. Where the book has more, it is read from its beginning.
	if first := newest[0].Seq; first > 2 {
		page, err := c.Log(ctx, "crashes", 1)
		for ; err == nil && len(page) > 0 && page[0].Seq < first; page, err = c.Log(ctx, "crashes", lastSeq(page, 0)) {
			lines = append(lines, slices.DeleteFunc(page, func(l api.Line) bool { return l.Seq >= first })...)
		}
		if err != nil {
			return nil, err
		}
	}
	for _, l := range append(lines, newest...) {
		var x api.Crash
		if err := json.Unmarshal([]byte(l.Text), &x); err != nil {
			return nil, fmt.Errorf("read crash book: %w", err)
		}
		all = append(all, x)
	}
	return all, nil
}

// crashText is for people: a line each, and what mends the newest.
func crashText(all []api.Crash) string {
	if len(all) == 0 {
		return "no crash is in the book\n"
	}
	var b strings.Builder
	tw := newTable(&b)
	fmt.Fprintln(tw, "ENDED\tWORKER\tUP\tEXIT\tCAUSE")
	for _, c := range all {
		exit := c.Exit
		if c.Phase != "" {
			exit += " in " + c.Phase
		}
		cause, _, _ := strings.Cut(safe(c.Cause), "\n")
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", c.Time.Local().Format(time.DateTime), safe(c.Worker), age(time.Duration(c.Up)), safe(exit), cause)
	}
	_ = tw.Flush() // into a Builder
	newest := all[0]
	if newest.Remedy != "" {
		fmt.Fprintf(&b, "\nthe newest: %s\n", safe(newest.Remedy))
	}
	fmt.Fprintf(&b, "its last %d lines: vllmdeck logs crash/%s\n", newest.Lines, safe(newest.ID))
	return b.String()
}
