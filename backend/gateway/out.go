package gateway

import (
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

// out is the way to the client.
//
// A clean end of an incomplete answer is impossible by construction: begin sets open, and only close
// clears it, which is called in two places, each behind the proof that the answer is whole (tap.whole
// for a stream, in call.complete; the byte count for a body that was too large to hold). The handler of a call ends in call.end,
// which panics with http.ErrAbortHandler while open is set, on every way out: returns, failed
// writes and panics alike. net/http then drops the connection without the last chunk (HTTP/2: RST_STREAM),
// which every client reports as an error. An answer with a Content-Length needs no such care: it is written
// only once it is there as a whole.
type out struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	limit time.Duration // how long one write may take
	until *time.Time    // the write deadline that is set
	own   time.Time     // until, where the connection does not keep it from one request to the next
	sent  bool          // a status line has been written
	open  bool          // an answer has begun and is not whole
	err   error         // of the first write that failed
	conn  net.Conn      // of an HTTP/1.0 client; nil for others
	cork  holder        // of an HTTP/1 client; nil for others
	last  bool          // what is written now ends the answer: it goes out with net/http's end of it
}

// holder makes several writes one.
type holder interface {
	hold()
	release() error
}

// connKey is the context key of a request's connection.
type connKey struct{}

// abort makes the end of the connection an error to an HTTP/1.0 client too. There are no chunks
// there: the end of the connection is the end of the answer, unless it is a reset.
func (o *out) abort() {
	c := o.conn
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if k, ok := c.(*corked); ok {
		c = k.Conn
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // a closed connection cannot end cleanly any more
	}
}

// deadline moves the write deadline. It rolls with the events, so that a slow reader is cut but a
// long answer is not; one that moves by less than a tenth is left alone.
func (o *out) deadline(now time.Time) {
	at := now.Add(o.limit)
	if d := at.Sub(*o.until); d > o.limit/10 || d < 0 {
		*o.until = at
		_ = o.rc.SetWriteDeadline(at) // not supported by a recorder in tests; elsewhere the write will fail
	}
}

// begin writes the status line and headers of an answer whose end must be earned.
func (o *out) begin(status int, now time.Time) {
	o.deadline(now)
	o.open, o.sent = true, true
	o.w.WriteHeader(status)
}

// onePiece is what net/http sends in one piece by itself, a head of 2 kB included.
const onePiece = 2 << 10

// write sends p to the client now.
func (o *out) write(p []byte, now time.Time) error {
	if o.err != nil {
		return o.err
	}
	o.deadline(now)
	held := o.cork != nil && (o.last || len(p) > onePiece)
	if held {
		o.cork.hold()
	}
	if _, o.err = o.w.Write(p); o.err == nil {
		o.err = o.rc.Flush()
	}
	if held && !o.last {
		o.release()
	}
	return o.err
}

// release sends what is held back.
func (o *out) release() {
	if o.cork == nil {
		return
	}
	if err := o.cork.release(); o.err == nil {
		o.err = err
	}
}

// close says that the answer is whole.
func (o *out) close() { o.open = false }

// whole writes a complete answer.
func (o *out) whole(status int, body []byte, now time.Time) {
	o.deadline(now)
	o.sent = true
	held := o.cork != nil && len(body) > onePiece
	if held {
		o.cork.hold()
	}
	o.w.WriteHeader(status)
	_, o.err = o.w.Write(body)
	if held {
		if err := o.rc.Flush(); o.err == nil {
			o.err = err
		}
		o.release()
	}
}
