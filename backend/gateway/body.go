package gateway

import (
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

// read takes in the body and what we need of it.
func (c *call) read() error {
	limit := c.g.maxBody()
	size := c.r.ContentLength
	if size > limit {
		return tooLarge(limit)
	}
	c.body = getBuf()
	claim := max(size, 0)
	now := time.Now()
	// The deadline is taken off again below: while the answer is made, a read that fails is
	// how net/http notices that the client has gone.
	if size < 0 {
		_ = c.out.rc.SetReadDeadline(now.Add(bodyTime(limit)))
	} else {
		_ = c.out.rc.SetReadDeadline(now.Add(bodyTime(size)))
	}
	if !c.claim(claim) {
		return c.noRoom(limit)
	}
	b := c.body.b
	if int64(cap(b)) < size+1 {
		b = make([]byte, 0, size+1)
	}
	for {
		if len(b) == cap(b) {
			if !c.claim(int64(cap(b))) {
				return c.noRoom(limit - int64(len(b)))
			}
			b = append(b, 0)[:len(b)]
		}
		n, err := c.r.Body.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if int64(len(b)) > limit {
			return tooLarge(limit)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			if c.r.Context().Err() != nil {
				return c.cause()
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return invalid(http.StatusRequestTimeout, "body_too_slow", "", "the body did not arrive in time")
			}
			return invalid(http.StatusBadRequest, "bad_body", "", "the body did not arrive: "+err.Error())
		}
	}
	_ = c.out.rc.SetReadDeadline(time.Time{})
	c.body.b = b
	if err := c.req.parse(b, c.d); err != nil {
		return asRefusal(err)
	}
	if err := checkMedia(&c.req, c.g.MediaDomains); err != nil {
		return asRefusal(err)
	}
	if c.req.stream && c.d.event == nil {
		return invalid(http.StatusBadRequest, "invalid_value", "stream", "this route does not stream")
	}
	return nil
}

// bodyTime is how long a body of size bytes may take to arrive: a minute, and 10 s more per 10 MB.
func bodyTime(size int64) time.Duration {
	return time.Minute + time.Duration(size/1e6)*time.Second
}

// claim reserves memory for a body among all that are held for replay.
func (c *call) claim(n int64) bool {
	c.room += n
	c.weigh()
	return c.g.bodies.Add(n) <= c.g.maxBodies() || c.room <= maxPooled
}

// noRoom gives up what was claimed. The rest of the body is read all the same, and kept nowhere: a client learns the
// answer, and when to come again, only once it has been able to send everything.
func (c *call) noRoom(rest int64) error {
	c.g.bodies.Add(-c.room)
	c.unburden()
	c.room, c.weight = 0, 0
	_, _ = io.Copy(io.Discard, io.LimitReader(c.r.Body, rest)) // what fails here, the answer will meet too
	_ = c.out.rc.SetReadDeadline(time.Time{})
	return &refusal{
		status: http.StatusTooManyRequests, kind: "rate_limit_error", code: "bodies_full", retry: retrySoon(),
		msg: "too many large requests are held at once: try again",
	}
}

func tooLarge(limit int64) error {
	return invalid(http.StatusRequestEntityTooLarge, "body_too_large", "", "the body is larger than the "+sizeText(limit)+" that gateway.max_body allows")
}

func asRefusal(err error) *refusal {
	if bad, ok := errors.AsType[*badRequestError](err); ok {
		return invalid(http.StatusBadRequest, "invalid_value", bad.param, bad.msg)
	}
	return invalid(http.StatusBadRequest, "bad_body", "", err.Error())
}
