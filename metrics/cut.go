package metrics

import (
	"bytes"
	"strings"
)

// maxUnknown bounds how many new names one page may report.
const maxUnknown = 64

// segment is the text of one family: its TYPE line and its samples.
type segment struct {
	name string
	text []byte
}

// page is a metrics page cut to what is used. Only a sixth of vLLM's 58 kB is, and the
// parser's time is proportional to what it is given.
type page struct {
	segments []*segment
	byName   map[string]*segment
	unknown  []string // vllm: families that no table knows
	vllm     bool     // some vllm: family is there
}

// cut splits a page into the families that are used and notices the names of the others.
func cut(text []byte) *page {
	p := &page{byName: make(map[string]*segment, len(families))}
	for len(text) > 0 {
		var line []byte
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			line, text = text[:i], text[i+1:]
		} else {
			line, text = text, nil
		}
		line = bytes.TrimRight(line, "\r")
		if len(line) == 0 {
			continue
		}
		if line[0] == '#' {
			if rest, ok := bytes.CutPrefix(line, []byte("# TYPE ")); ok {
				p.typeLine(line, rest)
			}
			continue
		}
		end := bytes.IndexAny(line, "{ \t")
		if end < 0 {
			continue
		}
		if name, ok := wanted[string(line[:end])]; ok {
			p.add(name, line)
		}
	}
	return p
}

// typeLine keeps the TYPE line of a used family, once: several API servers behind one page
// may repeat it, and the parser refuses a second.
func (p *page) typeLine(line, rest []byte) {
	name, _, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return
	}
	p.vllm = p.vllm || bytes.HasPrefix(name, []byte("vllm:"))
	if !known[string(name)] {
		p.notice(string(name))
		return
	}
	if _, seen := p.byName[string(name)]; !seen && used[string(name)] {
		p.add(string(name), line)
	}
}

func (p *page) add(name string, line []byte) {
	s := p.byName[name]
	if s == nil {
		s = &segment{name: name}
		p.vllm = p.vllm || strings.HasPrefix(name, "vllm:")
		p.byName[name] = s
		p.segments = append(p.segments, s)
	}
	s.text = append(append(s.text, line...), '\n')
}

func (p *page) notice(name string) {
	if !strings.HasPrefix(name, "vllm:") || strings.HasSuffix(name, "_created") || len(p.unknown) == maxUnknown {
		return
	}
	for _, prefix := range unusedPrefixes {
		if strings.HasPrefix(name, prefix) {
			return
		}
	}
	// OpenMetrics names a counter's family without the suffix of its samples.
	if known[name+"_total"] {
		return
	}
	p.unknown = append(p.unknown, name)
}
