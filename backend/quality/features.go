package quality

import (
	"compress/flate"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

const (
	// maxText bounds what of a long answer is rated: its first and its last half of this.
	// Refusals stand at the beginning, loops and cuts at the end.
	maxText = 64 << 10
	// maxContext is how much of the end of a prompt relevance looks at.
	maxContext = 3000
)

// features are what the raters need of an answer, taken in one pass. They are reused.
type features struct {
	text, finish string
	asked        string // the last line of the prompt that is not blank
	english      bool

	words, sentences int
	types            int // different content words
	content, onTopic int // content words, and those of them that the context has
	recalled         int // stems of the last line that the answer has
	stops, you       int
	alien            int // words of other languages
	run              int // longest run of one word

	repeated4                          float64 // share of four-word sequences that are repetitions
	duplicateLines, duplicateSentences float64
	structured                         bool // a list, code or paragraphs

	last, context hashes
	seen, grams   hashes
	pieces        hashes
	scratch       []byte
	counter       counter
	packer        *flate.Writer
}

// hashes is a set of hashed words; true marks one that was met in the answer.
type hashes map[uint64]bool

var pool = sync.Pool{New: func() any {
	f := &features{last: hashes{}, context: hashes{}, seen: hashes{}, grams: hashes{}, pieces: hashes{}}
	f.packer, _ = flate.NewWriter(&f.counter, 6) // the level is valid: no error
	return f
}}

// release gives f back for reuse. It must not be used afterwards.
func (f *features) release() {
	for _, h := range []hashes{f.last, f.context, f.seen, f.grams, f.pieces} {
		clear(h)
	}
	*f = features{last: f.last, context: f.context, seen: f.seen, grams: f.grams, pieces: f.pieces, scratch: f.scratch, packer: f.packer}
	pool.Put(f)
}

// counter counts the bytes a compressor writes.
type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// compression is how many times smaller flate makes the text.
func (f *features) compression() float64 {
	f.counter = 0
	f.packer.Reset(&f.counter)
	_, _ = f.packer.Write([]byte(f.text)) // a counter does not fail
	_ = f.packer.Close()
	return float64(len(f.text)) / float64(max(1, f.counter))
}

func (f *features) stopShare() float64 {
	if f.words == 0 {
		return 0
	}
	return float64(f.stops) / float64(f.words)
}

// extract takes the features of an answer.
func extract(a Answer) *features {
	f := pool.Get().(*features)
	a = a.trimmed()
	f.text, f.finish = a.Text, a.Finish
	f.prompt(a.Prompt)
	f.answer()
	f.pieceRepeats()
	f.english = f.isEnglish()
	return f
}

// prompt collects the content words that the answer should be about.
func (f *features) prompt(p string) {
	p = strings.TrimRightFunc(p, unicode.IsSpace)
	if len(p) > maxContext {
		p = p[len(p)-maxContext:]
	}
	f.asked = p[strings.LastIndexByte(p, '\n')+1:]
	collect := func(into hashes) func(word) {
		return func(w word) {
			if w.kind&isStop == 0 {
				into[w.stem] = false
			}
		}
	}
	f.scratch = eachWord(p, f.scratch, collect(f.context))
	f.scratch = eachWord(f.asked, f.scratch, collect(f.last))
}

// answer counts the words of the text.
func (f *features) answer() {
	var recent [3]uint64 // the words before this one
	var run, grams, repeats int
	f.scratch = eachWord(f.text, f.scratch, func(w word) {
		f.words++
		if w.kind&isStop != 0 {
			f.stops++
		} else {
			f.content++
			if !f.seen[w.id] {
				f.seen[w.id] = true
				f.types++
			}
			if _, ok := f.context[w.stem]; ok {
				f.onTopic++
			}
			if met, ok := f.last[w.stem]; ok && !met {
				f.last[w.stem] = true
				f.recalled++
			}
		}
		if w.kind&isYou != 0 {
			f.you++
		}
		if w.kind&isForeign != 0 {
			f.alien++
		}
		if f.words > 1 && recent[2] == w.id {
			run++
		} else {
			run = 1
		}
		f.run = max(f.run, run)
		if f.words >= 4 {
			grams++
			h := w.id
			for _, r := range recent {
				h = (h^r)*1099511628211 + 1
			}
			if f.grams[h] {
				repeats++
			}
			f.grams[h] = true
		}
		recent[0], recent[1], recent[2] = recent[1], recent[2], w.id
	})
	if grams > 0 {
		f.repeated4 = float64(repeats) / float64(grams)
	}
}

// leastPiece is how many words a line or sentence must have for its repetition to count: a
// closing brace or "Yes." comes twice in good answers too.
const leastPiece = 3

// pieceRepeats goes through lines and the sentences in them.
func (f *features) pieceRepeats() {
	var lines, sameLines, sentences, sameSentences, items, paragraphs int
	blank := true
	for line := range strings.Lines(f.text) {
		line = strings.TrimSpace(line)
		if line == "" {
			blank = true
			continue
		}
		if blank {
			paragraphs++
			blank = false
		}
		if isListItem(line) {
			items++
		}
		f.repeat(line, 'l', &lines, &sameLines)
		for rest := line; rest != ""; {
			end := sentenceEnd(rest)
			if f.repeat(rest[:end], 's', &sentences, &sameSentences) {
				f.sentences++
			}
			rest = rest[end:]
		}
	}
	share := func(same, all int) float64 {
		if all == 0 {
			return 0
		}
		return float64(same) / float64(all)
	}
	f.duplicateLines, f.duplicateSentences = share(sameLines, lines), share(sameSentences, sentences)
	f.structured = items >= 2 || paragraphs >= 2 || strings.Contains(f.text, fence)
}

// repeat counts a piece and whether it was there before. False if it has no word.
func (f *features) repeat(piece string, salt byte, all, same *int) bool {
	h, n := uint64(salt), 0
	f.scratch = eachWord(piece, f.scratch, func(w word) {
		h = (h ^ w.id) * 1099511628211
		n++
	})
	if n >= leastPiece {
		*all++
		if f.pieces[h] {
			*same++
		}
		f.pieces[h] = true
	}
	return n > 0
}

// sentenceEnd gives the index after the first mark that ends a sentence in s.
func sentenceEnd(s string) int {
	for i, r := range s {
		switch r {
		case '.', '!', '?', '…':
			next := i + utf8.RuneLen(r)
			if next == len(s) || s[next] == ' ' || s[next] == '\t' {
				return next
			}
		case '。', '！', '？', '।', '؟':
			return i + utf8.RuneLen(r)
		}
	}
	return len(s)
}

// isListItem says whether a line begins like an item of a list: "- ", "* ", "3. ", "b) ".
func isListItem(line string) bool {
	line = strings.TrimLeft(line, " \t")
	if r, size := utf8.DecodeRuneInString(line); strings.ContainsRune("-*•+", r) {
		return len(line) > size+1 && line[size] == ' '
	}
	line = strings.TrimPrefix(line, "(")
	n := 0
	for n < len(line) && n < 3 && (line[n] >= '0' && line[n] <= '9' || n == 0 && unicode.IsLetter(rune(line[0])) && line[0] < utf8.RuneSelf) {
		n++
	}
	return n > 0 && len(line) > n+2 && (line[n] == '.' || line[n] == ')') && line[n+1] == ' '
}

// isEnglish is false only on positive evidence: mostly letters of another script, the grammar
// words of another language, or its accents. Gibberish is English that went wrong.
func (f *features) isEnglish() bool {
	var letters, latin, accents int
	for _, r := range f.text {
		switch {
		case r < utf8.RuneSelf:
			if 'a' <= r|0x20 && r|0x20 <= 'z' {
				letters++
				latin++
			}
		case unicode.IsLetter(r):
			letters++
			if unicode.Is(unicode.Latin, r) {
				latin++
				accents++
			}
		}
	}
	if letters > 0 && float64(latin) < 0.5*float64(letters) {
		return false
	}
	if f.words < 6 {
		return true
	}
	words := float64(f.words)
	if float64(f.alien) >= 0.12*words && f.alien > f.stops {
		return false
	}
	return float64(accents) <= 0.04*float64(letters) || f.stopShare() >= 0.15
}
