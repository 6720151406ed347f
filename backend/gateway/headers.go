package gateway

import (
	"net/http"
	"net/textproto"
	"strings"
)

// Values that many answers share. Nobody changes a header's slice in place.
var (
	jsonType  = []string{"application/json"}
	sseType   = []string{"text/event-stream; charset=utf-8"}
	noCache   = []string{"no-cache"}
	noBuffer  = []string{"no"}
	costTrail = []string{trailCost}
	varies    = []string{"Origin"}
)

const trailCost = "X-Vllmdeck-Cost-Info"

// keepsRequest reports whether a client's header goes to the worker. Names are canonical. What is not
// for the worker: who the client is (its key is ours, the worker's own is set by us; addresses
// could be believed), what belongs to one connection, what we set ourselves, and what is ours to grant.
func keepsRequest(name string) bool {
	switch name {
	case "Authorization", "X-Api-Key", "Cookie", "Forwarded", "X-Real-Ip", "X-Vllm-Priority", "Via",
		"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect",
		"Host", "Content-Length", "Content-Type", "Accept-Encoding", "Accept", "User-Agent", "X-Request-Id", "Origin", "Referer":
		return false
	}
	return !strings.HasPrefix(name, "X-Forwarded-") && !strings.HasPrefix(name, "X-Vllmdeck-") &&
		!strings.HasPrefix(name, "X-Stainless-") && !strings.HasPrefix(name, "Sec-")
}

// keepsResponse reports whether a worker's header goes to the client. Names are canonical. CORS is
// the gateway's to decide: vLLM allows every origin, which would let any web page use a gateway on loopback.
func keepsResponse(name string) bool {
	switch name {
	case "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Content-Length", "Date", "Server", "Set-Cookie", "X-Request-Id", "Www-Authenticate", "Alt-Svc":
		return false
	}
	return !strings.HasPrefix(name, "Access-Control-") && !strings.HasPrefix(name, "X-Vllmdeck-") &&
		!strings.HasPrefix(name, "X-Ratelimit-") // of our account with a provider, and not the client's limits
}

// named gives the headers that Connection names: they belong to one connection too.
func named(h http.Header) []string {
	values := h["Connection"]
	if len(values) == 0 {
		return nil
	}
	var names []string
	for _, v := range values {
		for name := range strings.SplitSeq(v, ",") {
			names = append(names, textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name)))
		}
	}
	return names
}

// maxID is how long a request id may be.
const maxID = 128

// clientID gives what the client calls the request, for the record: whatever it is, as printable ASCII.
func clientID(h http.Header) string {
	v := h["X-Request-Id"]
	if len(v) == 0 {
		return ""
	}
	id := v[0][:min(len(v[0]), maxID)]
	if strings.IndexFunc(id, unprintable) < 0 {
		return id
	}
	b := []byte(id)
	for i, c := range b {
		if unprintable(rune(c)) {
			b[i] = '?'
		}
	}
	return string(b)
}

func unprintable(c rune) bool { return c < ' ' || c > '~' }

// requestID gives the client's own request id if it is one: vLLM makes the answer's id from it.
func requestID(h http.Header) string {
	v := h["X-Request-Id"]
	if len(v) != 1 || len(v[0]) == 0 || len(v[0]) > maxID {
		return ""
	}
	for _, c := range []byte(v[0]) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' && c != ':' {
			return ""
		}
	}
	return v[0]
}
