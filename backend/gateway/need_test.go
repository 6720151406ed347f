package gateway

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

func TestNeedIsTheMostThatARequestAllows(t *testing.T) {
	for _, tt := range []struct {
		route, body string
		max         int64
		answers     int
	}{
		{"chat", `{"messages":[]}`, 0, 1},
		{"chat", `{"messages":[],"max_tokens":7}`, 7, 1},
		{"chat", `{"messages":[],"max_tokens":7,"max_completion_tokens":9,"n":3}`, 9, 3},
		{"chat", `{"messages":[],"max_tokens":7,"max_tokens":700,"max_tokens":1}`, 700, 1},
		{"chat", `{"messages":[],"max\u005ftokens":50}`, 50, 1},
		{"chat", `{"messages":[],"max_tokens":"many","n":99999999999}`, 0, 1 << 20},
		{"chat", `{"messages":[],"max_tokens":-1}`, 0, 1},
		{"chat", `{"messages":[],"max_tokens":1e5}`, 100_000, 1},
		{"chat", `{"messages":[],"max_tokens":1e300}`, 0, 1},
		{"responses", `{"input":"x","max_output_tokens":11}`, 11, 1},
		{"completions", `{"prompt":"x","max_tokens":5,"n":2,"best_of":4}`, 5, 4},
		{"completions", `{"prompt":["a","b","c"],"n":2}`, 0, 6},
		{"completions", `{"prompt":[1,2,3]}`, 0, 1},
		{"completions", `{"prompt":[[1,2],[3]]}`, 0, 2},
		{"completions", `{"prompt":[]}`, 0, 1},
		{"completions", `{}`, 0, 1},
	} {
		c := &call{row: &api.Request{ID: "id", Class: api.ClassServed, Model: "m"}}
		for i := range dialects {
			if dialects[i].name == tt.route {
				c.d = &dialects[i]
			}
		}
		if err := c.req.parse([]byte(tt.body), c.d); err != nil {
			t.Fatalf("%s: %v", tt.body, err)
		}
		got := c.need()
		want := Need{ID: "id", Route: tt.route, Class: api.ClassServed, Model: "m", Bytes: len(tt.body), MaxTokens: tt.max, Answers: tt.answers}
		if got != want {
			t.Errorf("need of %s = %+v, want %+v", tt.body, got, want)
		}
	}
}

// payer makes the upstreams of a pool whose candidate is a provider ask for money.
type payer struct {
	*pool
	asked []Need
	deny  error
}

func (p *payer) Acquire(id string) (Lease, bool) {
	l, ok := p.pool.Acquire(id)
	if ok && id == "openai" {
		l.Limit = "max_completion_tokens"
		l.Reserve = func(n Need) (string, error) {
			p.asked = append(p.asked, n)
			return "theirs", p.deny
		}
	}
	return l, ok
}

func TestAProviderIsAskedForMoneyBeforeItGetsTheRequest(t *testing.T) {
	p := &payer{deny: errors.New("its spend_cap of the day has no room for this request")}
	r := newRig(t, func(g *Gateway) {
		p.pool = g.Upstreams.(*pool)
		g.Upstreams = p
	})
	r.pool.set(route.Candidate{ID: "a", State: "failed"}, "")
	var path, body string
	url := serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		path, body = req.URL.Path, string(b)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, wholeAnswer)
	})
	r.pool.set(route.Candidate{ID: "openai", Ready: true, Provider: true}, url+"/v1beta/openai")
	got := r.post(t, "/v1/chat/completions", chatBody)
	if got.status != 503 || body != "" || !strings.Contains(got.body, "openai: its spend_cap of the day has no room") || got.header.Get("Retry-After") == "" {
		t.Errorf("got %d %s, want a refusal that says why, and nothing sent", got.status, got.body)
	}
	if row := r.pool.row(t); len(row.Attempts) != 0 || row.Class != api.ClassServed {
		t.Errorf("row of class %s with %d attempts, want served with none", row.Class, len(row.Attempts))
	}
	if res := r.pool.results["openai"]; len(res) != 1 || res[0] != route.Neutral {
		t.Errorf("results = %v, want one that says nothing", res)
	}
	p.deny = nil
	if got := r.post(t, "/v1/chat/completions", chatBody); got.status != 200 || path != "/v1beta/openai/chat/completions" || !strings.Contains(body, `"model":"theirs"`) {
		t.Errorf("got %d by way of %s with %s, want 200, /v1beta/openai/chat/completions, their name", got.status, path, body)
	}
	if _, after, _ := strings.Cut(body, "max_"); after != "" {
		t.Errorf("it got max_%s, want no limit where the client set none", after)
	}
	if row := r.pool.row(t); row.Class != api.ClassFailover || !row.Attempts[0].Provider || len(p.asked) != 2 || p.asked[1].ID != row.ID {
		t.Errorf("row = %+v, asked %+v, want a paid attempt under its own id", row, p.asked)
	}
}

func TestARequestThatComesBackFromAProviderIsServed(t *testing.T) {
	r := newRig(t)
	r.pool.set(route.Candidate{ID: "a", State: "failed"}, "")
	worker := goodAnswer(t)
	r.pool.set(route.Candidate{ID: "openai", Ready: true, Provider: true}, serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		r.pool.add("a", worker) // a worker is back just then
		w.WriteHeader(http.StatusInternalServerError)
	})+"/v1")
	if got := r.post(t, "/v1/chat/completions", chatBody); got.status != 200 {
		t.Errorf("got %d %s, want 200 from the worker", got.status, got.body)
	}
	row := r.pool.row(t)
	if row.Class != api.ClassServed || row.Worker != "a" || len(row.Attempts) != 2 || !row.Attempts[0].Provider || row.Attempts[1].Provider {
		t.Errorf("row of class %s on %s with %+v, want served on a after a paid attempt", row.Class, row.Worker, row.Attempts)
	}
	if r.pool.opened != 1 {
		t.Errorf("opened %d times, want once: it began at the provider", r.pool.opened)
	}
}

// TestAProviderGetsTheLimitUnderItsOwnName sends max_tokens to a provider that knows max_completion_tokens alone, and to a worker
// as the client wrote it.
func TestAProviderGetsTheLimitUnderItsOwnName(t *testing.T) {
	p := &payer{}
	r := newRig(t, func(g *Gateway) {
		p.pool = g.Upstreams.(*pool)
		g.Upstreams = p
	})
	bodies := make(chan string, 1)
	url := serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
		b, _ := io.ReadAll(req.Body)
		bodies <- string(b)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, wholeAnswer)
	})
	body := `{"model":"m","messages":[],"max_tokens":9}`
	for _, tt := range []struct{ path, want string }{
		{"/v1/chat/completions", `{"model":"theirs","messages":[],"max_completion_tokens":9}`},
		{"/v1/completions", `{"model":"theirs","messages":[],"max_tokens":9}`}, // OpenAI's older route has one name
	} {
		r.pool.set(route.Candidate{ID: "openai", Ready: true, Provider: true}, url)
		r.post(t, tt.path, body)
		if got := <-bodies; got != tt.want {
			t.Errorf("%s: the provider got %s, want %s", tt.path, got, tt.want)
		}
		r.pool.row(t)
	}
	r.pool.add("a", url)
	r.post(t, "/v1/chat/completions", body)
	if got := <-bodies; got != body {
		t.Errorf("the worker got %s, want %s", got, body)
	}
	r.pool.row(t)
}
