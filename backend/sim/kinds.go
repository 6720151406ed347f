package sim

import (
	"fmt"
	"strconv"
	"strings"
)

func (w *writer) explain() string {
	n := 2 + w.r.IntN(4)
	switch {
	case w.has("one sentence", "single sentence", "briefly", "brief", "one word", "tl;dr", "short"):
		if f := w.apt(); f != "" {
			return f
		}
		return w.fact()
	case w.has("in detail", "detailed", "essay", "long", "thorough", "article"):
		n = 9 + w.r.IntN(4)
	case w.has("eli5", "simple terms", "like i"):
		n = 2
	}
	open := "open"
	if w.again {
		open = "open-again"
	}
	var b strings.Builder
	b.WriteString(w.pick(open))
	if f := w.apt(); f != "" {
		b.WriteString(" " + f)
		n--
	}
	for i := range n {
		if i > 0 && i%3 == 0 {
			b.WriteString("\n\n")
		} else {
			b.WriteString(" ")
		}
		b.WriteString(w.fact())
	}
	if w.r.IntN(3) > 0 {
		b.WriteString(" " + w.pick("close"))
	}
	return b.String()
}

func (w *writer) numbered(frame string, n int) string {
	var b strings.Builder
	b.WriteString(strings.ReplaceAll(w.pick(frame), "{n}", strconv.Itoa(n)))
	b.WriteString("\n")
	for i := range n {
		fmt.Fprintf(&b, "\n%d. %s", i+1, w.tip())
	}
	if w.r.IntN(2) == 0 {
		b.WriteString("\n\n" + w.fact())
	}
	return b.String()
}

func (w *writer) compare() string {
	a, b := "the first", "the second"
	if m := versus.FindStringSubmatch(w.ask); m != nil {
		a, b = strings.TrimPrefix(m[1], "between "), m[2]
	}
	names := strings.NewReplacer("{A}", upperFirst(a), "{B}", upperFirst(b))
	parts := []string{w.pick("compare")}
	for _, s := range w.lib.frames["compare-body"] {
		parts = append(parts, names.Replace(s))
	}
	parts = append(parts, w.fact())
	return strings.Join(parts, " ")
}

func (w *writer) story() string {
	parts := []string{w.pick("story")}
	body := w.lib.frames["story-body"]
	for _, i := range w.r.Perm(len(body))[:4+w.r.IntN(3)] {
		parts = append(parts, body[i])
	}
	return strings.Join(append(parts, w.pick("story-end")), " ")
}

func (w *writer) code() string {
	best, score := len(w.lib.code)-1, 0
	for i, c := range w.lib.code {
		n := 0
		for j, k := range c.keys {
			if w.has(k) {
				n++
				if j == 0 {
					n++ // the language
				}
			}
		}
		if n > score {
			best, score = i, n
		}
	}
	return w.lib.code[best].text
}
