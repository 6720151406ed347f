package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"time"
)

// mode is one kind of load.
type mode struct {
	name   string
	conns  int
	stream bool
	delay  time.Duration // of the upstream, before its answer
}

var modes = []mode{
	{"plain, 64 connections, upstream at once", 64, false, 0},
	{"plain, 64 connections, upstream 50 ms", 64, false, 50 * time.Millisecond},
	{"streams of 64 tokens, 32 connections", 32, true, 0},
}

// target is what the load is sent to.
type target struct {
	name string
	addr string
	pids []int // whose CPU is counted
}

// figure is what one target did in one mode: medians over the rounds.
type figure struct {
	Mode    string  `json:"mode"`
	Target  string  `json:"target"`
	PerSec  float64 `json:"requests_per_second"`
	CPU     float64 `json:"cpu_us_per_request"`
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Failed  int     `json:"failed"`
	RSS     int64   `json:"rss_bytes"`
	Share   float64 `json:"cpu_share,omitempty"` // of one core, where there are no requests
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds_per_round"`
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "upstream" {
		fatal(upstream(os.Args[2]))
		return
	}
	bin := flag.String("bin", "bin/vllmdeck", "the vllmdeck to measure")
	nginx := flag.String("nginx", "nginx", "the nginx to compare with; left out if it is not there")
	rounds := flag.Int("rounds", 5, "rounds; targets alternate within each")
	length := flag.Duration("time", 3*time.Second, "length of one measurement")
	only := flag.String("mode", "", "only the kinds of load whose name contains this: plain, 50 ms, streams, idle")
	idle := flag.Duration("idle", 30*time.Second, "how long eight idle workers are watched")
	asJSON := flag.Bool("json", false, "print the figures as JSON")
	check := flag.Bool("check", false, "exit 1 on any failed request, or where a figure is above three times its limit")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	figures, err := run(ctx, *bin, *nginx, *only, *rounds, *length, *idle)
	fatal(err)
	if *asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		fatal(enc.Encode(figures))
	} else {
		table(os.Stdout, figures)
	}
	if *check && !within(os.Stderr, figures) {
		os.Exit(1)
	}
}

func fatal(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "gatewaybench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, bin, nginx, only string, rounds int, length, idle time.Duration) ([]figure, error) {
	dir, err := os.MkdirTemp("", "gatewaybench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	b := &bed{dir: dir}
	defer b.close()
	up, err := b.upstream(ctx)
	if err != nil {
		return nil, err
	}
	targets := []target{up}
	if path, err := exec.LookPath(nginx); err == nil {
		ng, err := b.nginx(ctx, path, up.addr)
		if err != nil {
			return nil, err
		}
		targets = append(targets, ng)
	} else {
		fmt.Fprintln(os.Stderr, "gatewaybench: no nginx here (apt-get install nginx-light): the ratios to it are left out")
	}
	deck, err := b.vllmdeck(ctx, bin, up.addr)
	if err != nil {
		return nil, err
	}
	targets = append(targets, deck)

	var figures []figure
	for _, m := range modes {
		if !strings.Contains(m.name, only) {
			continue
		}
		all := map[string][]figure{}
		for range rounds {
			for _, t := range targets {
				if err := ctx.Err(); err != nil {
					return nil, err
				}
				f, err := measure(ctx, m, t, length)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", m.name, t.name, err)
				}
				all[t.name] = append(all[t.name], f)
			}
		}
		for _, t := range targets {
			figures = append(figures, median(all[t.name]))
		}
	}
	if strings.Contains(watched, only) {
		f, err := watch(ctx, b, bin, idle)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", watched, err)
		}
		figures = append(figures, f)
	}
	return figures, nil
}

// median takes each figure's median over the rounds; failures add up.
func median(fs []figure) figure {
	m := fs[0]
	m.Rounds = len(fs)
	pick := func(of func(figure) float64) float64 {
		vs := make([]float64, len(fs))
		for i, f := range fs {
			vs[i] = of(f)
		}
		slices.Sort(vs)
		return vs[len(vs)/2]
	}
	m.PerSec = pick(func(f figure) float64 { return f.PerSec })
	m.CPU = pick(func(f figure) float64 { return f.CPU })
	m.P50 = pick(func(f figure) float64 { return f.P50 })
	m.P99 = pick(func(f figure) float64 { return f.P99 })
	m.Failed, m.RSS = 0, 0
	for _, f := range fs {
		m.Failed += f.Failed
		m.RSS = max(m.RSS, f.RSS)
	}
	return m
}
