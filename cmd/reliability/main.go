package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	os.Exit(run())
}

func run() int {
	bin := flag.String("bin", "bin/vllmdeck", "the vllmdeck to try")
	list := flag.Bool("list", false, "list the experiments")
	out := flag.String("out", "", "file for the JSON lines (default: stdout)")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: reliability [-list] [-bin FILE] [-out FILE] [EXPERIMENT…]")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *list {
		for _, x := range experiments {
			fmt.Fprintf(os.Stdout, "%-4s %s\n", x.id, x.title)
		}
		return 0
	}
	chosen, err := choose(flag.Args())
	if err == nil {
		*bin, err = exec.LookPath(*bin)
	}
	if err == nil {
		*bin, err = filepath.Abs(*bin)
	}
	lines := io.Writer(os.Stdout)
	if err == nil && *out != "" {
		var f *os.File
		if f, err = os.Create(*out); err == nil {
			defer f.Close()
			lines = f
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "reliability:", err)
		return 2
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	results := make([]result, 0, len(chosen))
	code := 0
	for _, x := range chosen {
		r := try(ctx, *bin, x)
		results = append(results, r)
		if !r.Pass {
			code = 1
		}
		enc := json.NewEncoder(lines)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(r); err != nil {
			fmt.Fprintln(os.Stderr, "reliability: write the result:", err)
			return 2
		}
		if ctx.Err() != nil {
			return 1
		}
	}
	if len(chosen) > 1 {
		table(os.Stderr, results)
	}
	return code
}

// choose finds experiments by their ids; none means all.
func choose(ids []string) ([]experiment, error) {
	if len(ids) == 0 {
		return experiments, nil
	}
	var chosen []experiment
	for _, id := range ids {
		found := false
		for _, x := range experiments {
			if strings.EqualFold(x.id, id) {
				chosen, found = append(chosen, x), true
			}
		}
		if !found {
			return nil, fmt.Errorf("there is no experiment %s: see -list", id)
		}
	}
	return chosen, nil
}

// try carries one experiment out.
func try(ctx context.Context, bin string, x experiment) result {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	began := time.Now()
	t := &trial{id: x.id, bin: bin, began: began, result: result{ID: x.id, Title: x.title, Limits: map[string]any{}, Measured: map[string]any{}, Failures: []string{}}}
	t.logf("%s", x.title)
	err := x.run(ctx, t)
	if err != nil {
		t.failf("not carried out: %v", err)
	}
	t.end()
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.result
	r.Seconds = time.Since(began).Round(100 * time.Millisecond).Seconds()
	r.Pass = len(r.Failures) == 0
	return r
}
