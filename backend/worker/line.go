package worker

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// lineLimit is how many bytes of a line are kept.
const lineLimit = 8 << 10

// splitter cuts a byte stream into lines at \n and \r: progress bars are written with carriage
// returns. Empty lines are left out, long ones cut.
type splitter struct {
	buf  []byte
	over bool // the line went past lineLimit
}

func (s *splitter) feed(p []byte, emit func(line string)) {
	for len(p) > 0 {
		i := bytes.IndexAny(p, "\r\n")
		part := p
		if i >= 0 {
			part = p[:i]
		}
		if room := lineLimit - len(s.buf); len(part) > room {
			part, s.over = part[:room], true
		}
		s.buf = append(s.buf, part...)
		if i < 0 {
			return
		}
		if line := s.take(); line != "" {
			emit(line)
		}
		p = p[i+1:]
	}
}

// take ends the line that is being read and gives it.
func (s *splitter) take() string {
	line := s.peek()
	if s.over {
		line = strings.TrimRight(trimPartRune(line), " ") + "…"
	}
	s.buf, s.over = s.buf[:0], false
	return line
}

// peek gives what there is of the line that is being read.
func (s *splitter) peek() string {
	return strings.TrimRight(stripColours(string(s.buf)), " \t")
}

func trimPartRune(s string) string {
	for range utf8.UTFMax - 1 {
		if r, n := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || n != 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s
}

var colours = regexp.MustCompile(`\x1b\[[0-9;?]*[@-~]`)

// stripColours removes CSI sequences (colours, cursor moves of progress bars). Every other
// escape stays, to be made visible by whoever shows the line.
func stripColours(s string) string {
	if !strings.Contains(s, "\x1b[") {
		return s
	}
	return colours.ReplaceAllString(s, "")
}

// head matches what vLLM and uvicorn write before a message:
//
//	(EngineCore pid=12) INFO 11-23 15:00:28 [core.py:133] text
//	INFO:     Started server process [12]
var head = regexp.MustCompile(`^(?:\([^()]{1,64} pid=\d+\) ?)?(?:(DEBUG|INFO|WARNING|ERROR|CRITICAL)(?:: +| (\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d+)? \[[^\]]{1,80}\] ?))?`)

// parts are what a line says about itself.
type parts struct {
	level string // as in api.Line
	stamp string // MM-DD HH:MM:SS in local time, or ""
	text  string // the message alone
}

func parse(line string) parts {
	if strings.HasPrefix(line, "{") {
		// --logging-config.formatter json: one object per line.
		var j struct {
			Level   string `json:"levelname"`
			Message string `json:"message"`
		}
		if json.Unmarshal([]byte(line), &j) == nil && j.Level != "" {
			return parts{level: levels[j.Level], text: j.Message}
		}
	}
	m := head.FindStringSubmatchIndex(line)
	p := parts{text: line[m[1]:]}
	if m[2] >= 0 {
		p.level = levels[line[m[2]:m[3]]]
	}
	if m[4] >= 0 {
		p.stamp = line[m[4]:m[5]]
	}
	return p
}

var levels = map[string]string{"DEBUG": "debug", "INFO": "info", "WARNING": "warning", "ERROR": "error", "CRITICAL": "error"}

// at is when the line was written, by its own stamp, which has no year: the last such moment
// before now. Zero if it has no stamp.
func (p parts) at(now time.Time) time.Time {
	if p.stamp == "" {
		return time.Time{}
	}
	t, err := time.ParseInLocation("2006-01-02 15:04:05", strconv.Itoa(now.Year())+"-"+p.stamp, now.Location())
	if err != nil {
		return time.Time{}
	}
	if t.After(now.Add(time.Minute)) {
		t = t.AddDate(-1, 0, 0)
	}
	return t
}

// bar matches tqdm's progress bars, vLLM's own format among them:
//
//	Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01,  1.16s/it]
//	Capturing CUDA graphs (PIECEWISE):  49%|████▉     | 33/67 [00:10<00:09,  3.50it/s]
var bar = regexp.MustCompile(`^(.{0,160}?):? +(\d{1,3})%(?:\|| Completed \|)`)

// barLabel names the progress bar that a line is; "" if it is none.
func barLabel(line string) string {
	if !strings.Contains(line, "%") {
		return ""
	}
	m := bar.FindStringSubmatch(parse(line).text)
	if m == nil {
		return ""
	}
	return "bar " + m[1]
}
