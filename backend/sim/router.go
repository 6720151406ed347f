package sim

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// route is one path: its methods in the order of the allow header.
type route struct {
	methods []string
	serve   func(*exchange)
}

// exchange is one request and its answer.
type exchange struct {
	s      *Server
	w      http.ResponseWriter
	r      *http.Request
	rc     *http.ResponseController
	faults faults
	begun  time.Time
	status int
	length int64
	gz     *gzip.Writer
}

func (s *Server) table() map[string]route {
	get := func(f func(*exchange)) route { return route{[]string{"GET"}, f} }
	post := func(f func(*exchange)) route { return route{[]string{"POST"}, f} }
	gen := func(f func(*exchange) error) route { return post(func(x *exchange) { x.fail(f(x)) }) }
	forbidden := post(func(x *exchange) {
		x.fail(&apiError{403, "PermissionDeniedError", "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them.", nil})
	})
	routes := map[string]route{
		"/health":                      get((*exchange).health),
		"/ping":                        {[]string{"GET", "POST"}, (*exchange).health},
		"/version":                     get(func(x *exchange) { x.json(200, []byte(`{"version":"`+Version+`"}`)) }),
		"/load":                        get(func(x *exchange) { x.json(200, []byte(`{"server_load":0}`)) }),
		"/kv_event_sources":            get(func(x *exchange) { x.json(200, []byte(`{}`)) }),
		"/is_scaling_elastic_ep":       post(func(x *exchange) { x.json(200, []byte(`{"is_scaling_elastic_ep":false}`)) }),
		"/metrics":                     get((*exchange).metrics),
		"/v1/models":                   get((*exchange).models),
		"/tokenize":                    gen((*exchange).tokenize),
		"/detokenize":                  gen((*exchange).detokenize),
		"/v1/chat/completions":         gen((*exchange).chat),
		"/v1/completions":              gen((*exchange).completions),
		"/v1/responses":                gen((*exchange).responses),
		"/v1/messages":                 gen((*exchange).anthropic),
		"/v1/messages/count_tokens":    gen((*exchange).countTokens),
		"/v1/chat/completions/render":  forbidden,
		"/v1/completions/render":       forbidden,
		"/inference/v1/generate":       forbidden,
		"/inference/v1/abort_requests": forbidden,
	}
	if s.o.DevMode {
		maps.Copy(routes, devRoutes(get, post))
	}
	return routes
}

// uncounted paths are left out of the http_ metrics and of the access log.
func uncounted(path string) bool {
	switch path {
	case "/metrics", "/health", "/load", "/ping", "/version":
		return true
	}
	return false
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		panic(http.ErrAbortHandler)
	}
	defer s.handlers.Done()
	x := &exchange{s: s, w: w, r: r, rc: http.NewResponseController(w), begun: time.Now()}
	h := w.Header()
	h.Set("Server", "uvicorn")
	h.Set("Vary", "Origin")
	h.Set("X-Vllmdeck-Simulated", "1")
	id := r.Header.Get("X-Request-Id")
	if id == "" {
		id = randomHex() + randomHex()
	}
	h.Set("X-Request-Id", id)

	path := r.URL.Path
	rt, ok := s.routes[path]
	handler := path
	switch {
	case s.o.APIKey != "" && guarded(path) && r.Header.Get("Authorization") != "Bearer "+s.o.APIKey:
		x.json(401, []byte(`{"error":"Unauthorized"}`))
	case !ok && len(path) > 1 && strings.HasSuffix(path, "/") && s.routes[strings.TrimRight(path, "/")].serve != nil:
		h.Set("Location", "http://"+r.Host+strings.TrimRight(path, "/"))
		h.Set("Content-Length", "0")
		x.begin(307)
	case !ok && strings.HasPrefix(path, "/v1/responses/"):
		x.storedResponse(strings.TrimPrefix(path, "/v1/responses/"))
	case !ok:
		handler = "none"
		x.json(404, []byte(`{"detail":"Not Found"}`))
	case !rt.allows(r.Method):
		h.Set("Allow", strings.Join(rt.methods, ", "))
		x.json(405, []byte(`{"detail":"Method Not Allowed"}`))
	default:
		rt.serve(x)
	}
	if x.gz != nil {
		x.gz.Close()
	}
	if x.status != 0 && !uncounted(path) {
		s.m.http.observe(handler, r.Method, x.status, time.Since(x.begun), r.ContentLength, x.length)
		s.log.access(r, x.status)
	}
}

func (rt route) allows(method string) bool {
	return slices.Contains(rt.methods, method)
}

// guarded paths need the API key.
func guarded(path string) bool {
	for _, p := range []string{"/v1", "/v2", "/inference", "/cohere"} {
		if path == p || strings.HasPrefix(path, p+"/") {
			return true
		}
	}
	return false
}

func randomHex() string { return fmt.Sprintf("%016x", rand.Uint64()) }

// begin sends the status line and headers.
func (x *exchange) begin(status int) {
	x.status = status
	if x.faults.get("gzip") != nil {
		x.w.Header().Set("Content-Encoding", "gzip")
		x.w.Header().Del("Content-Length")
		x.gz = gzip.NewWriter(x.w)
	}
	x.w.WriteHeader(status)
}

// json sends a whole JSON answer.
func (x *exchange) json(status int, body []byte) {
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.length = int64(len(body))
	x.begin(status)
	x.write(body)
}

func (x *exchange) write(b []byte) {
	if x.gz != nil {
		_, _ = x.gz.Write(b) // a client that has left is seen by its context
		return
	}
	_, _ = x.w.Write(b)
}

// fail answers with an error of vLLM's shape; nil is nothing to do.
func (x *exchange) fail(err error) {
	switch {
	case err == nil || errors.Is(err, errCut):
		return
	case errors.Is(err, context.Canceled):
		x.abandon()
	}
	e := asAPIError(err)
	x.json(e.status, e.body())
}

// abandon ends a request whose client, or whose server, has gone. Were the handler to return,
// net/http would end the answer cleanly, which a killed process does not do.
func (x *exchange) abandon() { panic(http.ErrAbortHandler) }

func asAPIError(err error) *apiError {
	var e *apiError
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, errBusy):
		return &apiError{503, "Service Unavailable", err.Error(), nil}
	default:
		return &apiError{500, "InternalServerError", err.Error(), nil}
	}
}

// body reads the request's JSON.
func (x *exchange) body() (*fields, *apiError) {
	ct, _, _ := strings.Cut(strings.ToLower(x.r.Header.Get("Content-Type")), ";")
	if strings.TrimSpace(ct) != "application/json" {
		return nil, &apiError{400, "Bad Request", "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed", nil}
	}
	data, err := io.ReadAll(http.MaxBytesReader(x.w, x.r.Body, maxBodyBytes))
	if err != nil {
		return nil, &apiError{400, "Bad Request", "1 validation error:\n  There was an error parsing the body", nil}
	}
	return parseBody(data)
}

func (x *exchange) health() {
	if f := x.s.o.fault("hang-health"); f != nil && time.Since(*x.s.ready.Load()) >= f.Dur {
		<-x.r.Context().Done()
		x.abandon()
	}
	status := 200
	select {
	case <-x.s.e.gone:
		status = 503
	default:
	}
	x.w.Header().Set("Content-Length", "0")
	x.begin(status)
}

func (x *exchange) metrics() {
	body := x.s.m.exposition(x.s.o, x.s.e.kv.blocks())
	x.w.Header().Set("Content-Type", "text/plain; version=1.0.0; charset=utf-8")
	x.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	x.begin(200)
	x.write(body)
}

func (x *exchange) models() {
	b := []byte(`{"object":"list","data":[`)
	now := time.Now().Unix()
	for i, name := range x.s.o.Names {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"id":%s,"object":"model","created":%d,"owned_by":"vllm","root":%s,"parent":null,"max_model_len":%d,"permission":[{"id":"modelperm-%s","object":"model_permission","created":%d,"allow_create_engine":false,"allow_sampling":true,"allow_logprobs":true,"allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,"organization":"*","group":null,"is_blocking":false}]}`,
			quote(name), now, quote(x.s.o.Model), x.s.o.MaxLen, randomHex(), now)
	}
	x.json(200, append(b, "]}"...))
}

// storedResponse answers for /v1/responses/{id}, of which vLLM keeps none by default.
func (x *exchange) storedResponse(rest string) {
	id, tail, _ := strings.Cut(rest, "/")
	want := "GET"
	switch tail {
	case "":
	case "cancel":
		want = "POST"
	default:
		x.json(404, []byte(`{"detail":"Not Found"}`))
		return
	}
	if x.r.Method != want {
		x.w.Header().Set("Allow", want)
		x.json(405, []byte(`{"detail":"Method Not Allowed"}`))
		return
	}
	param := "response_id"
	x.fail(&apiError{404, "invalid_request_error", fmt.Sprintf("Response with id '%s' not found.", id), &param})
}
