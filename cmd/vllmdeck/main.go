package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"charm.land/fang/v2"
	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
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
	// What goes wrong before a command begins is the command line itself.
	begun := false
	eachCommand(root, func(cmd *cobra.Command) {
		if begin := cmd.RunE; begin != nil {
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				begun = true
				return begin(cmd, args)
			}
		}
		if check := cmd.Args; check != nil && !cmd.HasSubCommands() {
			cmd.Args = func(cmd *cobra.Command, args []string) error {
				if check(cmd, args) != nil {
					return wrongArgs(cmd, args)
				}
				return nil
			}
		}
	})
	err := fang.Execute(ctx, root, fang.WithoutVersion(), fang.WithErrorHandler(printError))
	if err != nil && !begun {
		return exitUsage
	}
	return exitCode(err)
}

func eachCommand(cmd *cobra.Command, do func(*cobra.Command)) {
	do(cmd)
	for _, sub := range cmd.Commands() {
		eachCommand(sub, do)
	}
}

func exitCode(err error) int {
	var e *exitError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &e):
		return e.code
	case errors.Is(err, api.ErrAway):
		return exitRunning
	default:
		return exitFailed
	}
}

// printError writes an error as it is, in the lines that it has: it may show an excerpt of a
// file. It may also hold what a server answered, so it is made safe.
func printError(w io.Writer, _ fang.Styles, err error) {
	if text := err.Error(); text != "" {
		fmt.Fprintln(w, "vllmdeck: "+safe(text))
	}
}

// group is a command that only holds others.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return unknownCommand(cmd, args[0])
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	return cmd
}

// wrongArgs says how a command is written that has too many arguments, or too few.
func wrongArgs(cmd *cobra.Command, args []string) error {
	_, operands, _ := strings.Cut(cmd.Use, " ")
	switch {
	case operands == "":
		return fmt.Errorf("%q takes no argument, got %q: see %s --help", cmd.CommandPath(), args[0], cmd.CommandPath())
	case len(args) == 0:
		return fmt.Errorf("write it as: %s %s", cmd.CommandPath(), operands)
	}
	return fmt.Errorf("write it as: %s %s; got %d arguments: %s", cmd.CommandPath(), operands, len(args), strings.Join(args, " "))
}

func unknownCommand(cmd *cobra.Command, name string) error {
	cmd.SuggestionsMinimumDistance = 2
	text := fmt.Sprintf("unknown command %q for %q", name, cmd.CommandPath())
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return fmt.Errorf("%s: did you mean %s?", text, strings.Join(near, " or "))
	}
	return fmt.Errorf("%s: see %s --help", text, cmd.CommandPath())
}
