package gateway

import (
	"bytes"
	"slices"
)

// maxEvent bounds one event of a stream. Token ids or log probabilities of a long prompt make
// events of a megabyte.
const maxEvent = 16 << 20

// splitter finds the ends of server-sent events in a buffer that grows. It never changes a byte.
// Lines may end in LF, CR or CRLF; an empty line ends an event.
type splitter struct {
	pos   int  // bytes of the event that were looked at
	blank bool // the line at pos has no byte yet
	cr    bool // the byte before pos is a CR
	slow  bool // a CR was seen in this stream
	after bool // the event before ended in a CR: an LF that follows is a part of that
}

// saw tells of bytes that were appended to the buffer, before next is asked about them.
func (s *splitter) saw(b []byte) {
	if !s.slow && bytes.IndexByte(b, '\r') >= 0 {
		s.slow, s.pos = true, 0
	}
}

// next gives the length of the event that b begins with, or 0 if it is not whole. Once it has
// given a length, b must begin after that event at the next call.
func (s *splitter) next(b []byte) int {
	if s.slow {
		return s.nextSlow(b)
	}
	if len(b) > 0 && b[0] == '\n' {
		s.pos = 0
		return 1 // an empty line with nothing before it
	}
	from := max(s.pos-1, 0)
	if i := bytes.Index(b[from:], lflf); i >= 0 {
		s.pos = 0
		return from + i + 2
	}
	s.pos = len(b)
	return 0
}

var lflf = []byte("\n\n")

func (s *splitter) nextSlow(b []byte) int {
	if s.pos == 0 {
		s.blank, s.cr = true, s.after
	}
	for i := s.pos; i < len(b); i++ {
		c := b[i]
		switch {
		case c == '\n' && s.cr:
			s.cr = false
		case c == '\n' || c == '\r':
			s.cr = c == '\r'
			if !s.blank {
				s.blank = true
				continue
			}
			end := i + 1
			if s.cr && end < len(b) && b[end] == '\n' {
				s.cr = false
				end++
			}
			s.pos, s.after = 0, s.cr
			return end
		default:
			s.blank, s.cr = false, false
		}
	}
	s.pos = len(b)
	return 0
}

// fields gives the data and the name of one whole event. data is nil for an event that has none, such as a
// comment; several data lines are joined by LF, as the standard says.
func fields(ev []byte) (data, name []byte) {
	// Nearly every event of vLLM: one data line, then an empty one.
	if bytes.HasPrefix(ev, []byte("data: ")) && bytes.HasSuffix(ev, lflf) {
		if line := ev[6 : len(ev)-2]; bytes.IndexByte(line, '\n') < 0 && bytes.IndexByte(line, '\r') < 0 {
			return line, nil
		}
	}
	ev = bytes.TrimPrefix(ev, []byte("\xef\xbb\xbf"))
	joined := false
	for len(ev) > 0 {
		line, rest := ev, []byte(nil)
		if i := bytes.IndexAny(ev, "\r\n"); i >= 0 {
			line, rest = ev[:i], ev[i+1:]
		}
		ev = rest
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "data":
			if data == nil {
				data = slices.Clip(value)
				if data == nil {
					data = []byte{}
				}
			} else {
				if !joined {
					data, joined = bytes.Clone(data), true
				}
				data = append(append(data, '\n'), value...)
			}
		case "event":
			name = value
		}
	}
	return data, name
}
