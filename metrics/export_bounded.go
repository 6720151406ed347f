package metrics

import (
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// bounded lets the first 256 values of a label through. Workers, providers and routes are
// named by the config and by us, never by a client, so this bound is for reloads without end.
type bounded struct {
	seen sync.Map
	n    atomic.Int64
}

func (v *bounded) value(s string) string {
	if s == "" {
		return "none"
	}
	if _, ok := v.seen.Load(s); ok {
		return s
	}
	if v.n.Load() >= maxValues || !utf8.ValidString(s) {
		return other
	}
	if _, ok := v.seen.LoadOrStore(s, true); !ok {
		v.n.Add(1)
	}
	return s
}
