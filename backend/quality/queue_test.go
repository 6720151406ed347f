package quality

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestQueueRatesAndTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDistribution(time.Now(), 0.8)
		q := NewQueue(2, d)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- q.Run(ctx) }()
		var told atomic.Int64
		for range 20 {
			if !q.Offer(Job{Model: "m", Answer: Answer{Text: "All is well."}, Done: func(Score) { told.Add(1) }}) {
				t.Error("Offer refused an answer with room in the queue")
			}
		}
		synctest.Wait()
		if got := d.Answers(time.Now()).Rated; got != 20 || told.Load() != 20 {
			t.Errorf("rated %d, told %d, want 20 and 20", got, told.Load())
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}

func TestAFullQueueDropsTheRatingAndCountsIt(t *testing.T) {
	q := NewQueue(1, NewDistribution(noon, 0.8)) // not running: nothing is taken out
	for i := range queued + 10 {
		if got, want := q.Wants(), i < queued; got != want {
			t.Fatalf("Wants before %d = %v, want %v", i, got, want)
		}
		if i >= queued+5 {
			continue // what is not wanted need not be offered
		}
		if got, want := q.Offer(Job{Answer: Answer{Text: "x"}}), i < queued; got != want {
			t.Fatalf("Offer %d = %v, want %v", i, got, want)
		}
	}
	if got := q.Dropped(); got != 10+5 {
		t.Errorf("Dropped = %d, want 15: 10 not wanted, 5 offered all the same", got)
	}
}

func TestToolCallsAreNotRated(t *testing.T) {
	q := NewQueue(1, NewDistribution(noon, 0.8))
	if q.Offer(Job{Answer: Answer{Text: " \n", Finish: "tool_calls"}}) || q.Dropped() != 0 {
		t.Errorf("an answer that only calls tools was queued, or counted as dropped (%d)", q.Dropped())
	}
	if !q.Offer(Job{Answer: Answer{Text: "", Finish: "stop"}}) {
		t.Error("an empty answer was not queued: it is a defect")
	}
}

func TestTheQueueHoldsOnlyWhatIsRated(t *testing.T) {
	long := Answer{Prompt: strings.Repeat("p", 1<<20), Text: strings.Repeat("t", 1<<20)}
	got := long.trimmed()
	if len(got.Text) != maxText || len(got.Prompt) != 2*maxContext {
		t.Errorf("kept %d of text and %d of prompt, want %d and %d", len(got.Text), len(got.Prompt), maxText, 2*maxContext)
	}
	if a, b := Rate(long), Rate(got); a != b {
		t.Errorf("the trimmed answer is rated %+v, the whole %+v", b, a)
	}
}

func TestNoMoreThanFiftyASecondAreRated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		q := NewQueue(1, NewDistribution(time.Now(), 0.8))
		done := make(chan struct{})
		go func() { defer close(done); _ = q.Run(ctx) }()
		rated := 0
		for range 10_000 { // 1,000 a second for ten seconds
			if q.Offer(Job{Answer: Answer{Text: "Paris."}}) {
				rated++
			}
			time.Sleep(time.Millisecond)
		}
		if want := 256 + 10*50; rated < want-5 || rated > want+5 {
			t.Errorf("rated %d of 10,000, want a burst of 256 and 50 a second: %d", rated, want)
		}
		cancel()
		<-done
	})
}
