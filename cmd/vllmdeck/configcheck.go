package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/config"
)

// priceLookup says whether a price is known for provider/model, and which names are near it.
type priceLookup func(ref string) (ok bool, nearest []string)

// configCmd groups what there is to do with a config.
func configCmd(g *globals, prices priceLookup) *cobra.Command {
	cmd := group(&cobra.Command{Use: "config", Short: "Check the config"})
	var asJSON bool
	check := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say what a config means, or every mistake in it",
		Long: "Read the config as the engine would, without starting anything, and say what it means.\n" +
			"A bad one is exit status 2, with each mistake's line, column and way out.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			named := g.config
			if len(args) > 0 {
				named = args[0]
			}
			v := checkConfig(named, prices)
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), v); err != nil {
					return err
				}
			} else {
				v.print(cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			if !v.OK {
				return &exitError{code: exitUsage} // all is said
			}
			return nil
		},
	}
	check.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(check)
	return cmd
}

// verdict is what config check says; it is the JSON of --json.
type verdict struct {
	OK       bool          `json:"ok"`
	File     string        `json:"file,omitempty"`
	Error    string        `json:"error,omitempty"` // why the config could not be read at all
	Problems config.Errors `json:"problems"`
	Warnings []string      `json:"warnings"`
	Listen   string        `json:"listen,omitempty"`
	Exposed  bool          `json:"exposed"` // reachable from other machines in clear text
	Keys     int           `json:"keys"`
	TLS      bool          `json:"tls"`
	State    string        `json:"state,omitempty"`
	Models   []modelCheck  `json:"models"`
	Workers  []workerCheck `json:"workers"`
	Money    moneyCheck    `json:"money"`
}

type modelCheck struct {
	Name      string   `json:"name"`
	Aliases   []string `json:"aliases,omitempty"`
	Workers   int      `json:"workers"`
	Failover  []string `json:"failover,omitempty"` // providers
	Baseline  string   `json:"baseline"`
	Simulated bool     `json:"simulated,omitempty"`
}

type workerCheck struct {
	Name  string     `json:"name"`
	Model string     `json:"model"`
	Kind  string     `json:"kind"`
	What  string     `json:"what"` // model folder or hub name, or URL
	GPUs  []string   `json:"gpus,omitempty"`
	Hour  *api.Nanos `json:"hour_usd"` // null: not known
}

// moneyCheck says which figures will be known.
type moneyCheck struct {
	Actual   bool     `json:"actual"`   // the cost of every worker
	WouldBe  bool     `json:"would_be"` // what every model is compared with; false: not checked
	Basis    string   `json:"basis"`    // gpu_time or per_token
	Missing  []string `json:"missing"`  // what to set for the rest
	Baseline string   `json:"baseline"`
}

func checkConfig(named string, prices priceLookup) verdict {
	v := verdict{Problems: config.Errors{}, Warnings: []string{}, Models: []modelCheck{}, Workers: []workerCheck{}, Money: moneyCheck{Missing: []string{}}}
	path, ok, err := config.Find(named)
	switch {
	case err != nil:
		v.Error = err.Error()
		return v
	case !ok:
		v.Error = fmt.Sprintf("there is no config: looked for %s; \"vllmdeck init\" writes one", strings.Join(config.Places(), ", "))
		return v
	}
	v.File = path
	c, err := config.Reader{Prices: config.PriceLookup(prices), Keys: madeKeys}.Load(path)
	if errors.As(err, &v.Problems) {
		return v
	}
	if err != nil {
		v.Error = err.Error()
		return v
	}
	v.describe(c, prices != nil)
	return v
}

func (v *verdict) describe(c *config.Config, pricesKnown bool) {
	v.OK = true
	v.Warnings = append(v.Warnings, c.Warnings...)
	v.Listen, v.Exposed, v.Keys, v.TLS, v.State = c.Listen, c.Exposed(), len(c.Keys)+goodKeys(c.State), c.TLS != nil, c.State
	for _, name := range c.ModelNames() {
		m := c.Model(name)
		check := modelCheck{Name: name, Aliases: m.Aliases, Baseline: m.Baseline}
		for _, w := range c.Workers {
			if w.Model == name {
				check.Workers++
				check.Simulated = check.Simulated || w.Sim != nil
			}
		}
		for _, p := range c.Providers {
			if _, ok := p.Models[name]; ok {
				check.Failover = append(check.Failover, p.Name)
			}
		}
		v.Models = append(v.Models, check)
	}
	v.Money = moneyCheck{Actual: true, WouldBe: pricesKnown, Basis: api.BasisGPUTime, Missing: []string{}, Baseline: c.Cost.Baseline}
	if c.Cost.PerToken != nil {
		v.Money.Basis = api.BasisPerToken
	}
	for i := range c.Workers {
		v.worker(c, &c.Workers[i])
	}
}

func (v *verdict) worker(c *config.Config, w *config.Worker) {
	rate, missing := c.Hour(w)
	check := workerCheck{Name: w.Name, Model: w.Model, Kind: w.Kind(), What: w.Attach, Hour: rate}
	if w.VLLM != nil {
		check.What, check.GPUs = w.VLLM.Path, w.VLLM.GPUs
	}
	v.Workers = append(v.Workers, check)
	if missing == "" {
		return
	}
	v.Money.Actual = false
	if !slices.Contains(v.Money.Missing, missing) {
		v.Money.Missing = append(v.Money.Missing, missing)
	}
}

// print writes what is right to out and what is wrong to errs.
func (v *verdict) print(out, errs io.Writer) {
	if v.Error != "" {
		fmt.Fprintln(errs, v.Error)
		return
	}
	if !v.OK {
		fmt.Fprintln(errs, v.Problems.Error())
		fmt.Fprintf(errs, "\n%s: %s\n", v.File, count(len(v.Problems), "mistake"))
		return
	}
	fmt.Fprintf(out, "OK %s\n", v.File)
	fmt.Fprintf(out, "OK listen  %s\n", v.listen())
	for _, m := range v.Models {
		fmt.Fprintf(out, "OK model   %s\n", m)
	}
	for _, w := range v.Workers {
		fmt.Fprintf(out, "OK worker  %s\n", w)
	}
	fmt.Fprintf(out, "%s\n", v.Money)
	for _, w := range v.Warnings {
		fmt.Fprintf(out, "warning: %s\n", w)
	}
}

func (v *verdict) listen() string {
	scheme := "http"
	if v.TLS {
		scheme = "https"
	}
	s := fmt.Sprintf("%s://%s, %s", scheme, v.Listen, count(v.Keys, "key"))
	if v.Exposed {
		s += ", in clear text on the network"
	}
	return s
}

func (m modelCheck) String() string {
	s := m.Name
	if len(m.Aliases) > 0 {
		s += " (also " + strings.Join(m.Aliases, ", ") + ")"
	}
	s += ": " + count(m.Workers, "worker")
	if m.Simulated {
		s += ", SIMULATED"
	}
	if len(m.Failover) > 0 {
		s += ", failover to " + strings.Join(m.Failover, ", ")
	}
	return s + ", compared with " + m.Baseline
}

func (w workerCheck) String() string {
	s := fmt.Sprintf("%s: %s %s", w.Name, w.Kind, w.What)
	if w.Kind == "sim" {
		s = w.Name + ": SIMULATED"
	}
	if len(w.GPUs) > 0 {
		s += " on GPU " + strings.Join(w.GPUs, ", ")
	}
	if w.Hour != nil {
		s += fmt.Sprintf(", $%s/h", *w.Hour)
	}
	return s
}

func (m moneyCheck) String() string {
	var parts []string
	switch {
	case m.Basis == api.BasisPerToken:
		parts = append(parts, "cost at flat rates per token, an assumption")
	case m.Actual:
		parts = append(parts, "the cost of every worker is known")
	default:
		parts = append(parts, "the cost of some workers is not known: set "+strings.Join(m.Missing, ", "))
	}
	if m.WouldBe {
		parts = append(parts, "would-have-cost is known for every model")
	} else {
		parts = append(parts, "whether the baselines have a price was not checked")
	}
	if m.Actual && m.WouldBe {
		return "OK money   " + strings.Join(parts, "; ")
	}
	return "-- money   " + strings.Join(parts, "; ")
}
