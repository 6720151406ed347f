package backend

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/capture"
	"github.com/vllmdeck/vllmdeck/backend/keys"
	"github.com/vllmdeck/vllmdeck/config"
)

// make makes a key by way of the engine and gives its text.
func (r *rig) make(name string, args ...string) string {
	r.t.Helper()
	id := keys.NewID()
	text := keys.NewText(id)
	a := api.Action{Verb: api.KeyCreate, ID: id, Target: name, Args: map[string]string{"hash": keys.HashText(text)}}
	for i := 0; i+1 < len(args); i += 2 {
		a.Args[args[i]] = args[i+1]
	}
	if err := r.Do(r.t.Context(), a); err != nil {
		r.t.Fatal(err)
	}
	return text
}

// ask sends a plain request with a key.
func (r *rig) ask(text string, tokens int) (int, string) {
	r.t.Helper()
	body := fmt.Sprintf(`{"model":"toy","messages":[{"role":"user","content":"Hello"}],"max_tokens":%d,"ignore_eos":true}`, tokens)
	req, err := http.NewRequest(http.MethodPost, r.URL()+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if text != "" {
		req.Header.Set("Authorization", "Bearer "+text)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// used is what the engine shows of a key.
func (r *rig) used(name string) api.KeyUse {
	r.t.Helper()
	for _, k := range r.gateway.Keys.Keys(time.Now()) {
		if k.Name == name {
			return *k.Use
		}
	}
	r.t.Fatalf("no key %s", name)
	return api.KeyUse{}
}

// TestABudgetOutlivesTheEngine spends one, and starts the next engine on the same ledger.
func TestABudgetOutlivesTheEngine(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.allReady()
	// At 3.60 an hour a second costs 0.001: these are some ten milliseconds.
	text := r.make("ci", "budget_day", "0.00015", "budget_month", "1")
	n := 0
	for ; n < 100; n++ {
		status, body := r.ask(text, 20)
		if status == 200 {
			continue
		}
		if status != 429 || !strings.Contains(body, "insufficient_quota") {
			t.Fatalf("request %d: HTTP %d %s", n, status, body)
		}
		break
	}
	use := r.used("ci")
	if n < 1 || n == 100 || use.Day < 150_000 || use.Day != use.Month || use.Unpriced != 0 || use.InFlight != 0 {
		t.Fatalf("%d requests were served, use %+v; want some, until the day's budget was spent", n, use)
	}
	until(t, "the snapshot shows it", func() bool {
		k := r.snapshot().Keys
		return len(k) == 1 && k[0].Name == "ci" && k[0].Source == api.KeyFromDatabase && k[0].Use.Day == use.Day && *k[0].Limits.Day == 150_000
	})
	r.Stop(false)
	r.ended(10 * time.Second)

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	next, err := New(t.Context(), Options{Config: r.config(1), Version: "1.2.3", Self: []string{"/nowhere"}, Listener: ln, Log: NewLog()})
	if err != nil {
		t.Fatal(err)
	}
	defer next.endLife()
	defer next.closeStores()
	for _, k := range next.gateway.Keys.Keys(time.Now()) {
		if k.Use.Day != use.Day || k.Use.Month != use.Month {
			t.Errorf("the next engine counts %v and %v, want %v of the one before", k.Use.Day, k.Use.Month, use.Day)
		}
	}
}

func TestKeysAreInForceAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.allReady()
	if status, _ := r.ask("", 1); status != 200 {
		t.Errorf("without keys: HTTP %d", status)
	}
	text := r.make("ci")
	if status, _ := r.ask("", 1); status != 401 {
		t.Errorf("without a key where there is one: HTTP %d, want 401", status)
	}
	if status, body := r.ask(text, 1); status != 200 {
		t.Errorf("with the key: HTTP %d %s", status, body)
	}
	for _, tt := range []struct {
		a    api.Action
		want int
	}{
		{api.Action{Verb: api.KeySet, Target: "ci", Args: map[string]string{"models": "other"}}, 404},
		{api.Action{Verb: api.KeySet, Target: "ci", Args: map[string]string{"models": "default"}}, 200},
		{api.Action{Verb: api.KeySet, Target: "ci", Args: map[string]string{"rpm": "1"}}, 429},
		{api.Action{Verb: api.KeyRevoke, Target: "ci"}, 401},
	} {
		if err := r.Do(t.Context(), tt.a); err != nil {
			t.Fatal(err)
		}
		if status, body := r.ask(text, 1); status != tt.want {
			t.Errorf("after %v: HTTP %d %s, want %d", tt.a, status, body, tt.want)
		}
	}
	if status, _ := r.ask("", 1); status != 401 {
		t.Errorf("without a key when the last one is revoked: HTTP %d, want 401", status)
	}
	if err := r.Do(t.Context(), api.Action{Verb: api.KeyRevoke, Target: "ci", Args: map[string]string{"forget": "true"}}); err != nil {
		t.Fatal(err)
	}
	if status, _ := r.ask("", 1); status != 200 {
		t.Errorf("when the last one is forgotten: HTTP %d, want 200", status)
	}
}

func TestOneNameIsOneKey(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.make("ci")
	r.load = func() (*config.Config, error) {
		c := r.config(1)
		c.Keys = []config.Key{{Name: "ci", Key: config.Secret{Val: "0123456789abcdef"}}}
		return c, nil
	}
	if err := r.Do(t.Context(), api.Action{Verb: api.EngineReload}); !errors.Is(err, api.ErrRefused) || !strings.Contains(err.Error(), "the key ci") {
		t.Errorf("a config with the name of a key that was made: %v, want ErrRefused", err)
	}
	r.load = func() (*config.Config, error) {
		c := r.config(1)
		c.Keys = []config.Key{{Name: "me", Key: config.Secret{Val: "0123456789abcdef"}}}
		return c, nil
	}
	if err := r.Do(t.Context(), api.Action{Verb: api.EngineReload}); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []api.Verb{api.KeyCreate, api.KeySet, api.KeyRotate, api.KeyRevoke} {
		err := r.Do(t.Context(), api.Action{Verb: verb, ID: "abcdefgh", Target: "me", Args: map[string]string{"hash": keys.HashText("x"), "forget": "true"}})
		if !errors.Is(err, api.ErrRefused) || !strings.Contains(err.Error(), "in the config") {
			t.Errorf("%s of a key of the config: %v, want ErrRefused", verb, err)
		}
	}
}

func TestTheLastKeyStaysWhereTheNetworkListens(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.make("ci")
	c := r.config(1)
	c.Listen = "0.0.0.0:8090"
	r.inForce(c)
	forget := func(name string) error {
		return r.Do(t.Context(), api.Action{Verb: api.KeyRevoke, Target: name, Args: map[string]string{"forget": "true"}})
	}
	if err := forget("ci"); !errors.Is(err, api.ErrRefused) || !strings.Contains(err.Error(), "last key") {
		t.Errorf("forget the last key of a gateway on the network: %v, want ErrRefused", err)
	}
	r.make("other")
	if err := forget("ci"); err != nil {
		t.Errorf("forget one of two: %v", err)
	}
}

// inForce puts a config in force that no reload would take: another address.
func (r *rig) inForce(c *config.Config) { r.Backend.config.Store(c) }

func TestTheDemoHasNoKeys(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := (&rig{t: t, dir: t.TempDir(), urls: []string{"http://127.0.0.1:1"}}).config(1)
	b, err := New(t.Context(), Options{Config: c, Version: "1.2.3", Self: []string{"/nowhere"}, Demo: true, Listener: ln, Log: NewLog()})
	if err != nil {
		t.Fatal(err)
	}
	defer b.endLife()
	defer b.closeStores()
	err = b.Do(t.Context(), api.Action{Verb: api.KeyCreate, ID: "abcdefgh", Target: "ci", Args: map[string]string{"hash": keys.HashText("x")}})
	if !errors.Is(err, api.ErrRefused) {
		t.Errorf("a key for the demo: %v, want ErrRefused: its own clients would be locked out", err)
	}
}

func TestEstimates(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	// 3.60 an hour is 0.001 a second, and 20 tokens take one.
	if n, ok := r.estimate("toy", 0, 20); !ok || n.String() != "0.001" {
		t.Errorf("before anything is known: %v, %v; want 0.001", n, ok)
	}
	for range 40 {
		r.estimates.learn(&api.Request{Model: "toy", Outcome: api.OutcomeOK, UsageSource: api.UsageUpstream, Usage: api.Usage{Input: 100, Output: 90}, Actual: new(api.Nanos(1000))})
	}
	r.estimates.learn(&api.Request{Model: "toy", Outcome: api.OutcomeCancelled, UsageSource: api.UsageCounted, Usage: api.Usage{Output: 1}, Actual: new(api.Dollar)})
	if n, ok := r.estimate("toy", 50, 45); !ok || n < 498 || n > 502 {
		t.Errorf("half of what requests cost lately: %v, %v; want 500 nano-dollars", int64(n), ok)
	}
	r.load = func() (*config.Config, error) {
		c := r.config(1)
		c.Cost.GPUHour = nil
		return c, nil
	}
	if err := r.reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, ok := r.estimate("toy", 50, 45); ok {
		t.Errorf("without a rate: %v, want not known", n)
	}
	r.load = func() (*config.Config, error) {
		c := r.config(1)
		c.Cost.PerToken = &config.PerToken{Input: api.Dollar, Output: 2 * api.Dollar}
		return c, nil
	}
	if err := r.reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, ok := r.estimate("toy", 1_000_000, 1_000_000); !ok || n != 3*api.Dollar {
		t.Errorf("at flat rates: %v, %v; want 3", n, ok)
	}
}

func TestAVariableThatAReloadReadsASecretFromIsHiddenFromWorkers(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	for _, ref := range []string{"env:PATH", "env:HOME"} { // set everywhere, and no secret by name
		r.load = func() (*config.Config, error) {
			c := r.config(1)
			c.Keys = []config.Key{{Name: "me", Key: config.Secret{Ref: ref, Val: "x"}}}
			return c, nil
		}
		if err := r.Do(t.Context(), api.Action{Verb: api.EngineReload}); err != nil {
			t.Fatal(err)
		}
	}
	if got := *r.secrets.Load(); !slices.Equal(got, []string{"HOME", "PATH"}) {
		t.Errorf("hidden are %q, want those of both configs", got)
	}
}

// TestTextsAreKeptOfTheKeysThatSaySo has one that does and one that does not, streamed and not.
func TestTextsAreKeptOfTheKeysThatSaySo(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.allReady()
	loud, quiet := r.make("loud", "capture", "on"), r.make("quiet")
	state := filepath.Join(r.dir, "state")
	if code, text := r.ask(quiet, 5); code != 200 {
		t.Fatalf("HTTP %d: %s", code, text)
	}
	until(t, "that is in the ledger", func() bool { return r.used("quiet").InFlight == 0 })
	if _, err := os.Stat(filepath.Join(state, "prompts.db")); err == nil {
		t.Error("there is a prompts.db although no captured key asked for anything")
	}
	code, text := r.ask(loud, 5)
	if code != 200 {
		t.Fatalf("HTTP %d: %s", code, text)
	}
	var list []capture.Entry
	until(t, "the texts are kept", func() bool {
		var err error
		if list, err = capture.Read(t.Context(), state, "loud", 9); err != nil {
			t.Fatal(err)
		}
		return len(list) == 1
	})
	e := list[0]
	if e.Prompt != `[{"role":"user","content":"Hello"}]` || e.Answer != gjson.Get(text, "choices.0.message.content").Str || e.Answer == "" || e.Key != "loud" || e.Model != "toy" || e.Route != "chat" || e.Outcome != api.OutcomeOK || e.Cut {
		t.Errorf("kept is %+v, want the prompt and the answer %s", e, text)
	}
	if list, err := capture.Read(t.Context(), state, "quiet", 9); err != nil || len(list) != 0 {
		t.Errorf("of the other key %d are kept (%v), want none", len(list), err)
	}
	if b, err := os.ReadFile(filepath.Join(state, "ledger.db-wal")); err == nil && strings.Contains(string(b), "Hello") {
		t.Error("the ledger has the prompt")
	}
	if err := r.Do(t.Context(), api.Action{Verb: api.KeyRevoke, Target: "loud", Args: map[string]string{"forget": "true"}}); err != nil {
		t.Fatal(err)
	}
	if list, err := capture.Read(t.Context(), state, "loud", 9); err != nil || len(list) != 0 {
		t.Errorf("of a forgotten key %d are kept (%v), want none", len(list), err)
	}
}
