package api

import (
	"encoding/json"
	"fmt"
	"math"
	"testing"
	"time"
)

// full is a snapshot of a busy engine: 8 workers, 7 windows of 120 points, 120 requests.
func full() *Snapshot {
	now := time.Date(2026, 11, 24, 12, 30, 0, 0, time.UTC)
	series := func(n int) Series {
		s := make(Series, n)
		for i := range s {
			if s[i] = 123.456 * float64(i%17); i%11 == 0 {
				s[i] = math.NaN()
			}
		}
		return s
	}
	s := &Snapshot{Schema: Schema, Seq: 1, Time: now}
	for i := range 8 {
		s.Workers = append(s.Workers, Worker{
			Name: fmt.Sprint("w", i), Model: "smollm2-135m-instruct", State: Ready, Since: now, URL: "http://127.0.0.1:18000",
			KV: new(0.5), Running: new(3.0), OutRate: new(812.5), HourCost: new(Nanos(340_000_000)), Trend: series(60),
		})
	}
	for range 7 {
		s.Windows = append(s.Windows, Window{
			Span: Span(time.Minute), End: now, Requests: series(120), Errors: series(120), Output: series(120), Prompt: series(120), InFlight: series(120),
			TTFT50: series(120), TTFT95: series(120), E2E95: series(120), ITL95: series(120), Savings: series(120),
		})
	}
	for i := range 120 {
		s.Requests = append(s.Requests, Request{
			ID: fmt.Sprintf("01JDF%021d", i), Started: now, Route: "chat", Model: "smollm2-135m-instruct", Worker: "w0", Class: ClassServed, Outcome: OutcomeOK, Status: 200,
			Finish: "stop", Usage: Usage{Input: 214, Output: 64}, UsageSource: UsageUpstream, TTFT: Span(123456789), Duration: Span(1234567890), ITL: Span(12345678), MaxGap: Span(23456789),
			Attempts: []Attempt{{Upstream: "w0", Outcome: OutcomeOK, Share: Span(12345678), Actual: new(Nanos(123_456))}},
			Basis:    BasisGPUTime, Actual: new(Nanos(123_456)), Would: new(Nanos(63_000)), Baseline: "openai/gpt-4o-mini", PriceDate: "2026-08-21", Health: new(0.93),
		})
	}
	return s
}

func BenchmarkSnapshotWrite(b *testing.B) {
	s := full()
	n := 0
	for b.Loop() {
		text, err := json.Marshal(s)
		if err != nil {
			b.Fatal(err)
		}
		n = len(text)
	}
	b.ReportMetric(float64(n), "B")
}

func BenchmarkSnapshotRead(b *testing.B) {
	text, err := json.Marshal(full())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var s Snapshot
		if err := json.Unmarshal(text, &s); err != nil {
			b.Fatal(err)
		}
	}
}
