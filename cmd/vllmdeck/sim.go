package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/sim"
)

// simCmd plays a vLLM server. It is hidden: workers of kind sim are started with it.
func simCmd() *cobra.Command {
	p := sim.Process{}
	var faults []string
	cmd := &cobra.Command{
		Use:    "sim",
		Short:  "A simulated vLLM server",
		Long:   "A simulated vLLM " + sim.Version + " server: its routes, streams, errors, metrics, log, drain and death,\nwith made-up text and timings.\n\nFaults, each given with --fault:\n" + sim.FaultHelp(),
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, s := range faults {
				f, err := sim.ParseFault(s)
				if err != nil {
					return &exitError{exitUsage, err}
				}
				p.Faults = append(p.Faults, f)
			}
			self, err := ownPath()
			if err != nil {
				return err
			}
			p.Engine = []string{self, "sim", "engine-core"}
			p.Log, p.Err = os.Stdout, os.Stderr
			p.DevMode = os.Getenv("VLLM_SERVER_DEV_MODE") == "1"
			// vLLM's log ends with its own last line, which a diagnosis reads: nothing may be
			// printed after it.
			os.Exit(p.Run(cmd.Context()))
			return nil
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &exitError{exitUsage, err} }) // as argparse
	f := cmd.Flags()
	f.StringVar(&p.Host, "host", "127.0.0.1", "address to listen on")
	f.IntVar(&p.Port, "port", 8000, "port to listen on")
	f.StringVar(&p.Model, "model", "simulated", "model path or name, shown in the log and as root")
	f.StringArrayVar(&p.Names, "served-model-name", nil, "name to serve the model by; may be repeated (default: --model)")
	f.Int64Var(&p.Seed, "seed", 1, "seed of texts and timings")
	f.DurationVar(&p.Start, "start", time.Second, "time until ready")
	f.DurationVar(&p.TTFT, "ttft", 60*time.Millisecond, "mean time to first token when idle")
	f.DurationVar(&p.ITL, "itl", 12*time.Millisecond, "mean time between tokens when idle")
	f.IntVar(&p.MaxSeqs, "max-num-seqs", 32, "sequences in the running batch")
	f.IntVar(&p.MaxLen, "max-model-len", 8192, "context length in tokens")
	f.IntVar(&p.MaxQueued, "max-num-queued-reqs", 0, "running and waiting requests before HTTP 503; 0: no limit")
	f.DurationVar(&p.ShutdownTimeout, "shutdown-timeout", 0, "how long SIGTERM lets running requests finish; 0 aborts them")
	f.Bool("enable-sleep-mode", false, "taken as vLLM takes it; VLLM_SERVER_DEV_MODE=1 gives the routes")
	f.StringArrayVar(&faults, "fault", nil, "fault as NAME[:ARG], see above; may be repeated")
	cmd.AddCommand(&cobra.Command{
		Use:    "engine-core",
		Short:  "The engine process of a simulated server",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			os.Exit(sim.EngineMain())
			return nil
		},
	})
	return cmd
}
