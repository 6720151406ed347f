package ledger

import (
	"os"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// report keeps the state for Status and logs when it changes.
func (l *Ledger) report() {
	now := writing
	text := ""
	switch {
	case l.spoolErr != nil:
		now, text = remembering, "rows wait in memory: "+l.dbErr.Error()+"; "+l.spoolErr.Error()
	case l.dbErr != nil:
		now, text = spooling, "rows go to the spool: "+l.dbErr.Error()
	}
	l.mu.Lock()
	l.state.Spooled, l.state.Error, l.adrift = l.spool.count, text, now == remembering
	l.mu.Unlock()
	if now == l.where {
		return
	}
	l.where = now
	switch now {
	case writing:
		l.log.Info("ledger can be written again")
	case spooling:
		l.log.Error("ledger cannot be written, rows go to the spool", "error", l.dbErr)
	case remembering:
		l.log.Error("ledger and spool cannot be written, rows wait in memory", "error", l.dbErr, "spool_error", l.spoolErr)
	}
}

// Where rows go.
const (
	writing     = iota // into the database
	spooling           // into the spool beside it
	remembering        // nowhere: they wait in memory
)

// healthy reports whether the database takes rows and nothing waits beside it.
func (l *Ledger) healthy() bool {
	l.flushing.Lock()
	defer l.flushing.Unlock()
	return l.retry.IsZero() && l.spool.count == 0
}

// Durable reports whether what is recorded reaches the disk, be it beside the database. While it
// does not, money that is spent could be forgotten.
func (l *Ledger) Durable() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.adrift
}

// Status is the state of the record now. Its Rows are requests that have ended.
func (l *Ledger) Status() api.Ledger {
	queued := l.queue.len()
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.state
	s.Queued = queued
	return s
}

// Size is how many bytes the database takes on disk.
func (l *Ledger) Size() int64 {
	var n int64
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(l.path + suffix); err == nil {
			n += info.Size()
		}
	}
	return n
}
