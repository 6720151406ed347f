package gateway

import "sync"

// maxPooled is the largest buffer that is kept for the next request.
const maxPooled = 128 << 10

// buf is a buffer from the pool.
type buf struct{ b []byte }

var bufs = sync.Pool{New: func() any { return &buf{b: make([]byte, 0, 8<<10)} }}

// getBuf gives an empty buffer.
func getBuf() *buf {
	b := bufs.Get().(*buf)
	b.b = b.b[:0]
	return b
}

// put gives the buffer back. Nothing may point into it any more.
func (b *buf) put() {
	if cap(b.b) <= maxPooled {
		bufs.Put(b)
	}
}
