package cost

import (
	"slices"
	"strings"
)

// makers sell their own models: of two refs that are as near, theirs is the one meant.
var makers = []string{"openai", "anthropic", "gemini", "mistral", "deepseek", "xai"}

// Nearest gives the n refs that somebody who wrote ref most likely meant: the same model at
// another provider first, then by the number of letters to change.
func (t *Table) Nearest(ref string, n int) []string {
	if n <= 0 {
		return nil
	}
	type near struct {
		ref  string
		same bool
		edit int
	}
	want, model := strings.ToLower(ref), Model(ref)
	all := make([]near, 0, len(t.refs))
	for _, r := range t.refs {
		have := strings.ToLower(r)
		provider, _, _ := strings.Cut(have, "/")
		edit := 2 * edits(want, have)
		if !strings.Contains(want, "/") {
			edit = 2 * edits(want, have[strings.LastIndexByte(have, '/')+1:])
		}
		if !slices.Contains(makers, provider) {
			edit++
		}
		all = append(all, near{r, model != "" && Model(r) == model, edit})
	}
	slices.SortStableFunc(all, func(a, b near) int {
		if a.same != b.same {
			if a.same {
				return -1
			}
			return 1
		}
		return a.edit - b.edit
	})
	out := make([]string, 0, n)
	for _, x := range all[:min(n, len(all))] {
		out = append(out, x.ref)
	}
	return out
}

// edits is the Levenshtein distance of the first 200 bytes.
func edits(a, b string) int {
	a, b = a[:min(len(a), 200)], b[:min(len(b), 200)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
