package gateway

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// BenchmarkIdentify is what the door costs: without keys, and with many.
func BenchmarkIdentify(b *testing.B) {
	for name, keys := range map[string]int{"no keys": 0, "1000 keys": 1000} {
		b.Run(name, func(b *testing.B) {
			g := &Gateway{}
			list := make([]Key, keys)
			for i := range list {
				list[i] = key(fmt.Sprint("k", i), fmt.Sprintf("vd_%08d_0123456789abcdef0123456789abcdef", i))
			}
			g.Keys.Set(list)
			r := httptest.NewRequest(http.MethodPost, "/v1/chat/completions", http.NoBody)
			r.Header.Set("Authorization", "Bearer vd_00000500_0123456789abcdef0123456789abcdef")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := g.identify(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkQuota is what the limits of a key cost a request, all of them set.
func BenchmarkQuota(b *testing.B) {
	q := newQuota(time.Now(), Spent{})
	q.limit(api.KeyLimits{Requests: 1 << 50, Tokens: 1 << 50, Parallel: 1000, Day: new(api.Nanos(1 << 60)), Month: new(api.Nanos(1 << 60))})
	h := http.Header{}
	b.ReportAllocs()
	for b.Loop() {
		now := time.Now()
		if q.enter(now) != nil || q.hold(now, 100, 100) != nil {
			b.Fatal("refused")
		}
		q.tell(h, now)
		q.settle(now, 100, 100, used{started: now, tokens: 50, money: 50})
	}
}

// BenchmarkLine is what a request costs that waits behind 255 others of 16 keys.
func BenchmarkLine(b *testing.B) {
	q := &queue{}
	var last []*waiter
	for i := range 255 {
		last = append(last, q.join(nil, fmt.Sprint("k", i%16), "", false, 256))
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		k := fmt.Sprint("k", i%16)
		q.ahead(k, "")
		w := q.join(nil, k, "", false, 256)
		q.leave(last[0])
		last = append(last[1:], w)
	}
}
