package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/tui"
)

// printJSON writes v for scripts. What could move a terminal's cursor is escaped: scripts read the same.
func printJSON(w io.Writer, v any) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err
	}
	out := make([]byte, 0, text.Len())
	for _, c := range text.String() { // encoding/json has escaped what is below a space
		switch {
		case c < 0x7f || unicode.IsPrint(c):
			out = utf8.AppendRune(out, c)
		case c > 0xffff:
			a, b := utf16.EncodeRune(c)
			out = fmt.Appendf(out, `\u%04x\u%04x`, a, b)
		default:
			out = fmt.Appendf(out, `\u%04x`, c)
		}
	}
	_, err := w.Write(out)
	return err
}

// newTable lines up columns that are separated by tabs.
func newTable(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 4, 2, ' ', 0) }

// safe makes foreign text harmless on a terminal.
func safe(s string) string { return string(tui.Sanitize(s)) }

func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	}
}

func number(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

func figure(v *float64, format string) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf(format, *v)
}

func percent(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", *v*100)
}

func seconds(v *float64) string {
	switch {
	case v == nil:
		return "-"
	case *v < 1:
		return fmt.Sprintf("%.0fms", *v*1000)
	default:
		return fmt.Sprintf("%.1fs", *v)
	}
}

// usd writes an amount with as many decimals as its size asks for.
func usd(n *api.Nanos) string {
	if n == nil {
		return "unknown"
	}
	v := n.USD()
	sign := ""
	if v < 0 {
		sign, v = "-", -v
	}
	switch {
	case v == 0:
		return "$0"
	case v < 0.01:
		return fmt.Sprintf("%s$%.6f", sign, v)
	case v < 10:
		return fmt.Sprintf("%s$%.4f", sign, v)
	default:
		return fmt.Sprintf("%s$%.2f", sign, v)
	}
}

// amount is a number of bytes in words.
func amount(n int64) string {
	switch f := float64(n); {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", f/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", f/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.0f KiB", f/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

// pair writes what is in use of what there is.
func pair(used, total, unit string) string {
	if used == "-" {
		return "-"
	}
	if total == "-" {
		return used + unit
	}
	return used + "/" + total + unit
}

func gibs(n *int64) string {
	if n == nil {
		return "-"
	}
	return fmt.Sprintf("%.1f", float64(*n)/(1<<30))
}

func count64(n *int64) string {
	if n == nil {
		return "-"
	}
	return strconv.FormatInt(*n, 10)
}

// count writes a number with its noun: 1 key, no keys, 3 keys.
func count(n int, noun string) string {
	switch n {
	case 0:
		return "no " + noun + "s"
	case 1:
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
