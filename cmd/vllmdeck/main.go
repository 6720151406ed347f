// Command vllmdeck is the operations console for self-hosted vLLM: console, engine, worker
// shim and simulator in one static binary. Each subcommand is one file.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"charm.land/fang/v2"
	"github.com/spf13/cobra"
)

// Exit codes, the same for every command.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2 // usage or config
	exitRunning = 3 // already or not running
)

// version is set by the linker.
var version = "dev"

// exitError carries an exit code. An empty message prints nothing.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// globals are the flags that every command knows.
type globals struct {
	config string // --config
	engine string // --engine: unix:PATH or ssh://HOST; "" finds the engine of this user
}

func main() { os.Exit(run(context.Background(), os.Args[1:])) }

func run(ctx context.Context, args []string) int {
	root := rootCmd()
	root.SetArgs(args)
	err := fang.Execute(ctx, root, fang.WithVersion(version), fang.WithoutVersion())
	return exitCode(err)
}

func exitCode(err error) int {
	var e *exitError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &e):
		return e.code
	default:
		return exitFailed
	}
}

func rootCmd() *cobra.Command {
	g := &globals{}
	root := &cobra.Command{
		Use:   "vllmdeck",
		Short: "Operations console for self-hosted vLLM",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fmt.Errorf("not wired yet")
		},
	}
	root.PersistentFlags().StringVar(&g.config, "config", "", "config file (default: $VLLMDECK_CONFIG, ./vllmdeck.yaml, the XDG config folder, /etc/vllmdeck)")
	root.PersistentFlags().StringVar(&g.engine, "engine", "", "engine to talk to: unix:PATH or ssh://HOST (default: the running one of this user)")
	root.AddCommand(initCmd(g), configCmd(g, nil))
	return root
}
