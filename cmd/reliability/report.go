package main

import (
	"fmt"
	"io"
	"strings"
)

// result is what came of one trial. Times are in seconds.
type result struct {
	ID       string         `json:"id"`
	Title    string         `json:"title"`
	Pass     bool           `json:"pass"`
	Seconds  float64        `json:"seconds"`
	Limits   map[string]any `json:"limits"`
	Measured map[string]any `json:"measured"`
	Late     []string       `json:"late,omitempty"` // times beyond their limit, but not beyond three times of it
	Failures []string       `json:"failures"`

	names []string // of Measured, as they came
}

// table is for people.
func table(w io.Writer, results []result) {
	passed, seconds := 0, 0.0
	for _, r := range results {
		verdict := "FAIL"
		if r.Pass {
			verdict = "pass"
			passed++
		}
		seconds += r.Seconds
		fmt.Fprintf(w, "\n%-4s %s  %s (%.0f s)\n", r.ID, verdict, r.Title, r.Seconds)
		width := 0
		for _, name := range r.names {
			width = max(width, len(name))
		}
		for _, name := range r.names {
			limit := ""
			if l, ok := r.Limits[name]; ok {
				limit = fmt.Sprint("limit ", l)
			}
			fmt.Fprintln(w, strings.TrimRight(fmt.Sprintf("     %-*s  %-12v %s", width, name, r.Measured[name], limit), " "))
		}
		for _, text := range r.Late {
			fmt.Fprintln(w, "     late: "+text)
		}
		for _, text := range r.Failures {
			fmt.Fprintln(w, "     FAIL: "+text)
		}
	}
	fmt.Fprintf(w, "\n%d of %d pass, %.0f s\n", passed, len(results), seconds)
}
