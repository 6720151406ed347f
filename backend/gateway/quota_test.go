package gateway

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tidwall/gjson"
	"pgregory.net/rapid"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// key makes a client key.
func key(name, text string, change ...func(*Key)) Key {
	k := Key{Key: api.Key{Name: name, ID: api.KeyID(text)}, Hash: HashKey(text)}
	for _, f := range change {
		f(&k)
	}
	return k
}

// with sets limits.
func with(f func(l *api.KeyLimits)) func(*Key) { return func(k *Key) { f(&k.Limits) } }

func as(text string) []string { return []string{"Authorization", "Bearer " + text} }

// codeOf is the error code of an answer.
func codeOf(a answer) string { return gjson.Get(a.body, "error.code").Str }

func answers(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, wholeAnswer)
}

func TestRequestsPerMinute(t *testing.T) {
	bubble(t, map[string]http.HandlerFunc{"a": answers}, nil, func(r *rig) {
		r.Keys.Set([]Key{key("ci", "vd_ci_x", with(func(l *api.KeyLimits) { l.Requests = 3 })), key("free", "vd_free_x")})
		for i := range 3 {
			got := r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_x")...)
			h := got.header
			if got.status != 200 || h.Get("X-Ratelimit-Limit-Requests") != "3" || h.Get("X-Ratelimit-Remaining-Requests") != strconv.Itoa(2-i) || h.Get("X-Ratelimit-Reset-Requests") == "" {
				t.Errorf("request %d: %d with %v, want 200 with what is left", i, got.status, h)
			}
			if h.Get("X-Ratelimit-Limit-Tokens") != "" {
				t.Errorf("a limit of tokens is told of and there is none")
			}
			r.pool.row(t)
			time.Sleep(5 * time.Second)
		}
		refusedAt := time.Now()
		got := r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_x")...)
		if got.status != 429 || codeOf(got) != "rate_limit_exceeded" || gjson.Get(got.body, "error.type").Str != "requests" || got.header.Get("Retry-After") != "46" ||
			got.header.Get("X-Should-Retry") != "" || got.header.Get("X-Ratelimit-Remaining-Requests") != "0" {
			t.Errorf("the fourth: %d %s with %v, want 429 and to try again in 46 s, when the first is a minute old", got.status, got.body, got.header)
		}
		if row := r.pool.row(t); row.Outcome != api.OutcomeRejected || row.Key != "ci" || row.Status != 429 {
			t.Errorf("row = %s of %q, want rejected of ci", row.Outcome, row.Key)
		}
		if got := r.post(t, "/v1/chat/completions", chatBody, as("vd_free_x")...); got.status != 200 || got.header.Get("X-Ratelimit-Limit-Requests") != "" {
			t.Errorf("another key: %d, want 200 without limits", got.status)
		}
		r.pool.row(t)
		time.Sleep(time.Until(refusedAt.Add(46 * time.Second)))
		if got := r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_x")...); got.status != 200 {
			t.Errorf("after Retry-After: %d %s, want 200", got.status, got.body)
		}
		r.pool.row(t)
	})
}

func TestNoMinuteHoldsMoreThanItsLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Int64Range(1, 20).Draw(t, "limit")
		var m minute
		var in []float64 // times, with fractions of seconds
		now := 0.0
		for range rapid.IntRange(1, 200).Draw(t, "n") {
			now += rapid.Float64Range(0, 30).Draw(t, "pause")
			at := int64(now)
			wait := m.room(at, 1, limit)
			if wait == 0 {
				m.add(at, 1)
				in = append(in, now)
			} else {
				if wait > 61 {
					t.Fatalf("room in %d s", wait)
				}
				after := m
				if after.room(at+wait, 1, limit) != 0 || wait > 1 && after2(m, at+wait-1, limit) == 0 {
					t.Fatalf("at %d it said that there is room in %d s, and there is not, or was before", at, wait)
				}
			}
			if e := m.empty(at); e > 0 {
				after := m
				if after.advance(at + e); after.sum != 0 {
					t.Fatalf("%d count after empty's %d s", after.sum, e)
				}
			}
		}
		for i, from := range in {
			n := int64(0)
			for _, v := range in[i:] {
				if v < from+60 {
					n++
				}
			}
			if n > limit {
				t.Fatalf("%d in the minute from %v, limit %d", n, from, limit)
			}
		}
	})
}

func after2(m minute, at, limit int64) int64 { return m.room(at, 1, limit) }

func TestTokensPerMinuteAreHeldWhileInFlight(t *testing.T) {
	url, pass, _ := gate(t)
	r := newRig(t)
	r.pool.add("a", url)
	r.Keys.Set([]Key{key("ci", "vd_ci_x", with(func(l *api.KeyLimits) { l.Tokens = 1000 }))})
	body := `{"model":"m","messages":[{"role":"user","content":"Hello there"}],"max_tokens":600}`
	var wg sync.WaitGroup
	wg.Go(func() {
		if got := r.post(t, "/v1/chat/completions", body, as("vd_ci_x")...); got.status != 200 {
			t.Errorf("first: %d %s", got.status, got.body)
		}
	})
	until(t, "the first is in flight", func() bool { return r.Traffic().InFlight == 1 && r.pool.sent() == 1 })
	got := r.post(t, "/v1/chat/completions", body, as("vd_ci_x")...)
	if got.status != 429 || codeOf(got) != "rate_limit_exceeded" || gjson.Get(got.body, "error.type").Str != "tokens" || !strings.Contains(got.body, "held for requests in flight") {
		t.Errorf("while 600 are held: %d %s, want 429", got.status, got.body)
	}
	if n := got.header.Get("Retry-After"); n < "1" || n > "3" {
		t.Errorf("Retry-After = %s, want soon: what is held comes back", n)
	}
	r.pool.idleRow(t)
	pass <- struct{}{}
	wg.Wait()
	r.pool.idleRow(t)
	// 18 tokens were used, of which the worker told: the rest is free again.
	wg.Go(func() {
		got := r.post(t, "/v1/chat/completions", strings.Replace(body, "600", "900", 1), as("vd_ci_x")...)
		if left := got.header.Get("X-Ratelimit-Remaining-Tokens"); got.status != 200 || left != strconv.FormatInt(1000-18-900-promptTokens([]byte(`[{"role":"user","content":"Hello there"}]`)), 10) {
			t.Errorf("after the first: %d %s, %s tokens left", got.status, got.body, left)
		}
	})
	pass <- struct{}{}
	wg.Wait()
	r.pool.idleRow(t)
	got = r.post(t, "/v1/chat/completions", strings.Replace(body, "600", "1001", 1), as("vd_ci_x")...)
	if got.status != 429 || got.header.Get("X-Should-Retry") != "false" || !strings.Contains(got.body, "lower max_tokens") {
		t.Errorf("more than a minute's in one request: %d %s, want 429 and not to try again", got.status, got.body)
	}
	r.pool.idleRow(t)
}

func TestTokensOfAMinuteComeBack(t *testing.T) {
	bubble(t, map[string]http.HandlerFunc{"a": answers}, nil, func(r *rig) {
		r.Keys.Set([]Key{key("ci", "vd_ci_x", with(func(l *api.KeyLimits) { l.Tokens = 50 }))})
		body := `{"model":"m","messages":[],"max_tokens":30}` // 1 and 30 held, 18 used
		served := 0
		for range 130 {
			if r.post(t, "/v1/chat/completions", body, as("vd_ci_x")...).status == 200 {
				served++
			}
			r.pool.row(t)
			time.Sleep(time.Second)
		}
		// Two fit (18+18+31 > 50), and again each time they are more than a minute old.
		if served != 6 {
			t.Errorf("%d requests were served in 130 s, want 6", served)
		}
		if u := r.Keys.Keys(time.Now())[0].Use; u.InFlight != 0 || u.Tokens > 50 {
			t.Errorf("use = %+v", u)
		}
	})
}

func TestAClientThatDoesNotSayHowLongIsNotLockedOut(t *testing.T) {
	r := newRig(t)
	r.pool.add("a", goodAnswer(t))
	r.Keys.Set([]Key{key("ci", "vd_ci_x", with(func(l *api.KeyLimits) { l.Tokens = 60 }))})
	if got := r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_x")...); got.status != 200 {
		t.Errorf("without max_tokens: %d %s, want 200", got.status, got.body)
	}
	r.pool.row(t)
}

func TestParallel(t *testing.T) {
	url, pass, _ := gate(t)
	r := newRig(t)
	r.pool.set(route.Candidate{ID: "a", Ready: true, MaxSeqs: 1}, url)
	r.Keys.Set([]Key{key("ci", "vd_ci_x", with(func(l *api.KeyLimits) { l.Parallel = 2 }))})
	var wg sync.WaitGroup
	for i := range 2 { // one with the worker, one that waits: both count
		wg.Go(func() { r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_x")...) })
		until(t, "request is in", func() bool { return r.Traffic().InFlight == i+1 && r.Traffic().Queued == i })
	}
	got := r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_x")...)
	if got.status != 429 || codeOf(got) != "rate_limit_exceeded" || got.header.Get("Retry-After") == "" {
		t.Errorf("the third at once: %d %s, want 429", got.status, got.body)
	}
	if u := r.Keys.Keys(time.Now())[0].Use; u.InFlight != 2 {
		t.Errorf("%d in flight, want 2", u.InFlight)
	}
	pass <- struct{}{}
	pass <- struct{}{}
	wg.Wait()
	for range 3 {
		r.pool.idleRow(t)
	}
	wg.Go(func() { pass <- struct{}{} })
	if got := r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_x")...); got.status != 200 {
		t.Errorf("afterwards: %d, want 200", got.status)
	}
	wg.Wait()
	r.pool.idleRow(t)
}

// costs makes every answer cost c, and says so beforehand.
func costs(r *rig, c api.Nanos) {
	r.pool.price = func(q *api.Request) { q.Actual = new(c) }
	r.Estimate = func(string, int64, int64) (api.Nanos, bool) { return c, true }
}

func TestABudgetHoldsHoweverManyAreSentAtOnce(t *testing.T) {
	r := newRig(t)
	r.pool.add("a", goodAnswer(t))
	costs(r, 7)
	r.Keys.Set([]Key{key("ci", "vd_ci_x", with(func(l *api.KeyLimits) { l.Day = new(api.Nanos(100)) }))})
	var wg sync.WaitGroup
	var ok counter
	for range 20 {
		wg.Go(func() {
			for range 20 {
				switch got := r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_x")...); {
				case got.status == 200:
					ok.Add(1)
				case got.status != 429 || codeOf(got) != "insufficient_quota" || got.header.Get("Retry-After") == "":
					t.Errorf("got %d %s, want 200 or 429 insufficient_quota", got.status, got.body)
				}
				r.pool.idleRow(t)
			}
		})
	}
	wg.Wait()
	u := r.Keys.Keys(time.Now())[0].Use
	if n := ok.Load(); n*7 > 106 || n*7 < 94 || int64(u.Day) != n*7 || u.Month != u.Day {
		t.Errorf("%d requests of 7 were served on a budget of 100, %d counted: want 14 or 15", n, u.Day)
	}
	got := r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_x")...)
	if u.Day >= 100 && (got.status != 429 || got.header.Get("X-Should-Retry") != "false") {
		t.Errorf("when it is spent: %d with %v, want 429 and not to try again", got.status, got.header)
	}
	r.pool.idleRow(t)
}

func TestABudgetBeginsAnewWithItsDay(t *testing.T) {
	bubble(t, map[string]http.HandlerFunc{"a": answers}, nil, func(r *rig) {
		costs(r, 60)
		now := time.Now()
		time.Sleep(time.Until(time.Date(now.Year(), now.Month(), now.Day(), 23, 0, 0, 0, now.Location())))
		r.Keys.Set([]Key{key("ci", "vd_ci_x", with(func(l *api.KeyLimits) { l.Day, l.Month = new(api.Nanos(100)), new(api.Nanos(250)) }), func(k *Key) {
			k.Spent = Spent{Day: 40, Month: 130, Unpriced: 3} // by the ledger
		})})
		if got := r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_x")...); got.status != 200 {
			t.Errorf("with 40 of 100 spent before: %d %s", got.status, got.body)
		}
		r.pool.row(t)
		got := r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_x")...)
		if got.status != 429 || codeOf(got) != "insufficient_quota" || got.header.Get("Retry-After") != "3600" || got.header.Get("X-Should-Retry") != "false" {
			t.Errorf("with 100 of 100 spent: %d %s with %v, want 429 until midnight, in 3600 s", got.status, got.body, got.header)
		}
		r.pool.row(t)
		time.Sleep(time.Hour)
		if got := r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_x")...); got.status != 200 {
			t.Errorf("after midnight: %d %s, want 200", got.status, got.body)
		}
		r.pool.row(t)
		if u := r.Keys.Keys(time.Now())[0].Use; u.Day != 60 || u.Month != 250 || u.Unpriced != 3 {
			t.Errorf("use = %+v, want 60 of the new day and 250 of the month", u)
		}
		got = r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_x")...)
		if got.status != 429 || !strings.Contains(got.body, "per month") {
			t.Errorf("with the month's spent: %d %s, want 429", got.status, got.body)
		}
		r.pool.row(t)
	})
}

func TestAClockThatIsSetBackBringsNoMoney(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.Local)
	q := newQuota(now, Spent{})
	q.limit(api.KeyLimits{Day: new(api.Nanos(10))})
	spend := func(at time.Time) bool {
		if q.enter(at) != nil {
			t.Fatal("not let in")
		}
		r := q.hold(at, 0, 10)
		u := used{started: at}
		if r == nil {
			u.money = 10
			q.settle(at, 0, 10, u)
		} else {
			q.settle(at, 0, 0, u)
		}
		return r == nil
	}
	var got []bool
	for _, h := range []int{0, 1, 24, 23, 0, 24, 25, 48} { // forward a day, back, and forward again
		got = append(got, spend(now.Add(time.Duration(h)*time.Hour)))
	}
	if want := []bool{true, false, true, false, false, false, false, true}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("served %v, want %v: each day's budget once", got, want)
	}
}

func TestABudgetWithoutKnownCostIsRefused(t *testing.T) {
	r := newRig(t)
	r.pool.add("a", goodAnswer(t))
	r.Keys.Set([]Key{key("ci", "vd_ci_x", with(func(l *api.KeyLimits) { l.Month = new(api.Nanos(100)) })), key("free", "vd_free_x")})
	got := r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_x")...)
	if got.status != 503 || codeOf(got) != "cost_unknown" || !strings.Contains(got.body, "cost.gpu_hour") || got.header.Get("X-Should-Retry") != "false" {
		t.Errorf("got %d %s, want 503 that names the setting: a budget that bounds nothing must not look like one", got.status, got.body)
	}
	r.pool.row(t)
	if got := r.post(t, "/v1/chat/completions", chatBody, as("vd_free_x")...); got.status != 200 {
		t.Errorf("a key without budget: %d", got.status)
	}
	r.pool.row(t)
	for _, k := range r.Keys.Keys(time.Now()) {
		if want := map[string]int64{"ci": 0, "free": 1}[k.Name]; k.Use.Unpriced != want {
			t.Errorf("%s has %d requests without price, want %d", k.Name, k.Use.Unpriced, want)
		}
	}
}

func TestMoneyOfSimulatedWorkersCountsWhereNothingElseIs(t *testing.T) {
	r := newRig(t)
	r.pool.add("a", goodAnswer(t))
	r.pool.sim = true
	costs(r, 5)
	r.Keys.Set([]Key{key("ci", "vd_ci_x")})
	for i, want := range []api.Nanos{0, 5} {
		r.Keys.Simulated(i == 1)
		r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_x")...)
		r.pool.row(t)
		if u := r.Keys.Keys(time.Now())[0].Use; u.Day != want {
			t.Errorf("spent %d, want %d", u.Day, want)
		}
	}
}

func TestChangedKeysKeepWhatWasUsedAndCutNoStream(t *testing.T) {
	more := make(chan struct{})
	r := newRig(t)
	r.pool.add("a", serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		io.WriteString(w, evRole+evText("x"))
		w.(http.Flusher).Flush()
		<-more
		io.WriteString(w, evText("y")+evFinish+evUsage+evDone)
	}))
	costs(r, 5)
	limits := func(n int64) func(*Key) {
		return with(func(l *api.KeyLimits) { l.Requests, l.Tokens, l.Day = n, 10_000, new(api.Dollar) })
	}
	r.Keys.Set([]Key{key("ci", "vd_ci_x", limits(2))})
	done := make(chan answer, 1)
	go func() { done <- r.post(t, "/v1/chat/completions", streamBody, as("vd_ci_x")...) }()
	until(t, "the stream is at the client", func() bool {
		list := r.InFlight(nil)
		return len(list) == 1 && list[0].TTFT > 0
	})
	r.Keys.Set([]Key{key("other", "vd_o_x"), key("ci", "vd_ci_y", limits(1), func(k *Key) { k.Spent = Spent{Day: 999} })})
	if got := r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_y")...); got.status != 429 || gjson.Get(got.body, "error.type").Str != "requests" {
		t.Errorf("with the new text and a lower limit: %d %s, want 429 for what the old text used", got.status, got.body)
	}
	r.pool.idleRow(t)
	close(more)
	if got := <-done; got.status != 200 || got.err != nil || !strings.HasSuffix(got.body, evDone) {
		t.Errorf("the stream of the old text: %d %q (%v), want it whole", got.status, got.body, got.err)
	}
	r.pool.idleRow(t)
	for _, k := range r.Keys.Keys(time.Now()) {
		if k.Name == "ci" && (k.Use.InFlight != 0 || k.Use.Tokens != 18 || k.Use.Day != 5) {
			t.Errorf("use = %+v, want 18 tokens and 5 for the stream, nothing in flight", k.Use)
		}
	}
}

func TestLimitsOfAProviderAreNotTheClients(t *testing.T) {
	r := newRig(t)
	r.pool.add("a", serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("X-Ratelimit-Remaining-Requests", "4999")
		answers(w, req)
	}))
	r.Keys.Set([]Key{key("ci", "vd_ci_x", with(func(l *api.KeyLimits) { l.Requests = 3 }))})
	got := r.post(t, "/v1/chat/completions", chatBody, as("vd_ci_x")...)
	if v := got.header["X-Ratelimit-Remaining-Requests"]; len(v) != 1 || v[0] != "2" {
		t.Errorf("remaining = %v, want 2 alone", v)
	}
	r.pool.row(t)
}

func TestStreamsAndAnthropicTellOfLimitsToo(t *testing.T) {
	r := newRig(t)
	r.pool.add("a", good(t))
	r.Keys.Set([]Key{key("ci", "vd_ci_x", with(func(l *api.KeyLimits) { l.Requests, l.Tokens = 1, 5000 }))})
	got := r.post(t, "/v1/chat/completions", streamBody, as("vd_ci_x")...)
	if got.status != 200 || got.header.Get("X-Ratelimit-Remaining-Requests") != "0" || got.header.Get("X-Ratelimit-Limit-Tokens") != "5000" {
		t.Errorf("stream: %d with %v", got.status, got.header)
	}
	r.pool.row(t)
	got = r.post(t, "/v1/messages", chatBody, "X-Api-Key", "vd_ci_x")
	if got.status != 429 || gjson.Get(got.body, "type").Str != "error" || gjson.Get(got.body, "error.type").Str != "rate_limit_error" {
		t.Errorf("messages: %d %s, want Anthropic's shape", got.status, got.body)
	}
	r.pool.row(t)
}

func TestWhatARequestMayUse(t *testing.T) {
	for body, want := range map[string]int64{
		`{"messages":[]}`:                     0,
		`{"max_tokens":5}`:                    5,
		`{"max_completion_tokens":7}`:         7,
		`{"max_output_tokens":9}`:             9,
		`{"max_tokens":5,"max_tokens":500}`:   500,
		`{"max_tokens":500,"max_tokens":5}`:   500,
		`{"max_\u0074okens":6}`:               6,
		`{"max_tokens":null}`:                 0,
		`{"max_tokens":"5"}`:                  0,
		`{"max_tokens":-5}`:                   0,
		`{"metadata":{"max_tokens":5}}`:       0,
		`{"max_tokens":99999999999999999999}`: 0,
	} {
		c := call{req: request{body: []byte(body), n: 1}, d: &dialects[0], row: &api.Request{}}
		got := c.need().MaxTokens
		if got != want {
			t.Errorf("%s: %d, want %d", body, got, want)
		}
	}
	text := strings.Repeat("word", 100)
	image := `{"url":"data:image/png;base64,` + strings.Repeat("A", 1<<20) + `"}`
	for input, want := range map[string]int64{"": 0, text: 100, `[` + image + `,` + image + `]`: 2*imageTokens + 15} {
		if got := promptTokens([]byte(input)); got < want-10 || got > want+10 {
			t.Errorf("%.40s…: %d tokens, want about %d", input, got, want)
		}
	}
}

func TestSettledOnceHoweverACallEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &Gateway{Upstreams: newPool()}
		g.Keys.Set([]Key{key("ci", "vd_ci_x", with(func(l *api.KeyLimits) { l.Parallel, l.Tokens = 1, 5000 }))})
		q := g.Keys.ring.Load().all[0].quota
		for range 3 {
			if err := q.enter(time.Now()); err != nil {
				t.Fatalf("not let in: %v", err)
			}
			if err := q.hold(time.Now(), 100, 0); err != nil {
				t.Fatalf("nothing held: %v", err)
			}
			q.settle(time.Now(), 100, 0, used{started: time.Now()})
		}
		if q.inFlight != 0 || q.heldTokens != 0 {
			t.Errorf("%d in flight, %d tokens held, want none", q.inFlight, q.heldTokens)
		}
	})
}

// sent is how many requests went to a worker so far.
func (p *pool) sent() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.opened
}

func TestTokensOfRequestsThatDidNotEndWell(t *testing.T) {
	prompt := promptTokens([]byte(`[{"role":"user","content":"Hello there"}]`))
	for name, tt := range map[string]struct {
		worker http.HandlerFunc
		leave  bool
		want   int64
	}{
		"refused by the worker": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, `{"error":{"message":"too long"}}`)
		}, false, 0},
		"failed by the worker": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, false, 0},
		"left by its client": {func(_ http.ResponseWriter, req *http.Request) {
			io.Copy(io.Discard, req.Body)
			<-req.Context().Done()
		}, true, prompt},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.pool.add("a", serveHTTP(t, tt.worker))
			r.Keys.Set([]Key{key("ci", "vd_ci_x", with(func(l *api.KeyLimits) { l.Tokens, l.Parallel = 5000, 1 }))})
			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/v1/chat/completions", strings.NewReader(chatBody))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer vd_ci_x")
			done := make(chan struct{})
			go func() {
				defer close(done)
				if res, err := r.http.Do(req); err == nil {
					res.Body.Close()
				}
			}()
			if tt.leave {
				until(t, "it is with the worker", func() bool { return r.pool.sent() == 1 })
				leave()
			}
			r.pool.row(t)
			<-done
			if u := r.Keys.Keys(time.Now())[0].Use; u.Tokens != tt.want || u.InFlight != 0 {
				t.Errorf("%d tokens used and %d in flight, want %d and none", u.Tokens, u.InFlight, tt.want)
			}
			if q := r.Keys.ring.Load().all[0].quota; q.heldTokens != 0 {
				t.Errorf("%d tokens are held", q.heldTokens)
			}
		})
	}
}
