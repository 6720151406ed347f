package gateway

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

// maxDepth bounds the nesting of a request's JSON. Python's own parser gives up near 1,000; what
// people send stays under 40.
const maxDepth = 256

// syntaxError says where a body is not JSON.
type syntaxError struct {
	at  int
	msg string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.msg, e.at) }

// member is where one member of the top-level object stands. start is its key's first quote,
// value the first byte of its value, end the byte after that; before and after are the commas
// around it, -1 where there is none.
type member struct{ start, value, end, before, after int }

func (m member) raw(b []byte) []byte { return b[m.value:m.end] }

// scanner checks JSON in one pass. It does not recurse: the depth of foreign text must not
// become the depth of our stack.
type scanner struct {
	b []byte
	i int
}

// members checks that b is one JSON object and calls visit for each member of it in order, with
// the key as it is written, without quotes. An error of visit ends the scan.
func members(b []byte, visit func(key []byte, m member) error) error {
	s := scanner{b: b}
	s.space()
	if s.peek() != '{' {
		return s.want("'{'")
	}
	s.i++
	s.space()
	if s.peek() == '}' {
		s.i++
		return s.rest()
	}
	before := -1
	for {
		s.space()
		m := member{start: s.i, before: before, after: -1}
		if err := s.str(); err != nil {
			return err
		}
		key := b[m.start+1 : s.i-1]
		s.space()
		if s.peek() != ':' {
			return s.want("':'")
		}
		s.i++
		s.space()
		m.value = s.i
		if err := s.any(); err != nil {
			return err
		}
		m.end = s.i
		s.space()
		switch s.peek() {
		case ',':
			m.after, before = s.i, s.i
		case '}':
		default:
			return s.want("',' or '}'")
		}
		s.i++
		if err := visit(key, m); err != nil {
			return err
		}
		if m.after < 0 {
			return s.rest()
		}
	}
}

// rest checks that only white space follows.
func (s *scanner) rest() error {
	s.space()
	if s.i < len(s.b) {
		return s.want("the end")
	}
	return nil
}

// any passes one value of any kind.
func (s *scanner) any() error {
	var stack [maxDepth / 64]uint64 // a set bit is an object, a clear one an array
	depth := 0
	for {
		s.space()
		open := false
		switch c := s.peek(); c {
		case '{', '[':
			if depth == maxDepth {
				return &syntaxError{s.i, fmt.Sprintf("nested deeper than %d", maxDepth)}
			}
			s.i++
			s.space()
			if s.peek() == c+2 { // '}' is '{'+2, ']' is '['+2
				s.i++
				break
			}
			if c == '{' {
				stack[depth/64] |= 1 << (depth % 64)
				if err := s.key(); err != nil {
					return err
				}
			} else {
				stack[depth/64] &^= 1 << (depth % 64)
			}
			depth++
			open = true
		case '"':
			if err := s.str(); err != nil {
				return err
			}
		case 't':
			if err := s.word("true"); err != nil {
				return err
			}
		case 'f':
			if err := s.word("false"); err != nil {
				return err
			}
		case 'n':
			if err := s.word("null"); err != nil {
				return err
			}
		default:
			if err := s.number(); err != nil {
				return err
			}
		}
		for !open {
			if depth == 0 {
				return nil
			}
			object := stack[(depth-1)/64]&(1<<((depth-1)%64)) != 0
			s.space()
			switch c := s.peek(); {
			case c == ',':
				s.i++
				if object {
					s.space()
					if err := s.key(); err != nil {
						return err
					}
				}
				open = true
			case c == '}' && object, c == ']' && !object:
				s.i++
				depth--
			case object:
				return s.want("',' or '}'")
			default:
				return s.want("',' or ']'")
			}
		}
	}
}

func (s *scanner) key() error {
	if err := s.str(); err != nil {
		return err
	}
	s.space()
	if s.peek() != ':' {
		return s.want("':'")
	}
	s.i++
	return nil
}

func (s *scanner) str() error {
	if s.peek() != '"' {
		return s.want("'\"'")
	}
	b, i := s.b, s.i+1
	for i < len(b) {
		if i = ordinary(b, i); i == len(b) {
			break
		}
		switch c := b[i]; {
		case c == '"':
			s.i = i + 1
			return nil
		case c == '\\':
			n := 2
			if i+1 < len(b) {
				switch b[i+1] {
				case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				case 'u':
					n = 6
					for k := i + 2; k < i+6; k++ {
						if k >= len(b) || !isHex(b[k]) {
							return &syntaxError{i, "bad \\u escape"}
						}
					}
				default:
					return &syntaxError{i, "bad escape"}
				}
			}
			i += n
		case c < ' ':
			return &syntaxError{i, "bare control character in a string"}
		default:
			i++
		}
	}
	return &syntaxError{len(b), "unexpected end: a string is open"}
}

// ordinary gives the place, from i on, of the first byte that is not plain text of a string: a quote, a backslash or a
// control character; else one of the last seven bytes, or the end. It looks at eight bytes at once: prompts
// are most of what is scanned.
func ordinary(b []byte, i int) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	for ; i+8 <= len(b); i += 8 {
		v := binary.LittleEndian.Uint64(b[i:])
		quote, back := v^ones*'"', v^ones*'\\'
		// The lowest bit that is set marks the first byte that is 0 in quote or back, or less than ' ' in v; those
		// above it may be wrong by its borrow.
		if found := ((quote-ones)&^quote | (back-ones)&^back | (v-ones*' ')&^v) & tops; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	return i
}

func (s *scanner) number() error {
	start := s.i
	if s.peek() == '-' {
		s.i++
	}
	switch c := s.peek(); {
	case c == '0':
		s.i++
	case c >= '1' && c <= '9':
		s.digits()
	default:
		s.i = start
		return s.want("a value")
	}
	if s.peek() == '.' {
		s.i++
		if !s.digits() {
			return s.want("a digit")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if c := s.peek(); c == '+' || c == '-' {
			s.i++
		}
		if !s.digits() {
			return s.want("a digit")
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	start := s.i
	for c := s.peek(); c >= '0' && c <= '9'; c = s.peek() {
		s.i++
	}
	return s.i > start
}

func (s *scanner) word(w string) error {
	if !bytes.HasPrefix(s.b[s.i:], []byte(w)) {
		return s.want("a value")
	}
	s.i += len(w)
	return nil
}

// peek gives the next byte, 0 at the end.
func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\n', '\t', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) want(what string) error {
	if s.i >= len(s.b) {
		return &syntaxError{s.i, "unexpected end: want " + what}
	}
	return &syntaxError{s.i, fmt.Sprintf("unexpected %q: want %s", s.b[s.i], what)}
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}
