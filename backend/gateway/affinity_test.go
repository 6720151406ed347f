package gateway

import (
	"bufio"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/route"
	"github.com/vllmdeck/vllmdeck/backend/sim"
)

// counted reads one counter of a server's metrics.
func counted(t testing.TB, url, name string) float64 {
	t.Helper()
	res, err := http.Get(url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for sc := bufio.NewScanner(res.Body); sc.Scan(); {
		if strings.HasPrefix(sc.Text(), name+"{") {
			f := strings.Fields(sc.Text())
			v, err := strconv.ParseFloat(f[len(f)-1], 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("no %s in the metrics of %s", name, url)
	return 0
}

// talk holds 8 conversations of 6 turns over two simulated workers and gives the share of prompt tokens that came from
// their prefix caches, and how many requests each worker had. If strange, each turn is written differently, so
// that its past cannot be told from its bytes: the same prompts without affinity.
func talk(t *testing.T, strange bool) (rate float64, shares map[string]int) {
	t.Helper()
	r := newRig(t)
	o := sim.Options{MaxSeqs: 16, TTFT: 8 * time.Millisecond, ITL: 100 * time.Microsecond}
	urls := []string{simulated(t, o), simulated(t, o)}
	for i, id := range []string{"a", "b"} {
		r.pool.set(route.Candidate{ID: id, Ready: true, MaxSeqs: 16}, urls[i])
	}
	past := make([]string, 8)
	say := func(i, turn int) {
		past[i] += fmt.Sprintf(`,{"role":"user","content":"Question %d of %d: %s"}`, turn, i, strings.Repeat("tell me more about bridges and rivers, ", 8))
		blanks := ""
		if strange {
			blanks = strings.Repeat(" ", 1+turn)
		}
		got := r.post(t, "/v1/chat/completions", fmt.Sprintf(`{"model":"m","messages":[%s%s],"max_tokens":32,"temperature":0}`, blanks, past[i]))
		text := gjson.Get(got.body, "choices.0.message.content")
		if got.status != 200 || text.Str == "" {
			t.Errorf("turn %d of %d: %d %s (%v)", turn, i, got.status, got.body, got.err)
			return
		}
		past[i] += `,{"role":"assistant","content":` + text.Raw + `}`
	}
	var wg sync.WaitGroup
	for i := range past { // all begin at once: their load spreads them
		past[i] = fmt.Sprintf(`{"role":"system","content":"You are assistant number %d. %s"}`, i, strings.Repeat(fmt.Sprintf("Rule %d holds. ", i), 20))
		wg.Go(func() { say(i, 0) })
	}
	wg.Wait()
	for turn := 1; turn < 6; turn++ { // and go on one after the other: both workers are idle each time
		for i := range past {
			say(i, turn)
		}
	}
	var hits, queries float64
	for _, url := range urls {
		hits += counted(t, url, "vllm:prefix_cache_hits_total")
		queries += counted(t, url, "vllm:prefix_cache_queries_total")
	}
	return hits / queries, r.pool.acquired
}

// TestConversationsStayWhereTheirPastIsCached compares the workers' own counters with and without affinity.
func TestConversationsStayWhereTheirPastIsCached(t *testing.T) {
	without, _ := talk(t, true)
	with, shares := talk(t, false)
	t.Logf("prefix cache hit rate %.0f %% with affinity, %.0f %% without; requests %v", 100*with, 100*without, shares)
	if with < without+0.05 || with < 0.6 {
		t.Errorf("hit rate %.2f with affinity, %.2f without; want clearly more, and over 0.6", with, without)
	}
	if shares["a"]%6 != 0 || shares["a"] == 0 || shares["b"] == 0 {
		t.Errorf("requests = %v of 48, want whole conversations of 6 on both workers", shares)
	}
}
