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
	value func(deck, nginx figure) float64
}

var limits = map[string][]limit{
	modes[0].name: {
		{"CPU per request, of nginx's", "x", 2.5, 2, false, func(d, n figure) float64 { return d.CPU / n.CPU }},
		{"CPU per request", "µs", 120, 0, false, func(d, _ figure) float64 { return d.CPU }},
		{"requests per second, of nginx's", "x", 0.55, 0.8, true, func(d, n figure) float64 { return d.PerSec / n.PerSec }},
	},
	modes[1].name: {
		{"median above nginx's", "ms", 0.3, 0, false, func(d, n figure) float64 { return d.P50 - n.P50 }},
	},
	modes[2].name: {
		{"CPU per stream, of nginx's", "x", 1.6, 0, false, func(d, n figure) float64 { return d.CPU / n.CPU }},
	},
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
		fmt.Fprintf(tw, "%s\t%s\t%.0f\t%.0f\t%.2f\t%.2f\t%d\t%.0f\n", f.Mode, f.Target, f.PerSec, f.CPU, f.P50, f.P99, f.Failed, float64(f.RSS)/1e6)
	}
	_ = tw.Flush()
	fmt.Fprintln(out)
	tw = tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "MODE\tFIGURE\tMEASURED\tLIMIT\tGOAL\t")
	for _, m := range modes {
		deck, ok := find(fs, m.name, "vllmdeck")
		nginx, there := find(fs, m.name, "nginx")
		if !ok || !there {
			continue
		}
		for _, l := range limits[m.name] {
			v := l.value(deck, nginx)
			goal, mark := "-", "within"
			if l.goal != 0 {
				goal = fmt.Sprintf("%.2f", l.goal)
			}
			if l.more == (v < l.limit) && v != l.limit {
				mark = "MISSED"
			}
			fmt.Fprintf(tw, "%s\t%s\t%.2f %s\t%.2f\t%s\t%s\n", m.name, l.what, v, l.unit, l.limit, goal, mark)
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
	for _, m := range modes {
		deck, ok := find(fs, m.name, "vllmdeck")
		nginx, there := find(fs, m.name, "nginx")
		if !ok || !there {
			continue
		}
		for _, l := range limits[m.name] {
			v := l.value(deck, nginx)
			if (l.more && v < l.limit/3) || (!l.more && v > l.limit*3) {
				fmt.Fprintf(out, "%s: %s is %.2f %s, limit %.2f\n", m.name, l.what, v, l.unit, l.limit)
				good = false
			}
		}
	}
	return good
}
