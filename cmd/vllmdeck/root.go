package main

import (
	"bufio"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/cost"
	"github.com/vllmdeck/vllmdeck/config"
)

func rootCmd() *cobra.Command {
	g := &globals{}
	f := &consoleFlags{}
	root := &cobra.Command{
		Use:   "vllmdeck",
		Short: "Operations console for self-hosted vLLM",
		Long: `Operations console for self-hosted vLLM: starts and looks after vLLM servers, puts one
OpenAI-compatible endpoint in front of them, and says in money what self-hosting really saves.

Alone, it does the first that applies: attach to your running engine; start the engine of the
config found (--config, $VLLMDECK_CONFIG, ./vllmdeck.yaml, the XDG config folder, /etc/vllmdeck);
offer a config for the vLLM found on this machine; show the demo, with simulated workers.
Without a terminal it serves in the foreground instead, or prints the status.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return bare(cmd, g, f) },
	}
	root.PersistentFlags().StringVar(&g.config, "config", "", "config file")
	root.PersistentFlags().StringVar(&g.engine, "engine", "", "address of the engine: unix:PATH or ssh://HOST (default: your running one)")
	f.register(root)
	root.AddCommand(
		serveCmd(g), attachCmd(g), demoCmd(g), initCmd(g), setupCmd(g), statusCmd(g), workerCmd(g), gpusCmd(g), logsCmd(g), promptCmd(g),
		stopCmd(g), restartCmd(g), reloadCmd(g), keysCmd(g), modelsCmd(g), pricesCmd(), configCmd(g, cost.Embedded().Known), versionCmd(), shimCmd(), simCmd(), stdioCmd(g),
	)
	return root
}

// bare is the command without a subcommand: the first that applies of a running engine, a
// config, a vLLM on this machine, the demo.
func bare(cmd *cobra.Command, g *globals, f *consoleFlags) error {
	if g.engine != "" {
		c, err := g.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		return openConsole(cmd, c, f)
	}
	if g.config == "" {
		rec, err := findEngine(false)
		if err == nil {
			return attachRecord(cmd, rec, f)
		}
		if !errors.Is(err, errNoEngine) {
			return err
		}
	}
	path, ok, err := config.Find(g.config)
	if err != nil {
		return &exitError{code: exitUsage, err: err}
	}
	if ok {
		return runConfig(cmd, path, f)
	}
	m := detect(cmd.Context())
	if m.canServe() {
		return offerConfig(cmd, m, f)
	}
	return runDemo(cmd, f, demoOptions{headless: !onTerminal(), seed: 1})
}

func attachRecord(cmd *cobra.Command, rec engineRecord, f *consoleFlags) error {
	c, err := api.Dial("unix:" + rec.Socket)
	if err != nil {
		return err
	}
	defer c.Close()
	return openConsole(cmd, c, f)
}

// runConfig attaches to the engine of a config, which it starts if it does not run; without a
// terminal it is that engine, in the foreground.
func runConfig(cmd *cobra.Command, path string, f *consoleFlags) error {
	cfg, err := loadConfig(path)
	if err != nil {
		return err
	}
	if rec, ok := engineOfState(cfg.State); ok {
		return attachRecord(cmd, rec, f)
	}
	if !onTerminal() {
		return serve(cmd.Context(), serveOptions(cfg, cmd.OutOrStdout(), cmd.ErrOrStderr()))
	}
	rec, err := spawnEngine(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	return attachRecord(cmd, rec, f)
}

// loadConfig reads a config; its mistakes are a usage error.
func loadConfig(path string) (*config.Config, error) {
	cfg, err := config.Reader{Prices: cost.Embedded().Known, Keys: madeKeys}.Load(path)
	if err != nil {
		return nil, &exitError{code: exitUsage, err: err}
	}
	// The engine is told to read it again from wherever it was started.
	if abs, err := filepath.Abs(cfg.Path); err == nil {
		cfg.Path = abs
	}
	return cfg, nil
}

// offerConfig shows the config that fits this machine and asks; without a terminal it shows the
// demo and says how to get the real thing.
func offerConfig(cmd *cobra.Command, m machine, f *consoleFlags) error {
	if !onTerminal() {
		fmt.Fprintln(cmd.ErrOrStderr(), `A vLLM was found on this machine: "vllmdeck init" writes a config for it, then "vllmdeck serve" serves it. This is the demo.`)
		return runDemo(cmd, f, demoOptions{headless: true, seed: 1})
	}
	text := m.configText()
	path := config.UserPath()
	if path == "" {
		return errors.New("find the config folder: there is no home folder: name a config with --config")
	}
	fmt.Fprintf(cmd.OutOrStdout(), "A vLLM was found on this machine. This config would serve it:\n\n%s\nWrite it to %s and start? [Y/n] ", text, path)
	answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && answer == "" {
		fmt.Fprintln(cmd.OutOrStdout())
		return &exitError{code: exitFailed, err: errors.New("no answer: nothing was written or started")}
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "", "y", "yes":
	default:
		return runDemo(cmd, f, demoOptions{seed: 1})
	}
	if err := writeConfig(path, text, false); err != nil {
		return err
	}
	return runConfig(cmd, path, f)
}
