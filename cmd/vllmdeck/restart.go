package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
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
			local := !strings.HasPrefix(c.Addr(), "ssh://") && processBirth(s.Engine.PID) != ""
			if err := c.Do(cmd.Context(), api.Action{Verb: api.EngineRestart}); err != nil {
				return badConfig(err)
			}
			tick := time.NewTicker(100 * time.Millisecond)
			defer tick.Stop()
			var away time.Time
			for {
				select {
				case <-cmd.Context().Done():
					return cmd.Context().Err()
				case <-tick.C:
				}
				now, err := fetch(cmd.Context(), c)
				switch {
				case err == nil && !now.Engine.Started.Equal(s.Engine.Started):
					fmt.Fprintf(cmd.OutOrStdout(), "engine %s runs at %s (was %s)\n", safe(now.Engine.Version), safe(now.Engine.URL), safe(s.Engine.Version))
					return nil
				case err == nil:
					away = time.Time{}
					continue
				case away.IsZero():
					away = time.Now()
				}
				// For a moment of the exec the process looks dead: Linux ends its first thread before another takes its place.
				if local && processBirth(s.Engine.PID) == "" && time.Since(away) > time.Second || time.Since(away) > spawnLimit {
					return fmt.Errorf("the engine did not come back: \"vllmdeck serve\" shows why; its log and engine.out are in %s", safe(filepath.Join(s.Engine.State, "logs")))
				}
			}
		},
	}
}

// badConfig makes a usage error of an order that was refused because of the config.
func badConfig(err error) error {
	if errors.Is(err, api.ErrRefused) {
		return &exitError{code: exitUsage, err: err}
	}
	return err
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
				return badConfig(err)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "reloaded")
			return nil
		},
	}
}
