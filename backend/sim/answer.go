package sim

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// writer makes up an answer. The same key and conversation give the same text, whatever else
// the server does.
type writer struct {
	lib   *library
	r     *rand.Rand
	ask   string // the last user message
	low   string // in lower case
	words []string
	again bool   // there were turns before
	q     string // what it is about, in the prompt's words
	topic *topic
	used  map[string]bool
}

// textKey mixes all that an answer's wording may depend on.
func textKey(seed int64, ms []message, vary string) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d\x00%s", seed, vary)
	for _, m := range ms {
		fmt.Fprintf(h, "\x00%s\x01%s", m.role, m.text)
	}
	return mix(h.Sum64())
}

func newWriter(key uint64, ms []message) *writer {
	w := &writer{lib: shelf(), r: rand.New(rand.NewPCG(key, 0x5eed)), used: map[string]bool{}}
	users := 0
	for _, m := range ms {
		if m.role != "assistant" && m.role != "system" {
			w.ask = m.text
			users++
		}
	}
	if w.ask == "" && len(ms) > 0 {
		w.ask = ms[len(ms)-1].text
	}
	w.again = users > 1
	// Keyword rules need no more than the beginning and end of a long prompt.
	if len(w.ask) > 4000 {
		w.ask = strings.ToValidUTF8(w.ask[:1000]+" "+w.ask[len(w.ask)-3000:], "")
	}
	w.low = strings.ToLower(w.ask)
	w.words = strings.FieldsFunc(w.low, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
	w.q = phrase(w.ask)
	w.topic = w.pickTopic()
	return w
}

func (w *writer) pickTopic() *topic {
	best, score := len(w.lib.topics)-1, 0
	for i, t := range w.lib.topics {
		n := 0
		for _, word := range w.words {
			if t.keys[word] {
				n++
			}
		}
		if n > score {
			best, score = i, n
		}
	}
	return &w.lib.topics[best]
}

var stopWords = func() map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq("a an the is are was were be do does did can could would should will shall may might must i you he she it we they me my your our their this that these those what which who whom whose when where why how to of in on at for from by with about into as and or but not no please tell give write show explain describe list name make create help compare summarize summarise discuss brief briefly short shortly detail detailed some any there between difference vs versus if so than then just more most very let us one two three four five six seven eight nine ten tips ideas things ways steps reasons way sentence sentences words word hello hi hey thanks thank know want need like define mean means code function haiku poem story email joke plan") {
		m[w] = true
	}
	return m
}()

// phrase finds what a prompt is about, in its own words: from the first word that carries
// meaning to the end of the clause, six words at most.
func phrase(s string) string {
	var run []string
	keep := 0 // words up to the last one that carries meaning
	for raw := range strings.FieldsSeq(s) {
		word := strings.TrimFunc(raw, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		empty := word == "" || utf8.RuneCountInString(word) > 24 || stopWords[strings.ToLower(word)] || word[0] >= '0' && word[0] <= '9'
		if empty && len(run) == 0 {
			continue
		}
		if word == "" || len(run) == 6 {
			break
		}
		run = append(run, word)
		if !empty {
			keep = len(run)
		}
		if strings.ContainsAny(raw[len(raw)-1:], ".?!,;:") {
			break
		}
	}
	if keep == 0 {
		return "this question"
	}
	return strings.Join(run[:keep], " ")
}

func upperFirst(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[n:]
}

func (w *writer) pick(frame string) string {
	fs := w.lib.frames[frame]
	return w.fill(fs[w.r.IntN(len(fs))])
}

func (w *writer) fill(s string) string {
	for strings.Contains(s, "{F}") {
		s = strings.Replace(s, "{F}", w.fact(), 1)
	}
	return strings.NewReplacer("{q}", w.q, "{Q}", upperFirst(w.q)).Replace(s)
}

// apt is the unused sentence on the topic that shares most words with the prompt; "" if none does.
func (w *writer) apt() string {
	best, score := "", 0
	for _, f := range w.topic.facts {
		n := 0
		low := strings.ToLower(f)
		for _, word := range w.words {
			if len(word) > 2 && !stopWords[word] && strings.Contains(low, word) {
				n++
			}
		}
		if n > score && !w.used[f] {
			best, score = f, n
		}
	}
	if best != "" {
		w.used[best] = true
	}
	return best
}

// fact gives a sentence on the topic that was not used yet, then one of another topic.
func (w *writer) fact() string { return w.fresh(func(t *topic) []string { return t.facts }) }

func (w *writer) tip() string { return w.fresh(func(t *topic) []string { return t.tips }) }

func (w *writer) fresh(of func(*topic) []string) string {
	for try := 0; ; try++ {
		t := w.topic
		if try > 8 {
			t = &w.lib.topics[w.r.IntN(len(w.lib.topics))]
		}
		fs := of(t)
		f := fs[w.r.IntN(len(fs))]
		if !w.used[f] || try > 100 {
			w.used[f] = true
			return f
		}
	}
}

func (w *writer) has(words ...string) bool {
	for _, x := range words {
		if strings.Contains(x, " ") {
			if strings.Contains(w.low, x) {
				return true
			}
			continue
		}
		if slices.Contains(w.words, x) {
			return true
		}
	}
	return false
}

var (
	sumPattern   = regexp.MustCompile(`(-?\d{1,9})\s*(\+|-|\*|x|×|/|plus|minus|times|divided by)\s*(\d{1,9})`)
	countPattern = regexp.MustCompile(`\b(\d{1,2}|two|three|four|five|six|seven|eight|nine|ten)\s+(?:\w+\s+){0,3}?(?:tips|ideas|things|ways|reasons|points|suggestions|examples|facts|steps|items|benefits|advantages|names|habits|rules|mistakes)\b`)
	versus       = regexp.MustCompile(`(?i)(?:between\s+|compare\s+)?([\w.+#-]+(?: [\w.+#-]+)?)\s+(?:and|vs\.?|versus|or|with|to)\s+([\w.+#-]+(?: [\w.+#-]+)?)`)
)

// text is the natural answer.
func (w *writer) text() string {
	if a := w.known(); a != "" {
		return a
	}
	switch {
	case w.has("haiku"):
		return w.pick("haiku")
	case w.has("joke"):
		return w.pick("joke")
	case w.has("poem", "verse"):
		return w.pick("haiku") + "\n\n" + w.pick("haiku")
	case w.has("who are you", "are you a", "your name", "which model", "what model"):
		return w.pick("who")
	case w.has("translate"):
		return w.pick("translate")
	case w.has("code", "function", "script", "snippet", "sql", "regex", "program") && w.has("write", "code", "show", "give", "implement", "create", "example", "script"):
		return w.code()
	case w.has("difference between", "compare", "vs", "versus"):
		return w.compare()
	case w.has("story", "tale"), strings.HasPrefix(w.low, "once upon"):
		return w.story()
	case w.has("email", "letter"):
		return w.pick("mail")
	case w.has("summarize", "summarise", "summary", "tl;dr"):
		return w.pick("sum")
	case w.has("step by step", "steps", "how do i", "how to", "how can i", "plan"):
		return w.numbered("steps", w.count(4))
	case countPattern.MatchString(w.low), w.has("list", "tips", "ideas", "bullet", "bullets", "suggestions"):
		return w.numbered("list", w.count(5))
	case len(w.words) <= 4 && w.has("thanks", "thank", "cheers"):
		return w.pick("thanks")
	case len(w.words) <= 4 && w.has("hello", "hi", "hey", "hallo", "morning"):
		return w.pick("greet")
	}
	return w.explain()
}

// known answers from the table of facts, and sums.
func (w *writer) known() string {
	flat := " " + strings.Join(w.words, " ") + " "
	for _, f := range w.lib.facts {
		if strings.Contains(flat, " "+f[0]+" ") {
			return f[1]
		}
	}
	m := sumPattern.FindStringSubmatch(w.low)
	if m == nil || !w.has("what", "how much", "calculate", "compute", "is", "solve") {
		return ""
	}
	a, _ := strconv.Atoi(m[1])
	b, _ := strconv.Atoi(m[3])
	var v, op string
	switch m[2] {
	case "+", "plus":
		v, op = strconv.Itoa(a+b), "+"
	case "-", "minus":
		v, op = strconv.Itoa(a-b), "-"
	case "*", "x", "×", "times":
		v, op = strconv.Itoa(a*b), "×"
	default:
		if b == 0 {
			return "A number cannot be divided by zero."
		}
		v, op = strconv.FormatFloat(float64(a)/float64(b), 'g', 6, 64), "/"
	}
	return strings.NewReplacer("{e}", fmt.Sprintf("%d %s %d", a, op, b), "{v}", v).Replace(w.pick("math-open"))
}

// count is the number of items that was asked for.
func (w *writer) count(def int) int {
	m := countPattern.FindStringSubmatch(w.low)
	if m == nil {
		return def - 1 + w.r.IntN(3)
	}
	if n, err := strconv.Atoi(m[1]); err == nil {
		return min(max(n, 1), 20)
	}
	for i, s := range strings.Fields("two three four five six seven eight nine ten") {
		if s == m[1] {
			return i + 2
		}
	}
	return def
}

// more is what follows when an answer may not end yet.
func (w *writer) more(i int) string {
	if i%4 == 0 {
		return "\n\n" + w.fact()
	}
	return " " + w.fact()
}
