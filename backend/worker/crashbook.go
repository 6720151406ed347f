package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// What is kept of one crash, so that a server that dies every minute cannot fill the disk.
const (
	crashLines   = 200
	crashBytes   = 64 << 10 // of those lines
	crashCommand = 8 << 10  // bytes of the command line
	shownCrashes = 40       // in a Snapshot
)

// crashFolder is where the book lies in the state folder: ID.json for an entry, ID.log for the last
// lines of its log. Worker folders come and go with the config; this one stays.
const crashFolder = "crashes"

// crashStamp begins an ID, so that the names of the files are in the order of time.
const crashStamp = "20060102-150405.000000"

var crashID = regexp.MustCompile(`^\d{8}-\d{6}\.\d{6}-[a-z0-9-]{1,128}$`)

// book is the crash book. It keeps every entry for ever.
type book struct {
	dir string
	log *slog.Logger

	writing sync.Mutex // one entry at a time

	mu     sync.Mutex
	ids    []string    // oldest first
	recent []api.Crash // newest first, at most shownCrashes
	counts map[string]int
}

// openBook reads which entries there are. A book that cannot be read begins empty.
func openBook(state string, log *slog.Logger) *book {
	b := &book{dir: filepath.Join(state, crashFolder), log: log, counts: map[string]int{}}
	names, err := os.ReadDir(b.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		log.Warn("crash book not read", "error", err)
	}
	for _, n := range names {
		if id, ok := strings.CutSuffix(n.Name(), ".json"); ok && crashID.MatchString(id) {
			b.ids = append(b.ids, id)
			b.counts[workerOf(id)]++
		}
	}
	slices.Sort(b.ids)
	for _, id := range slices.Backward(b.ids) {
		if len(b.recent) == shownCrashes {
			break
		}
		if c, err := b.read(id); err == nil {
			b.recent = append(b.recent, c)
		}
	}
	return b
}

// workerOf is whose crash an ID is.
func workerOf(id string) string { return id[len(crashStamp)+1:] }

func (b *book) path(id, kind string) string { return filepath.Join(b.dir, id+kind) }

func (b *book) read(id string) (api.Crash, error) {
	var c api.Crash
	text, err := os.ReadFile(b.path(id, ".json"))
	if err != nil {
		return c, fmt.Errorf("read crash: %w", err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("read crash %s: %w", id, err)
	}
	c.ID = id
	return c, nil
}

// add enters a crash with the lines that its log ended with, and gives it its ID. It is on disk when
// this returns, unless that failed, which is logged.
func (b *book) add(c api.Crash, lines []api.Line) {
	b.writing.Lock()
	defer b.writing.Unlock()
	lines = lastOf(lines)
	c.Lines = len(lines)
	c.Command = shortCommand(c.Command)
	at := c.Time.UTC()
	for {
		c.ID = at.Format(crashStamp) + "-" + c.Worker
		if _, err := os.Stat(b.path(c.ID, ".json")); err != nil {
			break
		}
		at = at.Add(time.Microsecond) // another one in the same microsecond
	}
	if err := b.write(c, lines); err != nil {
		b.log.Error("crash not kept", "crash", c.ID, "error", err)
		c.Lines = 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	// One that is found later than newer ones goes to its own place.
	i, _ := slices.BinarySearch(b.ids, c.ID)
	b.ids = slices.Insert(b.ids, i, c.ID)
	b.counts[c.Worker]++
	i = slices.IndexFunc(b.recent, func(x api.Crash) bool { return x.ID < c.ID })
	if i < 0 {
		i = len(b.recent)
	}
	b.recent = slices.Insert(slices.Clone(b.recent), i, c)
	b.recent = b.recent[:min(len(b.recent), shownCrashes)]
}

// write keeps the log first: an entry that is there has its lines.
func (b *book) write(c api.Crash, lines []api.Line) error {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return fmt.Errorf("keep crash: %w", err)
	}
	var text bytes.Buffer
	for _, l := range lines {
		stamp := "-"
		if !l.Time.IsZero() {
			stamp = l.Time.Format(time.RFC3339Nano)
		}
		fmt.Fprintf(&text, "%s %s\n", stamp, l.Text)
	}
	if err := launch.Replace(b.path(c.ID, ".log"), text.Bytes()); err != nil {
		return fmt.Errorf("keep crash: %w", err)
	}
	entry, err := json.MarshalIndent(c, "", "  ")
	if err == nil {
		err = launch.Replace(b.path(c.ID, ".json"), append(entry, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep crash: %w", err)
	}
	return nil
}

// list gives the newest entries, newest first.
func (b *book) list() []api.Crash {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.recent)
}

func (b *book) count(worker string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counts[worker]
}

// entries gives the book as a log: an entry a line, as JSON, oldest first. The first has cursor 2, so that 1
// is before all of them: 0 asks for the newest.
func (b *book) entries(after uint64, most int) []api.Line {
	b.mu.Lock()
	ids := slices.Clone(b.ids)
	b.mu.Unlock()
	from := max(len(ids)-most, 0)
	if after > 0 {
		from = int(min(after-1, uint64(len(ids))))
	}
	var out []api.Line
	for i := from; i < len(ids) && len(out) < most; i++ {
		c, err := b.read(ids[i])
		if err != nil {
			continue // taken away by hand
		}
		if text, err := json.Marshal(c); err == nil {
			out = append(out, api.Line{Seq: uint64(i) + 2, Time: c.Time, Level: "error", Text: string(text)})
		}
	}
	return out
}

// lines gives the log of one entry.
func (b *book) lines(id string, after uint64, most int) ([]api.Line, error) {
	if !crashID.MatchString(id) {
		return nil, fmt.Errorf("%w: no crash %q", api.ErrUnknown, id)
	}
	if _, err := os.Stat(b.path(id, ".json")); err != nil {
		return nil, fmt.Errorf("%w: no crash %q", api.ErrUnknown, id)
	}
	text, err := os.ReadFile(b.path(id, ".log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read log of a crash: %w", err)
	}
	var out []api.Line
	seq := uint64(0)
	for line := range strings.Lines(string(text)) {
		seq++
		stamp, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if seq <= after {
			continue
		}
		at, _ := time.Parse(time.RFC3339Nano, stamp) // "-": not known
		out = append(out, api.Line{Seq: seq, Time: at, Level: parse(rest).level, Text: rest})
	}
	if len(out) > most {
		if after == 0 {
			return out[len(out)-most:], nil
		}
		out = out[:most]
	}
	return out, nil
}

// lastOf gives as many of the last lines as are kept of a crash.
func lastOf(lines []api.Line) []api.Line {
	lines = lines[max(len(lines)-crashLines, 0):]
	size := 0
	for i, l := range slices.Backward(lines) {
		size += len(l.Text) + len(time.RFC3339Nano) + len(" \n")
		if size > crashBytes {
			return lines[i+1:]
		}
	}
	return lines
}

func shortCommand(argv []string) []string {
	size := 0
	for i, a := range argv {
		if size += len(a) + 1; size > crashCommand {
			return append(slices.Clone(argv[:i]), "…")
		}
	}
	return argv
}

// Crashes gives the newest entries of the crash book, newest first: at most 40.
func (p *Pool) Crashes() []api.Crash { return p.opts.book.list() }

// CrashBook gives all entries of the crash book as a log: one a line as JSON, oldest first. At most so many
// after a cursor, and with 0 the newest ones.
func (p *Pool) CrashBook(after uint64, most int) []api.Line { return p.opts.book.entries(after, most) }

// CrashLog gives the last lines of a crashed worker's log, as Source.Log does. ErrUnknown if there is no such crash.
func (p *Pool) CrashLog(id string, after uint64, most int) ([]api.Line, error) {
	return p.opts.book.lines(id, after, most)
}
