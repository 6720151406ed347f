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

func statusCmd(g *globals) *cobra.Command {
	var asJSON, watch bool
	var every time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show engine, workers, traffic and money",
		Long: `Show what the running engine does: workers, traffic, latency, money.

With --json it prints the whole snapshot (schema 1). With --watch it goes on, one line (or one
JSON object) each time.`,
		Example: "vllmdeck status\nvllmdeck status --json | jq .workers[].state\nvllmdeck status --watch --every 5s",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if every <= 0 {
				return &exitError{code: exitUsage, err: fmt.Errorf("--every %s: want a time above 0", every)}
			}
			c, s, err := g.snapshot(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			out := cmd.OutOrStdout()
			if !watch {
				return printStatus(out, s, asJSON)
			}
			if !asJSON {
				fmt.Fprintln(out, watchHeader)
			}
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				if asJSON {
					err = json.NewEncoder(out).Encode(s)
				} else {
					_, err = fmt.Fprintln(out, watchLine(s))
				}
				if err != nil {
					return err
				}
				select {
				case <-cmd.Context().Done():
					return nil
				case <-tick.C:
				}
				if s, err = fetch(cmd.Context(), c); err != nil {
					return err
				}
			}
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the snapshot as JSON")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "go on until interrupted")
	cmd.Flags().DurationVar(&every, "every", 2*time.Second, "with --watch: how often")
	return cmd
}

func fetch(ctx context.Context, c api.Source) (*api.Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c.Snapshot(ctx)
}

func printStatus(out io.Writer, s *api.Snapshot, asJSON bool) error {
	if asJSON {
		return printJSON(out, s)
	}
	_, err := io.WriteString(out, statusText(s))
	return err
}

// statusText is the engine on one screen, for people and for a terminal of 80 columns.
func statusText(s *api.Snapshot) string {
	var b strings.Builder
	e := s.Engine
	fmt.Fprintf(&b, "vllmdeck %s  %s  %s  pid %d  up %s", e.Version, e.Status, e.URL, e.PID, age(s.Time.Sub(e.Started)))
	if e.Simulated {
		b.WriteString("  SIMULATED")
	}
	b.WriteString("\n\n")
	workerTable(&b, s)
	if len(s.Workers) == 0 && len(s.Providers) == 0 {
		b.WriteString("no workers: \"vllmdeck init\" writes a config from what this machine has\n")
	}
	t := s.Traffic
	fmt.Fprintf(&b, "\nrequests  %d in flight, %d queued, %d ended, %d failed, %d rejected, %d cancelled\n", t.InFlight, t.Queued, t.Total, t.Failed, t.Rejected, t.Cancelled)
	if len(s.Windows) > 0 {
		w := s.Windows[0]
		fmt.Fprintf(&b, "last %s   TTFT p50 %s p95 %s   E2E p95 %s   %d requests\n", age(time.Duration(w.Span)), seconds(w.TTFT.P50), seconds(w.TTFT.P95), seconds(w.E2E.P95), w.Count)
	}
	m := s.Money
	fmt.Fprintf(&b, "%-9s actual %s (idle %s)   would have cost %s   net %s", m.Period, usd(m.Actual), usd(m.Idle), usd(m.Would), usd(m.Savings))
	if m.Baseline != "" {
		fmt.Fprintf(&b, "   vs %s", safe(m.Baseline))
		if m.PriceDate != "" {
			fmt.Fprintf(&b, " (%s)", m.PriceDate)
		}
	}
	if m.Simulated {
		b.WriteString("   SIMULATED")
	}
	b.WriteByte('\n')
	for _, p := range s.Providers {
		fmt.Fprintf(&b, "%-9s %s  today %s%s", safe(p.Name), p.State, usd(p.SpentDay), ofCap(p.CapDay))
		if p.CapMonth != nil {
			fmt.Fprintf(&b, "   month %s%s", usd(p.SpentMonth), ofCap(p.CapMonth))
		}
		if p.Error != "" {
			fmt.Fprintf(&b, "   %s", safe(p.Error))
		}
		b.WriteByte('\n')
	}
	for _, line := range m.Missing {
		fmt.Fprintf(&b, "          %s\n", safe(line))
	}
	for _, n := range s.Notices {
		if n.Active {
			fmt.Fprintf(&b, "! %s\n", safe(n.Text))
		}
	}
	return b.String()
}

// ofCap is what follows an amount that is limited.
func ofCap(limit *api.Nanos) string {
	if limit == nil {
		return ""
	}
	return " of " + usd(limit)
}

// workerTable lists the workers, and below them what is wrong with any.
func workerTable(b *strings.Builder, s *api.Snapshot) {
	tw := newTable(b)
	fmt.Fprintln(tw, "WORKER\tMODEL\tSTATE\tPID\tRUN/Q\tKV\tTOK/S\tUP")
	for _, w := range s.Workers {
		state := string(w.State)
		switch {
		case w.Stalled:
			state = "stalled"
		case w.Blocked != "":
			state += ": waits"
		case w.Phase != "" && w.State != api.Stopping:
			state += ": " + w.Phase
			if w.Progress != nil {
				state += fmt.Sprintf(" %.0f%%", *w.Progress*100)
			}
		case w.Level != 0:
			state += fmt.Sprintf(" (level %d)", w.Level)
		}
		if w.Simulated {
			state += " (SIMULATED)"
		}
		up := "-"
		if !w.Started.IsZero() && w.State != api.Failed && w.State != api.Stopped {
			up = age(s.Time.Sub(w.Started))
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s/%s\t%s\t%s\t%s\n", safe(w.Name), safe(w.Model), state, number(w.PID), figure(w.Running, "%.0f"),
			figure(w.Waiting, "%.0f"), percent(w.KV), figure(w.OutRate, "%.0f"), up)
	}
	_ = tw.Flush()
	for _, w := range s.Workers {
		if w.Blocked != "" {
			fmt.Fprintf(b, "\n%s waits: %s\n", safe(w.Name), safe(w.Blocked))
		}
		if w.Error != "" {
			fmt.Fprintf(b, "\n%s: %s\n", safe(w.Name), safe(w.Error))
			if w.Remedy != "" {
				fmt.Fprintf(b, "  %s\n", safe(w.Remedy))
			}
			if f := w.Fix; f != nil {
				fmt.Fprintf(b, "  vllmdeck worker fix %s: %s\n", safe(w.Name), safe(strings.Join(slices.Concat(f.Set, prefixed("without ", f.Unset), prefixed("env ", f.Env)), ", ")))
			}
		}
	}
	for _, a := range s.Advice {
		who := a.Worker
		if who == "" {
			who = a.Model
		}
		fmt.Fprintf(b, "\n%s could do better: %s\n  %s\n", safe(who), safe(a.Text), safe(a.Remedy))
		if f := a.Fix; f != nil {
			fmt.Fprintf(b, "  vllmdeck worker fix %s %s\n", safe(who), safe(strings.Join(slices.Concat(prefixed("--set ", f.Set), prefixed("--unset ", f.Unset), prefixed("--env ", f.Env)), " ")))
		}
	}
}

func prefixed(with string, words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = with + w
	}
	return out
}

const watchHeader = "TIME      READY  IN-FLIGHT  QUEUED  REQ/S  TOK/S  TTFT-P95  FAILED  NET"

func watchLine(s *api.Snapshot) string {
	ready := 0
	for _, w := range s.Workers {
		if w.State == api.Ready && !w.Stalled {
			ready++
		}
	}
	var rps, tps float64
	ttft := "-"
	if len(s.Windows) > 0 {
		w := s.Windows[0]
		rps, tps = lastFull(w.Requests), lastFull(w.Output)
		ttft = seconds(w.TTFT.P95)
	}
	mark := ""
	if s.Engine.Simulated {
		mark = "  SIMULATED"
	}
	return fmt.Sprintf("%s  %2d/%-2d  %9d  %6d  %5.1f  %5.0f  %8s  %6d  %s%s", s.Time.Format(time.TimeOnly), ready, len(s.Workers),
		s.Traffic.InFlight, s.Traffic.Queued, rps, tps, ttft, s.Traffic.Failed, usd(s.Money.Savings), mark)
}

// lastFull is the newest bucket that has passed whole.
func lastFull(s api.Series) float64 {
	if len(s) < 2 {
		return 0
	}
	return s[len(s)-2]
}
