package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// A limit or goal of the gateway, as a ratio to nginx or an absolute figure.
type limit struct {
	what  string
	unit  string
	limit float64
	goal  float64 // 0: none
	more  bool    // more is better
	alone bool    // needs no nginx to compare with
	value func(deck, nginx figure) float64
}

var limits = map[string][]limit{
	modes[0].name: {
		{"CPU per request, of nginx's", "x", 2.5, 2, false, false, func(d, n figure) float64 { return d.CPU / n.CPU }},
		{"CPU per request", "µs", 120, 0, false, true, func(d, _ figure) float64 { return d.CPU }},
		{"requests per second, of nginx's", "x", 0.55, 0.8, true, false, func(d, n figure) float64 { return d.PerSec / n.PerSec }},
	},
	modes[1].name: {
		{"median above nginx's", "ms", 0.3, 0, false, false, func(d, n figure) float64 { return d.P50 - n.P50 }},
	},
	modes[2].name: {
		{"CPU per stream, of nginx's", "x", 1.6, 0, false, false, func(d, n figure) float64 { return d.CPU / n.CPU }},
	},
	watched: {
		{"CPU of the engine, of a core", "%", 2, 0, false, true, func(d, _ figure) float64 { return 100 * d.Share }},
		{"memory of the engine", "MB", 60, 0, false, true, func(d, _ figure) float64 { return float64(d.RSS) / 1e6 }},
	},
}

// kinds are the names of all that is measured, in order.
func kinds() []string {
	var out []string
	for _, m := range modes {
		out = append(out, m.name)
	}
	return append(out, watched)
}

func find(fs []figure, mode, target string) (figure, bool) {
	for _, f := range fs {
		if f.Mode == mode && f.Target == target {
			return f, true
		}
	}
	return figure{}, false
}

// table prints every figure, then every limit beside what was measured.
func table(out io.Writer, fs []figure) {
	tw := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "MODE\tTARGET\tREQ/S\tCPU µs/REQ\tP50 ms\tP99 ms\tFAILED\tRSS MB")
	for _, f := range fs {
		if f.PerSec == 0 {
			continue
		}
		fmt.Fprintf(tw, "%s\t%s\t%.0f\t%.0f\t%.2f\t%.2f\t%d\t%.0f\n", f.Mode, f.Target, f.PerSec, f.CPU, f.P50, f.P99, f.Failed, float64(f.RSS)/1e6)
	}
	_ = tw.Flush()
	fmt.Fprintln(out)
	tw = tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "MODE\tFIGURE\tMEASURED\tLIMIT\tGOAL\t")
	for _, kind := range kinds() {
		deck, ok := find(fs, kind, "vllmdeck")
		nginx, there := find(fs, kind, "nginx")
		for _, l := range limits[kind] {
			if !ok || !there && !l.alone {
				continue
			}
			v := l.value(deck, nginx)
			goal, mark := "-", "within"
			if l.goal != 0 {
				goal = fmt.Sprintf("%.2f", l.goal)
			}
			if l.more == (v < l.limit) && v != l.limit {
				mark = "MISSED"
			}
			fmt.Fprintf(tw, "%s\t%s\t%.2f %s\t%.2f\t%s\t%s\n", kind, l.what, v, l.unit, l.limit, goal, mark)
		}
	}
	_ = tw.Flush()
}

// within says whether nothing failed and no figure is more than three times off its limit.
func within(out io.Writer, fs []figure) bool {
	good := true
	for _, f := range fs {
		if f.Failed > 0 {
			fmt.Fprintf(out, "%s, %s: %d requests failed\n", f.Mode, f.Target, f.Failed)
			good = false
		}
	}
	for _, kind := range kinds() {
		deck, ok := find(fs, kind, "vllmdeck")
		nginx, there := find(fs, kind, "nginx")
		for _, l := range limits[kind] {
			if !ok || !there && !l.alone {
				continue
			}
			v := l.value(deck, nginx)
			if (l.more && v < l.limit/3) || (!l.more && v > l.limit*3) {
				fmt.Fprintf(out, "%s: %s is %.2f %s, limit %.2f\n", kind, l.what, v, l.unit, l.limit)
				good = false
			}
		}
	}
	return good
}
