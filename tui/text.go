package tui

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
)

// Text is a string that is safe to show: no byte of it can steer a terminal, and every terminal
// that knows Unicode widths at all gives it the same width. Drawing takes nothing else, so what
// comes from outside (model output, log lines, names, errors) must pass Sanitize to be seen.
// Constants of ours become Text by themselves; a test forbids any other conversion.
type Text string

const (
	maxMarks = 4       // combining marks on one cell; more is an attack on the line height
	maxLine  = 8 << 10 // bytes of one line; what is longer ends in a mark
	cutMark  = "…[cut]"
)

// Sanitize makes foreign text safe to show. Newlines stay, a tab becomes spaces, and whatever
// could steer the terminal or deceive the reader (control characters, C1, bidi controls, tags,
// broken UTF-8) is replaced by a visible symbol, never dropped: a dropped escape would hide that
// one was there. At most 4 combining marks stay on a cell and 8 KiB on a line. A cluster whose
// width terminals disagree about is taken apart or replaced, because it would shift the line.
func Sanitize(s string) Text {
	if plain(s) {
		return Text(s)
	}
	s = strings.ToValidUTF8(s, "�") // first: a broken sequence would swallow the newline after it
	var b strings.Builder
	b.Grow(len(s) + 16)
	line := 0     // bytes of the current line
	cut := false  // the current line is over its limit
	marks := 0    // combining marks since the last base
	base := false // the current line has something a mark can sit on
	put := func(t string) {
		if cut {
			return
		}
		if line+len(t) > maxLine {
			b.WriteString(cutMark)
			cut = true
			return
		}
		b.WriteString(t)
		line += len(t)
	}
	for len(s) > 0 {
		c := s[0]
		if c == '\n' {
			b.WriteByte('\n')
			s, line, cut, marks, base = s[1:], 0, false, 0, false
			continue
		}
		if c >= 0x20 && c < 0x7f && (len(s) == 1 || s[1] < 0x80) {
			put(s[:1])
			s, marks, base = s[1:], 0, true
			continue
		}
		if c < 0x20 || c == 0x7f { // before clusters: CR LF is one
			put(symbol(rune(c)))
			s, marks, base = s[1:], 0, true
			continue
		}
		cluster, _ := ansi.FirstGraphemeCluster(s, ansi.GraphemeWidth)
		if cluster == "" {
			_, n := utf8.DecodeRuneInString(s)
			cluster = s[:n]
		}
		s = s[len(cluster):]
		t, capped := cleanCluster(cluster, marks, base)
		marks, base = capped, true
		put(t)
	}
	return Text(agree(b.String()))
}

// plain says that s needs no change: printable ASCII and newlines, no line too long. It is what
// nearly all text is, and costs one pass and no memory.
func plain(s string) bool {
	last := -1
	for i := range len(s) {
		switch c := s[i]; {
		case c == '\n':
			last = i
		case c < 0x20 || c >= 0x7f:
			return false
		case i-last > maxLine:
			return false
		}
	}
	return true
}

// cleanCluster makes one grapheme cluster safe. marks is how many combining marks precede it on
// the same cell, base whether there is a cell for them; it gives the marks on the cell after it.
func cleanCluster(cluster string, marks int, base bool) (string, int) {
	clean := make([]byte, 0, len(cluster)+8)
	changed := false
	for _, r := range cluster {
		if joins(r) { // what only joins or varies what stands before it
			changed = true
			continue
		}
		if sym := symbol(r); sym != "" {
			clean, changed, marks = append(clean, sym...), true, 0
			continue
		}
		if unicode.In(r, unicode.Mn, unicode.Me) {
			if len(clean) == 0 && !base {
				clean = append(clean, "◌"...) // a mark needs something to sit on
				changed = true
			}
			if marks++; marks > maxMarks {
				changed = true
				continue
			}
			clean = utf8.AppendRune(clean, r)
			continue
		}
		marks = 0
		clean = utf8.AppendRune(clean, r)
	}
	if !changed {
		return cluster, marks
	}
	return string(clean), marks
}

// agree makes terminals that count by grapheme clusters and those that count by code points give a
// text the same width: what they differ about would shift the rest of the line on one of them.
func agree(s string) string {
	for range 3 {
		if ansi.StringWidth(s) == ansi.StringWidthWc(s) && stable(s) {
			return s
		}
		var b strings.Builder
		for rest := s; rest != ""; {
			cluster, w := ansi.FirstGraphemeCluster(rest, ansi.GraphemeWidth)
			if cluster == "" {
				break
			}
			rest = rest[len(cluster):]
			if w != ansi.StringWidthWc(cluster) {
				cluster = apart(cluster)
			}
			b.WriteString(cluster)
		}
		s = b.String()
	}
	return strings.Map(func(r rune) rune {
		if r >= 0x80 {
			return 0xfffd
		}
		return r
	}, s)
}

// stable says that every cluster of s has one width, so that no two errors cancel out.
func stable(s string) bool {
	for s != "" {
		cluster, w := ansi.FirstGraphemeCluster(s, ansi.GraphemeWidth)
		if cluster == "" || w != ansi.StringWidthWc(cluster) {
			return cluster == ""
		}
		s = s[len(cluster):]
	}
	return true
}

// apart keeps the first character of a cluster that terminals measure differently and replaces
// each other one.
func apart(cluster string) string {
	var b strings.Builder
	for i, r := range cluster {
		one := string(r)
		if i > 0 || ansi.StringWidth(one) != ansi.StringWidthWc(one) {
			one = "�"
		}
		b.WriteString(one)
	}
	return b.String()
}

// joins says that a rune has no shape of its own and changes its neighbours' width: the joiners,
// the variation selectors and the skin tones.
func joins(r rune) bool {
	return r == 0x200d || r == 0x200c || r >= 0xfe00 && r <= 0xfe0f || r >= 0xe0100 && r <= 0xe01ef || r >= 0x1f3fb && r <= 0x1f3ff
}

// symbol gives what stands for a rune that must not reach the terminal, "" for all others.
func symbol(r rune) string {
	switch {
	case r == '\t':
		return "    "
	case r < 0x20:
		return string(rune(0x2400) + r) // ␀ … ␟, ␛ for ESC
	case r == 0x7f:
		return "␡"
	case r >= 0x80 && r <= 0x9f, // C1: CSI, OSC and DCS as one character
		r == 0x2028, r == 0x2029, // line and paragraph separator
		r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c, // bidi
		r >= 0xe0000 && r <= 0xe007f, // tags
		r >= 0xfff9 && r <= 0xfffb,   // interlinear annotation
		r == 0xfeff, r == 0x200b, r == 0x2060, r >= 0x2061 && r <= 0x2065, r >= 0x206a && r <= 0x206f,
		r == 0x00ad, r == 0x180e, r == 0x115f, r == 0x1160, r == 0x3164, r == 0xffa0,
		r >= 0xe000 && r <= 0xf8ff, r >= 0xf0000,
		unicode.In(r, unicode.Cf, unicode.Cs):
		return "�"
	}
	return ""
}

// oneLine puts text on one line: a newline becomes a space.
func oneLine(t Text) Text {
	if strings.IndexByte(string(t), '\n') < 0 {
		return t
	}
	return Text(strings.ReplaceAll(string(t), "\n", " "))
}

// clean is Sanitize on one line: for names, errors and the like.
func clean(s string) Text { return oneLine(Sanitize(s)) }

// width is how many cells a text takes.
func (t Text) width() int {
	for i := 0; i < len(t); {
		c := t[i]
		if c < 0x80 {
			i++
			continue
		}
		// Our own line drawing, blocks, arrows and braille: three bytes, one cell, no marks.
		if c == 0xe2 && i+2 < len(t) && narrow(t[i+1]) {
			i += 3
			continue
		}
		return ansi.StringWidth(string(t))
	}
	n := 0
	for i := range len(t) {
		if t[i]&0xc0 != 0x80 {
			n++
		}
	}
	return n
}

// narrow says that the second byte of a three-byte rune that begins with 0xe2 is one of the blocks
// that are one cell wide throughout: U+2500-257F lines, U+2580-259F blocks, U+2800-28FF braille.
func narrow(second byte) bool {
	return second == 0x94 || second == 0x95 || second == 0x96 || second >= 0xa0 && second <= 0xa3
}

// cut shortens a text to n cells, the last one being an ellipsis where something was left off. A
// wide character is never halved.
func (t Text) cut(n int) Text {
	if n <= 0 {
		return ""
	}
	if len(t) <= n || t.width() <= n {
		return t
	}
	if ascii(string(t)) {
		return t[:n-1] + "…"
	}
	return Text(ansi.Truncate(string(t), n, "…"))
}

// wrap breaks a text into lines of at most n cells, at spaces where it can.
func (t Text) wrap(n int) []Text {
	if n <= 0 {
		return nil
	}
	var out []Text
	for l := range strings.SplitSeq(string(t), "\n") {
		if len(l) <= n {
			out = append(out, Text(l))
			continue
		}
		for part := range strings.SplitSeq(ansi.Wrap(l, n, ""), "\n") {
			out = append(out, Text(part))
		}
	}
	return out
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}
