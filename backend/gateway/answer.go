package gateway

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// maxAnswer is how much of an answer that is not streamed is held back until it is whole. A longer one, such
// as the embeddings of a thousand texts, is passed on as it comes.
const maxAnswer = 8 << 20

// answer passes on an answer that is not streamed. It is read to its end first, so a worker that dies in the
// middle is replaced unseen.
func (c *call) answer(rep *reply, whole *bool) (*fault, error) {
	in := getBuf()
	defer in.put()
	b := in.b
	defer func() { in.b = b }()
	if rep.length > int64(cap(b)) {
		// One byte more than the length, so that the read that fills it can also see the end.
		b = make([]byte, 0, min(rep.length, maxAnswer)+1)
	}
	for {
		if len(b) == cap(b) {
			b = slices.Grow(b, cap(b))
		}
		n, err := rep.body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			return c.broken(err), nil
		}
		if len(b) > maxAnswer && rep.status/100 == 2 {
			return c.through(rep, b, whole)
		}
		if len(b) > maxAnswer {
			return complaint(rep.status, fmt.Sprintf("HTTP %d with a body larger than %d bytes", rep.status, maxAnswer), ""), nil
		}
	}
	*whole = true
	c.beat(1)
	status, outcome := rep.status, api.OutcomeOK
	switch {
	case status/100 == 2:
		if f := c.check(rep, b); f != nil {
			return f, nil
		}
		c.ended(outcome, "", route.Succeeded)
	case !clientsFault(status):
		return complaint(status, errorText(status, b), rep.get("Retry-After")), nil
	default:
		// The request is at fault: every worker would say the same, so this one's words are passed on.
		outcome = api.OutcomeRejected
		msg := c.clean(errorText(status, b))
		c.ended(outcome, msg, route.Neutral)
		c.note(func(r *api.Request) { r.Error = msg })
	}
	h := c.header(rep)
	c.note(func(r *api.Request) { r.Status, r.Outcome = status, outcome })
	if outcome == api.OutcomeOK {
		c.price()
		if c.wantsCost {
			b, _ = addMember(b, costMember(c.row))
		}
	}
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	if c.out.whole(status, b, time.Now()); c.out.err != nil {
		return nil, gone(c.out.err)
	}
	return nil, nil
}

// clientsFault reports whether a worker's status says that the request is at fault, and not the worker or us.
func clientsFault(status int) bool {
	switch status {
	case http.StatusTooManyRequests, http.StatusUnauthorized, http.StatusForbidden:
		return false
	}
	return status/100 == 4 || status == http.StatusNotImplemented
}

// check reads a whole 2xx answer and says what is wrong with it.
func (c *call) check(rep *reply, b []byte) *fault {
	if !rep.is("Content-Type", "application/json") {
		return complaint(0, fmt.Sprintf("it answers in %q, want application/json", cut(rep.get("Content-Type"), 100)), "")
	}
	trimmed := bytes.TrimRight(b, " \r\n\t")
	if !bytes.HasSuffix(trimmed, []byte("}")) || rep.length < 0 && !gjson.ValidBytes(b) {
		// Without a length, the end of the connection, or of the chunks, looks like the end of the answer, and it may
		// well come behind a brace in its middle.
		return broken(io.ErrUnexpectedEOF)
	}
	if c.tap.keep && c.g.Rates != nil && !c.g.Rates() {
		c.tap.keep = false
	}
	c.d.answer(&c.tap, b)
	if c.tap.fault != "" {
		return complaint(c.tap.code, c.tap.fault, "")
	}
	return nil
}

// through passes on an answer that is too large to hold, of which b has been read.
func (c *call) through(rep *reply, b []byte, whole *bool) (*fault, error) {
	now := time.Now()
	h := c.header(rep)
	if rep.length >= 0 {
		h["Content-Length"] = []string{strconv.FormatInt(rep.length, 10)}
	}
	c.out.begin(rep.status, now)
	c.note(func(r *api.Request) { r.Status = rep.status })
	tail := b[len(b)-min(len(b), maxTail):]
	tail = append(make([]byte, 0, 2*maxTail), tail...)
	chunk := b
	space := make([]byte, 64<<10)
	for {
		if err := c.out.write(chunk, now); err != nil {
			return nil, gone(err)
		}
		n, err := rep.body.Read(space)
		now = time.Now()
		rep.limit(now, c.patience(now, c.g.idleTimeout()))
		chunk = space[:n]
		if tail = append(tail, chunk...); len(tail) > maxTail {
			tail = tail[:copy(tail, tail[len(tail)-maxTail:])]
		}
		if err == nil {
			continue
		}
		if err != io.EOF || !rep.keep && rep.length < 0 && !bytes.HasSuffix(bytes.TrimRight(tail, " \r\n\t"), []byte("}")) {
			f := c.broken(err)
			c.ended(api.OutcomeLost, f.msg, f.result)
			c.note(func(r *api.Request) { r.Outcome, r.Error = api.OutcomeLost, f.msg })
			return nil, nil // the answer stays open: end aborts it
		}
		if n > 0 {
			if err := c.out.write(chunk, now); err != nil {
				return nil, gone(err)
			}
		}
		*whole = true
		if i := bytes.LastIndex(tail, []byte(`"usage":`)); i >= 0 {
			if u := gjson.ParseBytes(tail[i+len(`"usage":`):]); u.IsObject() {
				c.tap.usage, c.tap.hasUsage = rerankUsage(u), true
			}
		}
		c.ended(api.OutcomeOK, "", route.Succeeded)
		c.note(func(r *api.Request) { r.Outcome = api.OutcomeOK })
		c.out.close()
		return nil, nil
	}
}

// maxTail is how much of the end of a large answer is kept to find its usage in.
const maxTail = 64 << 10

// sizeText writes a number of bytes as a config would.
func sizeText(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 30, "GiB"}, {1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= u.size && n%u.size == 0 {
			return strconv.FormatInt(n/u.size, 10) + " " + u.name
		}
	}
	return strconv.FormatInt(n, 10) + " bytes"
}
