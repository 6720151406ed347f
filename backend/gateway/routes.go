package gateway

import (
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// routed is one route. There are no others, and but for the name in /v1/models/NAME no patterns: a path is served if
// it is in the table, byte by byte, so that no dot segment or escape leads past a check.
type routed struct {
	method  string
	open    bool     // needs no key
	dialect *dialect // goes to a worker
	serve   func(g *Gateway, w http.ResponseWriter, r *http.Request, who caller)
}

var routes = func() map[string]*routed {
	table := map[string]*routed{
		"/health":          {method: http.MethodGet, open: true, serve: (*Gateway).health},
		"/v1/models":       {method: http.MethodGet, serve: (*Gateway).models},
		"/cost-comparison": {method: http.MethodGet, serve: (*Gateway).costComparison},
		"/metrics":         {method: http.MethodGet, serve: (*Gateway).metrics},
	}
	for i := range dialects {
		d := &dialects[i]
		table[d.path] = &routed{method: http.MethodPost, dialect: d}
	}
	return table
}()

// oneModel is GET /v1/models/NAME. The name may have slashes, as those of the hub do: OpenAI's clients for Python
// sent them as they are for years, the others as %2F, and net/http has undone that. What stands there is looked up
// among the names that exist, and used for nothing else.
var oneModel = &routed{method: http.MethodGet, serve: (*Gateway).model}

const modelPath = "/v1/models/"

func (g *Gateway) route(r *http.Request) *routed {
	if name, ok := strings.CutPrefix(r.URL.Path, modelPath); ok && name != "" && (r.URL.RawPath == "" || strings.HasPrefix(r.URL.RawPath, modelPath)) {
		return oneModel
	}
	if r.URL.RawPath != "" { // an escape that the path does not need
		return nil
	}
	return routes[r.URL.Path]
}

func (rt *routed) allow() string {
	if rt.method == http.MethodGet {
		return "GET, HEAD"
	}
	return rt.method
}

// modelEntry is a model as OpenAI describes one, with what vLLM adds.
type modelEntry struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
	Root    string `json:"root"`
	Parent  any    `json:"parent"`
	MaxLen  *int   `json:"max_model_len"`
}

// entries is what the client may ask for, aliases too.
func (g *Gateway) entries(who caller) []modelEntry {
	var limits api.KeyLimits
	if who.quota != nil {
		limits = who.quota.bounds()
	}
	list := []modelEntry{}
	for _, m := range g.Upstreams.Models() {
		if !g.mayUse(&limits, m.Name) {
			continue
		}
		entry := modelEntry{ID: m.Name, Object: "model", OwnedBy: "vllmdeck", Root: m.Name}
		if m.MaxLen > 0 {
			entry.MaxLen = new(m.MaxLen)
		}
		list = append(list, entry)
		for _, alias := range m.Aliases {
			entry.ID = alias
			list = append(list, entry)
		}
	}
	return list
}

func (g *Gateway) models(w http.ResponseWriter, _ *http.Request, who caller) {
	reply200(w, struct {
		Object string       `json:"object"`
		Data   []modelEntry `json:"data"`
	}{"list", g.entries(who)})
}

// model describes one of them.
func (g *Gateway) model(w http.ResponseWriter, r *http.Request, who caller) {
	name := strings.TrimPrefix(r.URL.Path, modelPath)
	for _, m := range g.entries(who) {
		if m.ID == name {
			reply200(w, m)
			return
		}
	}
	g.refuse(w, r, who.noModel(name))
}

// health shows the whole state to this host, and to others only whether it is well.
func (g *Gateway) health(w http.ResponseWriter, r *http.Request, _ caller) {
	if g.Health == nil {
		g.refuse(w, r, invalid(http.StatusNotFound, "not_found", "", "health is not known here"))
		return
	}
	v, status := g.Health()
	b, err := json.Marshal(v)
	if err != nil {
		g.broken(w, r, err)
		return
	}
	if !local(r) {
		b = []byte(`{"status":` + quote(gjson.GetBytes(b, "status").Str) + `}`)
	}
	writeJSON(w, status, b)
}

// local reports whether the request comes from this host.
func local(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

func (g *Gateway) costComparison(w http.ResponseWriter, r *http.Request, _ caller) {
	period := r.URL.Query().Get("period")
	switch period {
	case "":
		period = "all"
	case "today", "month", "all":
	default:
		g.refuse(w, r, invalid(http.StatusBadRequest, "invalid_value", "period", "period must be today, month or all"))
		return
	}
	if g.CostComparison == nil {
		g.refuse(w, r, invalid(http.StatusNotFound, "not_found", "", "costs are not known here"))
		return
	}
	v, err := g.CostComparison(r.Context(), period)
	if err != nil {
		g.broken(w, r, err)
		return
	}
	reply200(w, v)
}

func (g *Gateway) metrics(w http.ResponseWriter, r *http.Request, _ caller) {
	if g.Metrics == nil {
		g.refuse(w, r, invalid(http.StatusNotFound, "not_found", "", "metrics are not kept here"))
		return
	}
	g.Metrics.ServeHTTP(w, r)
}

// broken answers a request that the engine could not serve.
func (g *Gateway) broken(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, r.Context().Err()) && r.Context().Err() != nil {
		return // the client has gone
	}
	g.Log.Error("request failed", "path", r.URL.Path, "error", err)
	g.refuse(w, r, &refusal{status: http.StatusInternalServerError, kind: "server_error", code: "internal_error", msg: "internal error of the gateway: see its log"})
}

func reply200(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		writeJSON(w, http.StatusInternalServerError, []byte(`{"error":{"message":"the answer cannot be written as JSON","type":"server_error","param":null,"code":null}}`))
		return
	}
	writeJSON(w, http.StatusOK, b)
}

func writeJSON(w http.ResponseWriter, status int, b []byte) {
	w.Header()["Content-Type"] = jsonType
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // nobody is left to tell
}
