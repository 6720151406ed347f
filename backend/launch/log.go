package launch

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

const defaultLogSize = 20 << 20

// LogFile is a log that is renamed away when it is full: path.1 is the newest old one. It
// never fails its writer: what the disk does not take is counted and said in the log later.
type LogFile struct {
	path string
	max  int64 // bytes
	keep int   // old files

	f      *os.File
	size   int64
	inLine bool  // the last byte did not end a line
	lost   int64 // bytes since the last note
	why    error
}

// NewLogFile starts an empty log; the one of the start before is kept as path.1.
func NewLogFile(path string, size int64, keep int) *LogFile {
	if size <= 0 {
		size = defaultLogSize
	}
	l := &LogFile{path: path, max: size, keep: max(keep, 1)}
	if st, err := os.Stat(path); err == nil && st.Size() > 0 {
		l.shift()
	}
	l.reopen()
	return l
}

func (l *LogFile) old(n int) string { return l.path + "." + strconv.Itoa(n) }

// shift renames each log to the next number and drops the ones over keep.
func (l *LogFile) shift() {
	for n := l.keep; ; n++ { // more than one if keep was larger before
		if err := os.Remove(l.old(n)); err != nil {
			break
		}
	}
	for n := l.keep - 1; n >= 1; n-- {
		_ = os.Rename(l.old(n), l.old(n+1))
	}
	_ = os.Rename(l.path, l.old(1)) // if it fails, the log grows on
}

// reopen opens the log. If that fails while an older file is open, that one is used on.
func (l *LogFile) reopen() {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		l.why = err
		return
	}
	if l.f != nil {
		_ = l.f.Close()
	}
	l.f, l.size = f, 0
	if st, err := f.Stat(); err == nil {
		l.size = st.Size()
	}
}

// Write takes all of p, come what may. Logs end at the end of a line, if there are any.
func (l *LogFile) Write(p []byte) (int, error) {
	n := len(p)
	if l.f == nil {
		l.reopen()
	}
	for len(p) > 0 {
		room := max(l.max-l.size, 0)
		if int64(len(p)) <= room {
			l.put(p)
			break
		}
		cut := bytes.LastIndexByte(p[:room], '\n') + 1
		if cut == 0 && (l.size == 0 || l.inLine) { // a line of more than a log, or the rest of one
			if cut = bytes.IndexByte(p, '\n') + 1; cut == 0 {
				cut = len(p)
			}
		}
		l.put(p[:cut])
		p = p[cut:]
		if !l.inLine || l.size > 2*l.max {
			l.shift()
			l.reopen()
			if l.size > 0 { // it could not be renamed
				l.put(p)
				break
			}
		}
	}
	return n, nil
}

func (l *LogFile) put(p []byte) {
	if len(p) == 0 {
		return
	}
	l.inLine = p[len(p)-1] != '\n'
	if l.f == nil {
		l.lost += int64(len(p))
		return
	}
	l.note()
	n, err := l.f.Write(p)
	l.size += int64(n)
	if err != nil {
		l.lost += int64(len(p) - n)
		l.why = err
	}
}

// note says in the log what it lacks at this place.
func (l *LogFile) note() {
	if l.lost == 0 {
		return
	}
	n, err := fmt.Fprintf(l.f, "\nvllmdeck: %d bytes of log lost here: %v\n", l.lost, l.why)
	l.size += int64(n)
	if err == nil {
		l.lost = 0
	}
}

// lose counts n bytes that could not wait for the disk.
func (l *LogFile) lose(n int64) {
	l.lost += n
	l.why = errSlowDisk
}

// Close ends the log.
func (l *LogFile) Close() error {
	if l.f == nil {
		return l.why
	}
	l.note()
	return l.f.Close()
}
