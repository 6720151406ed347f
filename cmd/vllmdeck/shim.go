package main

import (
	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// shimCmd is the parent process of one local worker. The engine starts it; people do not.
func shimCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "shim WORKER",
		Short:  "Be the parent of one worker (started by the engine)",
		Args:   cobra.ArbitraryArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if code := launch.RunShim(cmd.Context(), args); code != exitDone {
				return &exitError{code: code}
			}
			return nil
		},
	}
}
