package providertest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// API stands in for a paid API. It answers each request as it was last told to.
type API struct {
	URL   string // base, with /v1
	Calls atomic.Int64

	mu       sync.Mutex
	behave   http.HandlerFunc
	requests []Seen
	gone     chan struct{} // gets one per request whose client went away
}

// Seen is a request that the API got.
type Seen struct {
	Path   string
	Header http.Header
	Body   string
}

// Open starts an API that gives Answer.
func Open(t testing.TB) *API {
	t.Helper()
	a := &API{behave: Answer(api.Usage{Input: 10, Output: 5}), gone: make(chan struct{}, 1000)}
	s := httptest.NewServer(http.HandlerFunc(a.serve))
	a.URL = s.URL + "/v1"
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return a
}

func (a *API) serve(w http.ResponseWriter, r *http.Request) {
	a.Calls.Add(1)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // its client is gone
	}
	a.mu.Lock()
	behave := a.behave
	a.requests = append(a.requests, Seen{r.URL.Path, r.Header.Clone(), string(body)})
	a.mu.Unlock()
	r.Body = io.NopCloser(strings.NewReader(string(body)))
	behave(w, r)
	if r.Context().Err() != nil {
		a.gone <- struct{}{}
	}
}

// Behave changes how requests are answered from now on.
func (a *API) Behave(h http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.behave = h
}

// Last is the newest request.
func (a *API) Last() Seen {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.requests) == 0 {
		return Seen{}
	}
	return a.requests[len(a.requests)-1]
}

// Gone gets a value for each request whose client went away while it was answered.
func (a *API) Gone() <-chan struct{} { return a.gone }

// usageJSON writes u as OpenAI does: the parts are within their wholes.
func usageJSON(u api.Usage) string {
	return fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,"prompt_tokens_details":{"cached_tokens":%d},"completion_tokens_details":{"reasoning_tokens":%d}}`,
		u.Prompt(), u.Completion(), u.Prompt()+u.Completion(), u.CacheRead, u.Reasoning)
}

// Answer gives a whole answer, "paid words", and says that it used u; or, if the request asks for
// one, a stream of as many events as u has visible tokens.
func Answer(u api.Usage) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // a reader of memory
		if strings.Contains(string(body), `"stream":true`) {
			Stream(int(u.Output), u)(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"id":"c","object":"chat.completion","created":1,"model":"theirs","choices":[{"index":0,"message":{"role":"assistant","content":"paid words"},"finish_reason":"stop"}],"usage":%s}`, usageJSON(u))
	}
}

// Event is one event of a stream with a piece of text.
func Event(text string) string {
	return fmt.Sprintf(`data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"theirs","choices":[{"index":0,"delta":{"content":%q},"finish_reason":null}]}`+"\n\n", text)
}

// Stream gives n events of text and then says that it used u.
func Stream(n int, u api.Usage) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		begin(w, n)
		_, _ = io.WriteString(w, `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"theirs","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\n") // a client that is gone
		fmt.Fprintf(w, `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"theirs","choices":[],"usage":%s}`+"\n\ndata: [DONE]\n\n", usageJSON(u))
	}
}

func begin(w http.ResponseWriter, n int) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	for range n {
		_, _ = io.WriteString(w, Event("paid ")) // a client that is gone
		w.(http.Flusher).Flush()
	}
}

// Hang gives n events of a stream and then nothing until the client goes away. With n 0 not even the
// head of the answer comes.
func Hang(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if n > 0 {
			begin(w, n)
		}
		<-r.Context().Done()
	}
}

// Cut gives n events of a stream and breaks the connection off.
func Cut(n int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		begin(w, n)
		panic(http.ErrAbortHandler)
	}
}

// Refuse answers with a status and says when to come back ("" does not say).
func Refuse(status int, retryAfter string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"error":{"message":"no: %d","type":"x","param":null,"code":null}}`, status)
	}
}

// Leak refuses with an error that quotes the key it was given, in header and body, in two pieces.
func Leak(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Echo", "you sent "+key)
		w.WriteHeader(status)
		text := fmt.Sprintf(`{"error":{"message":"wrong key %s, again: %s","type":"x"}}`, key, key)
		cut := strings.Index(text, key) + len(key)/2
		_, _ = io.WriteString(w, text[:cut]) // a client that is gone
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, text[cut:]) // a client that is gone
	}
}
