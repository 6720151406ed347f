package backend

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// logLines is how many lines of the engine's own log stay in memory for consoles.
const logLines = 4000

// Log is the engine's own log: a slog.Handler that keeps the newest lines for consoles and
// writes every line to its writers.
type Log struct {
	*logState
	inner slog.Handler // formats into state.buf
}

type logState struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	out   []io.Writer
	lines []api.Line // ring
	next  uint64     // Seq of the next line
}

// NewLog makes a log that also writes to out, e.g. a file and stderr.
func NewLog(out ...io.Writer) *Log {
	st := &logState{out: out, next: 1}
	inner := slog.NewTextHandler(&st.buf, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: logAttr})
	return &Log{logState: st, inner: inner}
}

// logAttr writes the time in the host's zone and drops the quotes that slog puts round it.
func logAttr(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.String(slog.TimeKey, a.Value.Time().Format("2006-01-02T15:04:05.000Z07:00"))
	}
	return a
}

// Enabled implements slog.Handler.
func (l *Log) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

// WithAttrs implements slog.Handler.
func (l *Log) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &Log{l.logState, l.inner.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (l *Log) WithGroup(name string) slog.Handler { return &Log{l.logState, l.inner.WithGroup(name)} }

// Handle implements slog.Handler. A writer that fails does not keep the line from the others.
func (l *Log) Handle(ctx context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Reset()
	if err := l.inner.Handle(ctx, r); err != nil {
		return err
	}
	line := api.Line{Seq: l.next, Time: r.Time, Level: levelName(r.Level), Text: strings.TrimRight(l.buf.String(), "\n")}
	l.next++
	if len(l.lines) < logLines {
		l.lines = append(l.lines, line)
	} else {
		l.lines[(line.Seq-1)%logLines] = line
	}
	var first error
	for _, w := range l.out {
		if _, err := w.Write(l.buf.Bytes()); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warning"
	default:
		return "error"
	}
}

// After gives the lines with a greater Seq, at most limit; with after 0 the newest ones.
func (l *Log) After(after uint64, limit int) []api.Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := uint64(len(l.lines))
	oldest := l.next - n
	from := max(after+1, oldest)
	if after == 0 && n > uint64(limit) {
		from = l.next - uint64(limit)
	}
	var out []api.Line
	for seq := from; seq < l.next && len(out) < limit; seq++ {
		out = append(out, l.lines[(seq-1)%logLines])
	}
	return out
}
