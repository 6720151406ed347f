package gateway

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// laneBody is the body of a request on the lane.
type laneBody struct {
	c    *laneConn
	left int64
	all  atomic.Bool // it was read to its end
	by   time.Time   // when reading it must be over; zero: it need not be
	lost bool        // a read failed
}

// dropped is how much of a body that its handler has not read is read for it, to keep the connection; as in net/http.
const dropped = 256 << 10

func (b *laneBody) start(c *laneConn, length int64) {
	b.c, b.left, b.by, b.lost = c, length, time.Time{}, false
	b.all.Store(length == 0)
}

// Read implements io.Reader. The end comes with the last bytes.
func (b *laneBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	c := b.c
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n := copy(p, c.buf[c.from:c.to])
	c.from += n
	if n == 0 && len(p) > 0 {
		if !b.by.Equal(c.readBy) {
			c.readBy = b.by
			_ = c.SetReadDeadline(b.by) // a closed connection says so at the read
		}
		var err error
		if n, err = c.Read(p); n == 0 && err != nil {
			if b.lost = true; !errors.Is(err, os.ErrDeadlineExceeded) {
				c.cancel() // the client has gone
			}
			return 0, unexpected(err)
		}
	}
	if b.left -= int64(n); b.left > 0 {
		return n, nil
	}
	b.all.Store(true)
	return n, io.EOF
}

// Close implements io.Closer.
func (b *laneBody) Close() error { return nil }

// drop reads what is left, if that is little, and reports whether the next request can follow.
func (b *laneBody) drop() bool {
	if b.left > dropped || b.lost {
		return false
	}
	b.by = time.Now().Add(firstWait)
	for b.left > 0 {
		var space [4 << 10]byte
		if _, err := b.Read(space[:]); err != nil && b.left > 0 {
			return false
		}
	}
	return true
}
