package main

// verdict is what a client has in the end.
type verdict string

const (
	complete  verdict = "complete"             // all of it: finish reason, closing mark, usage, a clean end, and no error event
	told      verdict = "told"                 // exactly one error event, then the connection was cut
	refused   verdict = "refused"              // an HTTP error in the route's error shape
	left      verdict = "left"                 // the client itself hung up
	cut       verdict = "cut"                  // the connection was cut without a word
	truncated verdict = "TRUNCATED"            // a clean end of an incomplete answer
	denied    verdict = "error, clean end"     // an error event, but then a clean end
	confused  verdict = "several error events" // or content behind one
	unshaped  verdict = "HTTP error unshaped"  // an HTTP error in another shape
	dead      verdict = "no answer"            // no status line came
)

// judge says what a read answer is.
func (a *answer) judge() verdict {
	whole := a.finish != "" && a.done && a.hasUsage && a.errors == 0 && a.junk == ""
	switch {
	case a.cancelled:
		return left
	case a.status == 0:
		return dead
	case a.status != 200 && a.errors == 1 && a.err == nil:
		return refused
	case a.status != 200:
		return unshaped
	case a.errors > 1 || a.late:
		return confused
	case a.errors == 1 && a.err != nil && !a.done:
		return told
	case a.errors > 0:
		return denied
	case a.err != nil:
		return cut
	case whole:
		return complete
	}
	return truncated
}
