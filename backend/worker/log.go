package worker

import (
	"sort"
	"sync"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// keptLines is how many lines of a worker's log stay in memory.
const keptLines = 5000

// Log is the newest lines of a worker's log, across its restarts. Lines are as the worker
// wrote them, less colours: whoever shows them must sanitise them.
type Log struct {
	mu    sync.Mutex
	lines []api.Line // oldest first; the first skip of them are dropped
	skip  int
	seq   uint64
	bar   string // label of the progress bar that is the newest line; "" if that is none
}

// After gives lines whose Seq is greater than seq, oldest first: at most so many, and with seq 0
// the newest ones. Seq may skip numbers: a progress bar replaces its own earlier line.
func (l *Log) After(seq uint64, most int) []api.Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	live := l.lines[l.skip:]
	i := sort.Search(len(live), func(i int) bool { return live[i].Seq > seq })
	live = live[i:]
	if most = max(most, 0); len(live) > most {
		if seq == 0 {
			live = live[len(live)-most:]
		} else {
			live = live[:most]
		}
	}
	return append([]api.Line(nil), live...)
}

// Last is the newest Seq, 0 before the first line.
func (l *Log) Last() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq
}

// add appends a line and gives it its Seq. A progress bar takes the place of its own last line.
func (l *Log) add(line api.Line) api.Line {
	label := barLabel(line.Text)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seq++
	line.Seq = l.seq
	if label != "" && label == l.bar && len(l.lines) > l.skip {
		l.lines[len(l.lines)-1] = line
		return line
	}
	l.bar = label
	l.lines = append(l.lines, line)
	if len(l.lines)-l.skip > keptLines {
		l.lines[l.skip] = api.Line{}
		l.skip++
	}
	if l.skip > keptLines {
		l.lines = append([]api.Line(nil), l.lines[l.skip:]...)
		l.skip = 0
	}
	return line
}
