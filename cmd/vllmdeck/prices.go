package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
)

func pricesCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "prices [WORD…]",
		Short: "List the prices that a baseline or a provider may have",
		Long: `List the list prices that this program knows, in USD per million tokens, as PROVIDER/MODEL: what cost.baseline,
cost.hostile, baseline of a model and prices of a provider may name in the config. With words, those that
contain all of them. What a provider does not offer is "-".`,
		Example: "vllmdeck prices gpt-4o\nvllmdeck prices deepinfra qwen",
		Args:    cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, words []string) error {
			found := pricesOf(cost.Embedded(), words, time.Now())
			if asJSON {
				return printJSON(cmd.OutOrStdout(), found)
			}
			if len(found) == 0 {
				near := cost.Embedded().Nearest(strings.Join(words, "-"), 3)
				return fmt.Errorf("no price has %q in its name; near are %s", strings.Join(words, " "), strings.Join(near, ", "))
			}
			_, err := io.WriteString(cmd.OutOrStdout(), priceTable(found))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the prices as JSON, in USD per million tokens")
	return cmd
}

// listPrice is a price as it is shown.
type listPrice struct {
	Ref string `json:"ref"`
	api.Prices
	Date   string `json:"date"`
	Source string `json:"source"`
}

// pricesOf are the prices of a day whose references contain every word.
func pricesOf(t *cost.Table, words []string, day time.Time) []listPrice {
	out := []listPrice{}
	for _, ref := range t.Refs() {
		low, all := strings.ToLower(ref), true
		for _, w := range words {
			all = all && strings.Contains(low, strings.ToLower(w))
		}
		if !all {
			continue
		}
		if p, ok := t.At(ref, day); ok {
			out = append(out, listPrice{p.Ref, p.Prices, p.Date, p.Source})
		}
	}
	return out
}

func priceTable(list []listPrice) string {
	var b strings.Builder
	tw := newTable(&b)
	fmt.Fprintln(tw, "PROVIDER/MODEL\tINPUT\tCACHED\tOUTPUT\tKNOWN ON\tFROM")
	for _, p := range list {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", safe(p.Ref), unitPrice(p.Input), unitPrice(p.CacheRead), unitPrice(p.Output), safe(p.Date), safe(p.Source))
	}
	_ = tw.Flush() // to memory
	return b.String()
}

// unitPrice writes a price to its last digit.
func unitPrice(n *api.Nanos) string {
	if n == nil {
		return "-"
	}
	return "$" + string(n.Append(nil))
}
