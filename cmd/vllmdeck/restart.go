package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func restartCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "restart",
		Short: "Run the engine's binary anew; workers keep running",
		Long: `Let the engine end its requests (config: grace) and run its binary anew, under the same pid:
for an upgrade. Workers keep running and are taken up again; clients that connect meanwhile
are refused for a moment.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, s, err := g.snapshot(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Do(cmd.Context(), api.Action{Verb: api.EngineRestart}); err != nil {
				return err
			}
			tick := time.NewTicker(200 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-cmd.Context().Done():
					return cmd.Context().Err()
				case <-tick.C:
				}
				now, err := fetch(cmd.Context(), c)
				if err == nil && !now.Engine.Started.Equal(s.Engine.Started) {
					fmt.Fprintf(cmd.OutOrStdout(), "engine %s runs at %s (was %s)\n", now.Engine.Version, now.Engine.URL, s.Engine.Version)
					return nil
				}
				if err != nil && !processAlive(s.Engine.PID) {
					return fmt.Errorf("the engine did not come back: \"vllmdeck serve\" shows why; its log is in %s", s.Engine.State)
				}
			}
		},
	}
}

func reloadCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Read the config again: workers are added, removed, replaced",
		Long: `Make the engine read its config again. Workers are added, removed and replaced; unchanged ones
and running streams are not touched. A bad config is refused whole. SIGHUP does the same.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.dial()
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.Do(cmd.Context(), api.Action{Verb: api.EngineReload}); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "reloaded")
			return nil
		},
	}
}
