package gateway

import (
	"math/rand/v2"
	"time"
)

// newID gives a name for a request that sorts by time: 48 bits of milliseconds and 80 random bits, written as a ULID.
func newID(now time.Time) string {
	const digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	var b [26]byte
	ms := uint64(now.UnixMilli())
	for i := 9; i >= 0; i-- {
		b[i] = digits[ms&31]
		ms >>= 5
	}
	r, s := rand.Uint64(), rand.Uint64()
	for i := 10; i < 18; i++ {
		b[i] = digits[r&31]
		r >>= 5
	}
	for i := 18; i < 26; i++ {
		b[i] = digits[s&31]
		s >>= 5
	}
	return string(b[:])
}
