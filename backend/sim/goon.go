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
		// The first sentence depends on what was said before it.
		cut := strings.LastIndexAny(begun, ".!?\n") + 1
		topic, at = firstFact(key, begun[:cut])
		if tail = begun[cut:]; !strings.HasPrefix(" "+topic.facts[at], tail) {
			topic, at = firstFact(key, begun)
			if tail = ""; strings.HasSuffix(begun, " ") {
				tail = " "
			}
		}
	} else {
		at = (at + 1) % len(topic.facts)
		if !strings.HasPrefix(" "+topic.facts[at], tail) { // somebody went on in other words
			if tail = ""; strings.HasSuffix(begun, " ") {
				tail = " "
			}
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
