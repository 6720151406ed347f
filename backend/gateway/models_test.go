package gateway

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// TestOneModel is GET /v1/models/NAME as OpenAI's clients send it: the older ones with the slashes of the name as they
// are, the others escaped.
func TestOneModel(t *testing.T) {
	r := newRig(t)
	r.pool.models = append(r.pool.models, api.Model{Name: "Qwen/Qwen3-0.6B", MaxLen: 4096}, api.Model{Name: "a b"})
	r.Keys.Set([]Key{key("ci", "vd_ci_x"), key("narrow", "vd_n_x", with(func(l *api.KeyLimits) { l.Models = []string{"default"} }))})
	for _, tt := range []struct {
		path, as, id, root string
	}{
		{"/v1/models/m", "vd_ci_x", "m", "m"},
		{"/v1/models/default", "vd_ci_x", "default", "m"},
		{"/v1/models/Qwen/Qwen3-0.6B", "vd_ci_x", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"},
		{"/v1/models/Qwen%2FQwen3-0.6B", "vd_ci_x", "Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"},
		{"/v1/models/a%20b", "vd_ci_x", "a b", "a b"},
		{"/v1/models/m", "vd_n_x", "m", "m"},
		{"/v1/models/Qwen%2FQwen3-0.6B", "vd_n_x", "", ""},
		{"/v1/models/nope", "vd_ci_x", "", ""},
		{"/v1/models/Qwen", "vd_ci_x", "", ""},
		{"/v1/models/m/", "vd_ci_x", "", ""},
		{"/v1/models//m", "vd_ci_x", "", ""},
		{"/v1/models/../models/m", "vd_ci_x", "", ""},
		{"/v1/models/%2e%2e/metrics", "vd_ci_x", "", ""},
	} {
		got := r.do(t, http.MethodGet, tt.path, as(tt.as)...)
		v := gjson.Parse(got.body)
		if tt.id == "" {
			if e := v.Get("error"); got.status != 404 || codeOf(got) != "model_not_found" || e.Get("type").Str != "invalid_request_error" || e.Get("param").Str != "model" || e.Get("request_id").Str != got.header.Get("X-Request-Id") {
				t.Errorf("%s as %s = %d %s, want 404 model_not_found in OpenAI's shape", tt.path, tt.as, got.status, got.body)
			}
			continue
		}
		if got.status != 200 || v.Get("id").Str != tt.id || v.Get("root").Str != tt.root || v.Get("object").Str != "model" || !v.Get("created").Exists() || v.Get("owned_by").Str == "" {
			t.Errorf("%s as %s = %d %s, want the model %s of root %s", tt.path, tt.as, got.status, got.body, tt.id, tt.root)
		}
		if list := gjson.Get(r.do(t, http.MethodGet, "/v1/models", as(tt.as)...).body, `data.#(id=="`+tt.id+`")`).Raw; list != strings.TrimSpace(got.body) {
			t.Errorf("the list has %s, want the same as the model by itself: %s", list, got.body)
		}
	}
	if got := r.do(t, http.MethodGet, "/v1/models/m"); got.status != 401 {
		t.Errorf("without a key: %d, want 401", got.status)
	}
	for _, method := range []string{http.MethodDelete, http.MethodPost} { // OpenAI's clients can delete models of theirs
		if got := r.do(t, method, "/v1/models/m", as("vd_ci_x")...); got.status != 405 || got.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s = %d with Allow %q, want 405 with GET, HEAD", method, got.status, got.header.Get("Allow"))
		}
	}
}

// TestHeadIsGetWithoutItsBody is HEAD on every route that GET has.
func TestHeadIsGetWithoutItsBody(t *testing.T) {
	r := newRig(t)
	r.Health = func() (any, int) { return map[string]string{"status": "down"}, http.StatusServiceUnavailable }
	r.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("vllmdeck_up 1\n")) })
	for _, path := range []string{"/v1/models", "/v1/models/m", "/v1/models/nope", "/health", "/metrics", "/cost-comparison", "/cost-comparison?period=x", "/nope"} {
		get, head := r.do(t, http.MethodGet, path), r.do(t, http.MethodHead, path)
		if head.status != get.status || head.body != "" || get.body == "" {
			t.Errorf("HEAD %s = %d %q, GET = %d; want the same status and no body", path, head.status, head.body, get.status)
		}
		for _, name := range []string{"Content-Type", "Content-Length"} {
			if a, b := get.header.Get(name), head.header.Get(name); a != b && name != "Content-Length" || a == "" {
				t.Errorf("HEAD %s has %s %q, GET %q", path, name, b, a)
			}
		}
	}
}
