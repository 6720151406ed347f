package route

import "sync/atomic"

// Budget bounds retries to a fifth of the requests in flight, never under three at once: the
// figures of Envoy's and Finagle's retry budgets. Beyond it a retry only adds load to what fails
// already. The zero Budget is ready; it may be used from many goroutines.
type Budget struct{ used atomic.Int64 }

// Take claims one retry while inFlight requests are in flight. The claim is given back with
// Give when the request ends.
func (b *Budget) Take(inFlight int) bool {
	if b.used.Add(1) <= int64(max(3, inFlight/5)) {
		return true
	}
	b.used.Add(-1)
	return false
}

// Give gives n claims back.
func (b *Budget) Give(n int) { b.used.Add(-int64(n)) }
