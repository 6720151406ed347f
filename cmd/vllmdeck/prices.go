package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
)

// listPrice is one line of the price table, USD per million tokens.
type listPrice struct {
	Ref        string     `json:"ref"`
	Input      *api.Nanos `json:"input"`
	CacheRead  *api.Nanos `json:"cache_read"`
	CacheWrite *api.Nanos `json:"cache_write"`
	Output     *api.Nanos `json:"output"`
	Date       string     `json:"date"`
	Source     string     `json:"source"`
}

func pricesCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "prices [TEXT]",
		Short: "List the prices of paid APIs that savings are counted against",
		Long: `List the prices that the program knows, as provider/model, in USD per million tokens: what baseline:, hostile: and
prices: of the config may name. TEXT keeps those that have it in their names. "-" is not offered, or not known.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text := strings.ToLower(strings.Join(args, ""))
			table := cost.Embedded()
			list := []listPrice{}
			for _, ref := range table.Refs() {
				if p, ok := table.Lookup(ref); ok && strings.Contains(strings.ToLower(ref), text) {
					list = append(list, listPrice{ref, p.Input, p.CacheRead, p.CacheWrite, p.Output, p.Date, p.Source})
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), list)
			}
			if len(list) == 0 {
				return fmt.Errorf("no price has %q in its name; near are %s", text, strings.Join(table.Nearest(text, 3), ", "))
			}
			_, err := io.WriteString(cmd.OutOrStdout(), priceText(list))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the prices as JSON")
	return cmd
}

func priceText(list []listPrice) string {
	var b strings.Builder
	w := newTable(&b)
	fmt.Fprintln(w, "PROVIDER/MODEL\tINPUT\tCACHED\tOUTPUT\tKNOWN ON\tFROM")
	for _, p := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", safe(p.Ref), unitPrice(p.Input), unitPrice(p.CacheRead), unitPrice(p.Output), safe(p.Date), safe(p.Source))
	}
	_ = w.Flush()
	return b.String()
}

// unitPrice writes a price to its last digit.
func unitPrice(n *api.Nanos) string {
	if n == nil {
		return "-"
	}
	return "$" + string(n.Append(nil))
}
