package gateway

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// serveLine takes n requests through the head of a queue and gives the keys that they are of.
func serveLine(q *queue, n int, owner map[*waiter]string, rejoin func(key string)) string {
	var b strings.Builder
	for range n {
		w := q.head
		if w == nil {
			break
		}
		b.WriteString(owner[w])
		q.leave(w)
		if rejoin != nil {
			rejoin(owner[w])
		}
	}
	return b.String()
}

func TestKeysTakeTurns(t *testing.T) {
	q, owner := &queue{}, map[*waiter]string{}
	line := func(key, class string, n int) {
		for range n {
			owner[q.join(nil, key, class, false, 1000)] = key
		}
	}
	line("a", "", 500)
	line("b", "", 3)
	if got := serveLine(q, 8, owner, nil); got != "abababaa" {
		t.Errorf("served %s, want b's three in turn with a's 500", got)
	}
	line("c", "", 1)
	if got := serveLine(q, 3, owner, nil); !strings.Contains(got, "c") {
		t.Errorf("served %s, want the newcomer among them", got)
	}
}

func TestPriorityIsAShareAndStarvesNobody(t *testing.T) {
	q, owner := &queue{}, map[*waiter]string{}
	for range 2000 {
		owner[q.join(nil, "h", api.PriorityHigh, false, 10000)] = "h"
		owner[q.join(nil, "n", api.PriorityNormal, false, 10000)] = "n"
		owner[q.join(nil, "l", api.PriorityLow, false, 10000)] = "l"
	}
	got := serveLine(q, 2100, owner, nil)
	h, n, l := strings.Count(got, "h"), strings.Count(got, "n"), strings.Count(got, "l")
	if h < 1598 || h > 1602 || n < 398 || n > 402 || l < 98 || l > 102 {
		t.Errorf("of 2100 places high had %d, normal %d, low %d; want 1600, 400, 100", h, n, l)
	}
}

func TestAKeyThatSendsOneAfterTheOtherIsNotAlwaysFirst(t *testing.T) {
	q, owner := &queue{}, map[*waiter]string{}
	for range 100 {
		owner[q.join(nil, "b", "", false, 1000)] = "b"
	}
	owner[q.join(nil, "a", "", false, 1000)] = "a"
	got := serveLine(q, 40, owner, func(key string) {
		if key == "a" {
			owner[q.join(nil, "a", "", false, 1000)] = "a"
		}
	})
	if a := strings.Count(got, "a"); a < 18 || a > 21 {
		t.Errorf("served %s: a had %d of 40, want half", got, a)
	}
}

func TestAFullLineMakesRoomForTheKeyWithLess(t *testing.T) {
	q := &queue{}
	var greedy []*waiter
	for range 10 {
		greedy = append(greedy, q.join(nil, "greedy", "", false, 10))
	}
	if w := q.join(nil, "greedy", "", false, 10); w != nil {
		t.Error("a full line took one more of the key that fills it")
	}
	var modest []*waiter
	for range 4 {
		if w := q.join(nil, "modest", "", false, 10); w != nil {
			modest = append(modest, w)
		}
	}
	if len(modest) != 4 || q.n != 10 {
		t.Fatalf("%d of the other key are in a line of %d, want 4 in 10", len(modest), q.n)
	}
	for i, w := range greedy {
		out := false
		select {
		case <-w.out:
			out = true
		default:
		}
		if out != (i >= 6) {
			t.Errorf("request %d of the greedy key: displaced %v; want its newest four to be", i, out)
		}
	}
	if w := q.join(nil, "modest", "", false, 10); w != nil {
		t.Error("with 5 and 4 in line the second key displaces the first's: they would go on for ever")
	}
	if w := q.join(nil, "again", "", true, 10); w == nil {
		t.Error("a request that was with a worker before found no room")
	}
}

func TestALineStaysWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := &queue{}
		in := map[*waiter]bool{}
		classes := map[string]string{"a": "", "b": api.PriorityHigh, "c": api.PriorityLow, "d": ""}
		limit := rapid.IntRange(1, 12).Draw(t, "limit")
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "join") || len(in) == 0 {
				key := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "key")
				again := rapid.IntRange(0, 9).Draw(t, "again") == 0
				ahead, full := q.ahead(key, classes[key]), q.n >= limit
				w := q.join(nil, key, classes[key], again, limit)
				for o := range in {
					select {
					case <-o.out:
						delete(in, o)
						q.leave(o) // as its call does
					default:
					}
				}
				if w != nil {
					in[w] = true
					if at := slices.Index(q.order(), w); !again && !full && at != ahead {
						t.Fatalf("%s is number %d in line, and was told %d", key, at, ahead)
					}
				} else if q.n < limit {
					t.Fatalf("refused with %d of %d in line", q.n, limit)
				}
			} else {
				order := q.order()
				w := order[rapid.IntRange(0, len(order)-1).Draw(t, "who")]
				next := order[min(1, len(order)-1)]
				head := w == order[0]
				q.leave(w)
				delete(in, w)
				if head && len(order) > 1 && q.head != next {
					t.Fatal("the next in order is not the head after the head left")
				}
			}
			order := q.order()
			if len(order) != len(in) || q.n != len(in) {
				t.Fatalf("%d in order, %d counted, want %d", len(order), q.n, len(in))
			}
			for i, w := range order {
				first := false
				select {
				case <-w.first:
					first = true
				default:
				}
				if !in[w] || first != (i == 0) {
					t.Fatalf("number %d of the line: there %v, looks for a place %v", i, in[w], first)
				}
			}
			if len(in) == 0 && (len(q.flows) != 0 || q.clock != 0) {
				t.Fatalf("an empty line remembers %d flows at %v", len(q.flows), q.clock)
			}
		}
	})
}

func TestOneKeysFloodDoesNotStarveAnother(t *testing.T) {
	url, pass, order := gate(t)
	r := newRig(t)
	r.pool.set(route.Candidate{ID: "a", Ready: true, MaxSeqs: 1}, url)
	r.Keys.Set([]Key{key("flood", "vd_f_x"), key("quiet", "vd_q_x")})
	var wg sync.WaitGroup
	send := func(text, user string) {
		before := r.Traffic().InFlight
		wg.Go(func() {
			if got := r.post(t, "/v1/chat/completions", `{"model":"m","user":"`+user+`"}`, as(text)...); got.status != 200 {
				t.Errorf("%s: %d %s", user, got.status, got.body)
			}
		})
		until(t, "request is in", func() bool { tr := r.Traffic(); return tr.InFlight == before+1 && tr.Queued == before })
	}
	for range 100 {
		send("vd_f_x", "f")
	}
	send("vd_q_x", "q")
	var at []int
	for _, q := range r.InFlight(nil) {
		if q.Key == "quiet" {
			at = append(at, q.Position)
			if q.Queue <= 0 {
				t.Errorf("a request that waits says %v in line, want more", time.Duration(q.Queue))
			}
		}
	}
	if len(at) != 1 || at[0] < 2 || at[0] > 3 {
		t.Errorf("the quiet key's request is at %v in line, want 2nd or 3rd of 100", at)
	}
	for range 101 {
		pass <- struct{}{}
	}
	wg.Wait()
	if i := slices.Index(order(), "q"); i < 1 || i > 3 {
		t.Errorf("it was served as number %d, want among the first after the one that ran", i)
	}
	for range 101 {
		r.pool.idleRow(t)
	}
}

func TestPlacesInLineAreShown(t *testing.T) {
	r := newRig(t)
	block := func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		<-req.Context().Done()
	}
	r.pool.set(route.Candidate{ID: "a", Ready: true, MaxSeqs: 2}, serveHTTP(t, block))
	r.queue("m").pace.learn(4*time.Second, 0)
	var leave []func()
	for i := range 5 {
		leave = append(leave, r.begin(t, chatBody))
		until(t, "request is in", func() bool { tr := r.Traffic(); return tr.InFlight == i+1 && tr.Queued == max(0, i-1) })
	}
	got := map[int]time.Duration{}
	for _, q := range r.InFlight(nil) {
		got[q.Position] = time.Duration(q.Wait)
	}
	// Two run, 4 s each: a place becomes free every 2 s.
	if want := fmt.Sprint(map[int]time.Duration{0: 0, 1: 2 * time.Second, 2: 4 * time.Second, 3: 6 * time.Second}); fmt.Sprint(got) != want {
		t.Errorf("places and waits = %v, want %v", got, want)
	}
	for _, f := range leave {
		f()
	}
	for range 5 {
		r.pool.idleRow(t)
	}
	if left := r.InFlight(nil); len(left) != 0 {
		t.Errorf("%d in flight afterwards", len(left))
	}
}

func TestARequestThatWouldBeTooLateIsRefusedAtOnce(t *testing.T) {
	slow := func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		time.Sleep(4 * time.Second)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, wholeAnswer)
	}
	bubble(t, map[string]http.HandlerFunc{"a": slow}, func(g *Gateway) { g.TTFTTarget = 5 * time.Second }, func(r *rig) {
		r.pool.set(route.Candidate{ID: "a", Ready: true, MaxSeqs: 1}, "http://a")
		r.post(t, "/v1/chat/completions", chatBody) // 4 s each: that is learned
		r.pool.row(t)
		type result struct {
			a    answer
			took time.Duration
		}
		results := make(chan result, 3)
		for range 3 {
			go func() {
				start := time.Now()
				results <- result{r.post(t, "/v1/chat/completions", chatBody), time.Since(start)}
			}()
			time.Sleep(time.Millisecond)
		}
		// One runs; the second waits for 4 s; the third would for 8 s, and the target is 5 s.
		got := <-results
		if got.took > time.Millisecond || got.a.status != 429 || codeOf(got.a) != "ttft_target" || got.a.header.Get("X-Should-Retry") != "false" || !strings.Contains(got.a.body, "8s") {
			t.Errorf("after %v: %d %s, want 429 at once that says how late", got.took, got.a.status, got.a.body)
		}
		if n := got.a.header.Get("Retry-After"); n < "6" || n > "8" {
			t.Errorf("Retry-After = %s, want 6 to 8", n)
		}
		r.pool.idleRow(t)
		for range 2 {
			if got := <-results; got.a.status != 200 {
				t.Errorf("%d %s, want 200", got.a.status, got.a.body)
			}
			r.pool.idleRow(t)
		}
	})
}

func TestWhoWaitsPastTheTargetIsRefusedThen(t *testing.T) {
	bubble(t, map[string]http.HandlerFunc{}, func(g *Gateway) { g.TTFTTarget = 5 * time.Second }, func(r *rig) {
		r.pool.set(route.Candidate{ID: "a", Ready: true, MaxSeqs: 1, InFlight: 1}, "http://a") // nothing is known of its pace
		start := time.Now()
		got := r.post(t, "/v1/chat/completions", chatBody)
		if took := time.Since(start); took != 5*time.Second || got.status != 429 || codeOf(got) != "ttft_target" {
			t.Errorf("after %v: %d %s, want 429 after 5s", took, got.status, got.body)
		}
		r.pool.idleRow(t)
	})
}

func TestAProviderServesWhoMayNotWait(t *testing.T) {
	r := newRig(t, func(g *Gateway) { g.Queue = -1 })
	r.pool.set(route.Candidate{ID: "a", Ready: true, MaxSeqs: 1, InFlight: 1}, "")
	if got := r.post(t, "/v1/chat/completions", chatBody); got.status != 429 || codeOf(got) != "queue_full" {
		t.Errorf("without a provider: %d %s, want 429", got.status, got.body)
	}
	r.pool.idleRow(t)
	r.pool.set(route.Candidate{ID: "paid", Ready: true, Provider: true, State: "ready"}, goodAnswer(t))
	if got := r.post(t, "/v1/chat/completions", chatBody); got.status != 429 {
		t.Errorf("with one that is for workers that are down: %d %s, want 429: nobody said that overload may cost money", got.status, got.body)
	}
	r.pool.idleRow(t)
	r.pool.set(route.Candidate{ID: "paid", Ready: true, Provider: true, Overload: true, State: "ready"}, r.pool.urls["paid"])
	if got := r.post(t, "/v1/chat/completions", chatBody); got.status != 200 {
		t.Errorf("with one that may: %d %s, want 200", got.status, got.body)
	}
	if row := r.pool.idleRow(t); row.Class != api.ClassFailover {
		t.Errorf("class %s, want failover", row.Class)
	}
}

func TestPaceIsTheMeanOfTheLastRequests(t *testing.T) {
	var p pace
	if _, known := p.wait(1, 4); known {
		t.Error("a wait is known before anything has ended")
	}
	for range 100 {
		p.learn(2*time.Second, 100*time.Millisecond)
	}
	if w, known := p.wait(3, 4); !known || w.Round(time.Millisecond) != 1500*time.Millisecond || p.prefill().Round(time.Millisecond) != 100*time.Millisecond {
		t.Errorf("wait for 3 places of 4 that are held 2 s = %v (%v), prefill %v; want 1.5s, 100ms", w, known, p.prefill())
	}
	for range 50 {
		p.learn(8*time.Second, 0)
	}
	if w, _ := p.wait(3, 4); w < 5500*time.Millisecond || p.prefill().Round(time.Millisecond) != 100*time.Millisecond {
		t.Errorf("after 50 of 8 s: wait %v, prefill %v; want nearly 6s, and 100ms as before", w, p.prefill())
	}
	if _, known := p.wait(1, 0); known {
		t.Error("a wait is known and nobody serves")
	}
}
