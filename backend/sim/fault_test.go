package sim

import (
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func parseFaults(t *testing.T, specs ...string) []Fault {
	t.Helper()
	var fs []Fault
	for _, s := range specs {
		f, err := ParseFault(s)
		if err != nil {
			t.Fatal(err)
		}
		fs = append(fs, f)
	}
	return fs
}

const streamed = `,"max_tokens":12,"ignore_eos":true,"stream":true`

// contents counts the events that carry text.
func contents(body string) int { return strings.Count(body, `"delta":{"content":"`) }

func TestStreamFaults(t *testing.T) {
	for _, c := range []struct {
		fault    string
		contents int
		clean    bool   // the body ends without an error
		end      string // and with this
	}{
		{"clean-eof:5", 5, true, "}\n\n"},
		{"reset:5", 5, false, ""},
		{"error-event:5", 5, true, `data: {"error": {"message": "Internal server error", "type": "InternalServerError", "param": null, "code": 500}}` + "\n\ndata: [DONE]\n\n"},
		{"busy-event", 0, true, `"type": "Service Unavailable", "param": null, "code": 503}}` + "\n\ndata: [DONE]\n\n"},
		{"split-writes", 12, true, "data: [DONE]\n\n"},
		{"reset:5:0", 12, true, "data: [DONE]\n\n"},
	} {
		inBox(t, Options{Model: "m", Faults: parseFaults(t, c.fault)}, func(b *box) {
			res := b.post("/v1/chat/completions", chatBody("Long", streamed))
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if (err == nil) != c.clean {
				t.Errorf("%s: read = %v, want a clean end: %v", c.fault, err, c.clean)
			}
			if got := contents(string(body)); got != c.contents {
				t.Errorf("%s: %d content events, want %d", c.fault, got, c.contents)
			}
			if !strings.HasSuffix(string(body), c.end) {
				t.Errorf("%s: ends with %q, want %q", c.fault, body[max(0, len(body)-120):], c.end)
			}
			if c.fault == "clean-eof:5" && strings.Contains(string(body), "[DONE]") {
				t.Errorf("%s: has a [DONE]", c.fault)
			}
			time.Sleep(time.Second)
			if n := b.metric("vllm:num_requests_running"); n != 0 {
				t.Errorf("%s: running = %v afterwards, want 0", c.fault, n)
			}
		})
	}
}

func TestStalls(t *testing.T) {
	for fault, want := range map[string]int{"stall-before-first": 0, "stall-after:3": 3} {
		inBox(t, Options{Model: "m", Faults: parseFaults(t, fault)}, func(b *box) {
			res := b.post("/v1/chat/completions", chatBody("Long", streamed))
			got := make(chan string, 1)
			go func() {
				body, _ := io.ReadAll(res.Body)
				got <- string(body)
			}()
			time.Sleep(10 * time.Minute)
			select {
			case <-got:
				t.Errorf("%s: the stream ended", fault)
			default:
			}
			b.cancel()
			if n := contents(<-got); n != want {
				t.Errorf("%s: %d content events, want %d", fault, n, want)
			}
			res.Body.Close()
		})
	}
}

func TestPlainFaults(t *testing.T) {
	for fault, want := range map[string]int{"error-event:2": 500, "status:500": 500, "status:503": 503, "status:429": 429, "reset:2": 0, "clean-eof:2": 0} {
		inBox(t, Options{Model: "m", Faults: parseFaults(t, fault)}, func(b *box) {
			res, err := b.try("/v1/chat/completions", chatBody("Long", `,"max_tokens":12`))
			got := 0
			if err == nil {
				got = res.StatusCode
				res.Body.Close()
			}
			if got != want {
				t.Errorf("%s: HTTP %d (%v), want %d", fault, got, err, want)
			}
		})
	}
}

func TestStatusFaultHitsItsShare(t *testing.T) {
	inBox(t, Options{Model: "m", Seed: 1, Faults: parseFaults(t, "status:503:0.2")}, func(b *box) {
		hit := 0
		for range 200 {
			res := b.post("/v1/chat/completions", chatBody("x", `,"max_tokens":1`))
			res.Body.Close()
			if res.StatusCode == http.StatusServiceUnavailable {
				hit++
			}
		}
		if hit < 20 || hit > 60 {
			t.Errorf("%d of 200 requests hit, want about 40", hit)
		}
	})
}

func TestTextFaults(t *testing.T) {
	inBox(t, Options{Model: "m", Faults: parseFaults(t, "loop")}, func(b *box) {
		r := b.ask(chatBody("Tell me about GPUs", `,"max_tokens":200`))
		first, _, _ := strings.Cut(r.text(), ". ")
		if n := strings.Count(r.text(), first); n < 3 || r.Choices[0].Reason != "length" {
			t.Errorf("loop: %q (%s)", r.text(), r.Choices[0].Reason)
		}
	})
	inBox(t, Options{Model: "m", Faults: parseFaults(t, "truncate")}, func(b *box) {
		r := b.ask(chatBody("What is the capital of France?", ""))
		if got := r.text(); got == "" || !strings.HasPrefix("The capital of France is Paris.", got) || len(got) > 20 || r.Choices[0].Reason != "length" {
			t.Errorf("truncate: %q (%s), want a part of the answer and length", got, r.Choices[0].Reason)
		}
	})
}

func TestGzipFault(t *testing.T) {
	inBox(t, Options{Model: "m", Faults: parseFaults(t, "gzip")}, func(b *box) {
		res := b.post("/v1/chat/completions", chatBody("x", streamed))
		defer res.Body.Close()
		if got := res.Header.Get("Content-Encoding"); got != "gzip" {
			t.Fatalf("Content-Encoding = %q, want gzip", got)
		}
		z, err := gzip.NewReader(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(z)
		if err != nil || !strings.HasSuffix(string(body), "data: [DONE]\n\n") {
			t.Errorf("unpacked stream ends with %q, %v", body[max(0, len(body)-60):], err)
		}
	})
}

func TestCrashFaults(t *testing.T) {
	inBox(t, Options{Model: "m", Faults: parseFaults(t, "crash-after:30s")}, func(b *box) {
		time.Sleep(29 * time.Second)
		if got := b.health(); got != 200 {
			t.Errorf("health after 29 s = %d, want 200", got)
		}
		time.Sleep(2 * time.Second)
		if got := b.health(); got != 503 {
			t.Errorf("health after 31 s = %d, want 503", got)
		}
		if err := <-b.done; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
}

func TestHangHealthFault(t *testing.T) {
	inBox(t, Options{Model: "m", Faults: parseFaults(t, "hang-health:5s")}, func(b *box) {
		if got := b.health(); got != 200 {
			t.Errorf("health at first = %d, want 200", got)
		}
		time.Sleep(6 * time.Second)
		c := &http.Client{Transport: b.c.Transport, Timeout: time.Minute}
		if res, err := c.Get("http://sim/health"); err == nil {
			t.Errorf("health later = %d, want no answer", res.StatusCode)
		}
	})
}

func TestSlowFault(t *testing.T) {
	inBox(t, Options{Model: "m", Faults: parseFaults(t, "slow:10")}, func(b *box) {
		begun := time.Now()
		b.ask(chatBody("x", `,"max_tokens":50,"ignore_eos":true`))
		if d := time.Since(begun); d < 5*time.Second || d > 9*time.Second {
			t.Errorf("50 tokens at a tenth of the speed took %v, want 5 to 9 s", d)
		}
	})
}

func TestParseFaultSaysWhatIsWrong(t *testing.T) {
	for _, s := range []string{"", "nope", "reset", "reset:x", "reset:-1", "reset:5:2", "status:404", "slow:0", "slow:NaN", "crash-after:soon", "fail-start:luck", "loop:x", "crash-on:", "ignore-sigterm:1"} {
		if f, err := ParseFault(s); err == nil {
			t.Errorf("ParseFault(%q) = %+v, want an error", s, f)
		}
	}
	f, err := ParseFault("status:503:0.1")
	if err != nil || f.N != 503 || f.P != 0.1 {
		t.Errorf("ParseFault(status:503:0.1) = %+v, %v", f, err)
	}
	for _, k := range faultKinds {
		if !strings.Contains(FaultHelp(), k.name) {
			t.Errorf("help does not name %s", k.name)
		}
	}
}
