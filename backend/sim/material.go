package sim

import (
	_ "embed"
	"strings"
	"sync"
)

// The text that answers are assembled from. topics.txt: "= name: keywords", sentences, and tips
// that begin with "+". frames.txt and code.txt: "= name" and entries. facts.txt: phrase|answer.
var (
	//go:embed material/topics.txt
	topicsText string
	//go:embed material/frames.txt
	framesText string
	//go:embed material/facts.txt
	factsText string
	//go:embed material/code.txt
	codeText string
)

type topic struct {
	keys  map[string]bool
	facts []string
	tips  []string
}

type snippet struct {
	keys []string
	text string
}

type library struct {
	topics []topic // the last one is for everything
	frames map[string][]string
	facts  [][2]string
	code   []snippet // the last one is for everything
}

// shelf is read at first use and not changed after.
var shelf = sync.OnceValue(func() *library {
	l := &library{frames: map[string][]string{}}
	for _, line := range lines(topicsText) {
		if head, ok := strings.CutPrefix(line, "= "); ok {
			name, keys, _ := strings.Cut(head, ":")
			t := topic{keys: map[string]bool{name: true}}
			for k := range strings.FieldsSeq(keys) {
				t.keys[k] = true
			}
			l.topics = append(l.topics, t)
			continue
		}
		t := &l.topics[len(l.topics)-1]
		if tip, ok := strings.CutPrefix(line, "+ "); ok {
			t.tips = append(t.tips, tip)
		} else {
			t.facts = append(t.facts, line)
		}
	}
	name := ""
	for _, line := range lines(framesText) {
		if n, ok := strings.CutPrefix(line, "= "); ok {
			name = n
			continue
		}
		l.frames[name] = append(l.frames[name], strings.ReplaceAll(line, `\n`, "\n"))
	}
	for _, line := range lines(factsText) {
		phrase, answer, _ := strings.Cut(line, "|")
		l.facts = append(l.facts, [2]string{phrase, answer})
	}
	for _, part := range strings.Split("\n"+codeText, "\n= ")[1:] {
		keys, text, _ := strings.Cut(part, "\n")
		l.code = append(l.code, snippet{strings.Fields(keys), strings.TrimSpace(text)})
	}
	return l
})

func lines(s string) []string {
	var out []string
	for line := range strings.Lines(s) {
		if line = strings.TrimRight(line, "\n"); line != "" {
			out = append(out, line)
		}
	}
	return out
}
