package main

import (
	"fmt"
	"io"
	"net"

	"github.com/spf13/cobra"
)

// stdioCmd is the far end of "attach ssh://HOST": it joins stdin and stdout to the socket of
// the engine that runs here.
func stdioCmd(*globals) *cobra.Command {
	return &cobra.Command{
		Use:    "stdio",
		Short:  "Join stdin and stdout to the engine's control socket",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			rec, err := findEngine(true)
			if err != nil {
				return err
			}
			conn, err := (&net.Dialer{}).DialContext(cmd.Context(), "unix", rec.Socket)
			if err != nil {
				return fmt.Errorf("connect to engine: %w", err)
			}
			defer conn.Close()
			done := make(chan error, 2)
			go func() {
				_, err := io.Copy(conn, cmd.InOrStdin())
				done <- err
			}()
			go func() {
				_, err := io.Copy(cmd.OutOrStdout(), conn)
				done <- err
			}()
			return <-done
		},
	}
}
