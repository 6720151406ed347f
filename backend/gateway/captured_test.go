package gateway

import (
	"strings"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// TestCapturedIsTheTextOfKeysThatSaySo is what is given out of a request, however it ends, and of whom nothing is.
func TestCapturedIsTheTextOfKeysThatSaySo(t *testing.T) {
	type text struct {
		id, prompt, answer string
		more               bool
	}
	got := make(chan text, 10)
	rated := make(chan string, 10)
	r := newRig(t, func(g *Gateway) {
		g.Captured = func(r *api.Request, prompt, answer string, more bool) { got <- text{r.ID, prompt, answer, more} }
		g.Rated = func(_ *api.Request, _, answer string) { rated <- answer }
	})
	r.Keys.Set([]Key{key("loud", "vd_loud_x", func(k *Key) { k.Capture = true }), key("quiet", "vd_q_x")})
	const prompt = `[{"role":"user","content":"Hello there"}]`
	long := strings.Repeat("0123456789", 3000)
	two := strings.Replace(streamBody, `"stream"`, `"n":2,"stream"`, 1)
	for _, tt := range []struct {
		name, worker, body string
		want               text
		rated              int
	}{
		{"a stream", events(t, evRole, evText("one "), evText("\"é\n"), evFinish, evDone), streamBody, text{prompt: prompt, answer: "one \"é\n"}, 1},
		{"a whole answer", goodAnswer(t), chatBody, text{prompt: prompt, answer: "hi"}, 1},
		{"a long one", events(t, evRole, evText(long), evText(long), evFinish, evDone), streamBody, text{prompt: prompt, answer: long + long}, 0},
		{"two answers", events(t, evRole, evText("first"), strings.Replace(evText("second"), `"index":0`, `"index":1`, 1), evFinish, evFinish, evDone), two, text{prompt: prompt, answer: "first"}, 0},
		{"one that is lost", events(t, evRole, evText("half")), streamBody, text{prompt: prompt, answer: "half"}, 0},
		{"one that fails", events(t, evRole), streamBody, text{prompt: prompt}, 0},
	} {
		r.pool.add("a", tt.worker)
		r.post(t, "/v1/chat/completions", tt.body, as("vd_q_x")...)
		r.pool.row(t)
		r.post(t, "/v1/chat/completions", tt.body, as("vd_loud_x")...)
		tt.want.id = r.pool.row(t).ID
		if text := <-got; text != tt.want {
			t.Errorf("%s: captured %.200v, want %.200v", tt.name, text, tt.want)
		}
		until(t, tt.name+" is rated", func() bool { return len(rated) == 2*tt.rated })
		for range 2 * tt.rated {
			<-rated
		}
	}
	r.post(t, "/v1/chat/completions", `{"model":"nope"}`, as("vd_loud_x")...) // sent to nobody
	r.pool.row(t)
	if len(got) != 0 {
		t.Errorf("captured %v beyond the key's own requests", <-got)
	}
}
