package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Problem is one mistake in a config, or one oddity.
type Problem struct {
	File    string `json:"file,omitempty"` // as it was named; "" for a Config made in code
	Line    int    `json:"line,omitempty"` // from 1; 0: not known
	Col     int    `json:"col,omitempty"`  // from 1, in characters
	Path    string `json:"path,omitempty"` // of the value, e.g. workers[0].vllm.args[2]
	Msg     string `json:"msg"`            // what is wrong
	Hint    string `json:"hint,omitempty"` // the way out
	Excerpt string `json:"excerpt,omitempty"`
}

// String is the problem in one line, without its excerpt.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Line, p.Col)
		}
		b.WriteString(": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Msg)
	if p.Hint != "" {
		b.WriteString("; " + p.Hint)
	}
	return b.String()
}

// Errors is every mistake of a config, in the order of its lines.
type Errors []Problem

// shownProblems is how many mistakes Error spells out: who has more has to start over anyway.
const shownProblems = 25

// Error shows each mistake with the line it is in and the way out.
func (e Errors) Error() string {
	var b strings.Builder
	for i, p := range e {
		if i == shownProblems {
			fmt.Fprintf(&b, "\nand %d more", len(e)-i)
			break
		}
		if i > 0 {
			b.WriteString("\n")
		}
		hint := p.Hint
		p.Hint = ""
		b.WriteString(p.String())
		if p.Excerpt != "" {
			b.WriteString("\n" + p.Excerpt)
		}
		if hint != "" {
			b.WriteString("\n      = " + hint)
		}
	}
	return b.String()
}

// place is a position in the text, both from 1; a zero line is not known.
type place struct{ line, col int }

// report collects what is wrong and what is odd, with the places that the decoder noted.
type report struct {
	file     string
	lines    []string
	places   map[string]place // of values, by path
	broken   map[string]bool  // paths already reported: what follows from them is not said again
	secrets  []string         // never shown
	made     KeyLookup        // keys that are not in the config
	problems Errors
	warnings []Problem
}

// maxProblems bounds the work that junk can cause.
const maxProblems = 200

func (r *report) problem(path, hint, format string, args ...any) {
	r.problemAt(r.place(path), path, hint, format, args...)
}

func (r *report) problemAt(at place, path, hint, format string, args ...any) {
	if r.broken == nil {
		r.broken = map[string]bool{}
	}
	if path != "" && r.broken[path] {
		return // one mistake of a value is enough, the rest often follows from it
	}
	r.broken[path] = true
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, r.note(at, path, hint, format, args...))
	}
}

func (r *report) warn(path, hint, format string, args ...any) {
	if len(r.warnings) < maxProblems {
		r.warnings = append(r.warnings, r.note(r.place(path), path, hint, format, args...))
	}
}

func (r *report) note(at place, path, hint, format string, args ...any) Problem {
	return Problem{
		File: r.file, Line: at.line, Col: at.col, Path: clip(path),
		Msg: clip(fmt.Sprintf(format, args...)), Hint: clip(hint),
	}
}

// place gives where path is, or the nearest thing around it.
func (r *report) place(path string) place {
	for {
		if at, ok := r.places[path]; ok {
			return at
		}
		i := strings.LastIndexAny(path, ".[")
		if i < 0 {
			return place{}
		}
		path = path[:i]
	}
}

// err sorts what was found; nil if nothing is wrong.
func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	return Errors(r.finish(r.problems))
}

// finish sorts problems and adds their excerpts, now that every secret is known.
func (r *report) finish(problems []Problem) []Problem {
	slices.SortStableFunc(problems, byPlace)
	for i := range problems {
		problems[i].Excerpt = r.excerpt(place{problems[i].Line, problems[i].Col})
	}
	return problems
}

func byPlace(a, b Problem) int {
	return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
}

// excerptWidth is how many characters of a line an excerpt shows.
const excerptWidth = 100

// excerpt shows the line of a place with a caret under it. Neighbouring lines are left out on
// purpose: they may hold what must not be shown.
func (r *report) excerpt(at place) string {
	if at.line < 1 || at.line > len(r.lines) {
		return ""
	}
	raw := r.lines[at.line-1]
	text := r.mask(raw)
	col := at.col
	if text != raw && col > 1 {
		// Masking moves what comes after it.
		runes := []rune(raw)
		col = utf8.RuneCountInString(r.mask(string(runes[:min(col-1, len(runes))]))) + 1
	}
	clean := []rune(printable(text))
	col = min(max(col, 1), len(clean)+1)
	if from := col - excerptWidth*2/3; len(clean) > excerptWidth && from > 0 {
		clean, col = clean[from:], col-from
		clean[0] = '…'
	}
	if len(clean) > excerptWidth {
		clean = append(clean[:excerptWidth-1], '…')
	}
	return fmt.Sprintf("%5d | %s\n      | %s^", at.line, string(clean), strings.Repeat(" ", col-1))
}

// looksSecret matches a key whose value is usually secret, when that value is no reference.
var looksSecret = regexp.MustCompile(`(?i)("?[a-z0-9_-]*(?:key|token|secret|password)"?\s*[:=]\s*)(["']?)([^\s"',{}\[\]#][^\s"',}\]]*)`)

// secretShapes are what gives a secret away wherever it stands: well-known prefixes, and a
// password in a URL.
var secretShapes = regexp.MustCompile(`\b(sk-|hf_|gh[pousr]_|github_pat_|xox[abp]-|eyJ)[A-Za-z0-9_.-]{6,}|(://)[^/@\s"']+@`)

// mask hides secrets in a line of the config.
func (r *report) mask(line string) string {
	for _, s := range r.secrets {
		line = strings.ReplaceAll(line, s, "***")
	}
	line = looksSecret.ReplaceAllStringFunc(line, func(m string) string {
		p := looksSecret.FindStringSubmatch(m)
		if isRef(p[3]) || p[3] == "***" {
			return m
		}
		return p[1] + p[2] + "***"
	})
	return secretShapes.ReplaceAllString(line, "$1$2***")
}

// hide keeps every line of s out of excerpts.
func (r *report) hide(s string) {
	for line := range strings.Lines(s) {
		if line = strings.Trim(strings.TrimSpace(line), `"'`); len(line) > 2 {
			r.secrets = append(r.secrets, line)
		}
	}
}

// clip makes text that may quote the config fit for one line of a terminal.
func clip(s string) string {
	const most = 300
	if r := []rune(s); len(r) > most {
		s = string(r[:most-1]) + "…"
	}
	return printable(s)
}

// printable replaces what would move a terminal's cursor or reorder its text.
func printable(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\t':
			return ' '
		case c == utf8.RuneError || !unicode.IsPrint(c):
			return '\uFFFD'
		}
		return c
	}, s)
}
