package gateway

import (
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// laneReply writes the answer to a request on the lane: an http.ResponseWriter that writes nothing before it is
// flushed, ends, or has much to write. It has no trailers: who asks for one is not on the lane.
type laneReply struct {
	c      *laneConn
	h      http.Header
	now    time.Time // of the request
	status int       // 0: not written yet
	begun  bool      // the head is in buf
	chunks bool
	left   int64 // of the declared length
	last   bool  // the connection ends with it
	held   bool  // see hold
	err    error // of the first write that failed

	early []byte   // the body before the head, while its length may still become known
	buf   []byte   // what is to be written
	space *buf     // its memory; from the pool, because an idle connection needs none
	names []string // memory for begin
}

const (
	maxEarly = 2 << 10 // a body that ends within it gets a Content-Length; as in net/http
)

func (w *laneReply) start(now time.Time) {
	clear(w.h)
	space := getBuf()
	*w = laneReply{c: w.c, h: w.h, now: now, early: w.early[:0], buf: space.b, space: space, names: w.names}
}

// done gives the memory back.
func (w *laneReply) done() {
	w.space.b = w.buf
	w.space.put()
	w.space, w.buf = nil, nil
}

// Header implements http.ResponseWriter.
func (w *laneReply) Header() http.Header { return w.h }

// WriteHeader implements http.ResponseWriter.
func (w *laneReply) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// bodiless reports whether an answer of this status has no body.
func bodiless(status int) bool { return status < 200 || status == 204 || status == 304 }

// Write implements http.ResponseWriter.
func (w *laneReply) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	switch {
	case w.err != nil:
		return 0, w.err
	case bodiless(w.status):
		return 0, http.ErrBodyNotAllowed
	case !w.begun && len(w.h["Content-Length"]) == 0 && len(w.early)+len(p) <= maxEarly:
		w.early = append(w.early, p...)
		return len(p), nil
	case !w.begun:
		w.begin(-1)
	}
	if !w.chunks {
		if int64(len(p)) > w.left {
			return 0, http.ErrContentLength
		}
		w.left -= int64(len(p))
	}
	w.add(p)
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// add appends a piece of the body.
func (w *laneReply) add(p []byte) {
	if len(p) == 0 {
		return
	}
	if w.chunks {
		w.buf = append(strconv.AppendUint(w.buf, uint64(len(p)), 16), "\r\n"...)
	}
	if len(w.buf)+len(p) <= cap(w.buf)-len("\r\n") {
		w.buf = append(w.buf, p...)
	} else {
		// buf does not grow for it: it goes out in one system call with what is there.
		if w.err == nil {
			_, w.err = (&net.Buffers{w.buf, p}).WriteTo(w.c.Conn)
		}
		w.buf = w.buf[:0]
	}
	if w.chunks {
		w.buf = append(w.buf, "\r\n"...)
	}
}

// begin puts the head into buf, and what there is of the body. length is the body's, if that is all of it; else -1.
func (w *laneReply) begin(length int64) {
	w.begun = true
	b := append(strconv.AppendInt(append(w.buf, "HTTP/1.1 "...), int64(w.status), 10), ' ')
	if text := http.StatusText(w.status); text != "" {
		b = append(b, text...)
	} else {
		b = strconv.AppendInt(append(b, "status code "...), int64(w.status), 10)
	}
	b = append(b, "\r\n"...)
	declared := w.h["Content-Length"]
	if len(declared) > 0 {
		n, ok := decimal(declared[0])
		if w.left = n; !ok {
			declared = nil
		}
	}
	w.last = w.last || w.c.body.left > dropped || slices.Contains(w.h["Connection"], "close") || w.c.lane.g.draining.Load()
	w.names = w.names[:0]
	for name := range w.h {
		w.names = append(w.names, name)
	}
	slices.Sort(w.names)
	for _, name := range w.names {
		switch name {
		case "Connection", "Transfer-Encoding", "Trailer", "Content-Length":
			continue
		}
		for _, v := range w.h[name] {
			b = appendField(b, name, v)
		}
	}
	if len(w.h["Date"]) == 0 {
		b = append(append(append(b, "Date: "...), w.c.lane.date(w.now)...), "\r\n"...)
	}
	switch {
	case bodiless(w.status):
	case len(declared) > 0:
		b = appendField(b, "Content-Length", declared[0])
	case length >= 0:
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), length, 10), "\r\n"...)
		w.left = length
	default:
		w.chunks = true
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	if w.last {
		b = append(b, "Connection: close\r\n"...)
	}
	w.buf = append(b, "\r\n"...)
	if length >= 0 {
		w.left -= int64(len(w.early))
	}
	w.add(w.early)
}

// appendField appends a header line. A name that is none is left out, a line break in a value is a space; as in net/http.
func appendField(b []byte, name, value string) []byte {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r) }) {
		return b
	}
	b = append(append(b, name...), ": "...)
	at := len(b)
	b = append(b, value...)
	for i := at; i < len(b); i++ {
		if b[i] == '\r' || b[i] == '\n' {
			b[i] = ' '
		}
	}
	return append(b, "\r\n"...)
}

// FlushError sends what there is; see http.ResponseController.
func (w *laneReply) FlushError() error {
	w.WriteHeader(http.StatusOK)
	if !w.begun {
		w.begin(-1)
	}
	return w.flush()
}

// flush sends what is in buf, unless it is held back.
func (w *laneReply) flush() error {
	if !w.held {
		w.send()
	}
	return w.err
}

func (w *laneReply) send() {
	if w.err == nil && len(w.buf) > 0 {
		_, w.err = w.c.Write(w.buf)
	}
	w.buf = w.buf[:0]
}

// finish ends an answer well.
func (w *laneReply) finish() {
	w.WriteHeader(http.StatusOK)
	switch {
	case !w.begun:
		w.begin(int64(len(w.early)))
	case w.chunks:
		w.buf = append(w.buf, "0\r\n\r\n"...)
	}
	w.last = w.last || w.left > 0 // it has less than it said
	w.send()
}

// hold holds back what is flushed, until release or the end.
func (w *laneReply) hold() { w.held = true }

// release sends what was held back.
func (w *laneReply) release() error {
	w.held = false
	return w.flush()
}

// SetReadDeadline sets when reading the body must be over; see http.ResponseController.
func (w *laneReply) SetReadDeadline(t time.Time) error {
	w.c.body.by = t
	return nil
}

// SetWriteDeadline implements it for http.ResponseController.
func (w *laneReply) SetWriteDeadline(t time.Time) error {
	w.c.writeBy = t
	return w.c.SetWriteDeadline(t)
}

// date is the Date header's value at now.
func (l *lane) date(now time.Time) string {
	sec := now.Unix()
	if d := l.dated.Load(); d != nil && d.sec == sec {
		return d.text
	}
	d := &dated{sec, now.UTC().Format(http.TimeFormat)}
	l.dated.Store(d)
	return d.text
}

// dated is a second as the Date header has it.
type dated struct {
	sec  int64
	text string
}
