package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// reply is the head of an upstream's answer and the way to its body.
type reply struct {
	status int
	fields []field // for the client: those of keepsResponse
	space  [6]field
	length int64 // -1: not known
	body   io.Reader
	keep   bool // the connection may be used again once the body was read to its end

	conn *conn             // our own connection; nil: by way of net/http
	stop func() bool       // ends the watch on the client
	res  *http.Response    // net/http's answer
	dog  *time.Timer       // net/http: ends the request at the limit
	cut  func(cause error) // net/http: ends the request
	at   time.Time         // net/http: what the timer is set to
}

// errSilent says that an upstream was silent past a limit.
var errSilent = errors.New("silent for too long")

// is reports whether the head has a header with this value as its beginning.
func (r *reply) is(name, prefix string) bool {
	for _, f := range r.fields {
		if f.name == name {
			return len(f.value) >= len(prefix) && strings.EqualFold(f.value[:len(prefix)], prefix)
		}
	}
	return false
}

func (r *reply) get(name string) string {
	for _, f := range r.fields {
		if f.name == name {
			return f.value
		}
	}
	return ""
}

// limit sets when reading the body must give up. A limit that moves by less than a tenth of
// span is left alone: setting one costs as much as reading an event.
func (r *reply) limit(now time.Time, span time.Duration) {
	at := now.Add(span)
	if r.conn != nil {
		if d := at.Sub(r.conn.limit); d < 0 || d > span/10 {
			r.conn.limit = at
			_ = r.conn.SetReadDeadline(at) // a closed connection says so at the next read
		}
		return
	}
	if d := at.Sub(r.at); d < 0 || d > span/10 {
		r.at = at
		r.dog.Reset(span)
	}
}

// over reports whether the end of the transfer has come together with the last event.
func (r *reply) over() bool {
	return r.conn != nil && r.conn.r.Buffered() >= len("\r\n0\r\n\r\n")
}

// close ends the reply. Only a connection whose answer was read to its end is used again.
func (r *reply) close(whole bool) {
	if r.conn != nil {
		// stop is false if the client has gone: then the connection is being closed already.
		if r.stop() && whole && r.keep && r.conn.r.Buffered() == 0 {
			r.conn.host.put(r.conn)
		} else {
			_ = r.conn.Close() // the answer is not wanted any more
		}
		return
	}
	r.dog.Stop()
	_ = r.res.Body.Close() // before cut: an answer that was read to its end keeps its connection
	r.cut(context.Canceled)
}

// send sends a request to an upstream and waits for the head of the answer, at most for wait.
func (c *call) send(ctx context.Context, l *Lease, wait time.Duration) (*reply, error) {
	if l.Key = strings.TrimSpace(l.Key); strings.ContainsFunc(l.Key, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil, &dialError{err: errors.New("its api_key has a line break or another control character inside")}
	}
	if l.Client == nil && strings.HasPrefix(l.URL, "http://") {
		return c.sendWire(ctx, l, wait)
	}
	return c.sendClient(ctx, l, wait)
}

func (c *call) sendWire(ctx context.Context, l *Lease, wait time.Duration) (*reply, error) {
	addr, prefix, _ := strings.Cut(l.URL[len("http://"):], "/")
	hostport := addr
	if !strings.Contains(addr, ":") || strings.HasSuffix(addr, "]") {
		hostport = addr + ":80"
	}
	msg := getBuf()
	defer msg.put()
	rest := c.message(msg, l, addr, prefix)
	for fresh := false; ; fresh = true {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		cn, err := c.g.wire.get(ctx, hostport, fresh)
		if err != nil {
			// After a stale connection the worker may have had the request, and died of it.
			return nil, &dialError{err, fresh}
		}
		if !c.onWire(cutter{conn: cn}) {
			_ = cn.Close() // nothing was sent on it
			return nil, errTaken
		}
		stop := func() bool { return true }
		if !c.watched {
			stop = context.AfterFunc(ctx, func() { _ = cn.Close() }) // the client is gone: so is the request
		} else if err := ctx.Err(); err != nil { // since onWire hangUp would do that
			_ = cn.Close()
			return nil, err
		}
		cn.began = time.Now()
		// On a busy connection the limit of the request before is as good, if it is near.
		at := cn.began.Add(wait)
		if d := at.Sub(cn.limit); d < 0 || d > wait/100 {
			cn.limit = at
			_ = cn.SetReadDeadline(at) // a closed connection says so at the next read
		}
		rep, err := cn.roundTrip(msg.b, rest)
		if err == nil {
			rep.stop = stop
			return rep, nil
		}
		stop()
		_ = cn.Close() // it gave no answer
		if !errors.Is(err, errStale) || fresh {
			return nil, err
		}
	}
}

// dialError says that no connection to an upstream could be made.
type dialError struct {
	err  error
	sent bool // it may have seen the request all the same
}

func (e *dialError) Error() string { return e.err.Error() }
func (e *dialError) Unwrap() error { return e.err }

// message writes a request for an upstream into msg, except for a body that is too large to copy:
// its pieces are returned.
func (c *call) message(msg *buf, l *Lease, host, prefix string) [][]byte {
	var space [4]edit
	edits := c.edits(space[:0], l.Model)
	size := len(c.req.body)
	for _, e := range edits {
		size += len(e.text) - (e.to - e.from)
	}
	b := msg.b[:0]
	b = append(b, "POST "...)
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		b = append(append(b, '/'), prefix...)
	}
	b = append(append(b, c.path(prefix)...), " HTTP/1.1\r\nHost: "...)
	b = append(b, host...)
	b = append(b, "\r\nContent-Type: application/json\r\nAccept-Encoding: identity\r\nUser-Agent: "...)
	b = append(b, c.g.agent()...)
	b = append(b, "\r\nX-Request-Id: "...)
	b = append(b, c.id...)
	if l.Key != "" {
		b = append(append(b, "\r\nAuthorization: Bearer "...), l.Key...)
	}
	drop := named(c.r.Header)
	for name, values := range c.r.Header {
		if !keepsRequest(name) || slices.Contains(drop, name) {
			continue
		}
		for _, v := range values {
			// net/http has refused line breaks in names and values.
			b = append(append(append(append(b, "\r\n"...), name...), ": "...), v...)
		}
	}
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(size), 10)
	b = append(b, "\r\n\r\n"...)
	if size > maxPooled {
		msg.b = b
		return pieces(c.req.body, edits)
	}
	msg.b = splice(b, c.req.body, edits)
	return nil
}

// edits is what must change in the client's body for an upstream that knows the model as name.
func (c *call) edits(dst []edit, name string) []edit {
	limit := ""
	if c.d.name == "chat" { // the others have one name for it
		limit = c.lease.Limit
	}
	dst = c.req.edits(dst, name, limit)
	if s := c.sequel; s != nil {
		dst = s.terms.edits(dst, c.d, c.req.body, c.tap.text, c.tap.thought, s.sent)
		sortEdits(dst)
	}
	return dst
}

// path is the route's path at an upstream whose base has the path prefix. As in OpenAI's clients, a
// base with a path stands for /v1, whatever it is called: https://api.openai.com/v1, or /v1beta/openai.
func (c *call) path(prefix string) string {
	if prefix != "" {
		return strings.TrimPrefix(c.d.path, "/v1")
	}
	return c.d.path
}

func (c *call) sendClient(ctx context.Context, l *Lease, wait time.Duration) (*reply, error) {
	base, err := url.Parse(l.URL)
	if err != nil {
		return nil, &dialError{err: err}
	}
	var space [4]edit
	body := splice(nil, c.req.body, c.edits(space[:0], l.Model))
	ctx, cut := context.WithCancelCause(ctx)
	prefix := strings.Trim(base.Path, "/")
	target := url.URL{Scheme: base.Scheme, Host: base.Host, Path: "/" + strings.TrimPrefix(prefix+c.path(prefix), "/")}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		cut(nil)
		return nil, &dialError{err: err}
	}
	drop := named(c.r.Header)
	for name, values := range c.r.Header {
		if keepsRequest(name) && !slices.Contains(drop, name) {
			req.Header[name] = values
		}
	}
	req.Header["Content-Type"] = jsonType
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", c.g.agent())
	req.Header.Set("X-Request-Id", c.id)
	req.Header["Idempotency-Key"] = []string{} // never sent: lets net/http try a stale connection again
	if l.Key != "" {
		req.Header.Set("Authorization", "Bearer "+l.Key)
	}
	rep := &reply{cut: cut, at: time.Now().Add(wait), keep: true}
	rep.dog = time.AfterFunc(wait, func() { cut(errSilent) })
	c.onWire(cutter{cut: cut})
	client := l.Client
	if client == nil {
		client = &c.g.client
	}
	res, err := client.Do(req) //nolint:bodyclose // reply.close does, with the body
	if err != nil {
		rep.dog.Stop()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		cut(nil)
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // its text would repeat the address
		}
		return nil, err
	}
	rep.res, rep.status, rep.length = res, res.StatusCode, res.ContentLength
	rep.body = &causeBody{res.Body, func() error { return context.Cause(ctx) }}
	for name, values := range res.Header {
		for _, v := range values {
			if keepsResponse(name) {
				rep.fields = append(rep.fields, field{name, v})
			}
		}
	}
	return rep, nil
}

// causeBody reads a body and says why its request was ended.
type causeBody struct {
	io.Reader
	cause func() error
}

func (b *causeBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := b.cause(); cause != nil {
			err = cause
		}
	}
	return n, err
}
