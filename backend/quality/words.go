package quality

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// stopWords are the English words that carry grammar rather than content.
var stopWords = set(`a about above after again all also am an and any are as at be because been
before being below between both but by can could did do does doing down during each few for from
further had has have having he her here hers him his how i if in into is it its just me more most
my no nor not now of off on once only or other our out over own same she should so some such than
that the their them then there these they this those through to too under until up us very was we
were what when where which while who whom why will with would you your yours may might must shall
let like ll re ve don isn doesn`)

// secondPerson are the words an answer speaks to its reader with.
var secondPerson = set(`you your yours yourself yourselves`)

// foreign are frequent grammar words of other languages that are no English words. They say
// that a text is in such a language, where a lack of English ones could also be gibberish.
var foreign = set(`el los las una del por para que con como pero más esta este son su también cuando muy sobre
le les des est une dans qui sur pas vous nous avec pour sont cette aux mais être ce il elle
der die das und ist nicht ein eine mit auf für von dem den sich auch werden wird sind zu im bei
il che di della sono con per non una gli alla anche più questo nel
o os um uma não com para são mais também pelo ao
het een van niet zijn voor maar ook wordt deze naar aan op dat
och att det som är inte på av till med för ett jag ikke og det er på
nie jest się że jak dla oraz przez czy
ve bir bu için ile olarak daha çok
yang dan untuk dengan tidak ini itu dari adalah pada dalam
je na se že pro jako jsou
și este pentru care cu sunt din`)

func set(words string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		m[w] = true
	}
	return m
}

// kinds of word, looked up once per word.
const (
	isStop = 1 << iota
	isYou
	isForeign
)

// kinds joins the lists, so that a word costs one lookup.
var kinds = func() map[string]uint8 {
	m := map[string]uint8{}
	for w := range stopWords {
		m[w] |= isStop
	}
	for w := range secondPerson {
		m[w] |= isYou
	}
	for w := range foreign {
		if !stopWords[w] {
			m[w] |= isForeign
		}
	}
	return m
}()

// word is one run of letters and digits, lower-case.
type word struct {
	id   uint64 // hash of the word
	stem uint64 // hash of its light stem
	kind uint8
}

// eachWord calls do for each run of letters and digits. Scripts that put no spaces between
// words, such as Chinese, give one word per character.
func eachWord(s string, scratch []byte, do func(word)) []byte {
	b := scratch[:0]
	flush := func() {
		if len(b) > 0 {
			do(word{id: hash(b), stem: hash(stem(b)), kind: kinds[string(b)]})
			b = b[:0]
		}
	}
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			i++
			switch {
			case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
				b = append(b, c)
			case 'A' <= c && c <= 'Z':
				b = append(b, c+'a'-'A')
			default:
				flush()
			}
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		i += size
		switch {
		case unspaced(r):
			flush()
			b = utf8.AppendRune(b, r)
			flush()
		case unicode.IsLetter(r) || unicode.IsDigit(r) || unicode.IsMark(r):
			b = utf8.AppendRune(b, unicode.ToLower(r))
		default:
			flush()
		}
	}
	flush()
	return b
}

// unspaced says whether r belongs to a script written without spaces between words.
func unspaced(r rune) bool {
	return r >= 0x0e00 && unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar)
}

// stem cuts the commonest English endings, so that "cats" answers a question about a cat.
func stem(w []byte) []byte {
	n := len(w)
	cut := func(suffix string, left int) bool {
		return n >= len(suffix)+left && string(w[n-len(suffix):]) == suffix
	}
	switch {
	case cut("ies", 3):
		return w[:n-2]
	case cut("ing", 4), cut("ers", 4):
		return w[:n-3]
	case cut("ed", 4), cut("es", 4), cut("ly", 4), cut("er", 4):
		return w[:n-2]
	case cut("s", 3) && !cut("ss", 1), cut("e", 4):
		return w[:n-1]
	}
	return w
}

// hash is FNV-1a.
func hash(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}
