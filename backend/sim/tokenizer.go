package sim

import (
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// A deterministic tokenizer of word pieces. Its vocabulary is the words and letter groups of
// the text material, so that English comes to about 1.3 tokens a word; any other rune is one
// token, any byte that is not UTF-8 another. The longest piece that fits is taken, which makes
// the tokens of a text's rest the rest of its tokens, wherever it is cut between two.
const (
	tokEOS   = 0 // <|endoftext|>
	tokStart = 1 // <|im_start|>
	tokEnd   = 2 // <|im_end|>

	byteBase = 3       // + the byte
	runeBase = 1 << 20 // + the rune
	maxPiece = 16      // bytes
)

type vocabulary struct {
	ids    map[string]int32
	pieces []string // [i] has the id i+byteBase
}

// vocab is built at first use and not changed after.
var vocab = sync.OnceValue(func() *vocabulary {
	seen := map[string]bool{}
	add := func(s string) {
		if len(s) > 1 && len(s) <= maxPiece {
			seen[s] = true
		}
	}
	all := topicsText + framesText + factsText + codeText + commonWords
	for _, w := range strings.FieldsFunc(all, func(r rune) bool { return !isLetter(r) }) {
		// Rare long words stay in pieces, as in a real vocabulary.
		if len(w) <= 10 {
			add(w)
			add(" " + w)
		}
		l := strings.ToLower(w)
		for n := 2; n <= 3; n++ {
			for i := 0; i+n <= len(l); i++ {
				add(l[i : i+n])
				if i == 0 {
					add(" " + l[:n])
				}
			}
		}
	}
	for _, s := range []string{"\n\n", "  ", "    ", "        ", "```", "...", "**", "->", "==", "://", ". ", "user", "assistant", "system"} {
		add(s)
	}
	v := &vocabulary{ids: map[string]int32{}}
	for b := range 256 {
		v.pieces = append(v.pieces, string([]byte{byte(b)}))
	}
	sorted := make([]string, 0, len(seen))
	for s := range seen {
		sorted = append(sorted, s)
	}
	slices.Sort(sorted)
	v.pieces = append(v.pieces, sorted...)
	for i, s := range v.pieces {
		v.ids[s] = int32(i + byteBase)
	}
	return v
})

const commonWords = ` I a an and are as at be but by can could did do does for from had has have he her here him his how i if in is it its just like may me more most must my no not of on one only or other our out over she should so some such than that the their them then there these they this those to two up us was we were what when where which while who why will with would you your hello please tell give write show explain describe list best way make need want help think know good great new first last long little own right big high different small large next early important few public same able `

func isLetter(r rune) bool { return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' }

// encode appends the tokens of s to dst.
func encode(dst []int32, s string) []int32 {
	v := vocab()
next:
	for len(s) > 0 {
		for n := min(maxPiece, len(s)); n > 1; n-- {
			if id, ok := v.ids[s[:n]]; ok {
				dst = append(dst, id)
				s = s[n:]
				continue next
			}
		}
		if s[0] < utf8.RuneSelf {
			dst = append(dst, byteBase+int32(s[0]))
			s = s[1:]
			continue
		}
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			dst = append(dst, byteBase+int32(s[0]))
		} else {
			dst = append(dst, runeBase+r)
		}
		s = s[n:]
	}
	return dst
}

// piece is the text of a token; special tokens have none.
func piece(id int32) string {
	v := vocab()
	switch {
	case id >= runeBase && id <= runeBase+utf8.MaxRune:
		return string(id - runeBase)
	case id >= byteBase && int(id-byteBase) < len(v.pieces):
		return v.pieces[id-byteBase]
	}
	return ""
}

// decode gives the text of tokens.
func decode(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(piece(id))
	}
	return b.String()
}

// message is one turn of a conversation, with its parts joined.
type message struct{ role, text string }

// template lays a conversation out as the ChatML template does. prompt asks for the header of
// an answer; open leaves the last message unfinished, to be continued.
func template(ms []message, prompt, open bool) []int32 {
	var ids []int32
	for i, m := range ms {
		ids = append(ids, tokStart)
		ids = encode(ids, m.role+"\n")
		ids = encode(ids, m.text)
		if open && i == len(ms)-1 {
			return ids
		}
		ids = append(ids, tokEnd)
		ids = encode(ids, "\n")
	}
	if prompt {
		ids = append(ids, tokStart)
		ids = encode(ids, "assistant\n")
	}
	return ids
}
