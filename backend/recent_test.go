package backend

import (
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func TestTTFTOfEachWorkerIsExact(t *testing.T) {
	now := time.Now()
	var r recent
	add := func(worker string, ttft, ago time.Duration) {
		r.add(&api.Request{Worker: worker, TTFT: api.Span(ttft), Duration: api.Span(time.Second), Started: now.Add(-ago - time.Second)})
	}
	for i := range 20 {
		add("w0", time.Duration(i+1)*10*time.Millisecond, 5*time.Second)
	}
	add("w1", 70*time.Millisecond, 59*time.Second)
	add("w1", 9*time.Second, 61*time.Second) // too long ago
	add("w2", 0, time.Second)                // not streamed: had no first token
	got := r.ttft95(now.Add(-time.Minute))
	if len(got) != 2 || got["w0"] != 0.19 || got["w1"] != 0.07 {
		t.Errorf("ttft95 = %v, want w0 0.19 (the 19th of 20) and w1 0.07", got)
	}
}
