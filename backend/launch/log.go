package launch

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

const (
	defaultLogSize = 20 << 20
	pumpChunk      = 32 << 10
	pumpChunks     = 256         // 8 MiB between the server and a slow disk
	pumpPatience   = time.Second // how long a full buffer may block the server, once
)

var errSlowDisk = errors.New("the disk was too slow")

// LogFile is a log that is renamed away when it is full: path.1 is the newest old one. It
// never fails its writer: what the disk does not take is counted and said in the log later.
type LogFile struct {
	path string
	max  int64 // bytes
	keep int   // old files

	f    *os.File
	size int64
	lost int64 // bytes since the last note
	why  error
}

// NewLogFile starts an empty log of at most size bytes (default 20 MiB) with keep old files, at
// least one; the log of the start before is kept as path.1.
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

// Write takes all of p, come what may.
func (l *LogFile) Write(p []byte) (int, error) {
	n := len(p)
	if l.f == nil {
		l.reopen()
	}
	if l.size > 0 && l.size+int64(len(p)) > l.max {
		if cut := bytes.IndexByte(p, '\n') + 1; cut > 0 { // finish the line, so that no line lies in two files
			l.put(p[:cut])
			p = p[cut:]
			l.shift()
			l.reopen()
		} else if l.size > 2*l.max {
			l.shift()
			l.reopen()
		}
	}
	l.put(p)
	return n, nil
}

func (l *LogFile) put(p []byte) {
	if len(p) == 0 {
		return
	}
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

// Close ends the log.
func (l *LogFile) Close() error {
	if l.f == nil {
		return l.why
	}
	l.note()
	return l.f.Close()
}

// pump copies r to l until r ends. It reads on while the disk is slow, so that the server
// never waits for it: up to 8 MiB lie in memory, and once they are full for a second the
// rest is dropped and counted.
func pump(r io.Reader, l *LogFile) {
	type piece struct {
		b    []byte
		lost int64 // dropped before it
	}
	full := make(chan piece, pumpChunks)
	free := make(chan []byte, pumpChunks)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for p := range full {
			if p.lost > 0 {
				l.lost += p.lost
				l.why = errSlowDisk
			}
			_, _ = l.Write(p.b)
			select {
			case free <- p.b[:cap(p.b)]:
			default:
			}
		}
	}()
	var lost int64
	wait := time.NewTimer(pumpPatience)
	defer wait.Stop()
	for {
		var b []byte
		select {
		case b = <-free:
		default:
			b = make([]byte, pumpChunk)
		}
		n, err := r.Read(b)
		if n > 0 {
			p := piece{b[:n], lost}
			select {
			case full <- p:
				lost = 0
			default:
				if lost > 0 { // it had its second of patience
					lost += int64(n)
					break
				}
				wait.Reset(pumpPatience)
				select {
				case full <- p:
				case <-wait.C:
					lost = int64(n)
				}
			}
		}
		if err != nil {
			break
		}
	}
	close(full)
	<-done
	if lost > 0 {
		l.lost, l.why = l.lost+lost, errSlowDisk
	}
}
