package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// leftovers are the strays of a host and how to end one: through the engine, or where none runs, here.
type leftovers struct {
	list  func(context.Context) ([]api.Stray, error)
	end   func(context.Context, api.Stray) error
	close func()
}

func (g *globals) leftovers(ctx context.Context) (leftovers, error) {
	c, _, err := g.snapshot(ctx)
	if err == nil {
		return leftovers{
			list: func(ctx context.Context) ([]api.Stray, error) {
				s, err := fetch(ctx, c)
				if err != nil {
					return nil, err
				}
				return s.Strays, nil
			},
			end: func(ctx context.Context, s api.Stray) error {
				return c.Do(ctx, api.Action{
					Verb: api.StrayEnd, Target: strconv.Itoa(s.PID), Args: map[string]string{"started": s.Started.Format(time.RFC3339Nano)},
				})
			},
			close: func() { c.Close() },
		}, nil
	}
	if g.engine != "" || exitCode(err) != exitRunning {
		return leftovers{}, err
	}
	local := &launch.Local{}
	return leftovers{
		list: func(context.Context) ([]api.Stray, error) {
			c, err := local.Census()
			if err != nil {
				return nil, err
			}
			var out []api.Stray
			for _, s := range c.Strays {
				worker, _, _ := strings.Cut(s.Worker, "/")
				out = append(out, api.Stray{PID: s.PID, Name: s.Name, Worker: worker, Started: s.Started, RSS: s.RSS})
			}
			return out, nil
		},
		end: func(ctx context.Context, s api.Stray) error {
			end, err := local.EndStray(s.PID, s.Started)
			if err != nil {
				return err
			}
			return end(ctx)
		},
		close: func() {},
	}, nil
}

func workerStraysCmd(g *globals) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "strays",
		Short: "List processes of vLLM servers that nobody looks after",
		Long: `List the processes of vLLM servers that nobody looks after: an engine process whose API server was killed, or
part of a worker whose parent (its shim) is gone. They may hold GPU memory for ever. Nothing ends them by itself;
"vllmdeck worker end-stray" does. Works without an engine too, then without their GPU memory.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := g.leftovers(cmd.Context())
			if err != nil {
				return err
			}
			defer l.close()
			list, err := l.list(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), append([]api.Stray{}, list...))
			}
			_, err = io.WriteString(cmd.OutOrStdout(), strayText(list, time.Now()))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the strays as JSON")
	return cmd
}

func strayText(list []api.Stray, now time.Time) string {
	if len(list) == 0 {
		return "no strays\n"
	}
	var b strings.Builder
	tw := newTable(&b)
	fmt.Fprintln(tw, "PID\tPROCESS\tOF WORKER\tRUNS FOR\tMEMORY\tGPU MEMORY")
	for _, s := range list {
		held := "-"
		if s.GPU > 0 {
			held = gibs(&s.GPU) + " GiB"
		}
		fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%s GiB\t%s\n", s.PID, safe(s.Name), cmp.Or(safe(s.Worker), "-"), age(now.Sub(s.Started)), gibs(&s.RSS), held)
	}
	_ = tw.Flush() // a Builder takes everything
	return b.String()
}

func workerEndStrayCmd(g *globals) *cobra.Command {
	var yes, all bool
	cmd := &cobra.Command{
		Use:   "end-stray PID…",
		Short: "End processes of vLLM servers that nobody looks after",
		Long: `End strays: SIGTERM, and SIGKILL after 5 seconds. Whatever is not a stray at that moment is refused, workers
and other people's processes too. It names what will end and asks; without a terminal it needs --yes.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return &exitError{code: exitUsage, err: errors.New("say which by pid, or --all; \"vllmdeck worker strays\" lists them")}
			}
			l, err := g.leftovers(cmd.Context())
			if err != nil {
				return err
			}
			defer l.close()
			list, err := l.list(cmd.Context())
			if err != nil {
				return err
			}
			condemned, err := pickStrays(list, args)
			if err != nil {
				return err
			}
			if len(condemned) == 0 {
				fmt.Fprint(cmd.OutOrStdout(), strayText(nil, time.Now()))
				return nil
			}
			if err := confirm(cmd, "This ends:\n"+strayText(condemned, time.Now()), yes); err != nil {
				return err
			}
			return l.endAll(cmd, condemned)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVar(&all, "all", false, "end all of them")
	return cmd
}

// pickStrays finds strays by pid; no pids: all.
func pickStrays(list []api.Stray, pids []string) ([]api.Stray, error) {
	if len(pids) == 0 {
		return list, nil
	}
	var out []api.Stray
	for _, text := range pids {
		found := false
		for _, s := range list {
			if strconv.Itoa(s.PID) == text {
				out, found = append(out, s), true
			}
		}
		if !found {
			return nil, fmt.Errorf("%s is no stray, so it is not ended; \"vllmdeck worker strays\" lists those there are", safe(text))
		}
	}
	return out, nil
}

// endAll ends strays one after the other, and waits until they are gone. One that ends with another is
// as good as ended.
func (l leftovers) endAll(cmd *cobra.Command, condemned []api.Stray) error {
	var failed error
	for _, s := range condemned {
		if err := l.end(cmd.Context(), s); err != nil && !errors.Is(err, api.ErrUnknown) {
			failed = errors.Join(failed, err)
		}
	}
	if failed != nil {
		return failed
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(api.Tick)
	defer tick.Stop()
	for {
		list, err := l.list(ctx)
		if err != nil {
			return err
		}
		left := 0
		for _, s := range list {
			for _, c := range condemned {
				if s.PID == c.PID && s.Started.Equal(c.Started) {
					left++
				}
			}
		}
		if left == 0 {
			fmt.Fprintln(cmd.OutOrStdout(), "ended")
			return nil
		}
		select {
		case <-ctx.Done():
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			return fmt.Errorf("%d still there after 30s: \"vllmdeck status\" says why", left)
		case <-tick.C:
		}
	}
}
