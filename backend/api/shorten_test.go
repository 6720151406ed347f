package api

import "testing"

func TestShortenCutsBetweenCharacters(t *testing.T) {
	for _, c := range []struct {
		s     string
		limit int
		want  string
	}{
		{"whole", 5, "whole"},
		{"whole", 4, "whol…"},
		{"größer", 3, "gr…"},
		{"größer", 4, "grö…"},
		{"two words", 4, "two…"},
		{"ü", 0, "…"},
		{"", 0, ""},
	} {
		if got := Shorten(c.s, c.limit); got != c.want {
			t.Errorf("Shorten(%q, %d) = %q, want %q", c.s, c.limit, got, c.want)
		}
	}
}
