package gateway

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// quota is what the keys of one name have used, and what they may. It outlives changes of the
// keys: a reload resets nothing.
type quota struct {
	epoch time.Time // minutes are counted from here, by the monotonic clock: a change of the clock moves nothing

	mu       sync.Mutex
	limits   api.KeyLimits
	requests minute
	tokens   minute
	inFlight int
	// Held for requests in flight, until what they really used is known.
	heldTokens int64
	heldMoney  api.Nanos

	day, month purse
	unpriced   int64 // requests of the month whose cost is not known
	last       time.Time
}

// purse is what was spent in a day or month of the host. It is emptied when the clock passes its
// end, once: a clock that is set back does not bring the old one again.
type purse struct {
	from, until time.Time
	spent       api.Nanos
}

func newQuota(now time.Time, s Spent) *quota {
	q := &quota{epoch: now}
	q.rollLocked(now)
	q.day.spent, q.month.spent, q.unpriced = s.Day, s.Month, s.Unpriced
	return q
}

func (q *quota) second(now time.Time) int64 { return max(0, int64(now.Sub(q.epoch)/time.Second)) }

// limit changes what the key may do. What is in flight goes on.
func (q *quota) limit(l api.KeyLimits) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limits = l
}

func (q *quota) bounds() api.KeyLimits {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.limits
}

// rollLocked begins a new day and month when it is time.
func (q *quota) rollLocked(now time.Time) {
	if now.Before(q.day.until) {
		return
	}
	y, m, d := now.Date()
	q.day = purse{from: time.Date(y, m, d, 0, 0, 0, 0, now.Location()), until: time.Date(y, m, d+1, 0, 0, 0, 0, now.Location())}
	if !now.Before(q.month.until) {
		q.month = purse{from: time.Date(y, m, 1, 0, 0, 0, 0, now.Location()), until: time.Date(y, m+1, 1, 0, 0, 0, 0, now.Location())}
		q.unpriced = 0
	}
}

// enter counts a request in, unless too many came in the last minute or are in flight. Refused
// requests are not counted: a client that tries again and again would else never get in.
func (q *quota) enter(now time.Time) *refusal {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.last = now
	l := &q.limits
	if l.Parallel > 0 && q.inFlight >= l.Parallel {
		return over("requests", retrySoon(), fmt.Sprintf("this key may have %d requests at once, and has", l.Parallel))
	}
	at := q.second(now)
	if l.Requests > 0 {
		if wait := q.requests.room(at, 1, l.Requests); wait > 0 {
			return over("requests", strconv.FormatInt(wait, 10), fmt.Sprintf("this key may send %d requests per minute, and has: try again in %ds", l.Requests, wait))
		}
	}
	q.requests.add(at, 1)
	q.inFlight++
	return nil
}

// hold keeps room for a request that may use so many tokens and cost so much. A request that is
// alone may spend what is left of a budget and more, because nobody knows what it will cost: a
// budget is passed by at most one request, however many are sent at once.
func (q *quota) hold(now time.Time, tokens int64, money api.Nanos) *refusal {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rollLocked(now)
	l := &q.limits
	if l.Tokens > 0 {
		if tokens > l.Tokens {
			r := over("tokens", "", fmt.Sprintf("this request may use %d tokens (its prompt and max_tokens), and this key %d per minute: lower max_tokens", tokens, l.Tokens))
			r.final = true
			return r
		}
		if wait := q.tokens.room(q.second(now), q.heldTokens+tokens, l.Tokens); wait > 0 {
			retry := strconv.FormatInt(wait, 10)
			if q.tokens.sum+tokens <= l.Tokens {
				retry = retrySoon() // others in flight hold the room, and will use less than they hold
			}
			return over("tokens", retry, fmt.Sprintf("this key may use %d tokens per minute: %d are used, %d held for requests in flight, and this one may use %d",
				l.Tokens, q.tokens.sum, q.heldTokens, tokens))
		}
	}
	for _, b := range [...]struct {
		of    *purse
		limit *api.Nanos
		name  string
	}{{&q.day, l.Day, "day"}, {&q.month, l.Month, "month"}} {
		switch {
		case b.limit == nil:
		case b.of.spent >= *b.limit:
			return &refusal{
				status: http.StatusTooManyRequests, kind: "insufficient_quota", code: "insufficient_quota", final: true, retry: seconds(b.of.until.Sub(now)),
				msg: fmt.Sprintf("this key's budget of $%s per %s is spent, until %s", b.limit, b.name, b.of.until.Format(time.RFC3339)),
			}
		case q.heldMoney > 0 && b.of.spent+q.heldMoney+money > *b.limit:
			return &refusal{
				status: http.StatusTooManyRequests, kind: "insufficient_quota", code: "insufficient_quota", retry: retrySoon(),
				msg: fmt.Sprintf("this key's budget of $%s per %s is nearly spent, and requests in flight may take the rest", b.limit, b.name),
			}
		}
	}
	q.heldTokens += tokens
	q.heldMoney += money
	return nil
}

// used is what a request has used in the end.
type used struct {
	started  time.Time
	tokens   int64
	money    api.Nanos
	unpriced bool // money is not known
}

// settle counts a request out, with what was held for it and what it used.
func (q *quota) settle(now time.Time, heldTokens int64, heldMoney api.Nanos, u used) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rollLocked(now)
	q.inFlight--
	q.heldTokens -= heldTokens
	q.heldMoney -= heldMoney
	q.tokens.add(q.second(now), u.tokens)
	// As in the ledger, a request belongs to the day that it began in.
	if !u.started.Before(q.day.from) {
		q.day.spent = plus(q.day.spent, u.money)
	}
	if !u.started.Before(q.month.from) {
		q.month.spent = plus(q.month.spent, u.money)
		if u.unpriced {
			q.unpriced++
		}
	}
}

func plus(a, b api.Nanos) api.Nanos {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// use is what is shown of the quota.
func (q *quota) use(now time.Time) *api.KeyUse {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rollLocked(now)
	at := q.second(now)
	q.requests.advance(at)
	q.tokens.advance(at)
	return &api.KeyUse{
		InFlight: q.inFlight, Requests: q.requests.sum, Tokens: q.tokens.sum,
		Day: q.day.spent, Month: q.month.spent, Unpriced: q.unpriced, Last: q.last,
	}
}

// tell writes OpenAI's rate-limit headers, as of now. What is held for requests in flight counts as used.
func (q *quota) tell(h http.Header, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	at := q.second(now)
	set := func(name string, limit, used, reset int64) {
		if limit <= 0 {
			return
		}
		h["X-Ratelimit-Limit-"+name] = []string{strconv.FormatInt(limit, 10)}
		h["X-Ratelimit-Remaining-"+name] = []string{strconv.FormatInt(max(0, limit-used), 10)}
		h["X-Ratelimit-Reset-"+name] = []string{(time.Duration(reset) * time.Second).String()}
	}
	q.requests.advance(at)
	q.tokens.advance(at)
	set("Requests", q.limits.Requests, q.requests.sum, q.requests.empty(at))
	set("Tokens", q.limits.Tokens, q.tokens.sum+q.heldTokens, q.tokens.empty(at))
}

// over is the answer to a request over a rate limit, as OpenAI words it. Its clients wait as long
// as Retry-After says and try again by themselves.
func over(kind, retry, msg string) *refusal {
	return &refusal{status: http.StatusTooManyRequests, kind: kind, code: "rate_limit_exceeded", retry: retry, msg: msg}
}

// seconds writes a Retry-After, rounded up.
func seconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64((d+time.Second-1)/time.Second)), 10)
}
