package provider

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/quotes"
)

// transport is the connections to one provider.
type transport = http.Transport

func newTransport() *transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment, // workers are reached directly, the internet perhaps not
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout:    5 * time.Second,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}
}

// passes are the headers of a request that a provider gets to see. A client's others may hold what
// is meant for this house: names, tokens of other services.
var passes = map[string]bool{
	"Content-Type": true, "Accept-Encoding": true, "User-Agent": true, "X-Request-Id": true, "Openai-Beta": true,
	"Idempotency-Key": true, // empty, and so never sent: it lets net/http try a stale connection again
}

var errOrigin = errors.New("the request is for another address than the provider's")

// RoundTrip implements http.RoundTripper: it sends the request with the key, notes how far it came,
// and keeps the key out of the answer.
func (c *Call) RoundTrip(req *http.Request) (*http.Response, error) {
	base, key := c.to.base, c.to.spec.Key
	if req.URL.Scheme != base.Scheme || req.URL.Host != base.Host {
		if req.Body != nil {
			_ = req.Body.Close() // RoundTrip must, also where it sends nothing
		}
		return nil, errOrigin
	}
	out := req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		WroteHeaders: func() { c.sent.Store(true) },
	}))
	out.Header = make(http.Header, len(passes)+1)
	for name, values := range req.Header {
		if passes[name] {
			out.Header[name] = values
		}
	}
	if key != "" {
		out.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := c.to.transport.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	c.status.Store(int32(res.StatusCode))
	c.p.heard(c.to, res)
	if key != "" {
		for _, values := range res.Header {
			for i, v := range values {
				values[i] = strings.ReplaceAll(v, key, strings.Repeat("*", len(key)))
			}
		}
		res.Body = &masked{body: res.Body, key: []byte(key)}
	}
	if res.StatusCode >= 300 {
		c.p.complained(c.to, req, res)
	}
	return res, nil
}

// heard takes note of an answer's status.
func (p *Provider) heard(e *endpoint, res *http.Response) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.to.Load() != e {
		return
	}
	now := time.Now()
	switch {
	case res.StatusCode/100 == 2:
		p.said = ""
	case res.StatusCode == http.StatusTooManyRequests, res.StatusCode == http.StatusServiceUnavailable:
		if until := now.Add(retryAfter(res.Header, now)); until.After(p.paused) {
			p.paused = until
		}
	}
}

// maxPause is the longest that a provider is left alone at its wish: one that asks for hours is
// looked at again meanwhile.
const maxPause = 5 * time.Minute

// retryAfter reads how long to stay away: Retry-After in seconds or as a date, or OpenAI's
// retry-after-ms. 0: it does not say.
func retryAfter(h http.Header, now time.Time) time.Duration {
	wait := time.Duration(0)
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil && ms > 0 {
		wait = time.Duration(min(ms, 1e9) * float64(time.Millisecond))
	} else if s, err := strconv.ParseFloat(h.Get("Retry-After"), 64); err == nil && s > 0 {
		wait = time.Duration(min(s, 1e6) * float64(time.Second))
	} else if at, err := http.ParseTime(h.Get("Retry-After")); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), maxPause)
}

// maxComplaint is how much of a refusal is read, maxSaid how much of it is shown.
const (
	maxComplaint = 64 << 10
	maxSaid      = 300
)

// complained reads why a request was refused, for the operator, and leaves the body as it was.
func (p *Provider) complained(e *endpoint, req *http.Request, res *http.Response) {
	if !troubled(res.StatusCode) && res.StatusCode != http.StatusNotFound { // its name of the model may be wrong
		return // it is the request's fault
	}
	head, err := io.ReadAll(io.LimitReader(res.Body, maxComplaint))
	rest := io.Reader(res.Body)
	if err != nil {
		rest = failed{err}
	}
	res.Body = body{io.MultiReader(bytes.NewReader(head), rest), res.Body}
	text := fmt.Sprintf("HTTP %d", res.StatusCode)
	for _, at := range [...]string{"error.message", "error", "detail", "message"} {
		if m := gjson.GetBytes(head, at); m.Type == gjson.String && m.Str != "" {
			text = text + ": " + m.Str
			break
		}
	}
	text = withoutRequest(text[:min(len(text), 4*maxSaid)], req)
	if len(text) > maxSaid {
		text = strings.ToValidUTF8(text[:maxSaid], "")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.to.Load() == e {
		p.said = text
	}
}

// withoutRequest takes out of what a provider says what it quotes of a request.
func withoutRequest(text string, req *http.Request) string {
	if req.GetBody == nil {
		return text
	}
	r, err := req.GetBody()
	if err != nil {
		return text
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return text
	}
	f := quotes.New(text)
	f.LookJSON(b, gjson.GetBytes(b, "model").Str)
	return f.Rest()
}

type body struct {
	io.Reader
	io.Closer
}

type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }

// masked reads a body with the key in it replaced by as many asterisks: an error that quotes the key
// must not hand it to a client.
type masked struct {
	body io.ReadCloser
	key  []byte
	held []byte // read, and perhaps the beginning of the key
	out  []byte // may be given
	err  error
}

func (m *masked) Close() error { return m.body.Close() }

func (m *masked) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(m.out) == 0 {
		if m.err != nil {
			return 0, m.err
		}
		buf := make([]byte, len(m.held)+max(len(p), 512))
		k := copy(buf, m.held)
		n, err := m.body.Read(buf[k:])
		buf, m.err = buf[:k+n], err
		for {
			i := bytes.Index(buf, m.key)
			if i < 0 {
				break
			}
			for j := range m.key {
				buf[i+j] = '*'
			}
		}
		keep := 0
		if err == nil {
			keep = startOf(buf, m.key)
		}
		m.out, m.held = buf[:len(buf)-keep], buf[len(buf)-keep:]
	}
	n := copy(p, m.out)
	m.out = m.out[n:]
	return n, nil
}

// startOf gives how many bytes at the end of b may be the beginning of key.
func startOf(b, key []byte) int {
	for n := min(len(key)-1, len(b)); n > 0; n-- {
		if bytes.HasSuffix(b, key[:n]) {
			return n
		}
	}
	return 0
}
