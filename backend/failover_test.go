package backend

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/provider/providertest"
)

// paidRig is an engine with so many workers of toy and a provider that has it as gpt-4o-mini: 0.15
// dollars per million tokens of prompt, 0.075 from the cache, 0.60 of completion.
func paidRig(t *testing.T, workers int, toy, more string) (*rig, *providertest.API) {
	t.Helper()
	paid := providertest.Open(t)
	dir := t.TempDir()
	return startRig(&rig{t: t, dir: dir, toy: toy, cfg: paidConfig(t, dir, paid.URL, more)}, workers), paid
}

func paidConfig(t *testing.T, dir, url, more string) string {
	t.Helper()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte(providertest.Key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("gateway: {queue_wait: 5s}\nproviders: [{name: openai, url: %q, key: \"file:%s\", models: {toy: gpt-4o-mini}%s}]\n", url, key, more)
}

// reserved is what a request of post is held to cost: its body of 111 to 113 bytes makes 38 tokens of
// prompt at 150 nano-dollars, and 100 of completion at 600.
const reserved = 38*150 + 100*600

// post sends a request for 100 tokens, as a stream or not.
func (r *rig) post(stream bool) (int, http.Header, string) {
	r.t.Helper()
	body := fmt.Sprintf(`{"model":"toy","messages":[{"role":"user","content":"Hello"}],"max_tokens":100,"ignore_eos":true,"stream":%v}`, stream)
	req, err := http.NewRequest(http.MethodPost, r.URL()+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Vllmdeck-Cost", "1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body) // a stream that is cut off gives what came
	return resp.StatusCode, resp.Header, string(text)
}

// drain takes every worker out of service.
func (r *rig) drain() {
	r.t.Helper()
	for _, w := range r.snapshot().Workers {
		if err := r.Do(r.t.Context(), api.Action{Verb: api.WorkerDrain, Target: w.Name}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// spendOf gives the ledger's row of a class; of more than one group the first.
func (r *rig) spendOf(class string) api.Row {
	r.t.Helper()
	rows, err := r.Spend(r.t.Context(), api.Query{By: []string{"class", "worker"}})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, row := range rows {
		if row.Labels["class"] == class {
			return row
		}
	}
	return api.Row{}
}

func (r *rig) provider() api.Provider { return r.providers.statuses(time.Now())[0] }

func (r *rig) noticed(part string) int {
	n := 0
	for _, notice := range r.snapshot().Notices {
		if strings.Contains(notice.Text, part) {
			n++
		}
	}
	return n
}

func TestAProviderServesWhileNoWorkerCan(t *testing.T) {
	t.Parallel()
	r, paid := paidRig(t, 2, "", ", spend_cap: {day: 5}")
	r.allReady()
	if code, _, text := r.post(false); code != 200 || paid.Calls.Load() != 0 {
		t.Fatalf("with workers: HTTP %d and %d paid calls: %s", code, paid.Calls.Load(), text)
	}
	if code, h := r.health(); code != 200 || h.Status != "ok" {
		t.Errorf("with workers: HTTP %d %s, want 200 ok", code, h.Status)
	}
	r.drain()
	if code, h := r.health(); code != 200 || h.Status != "degraded" {
		t.Errorf("with a provider alone: HTTP %d %s, want 200 degraded: every model can be served", code, h.Status)
	}

	// 1,000 x 0.15 + 24 x 0.075 + (30 + 3) x 0.60 micro-dollars
	const cost = "0.0001716"
	used := api.Usage{Input: 1000, CacheRead: 24, Output: 30, Reasoning: 3}
	paid.Behave(providertest.Answer(used))
	want := map[string]any{
		"prompt_tokens": json.Number("1024"), "cached_tokens": json.Number("24"), "completion_tokens": json.Number("33"), "actual_usd": json.Number(cost),
		"savings_usd": nil, "savings_percent": nil, "basis": "provider_price", "provider": "openai", "baseline": "openai/gpt-4o-mini",
	}
	check := func(what, text string) {
		t.Helper()
		_, after, ok := strings.Cut(text, `"cost_info":`)
		if !ok || !strings.Contains(text, "paid") {
			t.Fatalf("%s = %s\nwant the provider's answer with cost_info", what, text)
		}
		dec := json.NewDecoder(strings.NewReader(after))
		dec.UseNumber()
		var info map[string]any
		if err := dec.Decode(&info); err != nil {
			t.Fatalf("%s: %v in %s", what, err, text)
		}
		for k, v := range want {
			if got, ok := info[k]; !ok || got != v {
				t.Errorf("%s: cost_info.%s = %v, want %v", what, k, got, v)
			}
		}
	}
	code, _, text := r.post(false)
	if code != 200 {
		t.Fatalf("HTTP %d: %s", code, text)
	}
	check("answer", text)
	if seen := paid.Last(); !strings.Contains(seen.Body, `"model":"gpt-4o-mini"`) || seen.Header.Get("Authorization") != "Bearer "+providertest.Key {
		t.Errorf("the provider got %s with %q, want its own model name and key", seen.Body, seen.Header.Get("Authorization"))
	}
	if code, _, text = r.post(true); code != 200 || !strings.HasSuffix(text, "data: [DONE]\n\n") {
		t.Fatalf("stream: HTTP %d: %s", code, text)
	}
	if !strings.Contains(paid.Last().Body, `"include_usage":true`) {
		t.Errorf("the provider got %s, want that its usage is asked for", paid.Last().Body)
	}

	until(t, "both are in the ledger", func() bool { return r.spendOf(api.ClassFailover).Requests == 2 })
	row := r.spendOf(api.ClassFailover)
	if row.Labels["worker"] != "openai" || row.Actual == nil || row.Actual.String() != "0.0003432" || row.Would != nil || row.Usage.Reasoning != 6 {
		t.Errorf("ledger = %+v, actual %v, want 0.0003432 at openai that replaced nothing", row, row.Actual)
	}
	var s *api.Snapshot
	until(t, "the money shows it", func() bool {
		s = r.snapshot()
		return slices.ContainsFunc(s.Money.Classes, func(c api.ClassCost) bool { return c.Class == api.ClassFailover && c.Requests == 2 })
	})
	if s.Answers.Rated > 1 {
		t.Errorf("%d answers are rated, want the worker's alone: the provider's are another model's", s.Answers.Rated)
	}
	if s.Money.Requests != 1 {
		t.Errorf("%d requests count for savings, want the worker's alone", s.Money.Requests)
	}
	p := s.Providers[0]
	if p.Name != "openai" || p.State != api.ProviderOK || p.SpentDay == nil || p.SpentDay.String() != "0.0003432" || p.CapDay.String() != "5" || p.InFlight != 0 || !slices.Equal(p.Models, []string{"toy"}) {
		t.Errorf("provider = %+v, spent %v of %v", p, p.SpentDay, p.CapDay)
	}
	until(t, "the beginning is noticed", func() bool { return r.noticed("requests go to openai, for money") > 0 })
	if err := r.Do(t.Context(), api.Action{Verb: api.WorkerResume, Target: "w1"}); err != nil {
		t.Fatal(err)
	}
	before := paid.Calls.Load()
	until(t, "w1 serves again", func() bool {
		code, _, text := r.post(false)
		return code == 200 && strings.Contains(text, `"gpu_time"`)
	})
	if n := paid.Calls.Load(); n > before+1 {
		t.Errorf("%d more paid calls once a worker was back", n-before)
	}
	if n := r.noticed("requests go to openai, for money"); n != 1 {
		t.Errorf("the beginning was noticed %d times, want once", n)
	}
}

func TestAModelMayHaveAProviderAlone(t *testing.T) {
	t.Parallel()
	r, paid := paidRig(t, 0, "", fmt.Sprintf(", spend_cap: {month: %s}", api.Nanos(reserved)))
	if code, h := r.health(); code != 200 || h.Status != "ok" || len(h.Models) != 1 || h.Models[0].Workers != 0 {
		t.Errorf("HTTP %d %+v, want 200 ok with a model without workers", code, h)
	}
	resp, err := http.Get(r.URL() + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); !strings.Contains(string(text), `"id":"toy"`) {
		t.Errorf("/v1/models = %s, want toy in it", text)
	}
	paid.Behave(providertest.Answer(api.Usage{Input: 38, Output: 100}))
	if code, _, text := r.post(false); code != 200 {
		t.Fatalf("HTTP %d: %s", code, text)
	}
	start := time.Now()
	code, head, text := r.post(false)
	if code != 503 || !strings.Contains(text, "openai: its spend_cap is reached") || head.Get("Retry-After") == "" || head.Get("X-Should-Retry") != "false" {
		t.Errorf("HTTP %d %v: %s\nwant a refusal that names the cap, with Retry-After", code, head, text)
	}
	if took := time.Since(start); took > 4*time.Second { // queue_wait is 5 s
		t.Errorf("it took %v, want at once", took)
	}
	if code, h := r.health(); code != 503 || h.Status != "down" {
		t.Errorf("HTTP %d %s, want 503 down: nobody can serve the model", code, h.Status)
	}
	until(t, "the operator is told", func() bool { return r.noticed("is reached") == 1 })
	if r.noticed("for money") != 0 {
		t.Error("a model without workers counts as failed over")
	}
	if p := r.provider(); p.State != api.ProviderCapped {
		t.Errorf("state = %s, want capped", p.State)
	}
}

func TestNeverMeansNever(t *testing.T) {
	t.Parallel()
	r, paid := paidRig(t, 1, ", failover: never", ", spend_cap: {day: 5}")
	r.allReady()
	r.drain()
	if code, _, _ := r.post(false); code != 503 || paid.Calls.Load() != 0 {
		t.Errorf("HTTP %d and %d paid calls, want 503 and none", code, paid.Calls.Load())
	}
	if code, h := r.health(); code != 503 || h.Status != "down" {
		t.Errorf("HTTP %d %s, want 503 down", code, h.Status)
	}
}

// TestAKeyMayForbidPaidProviders has a provider that its model allows, and keys that do not: the stricter word holds.
func TestAKeyMayForbidPaidProviders(t *testing.T) {
	t.Parallel()
	r, paid := paidRig(t, 1, ", failover: down", ", spend_cap: {day: 5}")
	r.allReady()
	texts := map[string]string{"": r.make("any")}
	for _, f := range []string{"never", "down", "overload"} {
		texts[f] = r.make(f, "failover", f)
	}
	r.drain()
	for f, want := range map[string]int{"": 200, "down": 200, "overload": 200, "never": 503} {
		before := paid.Calls.Load()
		code, text := r.ask(texts[f], 5)
		if code != want || (paid.Calls.Load() > before) != (want == 200) {
			t.Errorf("key with failover %q: HTTP %d and %d paid calls, want %d: %s", f, code, paid.Calls.Load()-before, want, text)
		}
		if f == "never" && !strings.Contains(text, "this key may use no paid provider") {
			t.Errorf("it is told %s, want that its key may use no provider", text)
		}
	}
	// In force at once.
	if err := r.Do(t.Context(), api.Action{Verb: api.KeySet, Target: "never", Args: map[string]string{"failover": ""}}); err != nil {
		t.Fatal(err)
	}
	if code, text := r.ask(texts["never"], 5); code != 200 {
		t.Errorf("with the limit taken away: HTTP %d: %s", code, text)
	}
}

func TestAKeyDoesNotWidenWhatItsModelAllows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		model, key string
		code       int
	}{
		{"never", "overload", 503}, {"down", "overload", 503}, {"overload", "down", 503}, {"overload", "never", 503}, {"overload", "overload", 200}, {"overload", "", 200},
	} {
		r, paid := paidRigAt(t, []string{busyWorker(t)}, ", failover: "+tt.model)
		r.allReady()
		args := []string{}
		if tt.key != "" {
			args = []string{"failover", tt.key}
		}
		if code, text := r.ask(r.make("ci", args...), 5); code != tt.code || paid.Calls.Load() != map[int]int64{200: 1}[tt.code] {
			t.Errorf("a model with %q and a key with %q: HTTP %d and %d paid calls, want %d: %s", tt.model, tt.key, code, paid.Calls.Load(), tt.code, text)
		}
	}
}

// busyWorker answers as vLLM does whose line is full.
func busyWorker(t *testing.T) string {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/v1/models":
			io.WriteString(w, `{"object":"list","data":[{"id":"toy","object":"model"}]}`)
		case "/v1/chat/completions":
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"error":{"message":"The engine is currently busy and cannot accept new requests.","type":"x","code":503}}`)
		}
	})
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	a := providertest.Open(t)
	a.Behave(h)
	return strings.TrimSuffix(a.URL, "/v1")
}

func TestBusyIsNotDownUnlessTheConfigSaysSo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		toy  string
		code int
		paid int64
	}{{"", 503, 0}, {", failover: overload", 200, 1}} {
		r, paid := paidRigAt(t, []string{busyWorker(t)}, tt.toy)
		r.allReady()
		if code, _, text := r.post(false); code != tt.code || paid.Calls.Load() != tt.paid {
			t.Errorf("with %q: HTTP %d and %d paid calls, want %d and %d: %s", tt.toy, code, paid.Calls.Load(), tt.code, tt.paid, text)
		}
	}
}

// paidRigAt is paidRig with workers that run elsewhere.
func paidRigAt(t *testing.T, urls []string, toy string) (*rig, *providertest.API) {
	t.Helper()
	paid := providertest.Open(t)
	dir := t.TempDir()
	r := &rig{t: t, dir: dir, toy: toy, cfg: paidConfig(t, dir, paid.URL, ", spend_cap: {day: 5}"), urls: urls}
	return startRig(r, 0), paid
}

func TestAnAnswerThatHasBegunIsNotContinuedByAProvider(t *testing.T) {
	t.Parallel()
	r, paid := paidRig(t, 1, "", ", spend_cap: {day: 5}")
	r.allReady()
	body := `{"model":"toy","messages":[{"role":"user","content":"Hello"}],"max_tokens":2000,"ignore_eos":true,"stream":true}`
	resp, err := http.Post(r.URL()+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 400)
	if _, err := io.ReadFull(resp.Body, first); err != nil {
		t.Fatal(err)
	}
	r.sims[0].Die()
	rest, err := io.ReadAll(resp.Body)
	if text := string(rest); err == nil || !strings.Contains(text, `"upstream_lost"`) || strings.Contains(text, "paid") {
		t.Errorf("the rest is %s, %v, want one error event and an aborted connection", text, err)
	}
	if n := paid.Calls.Load(); n != 0 {
		t.Errorf("%d paid calls, want none", n)
	}
	// The next request finds no worker.
	until(t, "the provider serves", func() bool {
		code, _, text := r.post(false)
		return code == 200 && strings.Contains(text, "paid words")
	})
}

func TestTheCapHoldsUnderLoadAndOverARestart(t *testing.T) {
	t.Parallel()
	const calls = 25
	limit := api.Nanos(calls*reserved + reserved/2)
	paid := providertest.Open(t)
	paid.Behave(providertest.Answer(api.Usage{Input: 38, Output: 100})) // as long as may be
	dir := t.TempDir()
	cfg := paidConfig(t, dir, paid.URL, fmt.Sprintf(", spend_cap: {day: %s}", limit))
	t.Run("first", func(t *testing.T) {
		r := startRig(&rig{t: t, dir: dir, cfg: cfg}, 0)
		var mu sync.Mutex
		got := map[int]int{}
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				for range 2 {
					code, _, _ := r.post(false)
					mu.Lock()
					got[code]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if got[200] != calls || got[503] != 128-calls || paid.Calls.Load() != calls {
			t.Errorf("answers by status = %v, paid calls = %d, want %d of 200 and %d of 503", got, paid.Calls.Load(), calls, 128-calls)
		}
		until(t, "all are in the ledger", func() bool { return r.spendOf(api.ClassFailover).Requests == calls })
		if spent := r.spendOf(api.ClassFailover).Actual; spent == nil || *spent > limit || *spent != calls*reserved {
			t.Errorf("%s is spent, want %s, at most %s", spent, api.Nanos(calls*reserved), limit)
		}
	})
	t.Run("again", func(t *testing.T) {
		r := startRig(&rig{t: t, dir: dir, cfg: cfg}, 0)
		if code, _, text := r.post(false); code != 503 || paid.Calls.Load() != calls {
			t.Errorf("after a restart: HTTP %d and %d paid calls in all, want 503 and %d: %s", code, paid.Calls.Load(), calls, text)
		}
		if p := r.provider(); p.SpentDay == nil || *p.SpentDay != calls*reserved {
			t.Errorf("after a restart %v is spent, want %s", p.SpentDay, api.Nanos(calls*reserved))
		}
	})
}

// TestAStormOfRefusals: workers down, the provider refuses everything. It must not be hammered, and
// clients must hear so at once. It runs by itself, for the sake of the times.
func TestAStormOfRefusals(t *testing.T) {
	for _, status := range []int{429, 500, 401} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			r, paid := paidRig(t, 0, "", ", spend_cap: {day: 5}")
			paid.Behave(providertest.Refuse(status, ""))
			const clients, each, rounds = 8, 25, 4
			best := time.Hour // p99 of the best round: others work on this machine too
			for range rounds {
				var mu sync.Mutex
				var took []time.Duration
				var wg sync.WaitGroup
				for range clients {
					wg.Go(func() {
						for range each {
							start := time.Now()
							code, head, text := r.post(false)
							mu.Lock()
							took = append(took, time.Since(start))
							mu.Unlock()
							if code < 429 || code == 503 && head.Get("Retry-After") == "" || head.Get("X-Should-Retry") != "false" {
								t.Errorf("HTTP %d, Retry-After %q: %s", code, head.Get("Retry-After"), text)
							}
						}
					})
				}
				wg.Wait()
				slices.Sort(took)
				best = min(best, took[len(took)*99/100])
			}
			t.Logf("%d requests, %d paid calls, p99 of the refusals %v (limit 50ms)", clients*each*rounds, paid.Calls.Load(), best)
			// Five failures open the breaker; what was under way then, and a probe a second, come on top.
			if n := paid.Calls.Load(); n > 5+clients+clients*each*rounds/20 {
				t.Errorf("%d paid calls for %d requests, want the breaker to open after 5", n, clients*each*rounds)
			}
			// The figure is printed beside its limit; what fails the test is that a refusal waits for something.
			if best > 2*time.Second {
				t.Errorf("p99 of the refusals is %v, want 50ms", best)
			}
			if p := r.provider(); p.State != api.ProviderOpen || !strings.Contains(p.Error, fmt.Sprintf("HTTP %d", status)) || *p.SpentDay != 0 {
				t.Errorf("provider = %+v, want open with its own words, nothing spent", p)
			}
			until(t, "the operator is told", func() bool { return r.noticed("does not serve") == 1 })
			paid.Behave(providertest.Answer(api.Usage{Input: 1, Output: 1}))
			until(t, "a probe closes the breaker", func() bool { code, _, _ := r.post(false); return code == 200 })
			if p := r.provider(); p.State != api.ProviderOK || p.Error != "" {
				t.Errorf("provider = %+v, want ok", p)
			}
			until(t, "the operator is told of the end", func() bool { return r.noticed("can serve again") == 1 })
			if n := r.noticed("does not serve"); n != 1 {
				t.Errorf("the trouble was noticed %d times, want once", n)
			}
		})
	}
}

func TestAProviderThatAsksToBeLeftAloneIs(t *testing.T) {
	t.Parallel()
	r, paid := paidRig(t, 0, "", ", spend_cap: {day: 5}")
	paid.Behave(providertest.Refuse(429, "60"))
	code, head, text := r.post(false)
	if code != 429 || head.Get("Retry-After") != "60" {
		t.Errorf("HTTP %d with Retry-After %q, want its own 429 with 60: %s", code, head.Get("Retry-After"), text)
	}
	paid.Behave(providertest.Answer(api.Usage{Input: 1}))
	for range 5 {
		if code, _, text := r.post(false); code != 503 || !strings.Contains(text, "openai: failing") {
			t.Errorf("HTTP %d: %s, want 503 while it is left alone", code, text)
		}
	}
	if n := paid.Calls.Load(); n != 1 {
		t.Errorf("%d calls, want none after the first", n)
	}
}

func TestNothingIsPaidForThatCannotBeRecorded(t *testing.T) {
	t.Parallel()
	r, paid := paidRig(t, 0, "", ", spend_cap: {day: 5}")
	state := filepath.Join(r.dir, "state")
	if err := os.Mkdir(filepath.Join(state, "ledger.spool.jsonl"), 0o700); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(state, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	lock, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if _, err := lock.ExecContext(context.Background(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	r.post(false) // its row is what cannot be written
	until(t, "the ledger finds out", func() bool { return !r.ledger.Durable() })
	before := paid.Calls.Load()
	if code, _, text := r.post(false); code != 503 || paid.Calls.Load() != before {
		t.Errorf("HTTP %d and %d more paid calls, want 503 and none: %s", code, paid.Calls.Load()-before, text)
	}
	if p := r.provider(); p.State != api.ProviderUnaccountable || !strings.Contains(p.Error, "ledger") {
		t.Errorf("provider = %+v, want unaccountable for the ledger", p)
	}
	if _, err := lock.ExecContext(context.Background(), "ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	until(t, "it serves again", func() bool { code, _, _ := r.post(false); return code == 200 })
}

// TestTheKeyIsNowhere looks for the provider's key in all that the engine shows or keeps.
func TestTheKeyIsNowhere(t *testing.T) {
	t.Parallel()
	r, paid := paidRig(t, 0, "", ", spend_cap: {day: 5}")
	var all strings.Builder
	for _, status := range []int{400, 401, 404, 429, 500} {
		paid.Behave(providertest.Leak(status))
		for _, stream := range []bool{false, true} {
			_, head, text := r.post(stream)
			fmt.Fprint(&all, head, text)
		}
	}
	if paid.Calls.Load() == 0 || paid.Last().Header.Get("Authorization") != "Bearer "+providertest.Key {
		t.Fatal("the provider was not asked with the key: the test shows nothing")
	}
	until(t, "the rows are on disk", func() bool { return r.ledger.Status().Queued == 0 })
	snap, err := json.Marshal(r.snapshot())
	if err != nil {
		t.Fatal(err)
	}
	all.Write(snap)
	lines, err := r.Log(t.Context(), "engine", 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(&all, lines)
	for _, path := range []string{"/metrics", "/health", "/cost-comparison", "/v1/models"} {
		resp, err := http.Get(r.URL() + path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	err = filepath.WalkDir(filepath.Join(r.dir, "state"), func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		all.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if i := strings.Index(all.String(), providertest.Key); i >= 0 {
		s := all.String()
		t.Errorf("the key is in %q", s[max(0, i-200):min(len(s), i+200)])
	}
	if !strings.Contains(all.String(), "wrong key ****") {
		t.Error("no refusal of the provider is in what was looked at: the test shows nothing")
	}
}

func TestAPaidCallIsInTheLedgerBeforeItIsSent(t *testing.T) {
	t.Parallel()
	r, paid := paidRig(t, 0, "", ", spend_cap: {day: 5}")
	answer := providertest.Answer(api.Usage{Input: 10, Output: 5})
	var mu sync.Mutex
	var found []string
	paid.Behave(func(w http.ResponseWriter, req *http.Request) {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(r.dir, "state", "ledger.db")+"?mode=ro")
		if err != nil {
			panic(err)
		}
		defer db.Close()
		var n, actual int64
		err = db.QueryRowContext(req.Context(), "SELECT COUNT(*), COALESCE(SUM(actual), 0) FROM request WHERE outcome = 'open' AND basis = 'provider_price' AND id = $1", req.Header.Get("X-Request-Id")).Scan(&n, &actual)
		mu.Lock()
		found = append(found, fmt.Sprintf("%d %d %v", n, actual, err))
		mu.Unlock()
		answer(w, req)
	})
	for range 10 {
		if code, _, text := r.post(false); code != 200 {
			t.Fatalf("HTTP %d: %s", code, text)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	want := fmt.Sprintf("1 %d <nil>", reserved)
	if len(found) != 10 || slices.ContainsFunc(found, func(s string) bool { return s != want }) {
		t.Errorf("when they came to the provider, the calls had %q in the ledger, want %q each", found, want)
	}
}
