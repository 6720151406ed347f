// Command vllmdeck is the operations console for self-hosted vLLM: console, engine, worker
// shim and simulator in one static binary. Each subcommand is one file.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"charm.land/fang/v2"
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
	err := fang.Execute(ctx, root, fang.WithVersion(version), fang.WithoutVersion(), fang.WithErrorHandler(printError))
	return exitCode(err)
}

// printError writes an error as it is: scripts read it, and config excerpts are aligned.
func printError(w io.Writer, _ fang.Styles, err error) {
	if text := err.Error(); text != "" {
		fmt.Fprintln(w, "vllmdeck: "+text)
	}
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
