package gateway

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// Key is a client key. Only its hash is kept: a key has 32 random bytes, which need no slow hash.
type Key struct {
	Name string
	Hash [sha256.Size]byte
}

// HashKey gives the hash of a key's secret.
func HashKey(secret string) [sha256.Size]byte { return sha256.Sum256([]byte(secret)) }

// KeySet is the client keys that are accepted. While it is empty, no key is asked for. It may be
// changed while requests are served.
type KeySet struct{ keys atomic.Pointer[[]Key] }

// Set replaces all keys.
func (s *KeySet) Set(keys []Key) {
	keys = append([]Key(nil), keys...)
	s.keys.Store(&keys)
}

// find gives the name of the key with the secret. Each key is compared, in constant time.
func (s *KeySet) find(secret string) (name string, found, needed bool) {
	keys := s.keys.Load()
	if keys == nil || len(*keys) == 0 {
		return "", false, false
	}
	hash := HashKey(secret)
	for i := range *keys {
		k := &(*keys)[i]
		if subtle.ConstantTimeCompare(k.Hash[:], hash[:]) == 1 {
			name, found = k.Name, true
		}
	}
	return name, found, true
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
}

// identify checks the key of a request.
func (g *Gateway) identify(h http.Header) (caller, *refusal) {
	who := caller{class: api.ClassServed}
	given := secret(h)
	if g.Internal != "" && given != "" {
		hash := HashKey(given)
		if subtle.ConstantTimeCompare(g.internal[:], hash[:]) == 1 {
			who = caller{key: "console", class: api.ClassTester}
			if h.Get("X-Vllmdeck-Class") == api.ClassLoad {
				who = caller{key: "load", class: api.ClassLoad}
			}
			return who, nil
		}
	}
	name, found, needed := g.Keys.find(given)
	switch {
	case found:
		who.key = name
	case !needed:
	case given == "":
		return who, invalid(http.StatusUnauthorized, "missing_api_key", "", `this gateway needs a key: send "Authorization: Bearer KEY"`)
	default:
		return who, invalid(http.StatusUnauthorized, "invalid_api_key", "", `this key is not known: "vllmdeck keys" lists the names of those that are`)
	}
	return who, nil
}
