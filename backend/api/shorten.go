package api

import "strings"

// Shorten gives s whole if it has at most limit bytes, else as much of its beginning as limit bytes hold, cut between
// characters, with "…" behind it.
func Shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && s[limit]&0xC0 == 0x80 {
		limit--
	}
	return strings.TrimRight(s[:limit], " ") + "…"
}
