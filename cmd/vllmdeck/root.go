package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

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
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return bare(cmd, g, f) },
	}
	root.PersistentFlags().StringVar(&g.config, "config", "", "config file")
	root.PersistentFlags().StringVar(&g.engine, "engine", "", "engine to talk to: unix:PATH or ssh://HOST (default: your running one)")
	f.register(root)
	root.AddCommand(
		serveCmd(g), attachCmd(g), demoCmd(g), initCmd(g), setupCmd(g), statusCmd(g), workerCmd(g), logsCmd(g), promptCmd(g),
		stopCmd(g), restartCmd(g), reloadCmd(g), configCmd(g, cost.Embedded().Known), versionCmd(), shimCmd(), simCmd(), stdioCmd(g),
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
		return serve(cmd.Context(), engineOptions{
			cfg: cfg, load: func() (*config.Config, error) { return loadConfig(path) }, out: cmd.ErrOrStderr(),
			ready: func(e *engine) { fmt.Fprintln(cmd.OutOrStdout(), "serving on "+e.url) },
		})
	}
	rec, err := spawnEngine(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	return attachRecord(cmd, rec, f)
}

func engineOfState(state string) (engineRecord, bool) {
	recs, err := runningEngines()
	if err != nil {
		return engineRecord{}, false
	}
	for _, r := range recs {
		if r.State == state && answers(r.Socket) {
			return r, true
		}
	}
	return engineRecord{}, false
}

// loadConfig reads a config; its mistakes are a usage error.
func loadConfig(path string) (*config.Config, error) {
	cfg, err := config.Reader{Prices: cost.Embedded().Known}.Load(path)
	if err != nil {
		return nil, &exitError{code: exitUsage, err: err}
	}
	return cfg, nil
}

// spawnEngine starts "vllmdeck serve" in a session of its own, so that it outlives this
// terminal, and waits until it answers.
func spawnEngine(ctx context.Context, cfg *config.Config) (engineRecord, error) {
	self, err := ownPath()
	if err != nil {
		return engineRecord{}, err
	}
	logs := filepath.Join(cfg.State, "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return engineRecord{}, fmt.Errorf("make state folder: %w: set state: in the config", err)
	}
	// Start-up errors and panics go here; the engine's log has a file of its own.
	path := filepath.Join(logs, "engine.out")
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return engineRecord{}, fmt.Errorf("open engine output: %w", err)
	}
	defer out.Close()
	child := exec.Command(self, "serve", "--quiet", "--config", cfg.Path) //nolint:noctx // the engine outlives this command on purpose
	child.Stdout, child.Stderr = out, out
	detach(child)
	if err := child.Start(); err != nil {
		return engineRecord{}, fmt.Errorf("start engine: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for {
		if rec, ok := engineOfState(cfg.State); ok {
			return rec, nil
		}
		select {
		case <-ctx.Done():
			return engineRecord{}, ctx.Err()
		case err := <-ended:
			text, _ := os.ReadFile(path)
			code := exitFailed
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				code = exit.ExitCode()
			}
			return engineRecord{}, &exitError{code: code, err: fmt.Errorf("the engine ended at once:\n%s", strings.TrimSpace(safe(string(text))))}
		case <-limit:
			return engineRecord{}, fmt.Errorf("the engine (pid %d) does not answer after 30 s: see %s", child.Process.Pid, path)
		case <-tick.C:
		}
	}
}

// offerConfig shows the config that fits this machine and asks; without a terminal it shows the
// demo and says how to get the real thing.
func offerConfig(cmd *cobra.Command, m machine, f *consoleFlags) error {
	if !onTerminal() {
		fmt.Fprintln(cmd.ErrOrStderr(), `A vLLM was found on this machine: "vllmdeck init" writes a config for it, then "vllmdeck serve" serves it. This is the demo.`)
		return runDemo(cmd, f, demoOptions{headless: true, seed: 1})
	}
	text := m.configText()
	path, err := userConfigPath()
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "A vLLM was found on this machine. This config would serve it:\n\n%s\nWrite it to %s and start? [Y/n] ", text, path)
	answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && answer == "" {
		return fmt.Errorf("read answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "", "y", "yes":
	default:
		return runDemo(cmd, f, demoOptions{seed: 1})
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	_, err = file.Write(text)
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	return runConfig(cmd, path, f)
}

// userConfigPath is vllmdeck.yaml in the XDG config folder.
func userConfigPath() (string, error) {
	base, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the config folder: %w", err)
	}
	return filepath.Join(base, "vllmdeck", "vllmdeck.yaml"), nil
}
