package sim

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func (b *box) order(path, body string) (int, string) {
	b.t.Helper()
	res := b.post(path, body)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

func TestWithoutDevModeThereIsNoSleep(t *testing.T) {
	inBox(t, Options{Model: "m"}, func(b *box) {
		if code, text := b.order("/sleep", ""); code != http.StatusNotFound {
			t.Errorf("/sleep = %d %s, want 404", code, text)
		}
	})
}

func TestLevelTwoAnswersGarbageUntilItsWeightsAreLoaded(t *testing.T) {
	o := Options{Model: "m", DevMode: true, Start: 8 * time.Second}
	inBox(t, o, func(b *box) {
		time.Sleep(9 * time.Second)
		question := chatBody("What is a canal?", `,"max_tokens":8,"temperature":0`)
		want := b.ask(question).text()
		began := time.Now()
		b.order("/sleep?level=2", "")
		if got := time.Since(began); got != time.Second {
			t.Errorf("falling asleep took %v, want 1 s", got)
		}
		b.order("/wake_up", "")
		if got := b.ask(question).text(); got != strings.Repeat("!", 8) {
			t.Errorf("without weights it says %q, want garbage", got)
		}
		b.order("/sleep?level=2", "")
		if code, _ := b.order("/collective_rpc", `{"method":"reload_weights"}`); code != http.StatusInternalServerError {
			t.Errorf("reload into memory that is not there = %d, want 500", code)
		}
		b.order("/wake_up?tags=weights", "")
		b.order("/collective_rpc", `{"method":"reload_weights"}`)
		b.order("/wake_up?tags=kv_cache", "")
		r := b.ask(question)
		if r.text() != want {
			t.Errorf("after the reload it says %q, want %q", r.text(), want)
		}
		if r.Usage.Details.Cached != 0 {
			t.Errorf("%d tokens were cached over a sleep, want none", r.Usage.Details.Cached)
		}
	})
}

func TestAServerThatHangsAfterItsSleepStillAnswersHealth(t *testing.T) {
	f, err := ParseFault("hang-after-wake")
	if err != nil {
		t.Fatal(err)
	}
	inBox(t, Options{Model: "m", DevMode: true, Faults: []Fault{f}}, func(b *box) {
		b.ask(chatBody("Hello", `,"max_tokens":2`))
		b.order("/sleep", "")
		b.order("/wake_up", "")
		ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://sim/v1/chat/completions", strings.NewReader(chatBody("Hello", `,"max_tokens":2`)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if res, err := b.c.Do(req); err == nil {
			res.Body.Close()
			t.Error("it answers")
		}
		res, err := b.c.Get("http://sim/health")
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("/health = %v, %v", res, err)
		}
		res.Body.Close()
	})
}

func TestSleepEndsWhatRunsAndWaitsOnlyIfAsked(t *testing.T) {
	inBox(t, Options{Model: "m", DevMode: true}, func(b *box) {
		long := chatBody("Tell me a long story.", `,"max_tokens":200,"ignore_eos":true`)
		ended := make(chan int, 1)
		ask := func() {
			res, err := b.try("/v1/chat/completions", long)
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
			ended <- res.StatusCode
		}
		go ask()
		time.Sleep(500 * time.Millisecond)
		b.order("/sleep?mode=wait", "")
		if got := <-ended; got != http.StatusOK {
			t.Errorf("a request that was waited for ends with %d", got)
		}
		b.order("/wake_up", "")
		go ask()
		time.Sleep(500 * time.Millisecond)
		b.order("/sleep", "")
		if got := <-ended; got != http.StatusInternalServerError {
			t.Errorf("a request that was aborted ends with %d, want 500", got)
		}
	})
}
