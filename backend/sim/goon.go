package sim

import (
	"hash/fnv"
	"strings"
)

// goOn continues a plain text. What comes next depends on the last sentence alone, so that an answer that was cut off
// goes on from there as it would have gone on: as a model does without temperature. key is of what else the text depends
// on; it goes on for so many tokens at least.
func goOn(key uint64, begun string, tokens int) string {
	lib := shelf()
	topic, at, tail := lastFact(lib, begun)
	if topic == nil {
		// The first sentence depends on what was said before it. There may be a mark within it, too.
		ends := sentenceEnds(begun)
		for _, end := range ends {
			topic, at = firstFact(key, begun[:end])
			if tail = begun[end:]; strings.HasPrefix(" "+topic.facts[at], tail) {
				break
			}
			topic = nil
		}
		if topic == nil {
			topic, at = firstFact(key, begun)
			tail = blank(begun)
		}
	} else {
		at = (at + 1) % len(topic.facts)
		if !strings.HasPrefix(" "+topic.facts[at], tail) { // somebody went on in other words
			tail = blank(begun)
		}
	}
	var b strings.Builder
	n := 0
	for {
		next := " " + topic.facts[at]
		next = next[len(tail):]
		if tail = ""; begun == "" && b.Len() == 0 {
			next = next[1:]
		}
		b.WriteString(next)
		n += len(encode(nil, next))
		if last := at%4 == int(key%4) || at == len(topic.facts)-1; last && n >= tokens {
			return b.String()
		}
		at = (at + 1) % len(topic.facts)
	}
}

// sentenceEnds are the last places in a text where a sentence may have ended, in order.
func sentenceEnds(text string) (ends []int) {
	for i := len(text); i > 0 && len(ends) < 4; i-- {
		if strings.IndexByte(".!?\n", text[i-1]) >= 0 {
			ends = append([]int{i}, ends...)
		}
	}
	if len(ends) == 0 {
		ends = []int{0}
	}
	return ends
}

// blank is the blank that a text ends with, if it does.
func blank(text string) string {
	if strings.HasSuffix(text, " ") {
		return " "
	}
	return ""
}

// lastFact finds the last of our sentences in a text, and what comes behind it. The topic is nil if there is none.
func lastFact(lib *library, text string) (t *topic, at int, tail string) {
	end := -1
	for i := range lib.topics {
		for j, f := range lib.topics[i].facts {
			if k := strings.LastIndex(text, f); k >= 0 && k+len(f) > end {
				t, at, end = &lib.topics[i], j, k+len(f)
			}
		}
	}
	if t == nil {
		return nil, 0, ""
	}
	return t, at, text[end:]
}

// firstFact is the sentence that answers to a text that holds none of ours.
func firstFact(key uint64, text string) (t *topic, at int) {
	w := newWriter(key, []message{{"user", text}})
	return w.topic, int(mix(key^hash(text)) % uint64(len(w.topic.facts)))
}

func hash(s string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(s))
	return h.Sum64()
}
