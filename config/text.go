package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// read turns text into the one mapping it must be, or reports why it cannot.
func (r *report) read(text []byte) *ast.MappingNode {
	text, ok := r.clean(text)
	if !ok {
		return nil
	}
	file, err := parse(text)
	if err != nil {
		at, msg := syntax(err)
		r.problemAt(at, "", syntaxHint(r.lines, at, msg), "not valid YAML: %s", msg)
		return nil
	}
	var root ast.Node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if root != nil {
			r.problemAt(placeOf(doc.Body), "", `remove the "---" line: a config is one document`, "a second YAML document")
			return nil
		}
		root = doc.Body
	}
	switch n := root.(type) {
	case nil:
		r.problemAt(place{}, "", `"vllmdeck init" writes one that fits this machine`, "the config is empty")
	case *ast.NullNode:
		r.problemAt(place{}, "", `"vllmdeck init" writes one that fits this machine`, "the config is empty")
	case *ast.MappingNode:
		return n
	case *ast.MappingValueNode:
		return &ast.MappingNode{BaseNode: n.BaseNode, Start: n.Start, Values: []*ast.MappingValueNode{n}}
	default:
		r.problemAt(placeOf(root), "", `start with a key, e.g. "workers:"; a key is followed by a colon and a space`,
			"want keys with values, got %s", kindOf(root))
	}
	return nil
}

// clean makes text safe for the YAML reader and splits it into lines for excerpts.
func (r *report) clean(text []byte) ([]byte, bool) {
	if len(text) > maxText {
		r.problemAt(place{}, "", "is this the right file?", "a config is at most %d KiB long", maxText>>10)
		return nil, false
	}
	if bytes.HasPrefix(text, []byte{0xff, 0xfe}) || bytes.HasPrefix(text, []byte{0xfe, 0xff}) {
		r.problemAt(place{line: 1, col: 1}, "", "save the file as UTF-8", "the text is UTF-16")
		return nil, false
	}
	text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")) // what Windows editors put first
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	r.lines = strings.Split(strings.ToValidUTF8(string(text), "\uFFFD"), "\n")
	line, col := 1, 1
	for i := 0; i < len(text); {
		c, size := utf8.DecodeRune(text[i:])
		switch {
		case c == '\n':
			line, col = line+1, 0
		case c == utf8.RuneError && size == 1:
			r.problemAt(place{line, col}, "", "save the file as UTF-8", "not UTF-8 text")
			return nil, false
		case c != '\t' && (unicode.IsControl(c) || c == '\u2028' || c == '\u2029' || unicode.Is(unicode.Bidi_Control, c)):
			r.problemAt(place{line, col}, "", "delete it", "a control character (%U)", c)
			return nil, false
		}
		i += size
		col++
	}
	return text, true
}

// maxDepth is how deep a config may nest; ours needs six levels. The YAML reader recurses, and
// its time grows with the square of the depth.
const maxDepth = 50

// parse is the YAML reader behind a guard: it recurses without a limit of its own.
func parse(text []byte) (f *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			f, err = nil, fmt.Errorf("the YAML reader gave up: %v", p)
		}
	}()
	tokens := lexer.Tokenize(string(text))
	if err := shallow(tokens); err != nil {
		return nil, err
	}
	return parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
}

// deepError is text that nests too deep.
type deepError struct{ tok *token.Token }

func (e *deepError) Error() string          { return e.GetMessage() }
func (e *deepError) GetMessage() string     { return fmt.Sprintf("nested more than %d deep", maxDepth) }
func (e *deepError) GetToken() *token.Token { return e.tok }

// shallow counts open brackets, and marks that nest within one line. Nesting by indentation
// needs no limit of its own: each level costs a line that is longer than the last, so maxText
// allows some 700.
func shallow(tokens token.Tokens) error {
	open, line, marks := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, marks = t.Position.Line, 0
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			open++
		case token.SequenceEndType, token.MappingEndType:
			// More ends than starts are as bad: each is an error that the reader walks back for.
			open--
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType, token.AliasType,
			token.DirectiveType, token.SingleQuoteType, token.DoubleQuoteType:
			if open <= 0 {
				marks++
			}
		}
		if open > maxDepth || open < -maxDepth || marks > maxDepth {
			return &deepError{t}
		}
	}
	return nil
}

// syntax takes the YAML reader's error apart.
func syntax(err error) (place, string) {
	var e interface {
		GetMessage() string
		GetToken() *token.Token
	}
	if !errors.As(err, &e) {
		return place{}, err.Error()
	}
	msg := e.GetMessage()
	if e.GetToken() == nil || e.GetToken().Position == nil {
		return place{}, msg
	}
	p := e.GetToken().Position
	return place{max(p.Line, 1), max(p.Column, 1)}, msg
}

// syntaxHint gives the way out of what people do wrong most.
func syntaxHint(lines []string, at place, msg string) string {
	line := ""
	if at.line >= 1 && at.line <= len(lines) {
		line = lines[at.line-1]
	}
	indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
	switch {
	case strings.Contains(indent, "\t"):
		return "indent with spaces: YAML takes no tabs"
	case strings.Contains(msg, "mapping value is not allowed"):
		return `put a value that holds ": " between quotes, and indent keys of one group alike`
	case strings.Contains(msg, "end character of"):
		return "close the quote"
	case strings.Contains(msg, "not found") && strings.Contains(msg, "end token"):
		return "close the bracket"
	}
	return "look at the indentation of this line and the one before"
}

// placeOf gives where a value begins. Tokens of block text and of values that are not there
// have no useful column, so what comes before them is taken.
func placeOf(n ast.Node) place {
	var t *token.Token
	switch n := n.(type) {
	case nil:
		return place{}
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return placeOf(n.Values[0].Key)
		}
		t = n.Start
	case *ast.MappingValueNode:
		return placeOf(n.Key)
	default:
		t = n.GetToken()
	}
	if t == nil || t.Position == nil {
		return place{}
	}
	return place{max(t.Position.Line, 1), max(t.Position.Column, 1)}
}

// kindOf says in words what a value is.
func kindOf(n ast.Node) string {
	switch n.(type) {
	case nil, *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "keys with values"
	case *ast.SequenceNode:
		return "a list"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	}
	return "something else"
}
