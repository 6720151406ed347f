package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
)

// pySyntax finds the first syntax error and names it as Python's json module does. The places
// agree with Python's for the common errors: cut bodies, missing quotes and commas.
func pySyntax(data []byte) (at int, msg string, ok bool) {
	if json.Valid(data) {
		return 0, "", true
	}
	var v any
	err := json.Unmarshal(data, &v)
	syn, ok := errors.AsType[*json.SyntaxError](err)
	if !ok {
		return 0, "Expecting value", false
	}
	at = int(syn.Offset) - 1
	text := syn.Error()
	trimmed := bytes.TrimRight(data, " \t\r\n")
	last := byte(0)
	if len(trimmed) > 0 {
		last = trimmed[len(trimmed)-1]
	}
	has := func(s string) bool { return strings.Contains(text, s) }
	switch {
	case has("unexpected end"):
		inObject, str := scanOpen(data)
		switch {
		case str >= 0:
			return str, "Unterminated string starting at", false
		case inObject && (last == ',' || last == '{'):
			return len(data), "Expecting property name enclosed in double quotes", false
		case last == ':' || last == '[' || last == ',':
			return len(data), "Expecting value", false
		}
		return len(data), "Expecting ',' delimiter", false
	case has("after top-level value"):
		return at, "Extra data", false
	case has("beginning of object key"):
		return at, "Expecting property name enclosed in double quotes", false
	case has("after object key:value pair"), has("after array element"):
		return at, "Expecting ',' delimiter", false
	case has("after object key"):
		return at, "Expecting ':' delimiter", false
	case has("in literal"):
		for at > 0 && isLetter(rune(data[at-1])) {
			at--
		}
		return at, "Expecting value", false
	case has("in string literal"):
		return at, "Invalid control character at", false
	}
	return max(0, at), "Expecting value", false
}

// scanOpen says, at the end of a cut body, whether the innermost bracket is an object's and
// where an unfinished string began (-1: none).
func scanOpen(data []byte) (inObject bool, str int) {
	var stack []byte
	str = -1
	for i := 0; i < len(data); i++ {
		c := data[i]
		if str >= 0 {
			switch c {
			case '\\':
				i++
			case '"':
				str = -1
			}
			continue
		}
		switch c {
		case '"':
			str = i
		case '{', '[':
			stack = append(stack, c)
		case '}', ']':
			if len(stack) > 0 {
				stack = stack[:len(stack)-1]
			}
		}
	}
	return len(stack) > 0 && stack[len(stack)-1] == '{', str
}
