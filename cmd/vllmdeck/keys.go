package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/keys"
)

func keysCmd(g *globals) *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "keys",
		Short: "Make, list, limit, rotate and revoke client keys",
		Long: `Client keys of the gateway, each with limits of its own. They are kept as hashes in the state
folder, beside those of the config, and every change is in force at once; streams go on. Without
a running engine the state folder of the config is changed.

As soon as there is a key, every request but GET /health needs one: also when all are revoked.`,
	})
	cmd.AddCommand(keysCreateCmd(g), keysListCmd(g), keysSetCmd(g), keysRotateCmd(g), keysRevokeCmd(g), keysCapturedCmd(g))
	return cmd
}

// keyFlags are the limits as flags, and the arguments of an order that they become.
var keyFlags = []struct{ flag, arg, usage string }{
	{"models", keys.ArgModels, "models it may use, separated by commas (default: all)"},
	{"rpm", keys.ArgRequests, "requests per minute"},
	{"tpm", keys.ArgTokens, "tokens per minute, of prompts and answers"},
	{"parallel", keys.ArgParallel, "requests at once, those that wait too"},
	{"budget-day", keys.ArgDay, "budget for a day of this host, in USD"},
	{"budget-month", keys.ArgMonth, "budget for a month, in USD"},
	{"priority", keys.ArgPriority, "its share of the places while requests wait: high, normal or low (16 : 4 : 1)"},
	{"failover", keys.ArgFailover, "when a paid provider may serve it, if its model allows as much: never, down or overload (default: as the model says)"},
	{"capture", keys.ArgCapture, "whether its prompts and answers are kept for a while, for \"vllmdeck keys captured\": on or off (default: off)"},
	{"expires", keys.ArgExpires, "when it ends: 30d, 12h, 2027-01-31 (default: never)"},
}

func addKeyFlags(cmd *cobra.Command) {
	for _, f := range keyFlags {
		cmd.Flags().String(f.flag, "", f.usage)
	}
}

// keyArgs are the limits that the command line names.
func keyArgs(cmd *cobra.Command, now time.Time) (map[string]string, error) {
	args := map[string]string{}
	for _, f := range keyFlags {
		if !cmd.Flags().Changed(f.flag) {
			continue
		}
		v, err := cmd.Flags().GetString(f.flag)
		if err != nil {
			return nil, err
		}
		switch v = strings.TrimSpace(v); {
		case v == "":
			err = errors.New(`say how much, or "none"`)
		case v == "none", v == "all" && f.arg == keys.ArgModels, v == "never" && f.arg == keys.ArgExpires:
			v = ""
		case f.arg == keys.ArgExpires:
			var at time.Time
			if at, err = parseExpiry(v, now); err == nil {
				v = at.UTC().Format(time.RFC3339)
			}
		}
		if err == nil {
			args[f.arg] = v
			err = errors.Unwrap(keys.Check(map[string]string{f.arg: v}))
		}
		if err != nil {
			return nil, &exitError{code: exitUsage, err: fmt.Errorf("--%s: %w", f.flag, err)}
		}
	}
	return args, nil
}

// parseExpiry reads a time from now on (30d, 12h, 2w) or a day, which begins at midnight here.
func parseExpiry(s string, now time.Time) (time.Time, error) {
	day, ok := strings.CutSuffix(s, "d")
	unit := 24 * time.Hour
	if !ok {
		day, ok = strings.CutSuffix(s, "w")
		unit *= 7
	}
	var at time.Time
	if n, err := strconv.ParseInt(day, 10, 32); ok && err == nil {
		at = now.AddDate(0, 0, int(min(max(n, 0), 100_000))*int(unit/(24*time.Hour)))
	} else if d, err := time.ParseDuration(s); err == nil {
		at = now.Add(d)
	} else if t, err := time.ParseInLocation(time.DateOnly, s, now.Location()); err == nil {
		at = t
	} else if t, err := time.Parse(time.RFC3339, s); err == nil {
		at = t
	} else {
		return at, fmt.Errorf("want a span such as 30d or 12h, or a day such as 2027-01-31, got %q", s)
	}
	if !at.After(now) {
		return at, fmt.Errorf("%s is not in the future", s)
	}
	return at, nil
}

func keysCreateCmd(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a key and show it, this once",
		Long: `Make a key and print it. Only its hash is kept: it can never be shown again, only rotated.

A request over a limit of requests or tokens is answered with 429 and when to try again; tokens
and money are held while a request is in flight, so that a limit holds however many are sent at once.
A budget counts what requests cost on the workers; it needs their hourly rates in the config.`,
		Example: `  vllmdeck keys create ci --rpm 60 --parallel 4 --expires 30d
  vllmdeck keys create notebook --models qwen3-8b --budget-day 2.50 --priority low`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			now := time.Now()
			limits, err := keyArgs(cmd, now)
			if err == nil {
				if nameErr := keys.CheckName(args[0]); nameErr != nil {
					err = &exitError{code: exitUsage, err: nameErr}
				}
			}
			if err != nil {
				return err
			}
			k, err := g.keeper(cmd.Context(), true)
			if err != nil {
				return err
			}
			defer k.close()
			before, err := k.list(cmd.Context())
			if err != nil {
				return err
			}
			id := keys.NewID()
			text := keys.NewText(id)
			order := api.Action{Verb: api.KeyCreate, ID: id, Target: args[0], Args: map[string]string{"hash": keys.HashText(text)}}
			maps.Copy(order.Args, limits)
			if err := k.order(cmd.Context(), order); err != nil {
				return err
			}
			k.noteModels(cmd.ErrOrStderr(), args[0], limits[keys.ArgModels])
			if asJSON {
				return printKey(cmd.OutOrStdout(), id, args[0], text)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "The key of %s. It is shown this once: only its hash is kept.\n", args[0])
			fmt.Fprintln(cmd.OutOrStdout(), text)
			if len(before) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "It is the first one: from now on every request needs a key.")
			}
			return nil
		},
	}
	addKeyFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print id, name and key as JSON")
	return cmd
}

func printKey(out io.Writer, id, name, text string) error {
	return printJSON(out, struct {
		ID   string `json:"id"`
		Name string `json:"name"`
		Key  string `json:"key"`
	}{id, name, text})
}

func keysSetCmd(g *globals) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set NAME",
		Short: "Change limits of a key; \"none\" takes one away",
		Example: `  vllmdeck keys set ci --rpm 120
  vllmdeck keys set ci --budget-day none --models all --expires never`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: g.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			limits, err := keyArgs(cmd, time.Now())
			if err != nil {
				return err
			}
			if len(limits) == 0 {
				return &exitError{code: exitUsage, err: errors.New("say what is to change: --rpm, --tpm, --parallel, --budget-day, --budget-month, --models, --priority, --failover, --capture, --expires")}
			}
			return g.orderKey(cmd, api.Action{Verb: api.KeySet, Target: args[0], Args: limits}, "changed")
		},
	}
	addKeyFlags(cmd)
	return cmd
}

// orderKey sends one order and says that it was done.
func (g *globals) orderKey(cmd *cobra.Command, a api.Action, done string) error {
	k, err := g.keeper(cmd.Context(), true)
	if err != nil {
		return err
	}
	defer k.close()
	if err := k.order(cmd.Context(), a); err != nil {
		return err
	}
	k.noteModels(cmd.ErrOrStderr(), a.Target, a.Args[keys.ArgModels])
	fmt.Fprintf(cmd.ErrOrStderr(), "%s is %s\n", a.Target, done)
	return nil
}

func keysRotateCmd(g *globals) *cobra.Command {
	var asJSON bool
	var overlap string
	cmd := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Give a key a new text, with the same limits",
		Long: `Give a key a new text and print it, this once. The old one ends at once, or after --overlap: time
to bring the new one to its clients. What was used stays counted.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: g.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			order := api.Action{Verb: api.KeyRotate, Target: args[0], Args: map[string]string{}}
			if overlap != "" {
				until, err := parseExpiry(overlap, time.Now())
				if err != nil {
					return &exitError{code: exitUsage, err: fmt.Errorf("--overlap: %w", err)}
				}
				order.Args["until"] = until.UTC().Format(time.RFC3339)
			}
			k, err := g.keeper(cmd.Context(), true)
			if err != nil {
				return err
			}
			defer k.close()
			list, err := k.list(cmd.Context())
			if err != nil {
				return err
			}
			id := ""
			for _, key := range list {
				if key.Name == args[0] && key.Revoked.IsZero() {
					id = key.ID
				}
			}
			if id == "" {
				id = keys.NewID() // the order says what is wrong
			}
			text := keys.NewText(id)
			order.Args["hash"] = keys.HashText(text)
			if err := k.order(cmd.Context(), order); err != nil {
				return err
			}
			if asJSON {
				return printKey(cmd.OutOrStdout(), id, args[0], text)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "The new key of %s. It is shown this once: only its hash is kept.\n", args[0])
			fmt.Fprintln(cmd.OutOrStdout(), text)
			return nil
		},
	}
	cmd.Flags().StringVar(&overlap, "overlap", "", "how long the old text is still good: 1h, 7d (default: not at all)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print id, name and key as JSON")
	return cmd
}

func keysRevokeCmd(g *globals) *cobra.Command {
	var forget bool
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "End a key; requests in flight go on",
		Long: `End a key at once. Requests that are in flight go on. Its name stays in the list (--all), and a gateway
whose last key is revoked serves nobody: --forget takes the key out whole, and after the last one
the gateway asks for no key again. What was captured of it goes too.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: g.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			a, done := api.Action{Verb: api.KeyRevoke, Target: args[0]}, "revoked"
			if forget {
				a.Args, done = map[string]string{"forget": "true"}, "forgotten"
			}
			return g.orderKey(cmd, a, done)
		},
	}
	cmd.Flags().BoolVar(&forget, "forget", false, "keep no trace of it")
	return cmd
}

// completeKeys offers names of keys to the shell.
func (g *globals) completeKeys(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	k, err := g.keeper(cmd.Context(), false)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	defer k.close()
	list, err := k.list(cmd.Context())
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, key := range list {
		if key.Source == api.KeyFromDatabase && key.Revoked.IsZero() {
			names = append(names, key.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
