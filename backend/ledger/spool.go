package ledger

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// spool is the file beside the database that takes rows while the database cannot: one JSON
// object a line. Only the writer touches it.
type spool struct {
	path  string
	size  int64 // of whole lines; what lies behind was never acknowledged
	count int   // rows in it
}

const (
	spoolName = "ledger.spool.jsonl"
	badName   = "ledger.spool.bad" // lines that could not be read, kept for a person
)

// append writes rows and returns once they are on disk.
func (s *spool) append(rows []row) error {
	if len(rows) == 0 {
		return nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	for i := range rows {
		if err := e.Encode(&rows[i]); err != nil {
			return fmt.Errorf("spool rows: %w", err)
		}
	}
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("spool rows: %w", err)
	}
	defer f.Close()
	// Half a line may be left from a write that failed, or from a crash.
	if err := f.Truncate(s.size); err != nil {
		return fmt.Errorf("spool rows: %w", err)
	}
	if _, err := f.WriteAt(b.Bytes(), s.size); err != nil {
		_ = f.Truncate(s.size) // to leave room: the next append does it again
		return fmt.Errorf("spool rows: %w", err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("spool rows: %w", err)
	}
	if s.size == 0 {
		if err := syncDir(filepath.Dir(s.path)); err != nil {
			return fmt.Errorf("spool rows: %w", err)
		}
	}
	s.size += int64(b.Len())
	s.count += len(rows)
	return nil
}

// replay hands every row to write, oldest first, and removes the file once all are written.
// It gives the number of rows, and of lines that could not be read and were put aside.
// A row may be handed over again after a crash: write must take each only once.
func (s *spool) replay(write func([]row) error) (rows, bad int, err error) {
	f, err := os.Open(s.path)
	if errors.Is(err, os.ErrNotExist) {
		s.size, s.count = 0, 0
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read spool: %w", err)
	}
	defer f.Close()
	in := bufio.NewReader(f)
	var batch []row
	var unread bytes.Buffer
	for {
		line, readErr := in.ReadBytes('\n')
		if readErr != nil && readErr != io.EOF {
			return rows, bad, fmt.Errorf("read spool: %w", readErr)
		}
		// A last line without its end was never acknowledged; if it is whole it counts all the same.
		var r row
		switch whole := readErr == nil; {
		case len(bytes.TrimSpace(line)) == 0:
		case json.Unmarshal(line, &r) == nil && r.ID != "" && r.Outcome != "":
			batch = append(batch, r)
		case whole:
			bad++
			unread.Write(line)
		}
		if len(batch) >= 1000 || readErr == io.EOF && len(batch) > 0 {
			if err := write(batch); err != nil {
				return rows, bad, err
			}
			rows += len(batch)
			batch = batch[:0]
		}
		if readErr == io.EOF {
			break
		}
	}
	if unread.Len() > 0 {
		if err := keepBad(filepath.Join(filepath.Dir(s.path), badName), unread.Bytes()); err != nil {
			return rows, bad, err
		}
	}
	if err := os.Remove(s.path); err != nil {
		return rows, bad, fmt.Errorf("remove spool: %w", err)
	}
	s.size, s.count = 0, 0
	return rows, bad, nil
}

func keepBad(path string, lines []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("put unreadable spool lines aside: %w", err)
	}
	defer f.Close()
	if _, err := f.Write(lines); err != nil {
		return fmt.Errorf("put unreadable spool lines aside: %w", err)
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
