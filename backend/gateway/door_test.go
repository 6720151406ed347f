package gateway

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

func (r *rig) do(t testing.TB, method, path string, header ...string) answer {
	t.Helper()
	req, err := http.NewRequest(method, r.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Opaque = path // as it is, not cleaned
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := r.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return answer{status: res.StatusCode, header: res.Header, body: string(b)}
}

func TestRoutesAreExact(t *testing.T) {
	r := newRig(t)
	for _, tt := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"GET", "/", 404, ""},
		{"GET", "/v1/models/", 404, ""},
		{"GET", "/V1/models", 404, ""},
		{"GET", "/v1/../v1/models", 404, ""},
		{"GET", "/v1/%6dodels", 404, ""},
		{"GET", "/v1/%2e%2e/metrics", 404, ""},
		{"GET", "//v1/models", 404, ""},
		{"POST", "/v1/load_lora_adapter", 404, ""},
		{"POST", "/sleep", 404, ""},
		{"POST", "/collective_rpc", 404, ""},
		{"GET", "/v1/chat/completions", 405, "POST"},
		{"POST", "/v1/models", 405, "GET, HEAD"},
		{"DELETE", "/health", 405, "GET, HEAD"},
		{"OPTIONS", "/v1/chat/completions", 405, "POST"},
		{"GET", "/v1/models?x=1", 200, ""},
		{"HEAD", "/v1/models", 200, ""},
	} {
		got := r.do(t, tt.method, tt.path)
		if got.status != tt.status || got.header.Get("Allow") != tt.allow {
			t.Errorf("%s %s = %d, Allow %q; want %d, %q", tt.method, tt.path, got.status, got.header.Get("Allow"), tt.status, tt.allow)
		}
		if e := gjson.Get(got.body, "error"); tt.status >= 400 && (e.Get("message").Str == "" || e.Get("type").Str != "invalid_request_error" || e.Get("request_id").Str != got.header.Get("X-Request-Id") || !e.Get("param").Exists()) {
			t.Errorf("%s %s: error %s, want OpenAI's shape with the request id", tt.method, tt.path, got.body)
		}
	}
}

func TestKeys(t *testing.T) {
	r := newRig(t, func(g *Gateway) { g.Internal = "inner-secret" })
	r.Health = func() (any, int) { return map[string]any{"status": "ok", "version": "1"}, 200 }
	r.pool.add("a", goodAnswer(t))
	if got := r.post(t, "/v1/chat/completions", chatBody, "Authorization", "Bearer anything"); got.status != 200 {
		t.Errorf("without keys set: %d, want 200", got.status)
	}
	if row := r.pool.row(t); row.Key != "" {
		t.Errorf("key = %q, want none", row.Key)
	}
	r.Keys.Set([]Key{key("alice", "xk_alice"), key("bob", "xk_bob")})
	for _, tt := range []struct {
		name       string
		header     []string
		status     int
		key, class string
	}{
		{"none", nil, 401, "", ""},
		{"a wrong one", []string{"Authorization", "Bearer xk_mallory"}, 401, "", ""},
		{"another scheme", []string{"Authorization", "Basic xk_alice"}, 401, "", ""},
		{"an empty one", []string{"Authorization", "Bearer "}, 401, "", ""},
		{"the first", []string{"Authorization", "Bearer xk_alice"}, 200, "alice", api.ClassServed},
		{"the last", []string{"Authorization", "bearer xk_bob"}, 200, "bob", api.ClassServed},
		{"Anthropic's header", []string{"X-Api-Key", "xk_bob"}, 200, "bob", api.ClassServed},
		{"the engine's own", []string{"Authorization", "Bearer inner-secret"}, 200, "console", api.ClassTester},
		{"the load test", []string{"Authorization", "Bearer inner-secret", "X-Vllmdeck-Class", "load"}, 200, "load", api.ClassLoad},
		{"a client that claims to be one", []string{"Authorization", "Bearer xk_bob", "X-Vllmdeck-Class", "load"}, 200, "bob", api.ClassServed},
	} {
		got := r.post(t, "/v1/chat/completions", chatBody, tt.header...)
		if got.status != tt.status {
			t.Errorf("%s: %d, want %d", tt.name, got.status, tt.status)
		}
		if got.status == 401 {
			if strings.Contains(got.body, "xk_") || got.header.Get("Www-Authenticate") == "" {
				t.Errorf("%s: %s with %v, want no echo of the key and WWW-Authenticate", tt.name, got.body, got.header)
			}
			continue
		}
		if row := r.pool.row(t); row.Key != tt.key || row.Class != tt.class {
			t.Errorf("%s: key %q of class %s, want %q of %s", tt.name, row.Key, row.Class, tt.key, tt.class)
		}
	}
	for path, want := range map[string]int{"/v1/models": 401, "/metrics": 401, "/cost-comparison": 401, "/health": 200} {
		if got := r.do(t, "GET", path); got.status != want {
			t.Errorf("GET %s without a key = %d, want %d", path, got.status, want)
		}
	}
	if len(r.pool.rows) != 0 {
		t.Errorf("%d rows for requests without a key, want none: strangers must not fill the ledger", len(r.pool.rows))
	}
}

func TestHealthIsShownToThisHostAlone(t *testing.T) {
	g := &Gateway{Health: func() (any, int) {
		return struct {
			Status  string `json:"status"`
			Version string `json:"version"`
		}{"down", "1.2"}, 503
	}}
	for addr, want := range map[string]string{
		"127.0.0.1:5":          `{"status":"down","version":"1.2"}`,
		"[::1]:5":              `{"status":"down","version":"1.2"}`,
		"[::ffff:127.0.0.1]:5": `{"status":"down","version":"1.2"}`,
		"192.0.2.1:5":          `{"status":"down"}`,
		"":                     `{"status":"down"}`,
	} {
		req, w := httptest.NewRequest(http.MethodGet, "/health", nil), httptest.NewRecorder()
		req.RemoteAddr = addr
		g.ServeHTTP(w, req)
		if got := strings.TrimSpace(w.Body.String()); got != want || w.Code != 503 {
			t.Errorf("from %q: %d %s, want 503 %s", addr, w.Code, got, want)
		}
	}
}

func TestOtherRoutes(t *testing.T) {
	r := newRig(t)
	r.CostComparison = func(_ context.Context, period string) (any, error) {
		if period == "month" {
			return nil, io.ErrUnexpectedEOF
		}
		return map[string]string{"period": period}, nil
	}
	r.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "vllmdeck_up 1\n") })
	for _, tt := range []struct {
		path, want string
		status     int
	}{
		{"/cost-comparison", `"all"`, 200},
		{"/cost-comparison?period=today", `"today"`, 200},
		{"/cost-comparison?period=week", "period must be", 400},
		{"/cost-comparison?period=month", "internal_error", 500},
		{"/metrics", "vllmdeck_up 1", 200},
		{"/health", "not_found", 404},
	} {
		if got := r.do(t, "GET", tt.path); got.status != tt.status || !strings.Contains(got.body, tt.want) {
			t.Errorf("GET %s = %d %s, want %d with %q", tt.path, got.status, got.body, tt.status, tt.want)
		}
	}
	got := r.do(t, "GET", "/v1/models")
	var list struct {
		Object string
		Data   []struct {
			ID, Object, Root string
			MaxLen           int `json:"max_model_len"`
		}
	}
	if err := json.Unmarshal([]byte(got.body), &list); err != nil || list.Object != "list" || len(list.Data) != 2 || list.Data[0].ID != "m" || list.Data[1].ID != "default" || list.Data[1].Root != "m" || list.Data[0].MaxLen != 1024 {
		t.Errorf("models = %s (%v), want m and its alias", got.body, err)
	}
}

func TestRefusedRequests(t *testing.T) {
	r := newRig(t, func(g *Gateway) { g.MaxBody = 2000; g.MaxBodies = 1 << 30 })
	r.pool.add("a", goodAnswer(t))
	for _, tt := range []struct {
		name, path, body string
		header           []string
		status           int
		code             string
		row              bool
	}{
		{"bad JSON", "/v1/chat/completions", `{"model":"m",`, nil, 400, "invalid_value", true},
		{"unknown model", "/v1/chat/completions", `{"model":"nope"}`, nil, 404, "model_not_found", true},
		{"remote media", "/v1/chat/completions", `{"messages":[{"content":[{"image_url":{"url":"http://169.254.169.254/"}}]}]}`, nil, 400, "invalid_value", true},
		{"too large", "/v1/chat/completions", `{"model":"` + strings.Repeat("x", 3000) + `"}`, nil, 413, "body_too_large", true},
		{"a stream where there is none", "/v1/embeddings", `{"model":"m","stream":true}`, nil, 400, "invalid_value", true},
		{"from another site", "/v1/chat/completions", chatBody, []string{"Sec-Fetch-Site", "cross-site"}, 403, "cross_site", false},
	} {
		got := r.post(t, tt.path, tt.body, tt.header...)
		if got.status != tt.status || gjson.Get(got.body, "error.code").Str != tt.code {
			t.Errorf("%s: %d %s, want %d %s", tt.name, got.status, got.body, tt.status, tt.code)
		}
		if tt.row {
			if row := r.pool.row(t); row.Outcome != api.OutcomeRejected || row.Status != tt.status || row.ID == "" {
				t.Errorf("%s: row %s %d, want rejected %d", tt.name, row.Outcome, row.Status, tt.status)
			}
		}
	}
	t.Run("too large without a length", func(t *testing.T) {
		req, _ := http.NewRequest(http.MethodPost, r.url+"/v1/chat/completions", io.LimitReader(strings.NewReader(strings.Repeat(" ", 1<<20)), 1<<20))
		res, err := r.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("status %d, want 413", res.StatusCode)
		}
		r.pool.row(t)
	})
	t.Run("no model where there are several", func(t *testing.T) {
		r.pool.models = append(r.pool.models, api.Model{Name: "other"})
		if got := r.post(t, "/v1/chat/completions", `{"messages":[]}`); got.status != 400 || gjson.Get(got.body, "error.code").Str != "missing_model" {
			t.Errorf("got %d %s, want 400 missing_model", got.status, got.body)
		}
		r.pool.row(t)
	})
	t.Run("Anthropic's shape on its route", func(t *testing.T) {
		got := r.post(t, "/v1/messages", `{"model":"nope"}`)
		if got.status != 404 || gjson.Get(got.body, "type").Str != "error" || gjson.Get(got.body, "error.message").Str == "" {
			t.Errorf("got %d %s, want an error of Anthropic's shape", got.status, got.body)
		}
		r.pool.row(t)
	})
}

func TestMemoryForBodiesIsBounded(t *testing.T) {
	url, pass, order := gate(t)
	r := newRig(t, func(g *Gateway) { g.MaxBodies = 3 << 20 })
	r.pool.add("a", url)
	big := `{"model":"m","pad":"` + strings.Repeat("x", 2<<20) + `"}`
	done := make(chan answer)
	go func() { done <- r.post(t, "/v1/chat/completions", big) }()
	until(t, "the first is with the worker", func() bool { return len(order()) == 1 })
	if got := r.post(t, "/v1/chat/completions", big); got.status != 429 || got.header.Get("Retry-After") == "" {
		t.Errorf("a second large body got %d %s, want 429 with Retry-After", got.status, got.body)
	}
	r.pool.idleRow(t)
	go func() { done <- r.post(t, "/v1/chat/completions", chatBody) }()
	pass <- struct{}{}
	pass <- struct{}{}
	for range 2 {
		if got := <-done; got.status != 200 {
			t.Errorf("got %d %s, want 200: a small body always fits", got.status, got.body)
		}
		r.pool.idleRow(t)
	}
	if n := r.bodies.Load(); n != 0 {
		t.Errorf("%d bytes are still claimed, want 0", n)
	}
}

func TestTLSWithHTTP2(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	p := newPool()
	p.add("a", good(t))
	lost := serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) { io.WriteString(c, streamHead+chunk(evText("x"))) })
	g := &Gateway{Upstreams: p, Accounts: p, Log: slog.New(slog.DiscardHandler)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- g.Serve(ctx, ln, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, time.Second)
	}()
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	r := &rig{Gateway: g, pool: p, url: "https://" + ln.Addr().String(), http: &http.Client{Transport: tr}}
	if got := r.post(t, "/v1/chat/completions", streamBody); got.err != nil || got.body != goodStream() {
		t.Errorf("got %q (%v), want the whole stream", got.body, got.err)
	}
	p.row(t)
	p.add("a", lost)
	if got := r.post(t, "/v1/chat/completions", streamBody); got.err == nil || !strings.Contains(got.body, "upstream_lost") || !strings.Contains(fmt.Sprint(got.err), "stream error") {
		t.Errorf("got %q (%v), want an error event and a reset stream", got.body, got.err)
	}
	p.row(t)
	tr.CloseIdleConnections()
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve = %v", err)
	}
}
