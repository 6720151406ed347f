package gateway

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// Key is a client key with its limits. Only its hash is kept: a key has 32 random characters,
// which need no slow hash.
type Key struct {
	api.Key
	Hash      [sha256.Size]byte
	Old       [sha256.Size]byte // of the text before a rotation
	Until     time.Time         // Old is good until then
	Guessable bool              // its owner chose it, and it is short: it is not compared for an address that guesses
	Spent     Spent             // in the day and month that are now; read when a key of this name is first seen
}

// Spent is what a key has cost so far.
type Spent struct {
	Day, Month api.Nanos
	Unpriced   int64 // requests of the month whose cost is not known
}

// HashKey gives the hash of a key's text.
func HashKey(text string) [sha256.Size]byte { return sha256.Sum256([]byte(text)) }

// KeySet is the client keys that are accepted. While it is empty, no key is asked for; one that is
// revoked or has expired counts, so that the last key's end opens nothing. It may be changed
// while requests are served: what a name has used stays with it.
type KeySet struct {
	ring      atomic.Pointer[keyring]
	simulated atomic.Bool // money of simulated workers counts

	mu     sync.Mutex
	quotas map[string]*quota // by name
}

// keyring is the keys as they are looked up; immutable.
type keyring struct {
	all  []*held
	byID map[string][]*held
	own  []*held // texts in another form than ours: those of the config
}

// held is a key and what its name has used.
type held struct {
	Key
	quota *quota
}

// Set replaces all keys.
func (s *KeySet) Set(keys []Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	ring := &keyring{byID: map[string][]*held{}}
	quotas := map[string]*quota{}
	for _, k := range keys {
		q := quotas[k.Name]
		if q == nil {
			if q = s.quotas[k.Name]; q == nil {
				q = newQuota(now, k.Spent)
			}
			quotas[k.Name] = q
			q.limit(k.Limits) // of several with one name, the first: only one is not revoked
		}
		h := &held{k, q}
		ring.all = append(ring.all, h)
		if k.ID == "" {
			ring.own = append(ring.own, h)
		} else {
			ring.byID[k.ID] = append(ring.byID[k.ID], h)
		}
	}
	s.quotas = quotas
	s.ring.Store(ring)
}

// Simulated says whether the money of simulated workers counts: where nothing else is.
func (s *KeySet) Simulated(yes bool) { s.simulated.Store(yes) }

// Keys lists the keys that are not revoked with what was used, by name.
func (s *KeySet) Keys(now time.Time) []api.Key {
	ring := s.ring.Load()
	if ring == nil {
		return nil
	}
	var out []api.Key
	for _, h := range ring.all {
		if h.Revoked.IsZero() {
			k := h.Key.Key
			k.Use = h.quota.use(now)
			out = append(out, k)
		}
	}
	slices.SortStableFunc(out, func(a, b api.Key) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// find gives the key with a text. Hashes are compared in constant time; the ID is no secret. With
// guarded, keys that can be guessed are not looked at.
func (r *keyring) find(text string, guarded bool) *held {
	hash := HashKey(text)
	list := r.own
	if id := api.KeyID(text); id != "" && len(r.byID[id]) > 0 {
		list = r.byID[id]
	}
	var found *held
	for _, h := range list {
		is := subtle.ConstantTimeCompare(h.Hash[:], hash[:])
		if !h.Until.IsZero() && time.Now().Before(h.Until) {
			is |= subtle.ConstantTimeCompare(h.Old[:], hash[:])
		}
		if is == 1 && (!guarded || !h.Guessable) {
			found = h
		}
	}
	return found
}

// secret gives what the client presents: a bearer token, or x-api-key as Anthropic's clients send it.
func secret(h http.Header) string {
	if v := h.Get("Authorization"); v != "" {
		if scheme, token, ok := strings.Cut(v, " "); ok && strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token)
		}
		return ""
	}
	return h.Get("X-Api-Key")
}

// caller is who sends a request.
type caller struct {
	key   string // name of the key
	class string // cost class
	quota *quota // of the key; nil: nothing is bounded

	capture bool // its texts are kept
}

// identify checks the key of a request.
func (g *Gateway) identify(r *http.Request) (caller, *refusal) {
	who := caller{class: api.ClassServed}
	given := secret(r.Header)
	if g.Internal != "" && given != "" {
		hash := HashKey(given)
		if subtle.ConstantTimeCompare(g.internal[:], hash[:]) == 1 {
			who = caller{key: "console", class: api.ClassTester}
			if r.Header.Get("X-Vllmdeck-Class") == api.ClassLoad {
				who = caller{key: "load", class: api.ClassLoad}
			}
			return who, nil
		}
	}
	ring := g.Keys.ring.Load()
	if ring == nil || len(ring.all) == 0 {
		return who, nil
	}
	if given == "" {
		return who, invalid(http.StatusUnauthorized, "missing_api_key", "", `this gateway needs a key: send "Authorization: Bearer KEY"`)
	}
	now := time.Now()
	wait := g.guesses.blocked(r.RemoteAddr, now)
	h := ring.find(given, wait > 0)
	switch {
	case h == nil && wait > 0:
		return who, &refusal{
			status: http.StatusTooManyRequests, kind: "rate_limit_error", code: "too_many_failed_keys", retry: seconds(wait), final: true,
			msg: "too many requests with keys that are not known came from this address",
		}
	case h == nil:
		g.guesses.failed(r.RemoteAddr, now)
		return who, invalid(http.StatusUnauthorized, "invalid_api_key", "", `this key is not known: "vllmdeck keys list" shows the names of those that are`)
	case !h.Revoked.IsZero():
		return who, invalid(http.StatusUnauthorized, "key_revoked", "", "this key has been revoked")
	case !h.Expires.IsZero() && !now.Before(h.Expires):
		return who, invalid(http.StatusUnauthorized, "key_expired", "", "this key expired at "+h.Expires.UTC().Format(time.RFC3339))
	}
	who.key, who.quota, who.capture = h.Name, h.quota, h.Capture
	return who, nil
}
