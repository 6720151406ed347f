package tui

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/vt"
)

// hostile is text that has steered or deceived terminals.
var hostile = []string{
	"\x1b]0;owned\x07", "\x1b]2;title\x1b\\", "\x1b]52;c;ZXZpbA==\x07", "\x1b]8;;http://evil\x1b\\click\x1b]8;;\x1b\\", "\x1b_Gf=100;AAAA\x1b\\",
	"\x1bP$q q\x1b\\", "\x1bPq#0;2;0;0;0#0~~@@\x1b\\", "\x1bX sos \x1b\\", "\x1b^pm\x1b\\", "\x1b[c", "\x1b[6n", "\x1b[5n", "\x1b[?1049h", "\x1b[2J\x1b[H", "\x1b[31mred\x1b[0m",
	"\x1b[8mconcealed\x1b[28m", "\x1b[5mblink", "\x1b[1;1Hmoved", "\x1b[10A up", "\x1b[999D", "\x1b[?25l", "\x1b[?2004h", "\x1b[>4;2m", "\x1b[20h", "\x1bc", "\x1b#8", "\x1b(0lqk", "\x1bD\x1bM\x1bE",
	"\x1b]unterminated", "\x1bPunterminated", "\x1b_unterminated", "\x1b[", "\x1b", "\x1b[38;2;1;2;3", "over\rwrite", "back\b\b\bspace", "bell\a", "nul\x00byte", "vt\vff\f", "so\x0esi\x0f", "del\x7fete", "can\x18sub\x1a",
	"\u009b31mC1 CSI", "\u009d0;C1 OSC\u009c", "\u0090C1 DCS\u009c", "\u009fC1 APC\u009c", "\u0085nel", "\u008d", "\u202egnirts\u202c", "a\u2066b\u2069c", "\u200e\u200f\u061c", "\u2028line\u2029para",
	"zero\u200bwidth\u2060joiner\ufeff", "soft\u00adhyphen", "tag\U000e0001\U000e0041\U000e007f", "z" + strings.Repeat("\u0301", 200), strings.Repeat("\u0300", 40), "\xff\xfe\x80broken", "\xc3", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82",
	"👨\u200d👩\u200d👧\u200d👦 family", "🇩🇪🇯🇵🇩", "👍🏽 skin", "❤\ufe0f heart", "☎\ufe0e", "1\ufe0f\u20e3 keycap", "स्ते नमस्ते", "한글 ᄒ", "日本語テスト", "ｆｕｌｌ", "ﷺ", "𒐫", "กำ", "\u1160\u3164\uffa0fillers", "\ue000private", "\U000f0000", "e\u0301 é",
	"\ufff9anno\ufffatation\ufffb", "tab\there", strings.Repeat("x", 20000), strings.Repeat("日", 9000), "a\nb\r\nc\n\n", "\x1b[?1000h\x1b[?1006h", "\x1b]11;?\x07", "\x1b]4;0;?\x07", "\x1b[14t", "\x1bZ", "\x1b]1337;File=:AAAA\x07", "\x1b]777;notify;x\x07", "\x1b]9;4;1;50\x07", "\x1b[4i", "\x1b[0;65;\"evil\"p",
}

// check proves what Sanitize promises about one text.
func check(t *testing.T, in string) Text {
	t.Helper()
	out := Sanitize(in)
	if !utf8.ValidString(string(out)) {
		t.Fatalf("Sanitize(%q) = %q, not valid UTF-8", in, out)
	}
	for _, r := range out {
		if r < 0x20 && r != '\n' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 || r == 0x200d || r >= 0xe0000 && r <= 0xe007f {
			t.Fatalf("Sanitize(%q) = %q, which holds %U", in, out, r)
		}
	}
	if strings.Count(string(out), "\n") != strings.Count(in, "\n") {
		t.Errorf("Sanitize(%q) has %d newlines, want %d", in, strings.Count(string(out), "\n"), strings.Count(in, "\n"))
	}
	for l := range strings.SplitSeq(string(out), "\n") {
		if len(l) > maxLine+len(cutMark) {
			t.Errorf("Sanitize left a line of %d bytes", len(l))
		}
		if g, w := ansi.StringWidth(l), ansi.StringWidthWc(l); g != w {
			t.Errorf("Sanitize(%q) = %q is %d cells by graphemes and %d by code points", in, l, g, w)
		}
		if got, want := Text(l).width(), ansi.StringWidth(l); got != want {
			t.Errorf("width(%q) = %d, want %d", l, got, want)
		}
		for _, n := range []int{1, 2, 3, 7} {
			if w := Text(l).cut(n).width(); w > n {
				t.Errorf("cut(%q, %d) is %d cells wide", l, n, w)
			}
		}
	}
	if again := Sanitize(string(out)); len(in) < maxLine && again != out {
		t.Errorf("Sanitize is not stable: %q, then %q", out, again)
	}
	return out
}

func TestSanitizeStopsWhatSteersATerminal(t *testing.T) {
	if len(hostile) < 60 {
		t.Fatalf("corpus has %d cases, want at least 60", len(hostile))
	}
	for _, in := range hostile {
		out := clean(string(check(t, in)))
		emu := vt.NewEmulator(80, 3)
		title := false
		emu.SetCallbacks(vt.Callbacks{Title: func(string) { title = true }, Bell: func() { title = true }, AltScreen: func(bool) { title = true }, CursorVisibility: func(bool) { title = true }})
		l := newLine(&themes[2], 40)
		l.put(stText, out)
		if _, err := emu.WriteString(l.string()); err != nil {
			t.Fatal(err)
		}
		if title {
			t.Errorf("%q changed the terminal", in)
		}
		if at := emu.CursorPosition(); at.X != 40 || at.Y != 0 {
			t.Errorf("%q as %q left the cursor at %v, want column 40 of the first row", in, out.cut(40), at)
		}
		emu.Close()
	}
}

func TestSanitizeKeepsWhatIsPlain(t *testing.T) {
	for in, want := range map[string]Text{
		"hello": "hello", "a\nb": "a\nb", "日本語": "日本語", "é": "é", "tab\tx": "tab    x", "\x1b[31m": "␛[31m", "a\rb": "a␍b", "\x7f": "␡", "\u009b1m": "�1m", "x\u202ey": "x�y", "👨\u200d👩": "👨👩", "🇩🇪": "🇩🇪", "\xff": "�",
	} {
		if got := Sanitize(in); got != want {
			t.Errorf("Sanitize(%q) = %q, want %q", in, got, want)
		}
	}
	marks := Sanitize("z" + strings.Repeat("\u0301", 200))
	if n := strings.Count(string(marks), "\u0301"); n != maxMarks {
		t.Errorf("%d combining marks stay on a cell, want %d", n, maxMarks)
	}
	if long := Sanitize(strings.Repeat("x", 20000)); !strings.HasSuffix(string(long), cutMark) {
		t.Errorf("a line over the limit ends in %q, want a mark", long[len(long)-10:])
	}
}

func FuzzSanitize(f *testing.F) {
	for _, in := range hostile {
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in string) { check(t, in) })
}

// Text is only a barrier if nobody walks round it: conversions of strings live in the two files
// that make safe ones.
func TestTextIsMadeInOnePlace(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := file.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || name == "text.go" || name == "format.go" {
			continue
		}
		fset := token.NewFileSet()
		tree, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "Text" {
				if lit, ok := call.Args[0].(*ast.BasicLit); !ok || lit.Kind != token.STRING {
					t.Errorf("%s converts to Text; use Sanitize, clean or a function of format.go", fset.Position(call.Pos()))
				}
			}
			return true
		})
	}
}
