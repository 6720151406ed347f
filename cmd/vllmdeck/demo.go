package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
	"github.com/vllmdeck/vllmdeck/config"
)

// realThing is how to get from the demo to a real worker.
const realThing = `Everything here is SIMULATED. For the real thing:
  vllmdeck init        writes a config for the GPUs, vLLM and models found here
  vllmdeck setup cpu   builds a real vLLM and a small model, no GPU needed (6 GB)`

const demoListen = "127.0.0.1:0" // a free port

// demoOptions are what a demo can be asked for.
type demoOptions struct {
	headless bool
	seed     int64
	listen   string
	quiet    bool // no synthetic clients
}

func demoCmd(*globals) *cobra.Command {
	o := demoOptions{}
	f := &consoleFlags{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show everything with simulated workers and clients; leaves nothing behind",
		Long: `Run engine and console in one process, with simulated vLLM workers and synthetic clients. It
uses free ports and a temporary folder, so it runs beside anything, and everything is gone when
it ends, also by kill -9. The seed fixes prompts, texts, arrivals and faults; timings are
measured. Everything simulated says SIMULATED.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDemo(cmd, f, o) },
	}
	cmd.Flags().BoolVar(&o.headless, "headless", false, "no console: serve and print what happens until interrupted")
	cmd.Flags().Int64Var(&o.seed, "seed", 1, "seed of prompts, texts, arrivals and faults")
	cmd.Flags().StringVar(&o.listen, "listen", demoListen, "address of the gateway")
	cmd.Flags().BoolVar(&o.quiet, "no-traffic", false, "no synthetic clients")
	f.register(cmd)
	return cmd
}

// demoConfig is the demo's config: three simulated workers of two models. The GPU rate is a list
// price: RTX 4090 at RunPod's community cloud, 2026-09-25.
func demoConfig(o demoOptions, state string) string {
	return fmt.Sprintf(`listen: %q
state: %q
grace: 1s
models:
  - {name: llama-3.1-8b-instruct, aliases: [default]}
  - {name: qwen3-8b}
workers:
  - {name: w0, model: llama-3.1-8b-instruct, gpus: 1, stop_timeout: 1s, sim: {seed: %[3]d, start: 900ms, ttft: 90ms, itl: 14ms, max_num_seqs: 24}}
  - {name: w1, model: llama-3.1-8b-instruct, gpus: 1, stop_timeout: 1s, sim: {seed: %[3]d, start: 1200ms, ttft: 90ms, itl: 14ms, max_num_seqs: 24}}
  - {name: w2, model: qwen3-8b, gpus: 1, stop_timeout: 1s, sim: {seed: %[3]d, start: 1500ms, ttft: 120ms, itl: 18ms, max_num_seqs: 16}}
cost:
  baseline: openai/gpt-4o-mini
  gpu_hour: 0.34
  label: "demo rate, SIMULATED: RTX 4090 list price of 2026-09-25"
`, cmp.Or(o.listen, demoListen), state, o.seed)
}

func runDemo(cmd *cobra.Command, f *consoleFlags, o demoOptions) error {
	// Before there is anything to leave behind; once the engine catches signals, it does so alone.
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(told)
	sweepDemos()
	dir, err := os.MkdirTemp("", demoPrefix)
	if err != nil {
		return fmt.Errorf("make demo folder: %w: set TMPDIR to a folder of yours", err)
	}
	defer os.RemoveAll(dir)
	lease, path, err := holdLease(dir)
	if err != nil {
		return err
	}
	defer lease.Close()
	cfg, err := config.Reader{Prices: cost.Embedded().Known}.Parse("", []byte(demoConfig(o, dir)))
	if err != nil {
		return &exitError{code: exitUsage, err: fmt.Errorf("demo config: %w", err)} // --listen
	}

	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	ready := make(chan *engine, 1)
	ended := make(chan error, 1)
	var out io.Writer
	if o.headless {
		out = cmd.ErrOrStderr()
		fmt.Fprintln(out, realThing)
	}
	front, closeFront := context.WithCancel(ctx)
	defer closeFront()
	go func() {
		defer closeFront()
		_, err := runEngine(ctx, engineOptions{
			cfg: cfg, demo: true, stopWorkers: true, lease: path, out: out, ready: func(e *engine) { ready <- e },
		})
		ended <- err
	}()
	var e *engine
	select {
	case e = <-ready:
		select {
		case <-told:
			e.Stop(true)
		default:
		}
	case err := <-ended:
		if errors.Is(err, context.Canceled) {
			return nil // told to end before it had begun
		}
		return err
	}
	clients := make(chan struct{})
	go func() {
		defer close(clients)
		if !o.quiet {
			newDemoClients(e.url, o.seed, e).run(front)
		}
	}()
	err = demoFront(front, cmd, f, o, e)
	closeFront()
	e.Stop(true)
	<-clients
	if eerr := <-ended; err == nil {
		err = eerr
	}
	if err == nil && !o.headless {
		_ = lease.Close()
		_ = os.RemoveAll(dir)
		fmt.Fprintln(cmd.OutOrStdout(), "the demo has ended; nothing is left.")
		fmt.Fprintln(cmd.OutOrStdout(), realThing)
	}
	return err
}

// demoFront is what the user sees until ctx ends: the console, or lines.
func demoFront(ctx context.Context, cmd *cobra.Command, f *consoleFlags, o demoOptions, e *engine) error {
	if !o.headless {
		return f.run(ctx, cmd.OutOrStdout(), e, true)
	}
	fmt.Fprintln(cmd.OutOrStdout(), "SIMULATED: serving on "+e.url)
	fmt.Fprintln(cmd.OutOrStdout(), watchHeader)
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s, err := fetch(ctx, api.Source(e))
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), watchLine(s))
	}
}

const leaseName = "lease" // in a demo's folder

// holdLease takes a lock that ends with this process, however it ends: the demo's workers live
// by it. Nobody ever finds it free: it is locked before it has its name.
func holdLease(dir string) (_ *os.File, path string, err error) {
	path = filepath.Join(dir, leaseName)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, "", fmt.Errorf("make demo lease: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("lock demo lease: %w", err), f.Close())
	}
	return f, path, nil
}

// sweepDemos removes the folders of demos that died before they had workers, which would have
// done so.
func sweepDemos() {
	for _, dir := range demoFolders() {
		f, err := os.Open(filepath.Join(dir, leaseName))
		if err != nil {
			if st, serr := os.Stat(dir); serr == nil && time.Since(st.ModTime()) > time.Minute {
				_ = os.RemoveAll(dir) // not one that is only starting
			}
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(dir)
		}
		_ = f.Close()
	}
}
