package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// watched is what an engine takes that looks after workers nobody asks anything.
const watched = "eight idle workers, watched"

// watch measures an engine with eight simulated workers and no traffic. They are servers of their
// own, started through the shim as vLLM is.
func watch(ctx context.Context, b *bed, bin string, length time.Duration) (f figure, err error) {
	addr, err := freePort(ctx)
	if err != nil {
		return figure{}, err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "listen: %q\nstate: %q\nworkers:\n", addr, filepath.Join(b.dir, "watched"))
	for i := range 8 {
		fmt.Fprintf(&text, "  - {name: w%d, model: idle, sim: {seed: %d}}\n", i, i)
	}
	conf := filepath.Join(b.dir, "watched.yaml")
	if err := os.WriteFile(conf, []byte(text.String()), 0o600); err != nil {
		return figure{}, err
	}
	cmd, out, err := b.start(ctx, bin, "serve", "--quiet", "--workers=stop", "--config", conf)
	if err != nil {
		return figure{}, err
	}
	if err := await(ctx, "http://"+addr+"/health", out); err != nil {
		return figure{}, err
	}
	pids := []int{cmd.Process.Pid}
	pause(ctx, 10*time.Second) // every worker is ready, and the start is over
	before, _ := usage(pids)
	began := time.Now()
	pause(ctx, length)
	after, rss := usage(pids)
	if ctx.Err() != nil {
		return figure{}, ctx.Err()
	}
	if rss == 0 {
		return figure{}, errors.New("the engine has ended: " + strings.TrimSpace(out.String()))
	}
	return figure{Mode: watched, Target: "vllmdeck", Share: (after - before).Seconds() / time.Since(began).Seconds(), RSS: rss, Rounds: 1, Seconds: length.Seconds()}, nil
}
