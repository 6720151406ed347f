package quotes

import (
	"bytes"
	"slices"
	"strings"

	"github.com/tidwall/gjson"
)

const (
	least      = 12 // bytes in common that are a quotation; shorter ones are words of the trade, such as json_schema
	gramSize   = 6  // any least bytes hold a gram that begins at a multiple of it
	gramPlaces = 8  // of one gram in a message that are looked at
)

// Finder finds what a message has in common with other texts. Its work grows with their length alone.
type Finder struct {
	msg    string
	grams  map[[gramSize]byte][]int
	maybe  [1 << 12]bool // by hash: most grams of a long text are not in the message
	quoted []bool        // by byte of msg
}

// New makes a Finder for a message of a few kilobytes at most.
func New(msg string) *Finder {
	f := &Finder{msg: msg, grams: map[[gramSize]byte][]int{}, quoted: make([]bool, len(msg))}
	for i := 0; i+gramSize <= len(msg); i++ {
		g := [gramSize]byte([]byte(msg[i : i+gramSize]))
		if at := f.grams[g]; len(at) < gramPlaces {
			f.grams[g] = append(at, i)
			f.maybe[hash(g)] = true
		}
	}
	return f
}

func hash(g [gramSize]byte) uint32 {
	h := uint32(g[0]) | uint32(g[1])<<8 | uint32(g[2])<<16 | uint32(g[3])<<24
	return (h ^ uint32(g[4])<<7 ^ uint32(g[5])<<15) * 2654435761 >> 20
}

// Look marks what the message quotes of text: every run of 12 bytes or more that is in both.
func (f *Finder) Look(text []byte) {
	if len(text) < least {
		return
	}
	for p := 0; p+gramSize <= len(text); p += gramSize {
		g := [gramSize]byte(text[p : p+gramSize])
		if !f.maybe[hash(g)] {
			continue
		}
		for _, m := range f.grams[g] {
			if f.quoted[m] && f.quoted[m+gramSize-1] {
				continue
			}
			d := p - m
			from, to := m, m+gramSize
			for from > 0 && from+d > 0 && text[from+d-1] == f.msg[from-1] {
				from--
			}
			for to < len(f.msg) && to+d < len(text) && text[to+d] == f.msg[to] {
				to++
			}
			for i := from; to-from >= least && i < to; i++ {
				f.quoted[i] = true
			}
		}
	}
}

// LookJSON marks what the message quotes of the strings in a JSON text that are values, not keys, as they are written and as
// they are meant. But but is no quotation: the name of the model.
func (f *Finder) LookJSON(b []byte, but string) {
	for i := 0; i < len(b); i++ {
		if b[i] != '"' {
			continue
		}
		from := i + 1
		for i = from; i < len(b) && b[i] != '"'; i++ {
			if b[i] == '\\' {
				i++
			}
		}
		if i >= len(b) {
			return
		}
		raw := b[from:i]
		if next := bytes.TrimLeft(b[i+1:min(i+9, len(b))], " \t\r\n"); len(next) > 0 && next[0] == ':' || len(raw) < least || string(raw) == but {
			continue
		}
		f.Look(raw)
		if bytes.IndexByte(raw, '\\') >= 0 {
			f.Look([]byte(gjson.ParseBytes(b[from-1 : i+1]).Str))
		}
	}
}

// Rest is the message with … for each quotation.
func (f *Finder) Rest() string {
	if !slices.Contains(f.quoted, true) {
		return f.msg
	}
	var b strings.Builder
	for i := range len(f.msg) {
		switch {
		case !f.quoted[i]:
			b.WriteByte(f.msg[i])
		case i == 0 || !f.quoted[i-1]:
			b.WriteString("…")
		}
	}
	return strings.ToValidUTF8(b.String(), "")
}
