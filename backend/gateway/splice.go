package gateway

import (
	"cmp"
	"slices"
)

// edit replaces b[from:to] by text.
type edit struct {
	from, to int
	text     string
}

// splice appends b to dst with the edits made, which are in order and do not overlap. Every byte
// that no edit names stays as it is: a body is never encoded again.
func splice(dst, b []byte, edits []edit) []byte {
	at := 0
	for _, e := range edits {
		dst = append(dst, b[at:e.from]...)
		dst = append(dst, e.text...)
		at = e.to
	}
	return append(dst, b[at:]...)
}

// pieces is splice without copying b.
func pieces(b []byte, edits []edit) [][]byte {
	var out [][]byte
	at := 0
	for _, e := range edits {
		out = append(out, b[at:e.from], []byte(e.text))
		at = e.to
	}
	return append(out, b[at:])
}

// without appends the edits that remove members of one object, which are in order, each together with one of its
// commas: the one before it where a member is left there, else the one after it.
func without(dst []edit, gone []member) []edit {
	lead := -1 // where the members that the object begins with are removed, the comma after them
	for _, m := range gone {
		if m.before != lead {
			dst = append(dst, edit{from: m.before, to: m.end})
			continue
		}
		lead = m.after
		dst = append(dst, edit{from: m.start, to: max(m.end, m.after+1)})
	}
	return dst
}

// sortEdits puts edits in order, an insertion before a removal at the same place.
func sortEdits(edits []edit) {
	slices.SortFunc(edits, func(a, b edit) int { return cmp.Or(a.from-b.from, a.to-b.to) })
}

// addMember inserts text, which is `"key":value`, before the closing brace of the JSON object that
// b ends with. False if b does not end with one.
func addMember(b []byte, text []byte) ([]byte, bool) {
	end := len(b)
	for end > 0 && isSpace(b[end-1]) {
		end--
	}
	if end == 0 || b[end-1] != '}' {
		return b, false
	}
	end--
	last := end
	for last > 0 && isSpace(b[last-1]) {
		last--
	}
	if last == 0 {
		return b, false
	}
	if b[last-1] == '{' {
		return slices.Insert(b, end, text...), true
	}
	tail := len(b) - end
	b = append(append(append(b, ','), text...), b[end:]...)
	copy(b[end:], b[end+tail:])
	return b[:len(b)-tail], true
}

func isSpace(c byte) bool { return c == ' ' || c == '\n' || c == '\t' || c == '\r' }
