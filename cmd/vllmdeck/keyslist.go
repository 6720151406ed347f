package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func keysListCmd(g *globals) *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the keys with their limits and what was used",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, err := g.keeper(cmd.Context(), false)
			if err != nil {
				return err
			}
			defer k.close()
			found, err := k.list(cmd.Context())
			if err != nil {
				return err
			}
			list := []api.Key{}
			for _, key := range found {
				if all || key.Revoked.IsZero() {
					list = append(list, key)
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			if len(list) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), `no keys: "vllmdeck keys create NAME" makes one`)
				return nil
			}
			_, err = io.WriteString(cmd.OutOrStdout(), keyTable(list, time.Now()))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the keys as JSON")
	cmd.Flags().BoolVar(&all, "all", false, "those that are revoked too")
	return cmd
}

// keyTable shows used/limit where a limit is.
func keyTable(list []api.Key, now time.Time) string {
	var b strings.Builder
	tw := newTable(&b)
	fmt.Fprintln(tw, "KEY\tID\tSTATE\tREQ/MIN\tTOK/MIN\tAT ONCE\tDAY\tMONTH\tPRIORITY\tFAILOVER\tCAPTURE\tMODELS\tEXPIRES")
	for _, k := range list {
		id, expires, models, priority := k.ID, "never", "all", k.Limits.Priority
		if id == "" {
			id = "in config"
		}
		if !k.Expires.IsZero() {
			expires = k.Expires.Local().Format("2006-01-02 15:04")
		}
		if len(k.Limits.Models) > 0 {
			models = strings.Join(k.Limits.Models, ",")
		}
		if priority == "" {
			priority = api.PriorityNormal
		}
		failover := k.Limits.Failover
		if failover == "" {
			failover = "as model"
		}
		captured := "off"
		if k.Capture {
			captured = "on"
		}
		use := [5]string{}
		if u := k.Use; u != nil {
			use = [5]string{strconv.FormatInt(u.Requests, 10), strconv.FormatInt(u.Tokens, 10), strconv.Itoa(u.InFlight), usd(&u.Day), usd(&u.Month)}
		}
		budget := func(n *api.Nanos) string {
			if n == nil {
				return ""
			}
			return usd(n)
		}
		count := func(n int64) string {
			if n == 0 {
				return ""
			}
			return strconv.FormatInt(n, 10)
		}
		l := &k.Limits
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", safe(k.Name), safe(id), k.State(now),
			of(use[0], count(l.Requests)), of(use[1], count(l.Tokens)), of(use[2], count(int64(l.Parallel))),
			of(use[3], budget(l.Day)), of(use[4], budget(l.Month)), safe(priority), safe(failover), captured, safe(models), expires)
	}
	_ = tw.Flush()
	return b.String()
}

// of writes what is used of a limit; either may be missing.
func of(used, limit string) string {
	switch {
	case used == "" && limit == "":
		return "-"
	case limit == "":
		return used
	case used == "":
		return "/" + limit
	}
	return used + "/" + limit
}
