package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// canary is a text that must be nowhere but where it belongs.
type canary struct {
	name, text string
	places     []string // in which it may be: the beginnings of their names
}

// r16 puts a different canary into every place where a secret or a prompt may be, lets everything happen to it, good and
// bad, and then looks for all of them in whatever the program writes, shows or tells.
func r16(ctx context.Context, t *trial) error {
	w := &watch{t: t}
	if err := w.setUp(ctx); err != nil {
		return err
	}
	w.use(ctx)
	if err := w.e.settled(ctx, 30*time.Second); err != nil {
		return err
	}
	if err := w.look(ctx); err != nil {
		return err
	}
	t.note("canaries", len(w.canaries))
	t.note("requests with canaries", w.sent)
	t.note("places searched", w.searched)
	t.note("bytes searched", w.bytes)
	t.atLeast("canaries found where they belong", w.rightly(), 3) // or the search finds nothing at all
	t.exactly("canaries found elsewhere", w.hits, 0)
	return nil
}

// watch is the state of r16.
type watch struct {
	t        *trial
	e        *engine
	c        *client
	canaries []*canary
	found    map[string]bool // canaries that were found where they may be
	sent     int
	searched int
	bytes    int64
	hits     int
}

// hide makes a canary. Its text looks like nothing in particular, so that no pattern of secrets helps.
func (w *watch) hide(name string, places ...string) string {
	text := fmt.Sprintf("qv%dzkw%s", len(w.canaries)+10, strings.Repeat(strconv.Itoa(7+len(w.canaries)%3), 6)+"jxmt")
	w.canaries = append(w.canaries, &canary{name, text, places})
	return text
}

// setUp starts an engine with simulated workers of model toy, a script in vLLM's place, a fake worker that
// quotes all it is told, and a paid API that does the same.
func (w *watch) setUp(ctx context.Context) error {
	w.found = map[string]bool{}
	w.c = w.t.newClient(16)
	fake, err := w.t.fake(ctx, w.quote)
	if err != nil {
		return err
	}
	paid, err := w.t.listen(ctx, w.quote)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "rel")
	if err != nil {
		return err
	}
	w.t.cleanup(func() { _ = os.RemoveAll(dir) })
	keyFile := filepath.Join(dir, "key")
	if err := os.WriteFile(keyFile, []byte(w.hide("the paid API's key, in a file")+"\n"), 0o600); err != nil {
		return err
	}
	script, err := w.t.script()
	if err != nil {
		return err
	}
	env := map[string]string{
		"OPENAI_API_KEY":        "sk-" + w.hide("OPENAI_API_KEY of the engine"),
		"AWS_SECRET_ACCESS_KEY": w.hide("AWS_SECRET_ACCESS_KEY of the engine"),
		"SITE_DB_PASSWORD":      w.hide("a password in the environment"),
		"DATABASE_URL":          "postgres://u:" + w.hide("a password in a URL in the environment") + "@db/x",
		"SOMETHING":             "sk-" + w.hide("a key under a name that says nothing"),
		"SECOND":                w.hide("a paid API's key under a name that says nothing"),
		"CLIENT":                w.hide("a client key of the config"),
		"WORKER":                w.hide("a worker's own key", "environment of"),
		"ATTACHED":              w.hide("an attached worker's key"),
		"SITE_TOKEN":            w.hide("a variable that the config gives a worker", "environment of w2"),
		"HF_TOKEN":              w.hide("HF_TOKEN, which gated models need", "environment of"),
	}
	e, err := w.t.engineWith(ctx, env, fmt.Sprintf(`models: [{name: toy}, {name: odd}, {name: scripted}, {name: bought, failover: down}, {name: filed}]
cost: {gpu_hour: 1.00}
gateway: {queue_wait: 1s}
keys: [{name: app, key: "env:CLIENT"}]
workers:
  - {name: w0, model: toy, gpus: 1, api_key: "env:WORKER", stop_timeout: 1s, restart: {base: 50ms, max: 200ms, window: 1ms, tries: 100}, sim: {seed: 1, start: 20ms, ttft: 5ms, itl: 2ms, faults: ["crash-on:DIENOW"]}}
  - {name: w1, model: toy, gpus: 1, api_key: "env:WORKER", stop_timeout: 1s, sim: {seed: 1, start: 20ms, ttft: 5ms, itl: 2ms, faults: ["error-event:3:0.3", "reset:3:0.2"]}}
  - {name: w2, model: scripted, vllm: {bin: %q, path: %q, env: {SITE_VARIABLE: "env:SITE_TOKEN"}}}
  - {name: a0, model: odd, attach: %q, gpus: 1, api_key: "env:ATTACHED"}
providers:
  - {name: second, url: "%s/v1", key: "env:SECOND", models: {bought: gpt-4o-mini}, prices: {bought: openai/gpt-4o-mini}, spend_cap: {day: 5}}
  - {name: third, url: "%s/v1", key: "file:%s", models: {filed: gpt-4o-mini}}
`, script, filepath.Dir(script), fake, paid, paid, keyFile))
	if err != nil {
		return err
	}
	w.e = e
	return e.ready(ctx, 60*time.Second)
}

// quote is what the fake worker and the paid API do: they fail, and their errors quote everything that they know.
func (w *watch) quote(wr http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	said := fmt.Sprintf("cannot serve this for %v: %s", r.Header, body)
	if len(body)%2 > 0 { // only what it is about, as text
		var v struct{ Prompt string }
		_ = json.Unmarshal(body, &v)
		said = fmt.Sprintf("%s is the wrong key for %q", r.Header.Get("Authorization"), v.Prompt)
	}
	how, _, _ := strings.Cut(r.Header.Get(played), " ")
	if how == "" {
		how = r.Header.Get("X-Request-Id") // a paid API gets no headers of the client's but this
	}
	wr.Header().Set("Content-Type", "application/json")
	wr.Header().Set("X-Echo", r.Header.Get("Authorization"))
	status := map[string]int{"400": 400, "401": 401, "422": 422, "429": 429, "500": 500, "503": 503}[how[:min(3, len(how))]]
	switch how {
	case "stream":
		wr.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(wr, "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":null}]}\n\ndata: {\"error\":{\"message\":%q,\"type\":\"x\",\"code\":500}}\n\n", said)
	case "plain":
		wr.Header().Set("Content-Type", "text/"+strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		_, _ = io.WriteString(wr, said)
	case "status":
		c, _, err := http.NewResponseController(wr).Hijack()
		if err == nil {
			fmt.Fprintf(c, "HTTP/1.1 nonsense %s\r\n\r\n", said)
			_ = c.Close()
		}
	default:
		wr.WriteHeader(max(status, 400))
		_ = json.NewEncoder(wr).Encode(map[string]any{"error": map[string]any{"message": said, "type": "x", "code": status}})
	}
}

// use makes requests of every kind, of each with canaries of its own.
func (w *watch) use(ctx context.Context) {
	t := w.t
	out, err := w.e.run(ctx, "keys", "create", "made")
	if err != nil {
		t.failf("%v", err)
		return
	}
	made := strings.Fields(out)[slices.IndexFunc(strings.Fields(out), func(s string) bool { return len(s) > 30 })]
	w.canaries = append(w.canaries, &canary{"the secret part of a key that was made", made[strings.LastIndex(made, "_")+1:], nil})
	key := "Bearer " + w.text("a client key of the config")
	prompt := func(what string) string { return w.hide("the prompt of " + what) }

	for _, r := range routes {
		for _, stream := range []bool{true, false} {
			for i := range 6 {
				h := map[string]string{"Authorization": key, "Cookie": w.hide("a cookie"), "X-Custom": w.hide("a header"), "Referer": "http://x/" + w.hide("a referrer"), "User-Agent": w.hide("a user agent")}
				if i == 1 {
					h = map[string]string{"X-Api-Key": made}
				}
				w.c.do(ctx, w.e.url, ask{route: r.name, prompt: prompt(r.name), tokens: 8, stream: stream, header: h})
				w.sent++
			}
		}
	}
	// One who leaves, one who is refused, and what is wrong with a key.
	hurry, stop := context.WithTimeout(ctx, 15*time.Millisecond)
	w.c.do(hurry, w.e.url, ask{route: "chat", prompt: prompt("a client that leaves"), tokens: 500, stream: true, header: map[string]string{"Authorization": key}})
	stop()
	for i := range 4 {
		h := map[string]string{"Authorization": []string{"Bearer ", "Basic ", "", "bearer  "}[i] + w.hide("a wrong key")}
		w.c.do(ctx, w.e.url+"/?key="+w.hide("a query")+"&x=", ask{route: "chat", prompt: prompt("a wrong key"), tokens: 5, header: h})
		w.c.do(ctx, w.e.url, ask{route: "chat", prompt: prompt("a wrong key"), tokens: 5, header: h})
		w.sent += 2
	}
	// Bodies that are refused, by the gateway or by the worker in words that quote them.
	for _, body := range []string{
		`{"model":"toy","messages":[{"role":"user","content":"%s"}]`, `{"model":"toy","messages":"%s"}`, `{"model":"toy","messages":[{"role":"user","content":{"a":"%s"}}]}`, `{"model":"toy","max_tokens":"%s","messages":[]}`,
		`{"model":"toy","messages":[{"role":"user","content":"x"}],"stop":[1,"%s"]}`, `{"model":"toy","messages":[{"role":"%s","content":"x"}]}`, `{"model":"toy","temperature":"%s","messages":[{"role":"user","content":"x"}]}`, `{"model":"toy","messages":[{"role":"user","content":"%s ` + strings.Repeat("long ", 20_000) + `"}]}`,
		`{"model":"toy","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://evil/%s"}}]}]}`, `{"model":"toy","stream":"%s"}`, `{"model":"toy","response_format":{"type":"%s"},"messages":[{"role":"user","content":"x"}]}`, `%s`, `{"%s":1,"model":"toy","messages":[]}`,
		`{"model":"toy","user":"%s","metadata":{"a":"b"},"messages":[{"role":"system","content":"x"},{"role":"user","content":"y"}],"max_tokens":3}`,
	} {
		w.post(ctx, chatPath, strings.Replace(body, "%s", prompt("a refused body"), 1), key, nil)
	}
	// A worker that dies of its prompt, and others that quote everything, as an error, within a stream, or as no HTTP at all.
	w.c.do(ctx, w.e.url, ask{route: "chat", prompt: "DIENOW " + prompt("a death"), tokens: 8, stream: true, header: map[string]string{"Authorization": key}})
	for _, model := range []string{"odd", "bought", "filed", "scripted"} {
		for _, how := range []string{"400", "401", "422", "429", "500", "503", "stream", "plain", "status"} {
			for _, path := range []string{chatPath, "/v1/completions", "/v1/responses"} {
				text := w.hide("a prompt that is quoted by " + model)
				body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Please say %s again."}],"prompt":"Please say %s again.","input":"Please say %s again.","max_tokens":5,"stream":%t}`, model, text, text, text, how == "stream")
				w.post(ctx, path, body, key, map[string]string{played: how + " x", "X-Request-Id": how + "-" + strconv.Itoa(w.sent)})
			}
		}
	}
	// The prompt tester's text is its user's own: in no file, but on his screen.
	if out, err := w.e.run(ctx, "prompt", "--json", "--max-tokens", "8", w.hide("the prompt tester", "screen", "snapshot", "status --json", "log of prompt")); err != nil {
		t.failf("%v: %s", err, out)
	}
}

// text is a canary's, by its name.
func (w *watch) text(name string) string {
	for _, c := range w.canaries {
		if c.name == name {
			return c.text
		}
	}
	panic("no canary " + name)
}

func (w *watch) post(ctx context.Context, path, body, key string, header map[string]string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.e.url+path, strings.NewReader(body))
	if err != nil {
		w.t.failf("%v", err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", key)
	for name, value := range header {
		req.Header.Set(name, value)
	}
	w.sent++
	if resp, err := w.c.http.Do(req); err == nil {
		_ = drain(resp) // what it is does not matter here
	}
}
