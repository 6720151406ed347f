package worker

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// tailBytes is how much of an adopted worker's log is read back.
const tailBytes = 256 << 10

// follower reads a growing log file in steps, through rotation by rename and by truncation.
type follower struct {
	path string
	file *os.File
	off  int64
	tail bool // begin with the last tailBytes
	mark mark // where to begin if it is still this file
	cut  splitter
	buf  []byte
}

// mark is how far a log file had been written at some moment.
type mark struct {
	info os.FileInfo
	size int64
}

// marks notes the size of every log in a worker's folder, before a start: what follows is the
// new process's own output even if it is appended to the same file.
func marks(folder string) map[string]mark {
	out := map[string]mark{}
	paths, _ := filepath.Glob(filepath.Join(folder, "*")) // the pattern is ours: no error
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() {
			out[p] = mark{info: info, size: info.Size()}
		}
	}
	return out
}

// read gives every line completed since the last call. A file that is not there (yet) is no error.
func (f *follower) read(emit func(line string)) error {
	for {
		if f.file == nil {
			if err := f.open(); err != nil {
				if errors.Is(err, fs.ErrNotExist) {
					return nil
				}
				return err
			}
		}
		if err := f.drain(emit); err != nil {
			return err
		}
		now, err := os.Stat(f.path)
		if err != nil {
			return nil //nolint:nilerr // between a rename and the new file
		}
		have, err := f.file.Stat()
		if err != nil {
			return fmt.Errorf("read %s: %w", f.path, err)
		}
		switch {
		case !os.SameFile(now, have):
			// What was written between our last read and the rename comes first.
			if err := f.drain(emit); err != nil {
				return err
			}
			f.close()
		case now.Size() < f.off:
			f.off = 0
		default:
			return nil
		}
	}
}

func (f *follower) open() error {
	file, err := os.Open(f.path)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	f.file, f.off = file, 0
	info, err := file.Stat()
	if err != nil {
		f.close()
		return fmt.Errorf("read log: %w", err)
	}
	switch {
	case f.tail && info.Size() > tailBytes:
		f.off = info.Size() - tailBytes
	case f.mark.info != nil && os.SameFile(f.mark.info, info) && f.mark.size <= info.Size():
		f.off = f.mark.size
	}
	f.tail, f.mark = false, mark{}
	return nil
}

func (f *follower) drain(emit func(line string)) error {
	if f.buf == nil {
		f.buf = make([]byte, 64<<10)
	}
	for {
		n, err := f.file.ReadAt(f.buf, f.off)
		f.off += int64(n)
		f.cut.feed(f.buf[:n], emit)
		if errors.Is(err, io.EOF) || (err == nil && n == 0) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", f.path, err)
		}
	}
}

// rest gives the unfinished last line, "" if there is none.
func (f *follower) rest() string { return f.cut.take() }

// partial shows the line that is being written: a progress bar ends its line only with the next update.
func (f *follower) partial() string { return f.cut.peek() }

func (f *follower) close() {
	if f.file != nil {
		_ = f.file.Close() // only read from
		f.file = nil
	}
}
