package gateway

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func TestModelsOfAKey(t *testing.T) {
	r := newRig(t)
	r.pool.models = append(r.pool.models, api.Model{Name: "other"})
	r.pool.add("a", goodAnswer(t))
	r.Keys.Set([]Key{
		key("by name", "vd_a_x", with(func(l *api.KeyLimits) { l.Models = []string{"m"} })),
		key("by alias", "vd_b_x", with(func(l *api.KeyLimits) { l.Models = []string{"default"} })),
		key("of another", "vd_c_x", with(func(l *api.KeyLimits) { l.Models = []string{"other", "gone"} })),
	})
	for text, want := range map[string]struct {
		status int
		models string
	}{"vd_a_x": {200, `["m","default"]`}, "vd_b_x": {200, `["m","default"]`}, "vd_c_x": {404, `["other"]`}} {
		got := r.post(t, "/v1/chat/completions", chatBody, as(text)...)
		if got.status != want.status {
			t.Errorf("%s: %d %s, want %d", text, got.status, got.body, want.status)
		}
		r.pool.row(t)
		list := r.do(t, "GET", "/v1/models", as(text)...)
		if ids := gjson.Get(list.body, "data.#.id").Raw; ids != want.models {
			t.Errorf("%s may use %s, want %s", text, ids, want.models)
		}
	}
	no := r.post(t, "/v1/chat/completions", chatBody, as("vd_c_x")...)
	none := r.post(t, "/v1/chat/completions", strings.Replace(chatBody, `"m"`, `"x"`, 1), as("vd_c_x")...)
	if a, b := gjson.Get(no.body, "error.message").Str, gjson.Get(none.body, "error.message").Str; strings.Replace(a, `"m"`, `"x"`, 1) != b || codeOf(no) != "model_not_found" {
		t.Errorf("%q for a model that it may not use and %q for one that is not there: want the same", a, b)
	}
	r.pool.row(t)
	r.pool.row(t)
}

func TestKeysEnd(t *testing.T) {
	bubble(t, map[string]http.HandlerFunc{"a": answers}, nil, func(r *rig) {
		start := time.Now()
		r.Keys.Set([]Key{key("ci", "vd_ci_x", func(k *Key) { k.Expires = start.Add(time.Hour) })})
		status := func(text string) string {
			got := r.post(t, "/v1/chat/completions", chatBody, as(text)...)
			if got.status == 200 {
				r.pool.row(t)
			}
			return fmt.Sprint(got.status, " ", codeOf(got))
		}
		if got := status("vd_ci_x"); got != "200 " {
			t.Errorf("before its end: %s", got)
		}
		time.Sleep(time.Hour)
		if got := status("vd_ci_x"); got != "401 key_expired" {
			t.Errorf("after its end: %s", got)
		}
		r.Keys.Set([]Key{key("ci", "vd_ci_x", func(k *Key) { k.Revoked = start })})
		if got := status("vd_ci_x"); got != "401 key_revoked" {
			t.Errorf("revoked: %s", got)
		}
		if got := r.post(t, "/v1/chat/completions", chatBody); got.status != 401 {
			t.Errorf("without a key when the last one is revoked: %d, want 401: that must not open the gateway", got.status)
		}
		r.Keys.Set([]Key{key("ci", "vd_ci_new", func(k *Key) { k.Old, k.Until = HashKey("vd_ci_x"), time.Now().Add(time.Minute) })})
		if a, b := status("vd_ci_new"), status("vd_ci_x"); a != "200 " || b != "200 " {
			t.Errorf("rotated, within the overlap: new %s, old %s; want both", a, b)
		}
		time.Sleep(time.Minute)
		if a, b := status("vd_ci_new"), status("vd_ci_x"); a != "200 " || b != "401 invalid_api_key" {
			t.Errorf("rotated, past the overlap: new %s, old %s; want the new one alone", a, b)
		}
		r.Keys.Set(nil)
		if got := r.post(t, "/v1/chat/completions", chatBody); got.status != 200 {
			t.Errorf("without any key: %d, want 200", got.status)
		}
		r.pool.row(t)
	})
}

func TestFailedKeysOfAnAddressAreLimited(t *testing.T) {
	bubble(t, map[string]http.HandlerFunc{"a": answers}, nil, func(r *rig) {
		r.Keys.Set([]Key{
			key("made", "vd_made_x"),
			key("long", "a-long-text-of-the-owner-0123456789"),
			key("short", "swordfish", func(k *Key) { k.Guessable = true }),
		})
		status := func(text string) int {
			got := r.post(t, "/v1/chat/completions", chatBody, as(text)...)
			if got.status == 200 {
				r.pool.row(t)
			}
			if got.status == 429 && (codeOf(got) != "too_many_failed_keys" || got.header.Get("Retry-After") != "50") {
				t.Errorf("%s with %v, want too_many_failed_keys for 50 s", got.body, got.header)
			}
			return got.status
		}
		for i := range maxGuesses {
			if got := status(fmt.Sprint("guess", i)); got != 401 {
				t.Fatalf("guess %d: %d, want 401", i, got)
			}
			time.Sleep(time.Second)
		}
		if got := status("swordfish"); got != 429 {
			t.Errorf("the guessable key from an address that guesses: %d, want 429: or the guess is told to be right", got)
		}
		if a, b := status("vd_made_x"), status("a-long-text-of-the-owner-0123456789"); a != 200 || b != 200 {
			t.Errorf("keys that cannot be guessed: %d and %d, want 200: a neighbour's mistake must not lock them out", a, b)
		}
		time.Sleep(50 * time.Second)
		if got := status("swordfish"); got != 200 {
			t.Errorf("a minute after the first guess: %d, want 200", got)
		}
	})
}

func TestGuessesAreBounded(t *testing.T) {
	var g guesses
	now := time.Now()
	addr := func(i int) string { return fmt.Sprintf("[2001:db8:%x:%x::%x]:5", i>>16, i&0xffff, i&0xffff) }
	for i := range maxAddresses + 500 {
		g.failed(addr(i), now)
	}
	if len(g.by) > maxAddresses+1 {
		t.Errorf("%d addresses are remembered, want at most %d", len(g.by), maxAddresses+1)
	}
	if g.blocked(addr(9_999_999), now) == 0 {
		t.Error("an address beyond those that are remembered is not limited")
	}
	if g.blocked(addr(1), now) != 0 {
		t.Error("one failed key blocks an address")
	}
	for range maxGuesses {
		g.failed("[2001:db8:0:1::77]:9", now)
	}
	if g.blocked("[2001:db8:0:1:ffff::1]:1", now) == 0 {
		t.Error("another address of the same /64 is not limited")
	}
	g.failed(addr(8_888_888), now.Add(guessWindow))
	if len(g.by) > 3 {
		t.Errorf("%d addresses are remembered after their minute, want them gone", len(g.by))
	}
}
