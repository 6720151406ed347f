package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func gpusCmd(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "gpus",
		Short: "Show the GPUs and who is on them",
		Long: `Show the GPUs as the driver's tool reports them: use, memory, temperature, power, clock and what holds it
down, energy since the engine started, ECC and Xid errors. Below, the processes that hold memory of each: a worker of
ours, a stray, or somebody else's. What is not known is "-".`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, s, err := g.snapshot(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if asJSON {
				return printJSON(cmd.OutOrStdout(), s.GPUs)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), gpuText(s))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the GPUs as JSON")
	return cmd
}

// gpuText is the cards and the processes on them.
func gpuText(s *api.Snapshot) string {
	if len(s.GPUs) == 0 {
		return "no GPU is seen: neither nvidia-smi nor amd-smi nor rocm-smi reports one\n"
	}
	var b strings.Builder
	tw := newTable(&b)
	fmt.Fprintln(tw, "GPU\tNAME\tUSE\tMEMORY\tTEMP\tPOWER\tCLOCK\tENERGY\tECC\tHELD BY")
	for i := range s.GPUs {
		g := &s.GPUs[i]
		held := "-"
		if len(g.Throttle) > 0 {
			held = safe(strings.Join(g.Throttle, ", "))
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", safe(g.Index), safe(g.Name), percent(g.Utilisation),
			pair(gibs(g.MemoryUsed), gibs(g.MemoryTotal), " GiB"), figure(g.Temperature, "%.0f C"),
			pair(figure(g.Power, "%.0f"), figure(g.PowerLimit, "%.0f"), " W"), figure(g.Clock, "%.0f MHz"),
			figure(g.Energy, "%.1f Wh"), count64(g.ECC), held)
	}
	_ = tw.Flush() // a Builder takes everything
	b.WriteString("\n")
	holders := newTable(&b)
	fmt.Fprintln(holders, "GPU\tPID\tMEMORY\tUSER\tWHOSE\tPROCESS")
	n := 0
	for i := range s.GPUs {
		for _, p := range s.GPUs[i].Processes {
			n++
			memory := "-"
			if p.Memory != nil {
				memory = gibs(p.Memory) + " GiB"
			}
			fmt.Fprintf(holders, "%s\t%d\t%s\t%s\t%s\t%s\n", safe(s.GPUs[i].Index), p.PID, memory, cmp.Or(safe(p.User), "-"), whose(p), cmp.Or(safe(p.Name), "-"))
		}
	}
	if n > 0 {
		_ = holders.Flush() // a Builder takes everything
	} else {
		b.WriteString("no process on them is seen\n")
	}
	for i := range s.GPUs {
		for _, x := range s.GPUs[i].Xids {
			fmt.Fprintf(&b, "! GPU %s  %s  Xid %d: %s\n", safe(s.GPUs[i].Index), x.Time.Local().Format("2006-01-02 15:04:05"), x.Code, safe(x.Text))
		}
	}
	return b.String()
}

// whose says whether a process on a card is ours.
func whose(p api.GPUProcess) string {
	switch {
	case p.Worker != "":
		return "worker " + safe(p.Worker)
	case p.Stray:
		return "stray"
	case p.Preload:
		return "preload"
	}
	return "other"
}
