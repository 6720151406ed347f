package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tidwall/gjson"

	"github.com/vllmdeck/vllmdeck/backend/quotes"
	"github.com/vllmdeck/vllmdeck/backend/route"
)

// fault is why a leg on one upstream came to nothing.
type fault struct {
	at     string // the upstream
	msg    string // in our words or the worker's
	status int    // for the client, if nobody else can serve either
	retry  string // the worker's Retry-After
	free   bool   // moving on is charged to nobody: the worker died or refused the request
	died   bool   // the worker broke off or cannot be reached
	sent   bool   // it had the request when it died
	busy   bool   // it has too much to do
	paid   bool   // it is a provider
	cut    bool   // the client had a part of its answer, which goes on elsewhere
	final  bool   // no other upstream would do better
	result route.Result
}

func (f *fault) Error() string { return f.msg }

// refusal is what the client is told when no further leg is tried.
func (f *fault) refusal(model string, legs int) *refusal {
	r := &refusal{status: f.status, kind: "server_error", code: "upstream_failed", final: true, retry: f.retry}
	switch f.status {
	case http.StatusGatewayTimeout:
		r.code = "upstream_timeout"
	case http.StatusTooManyRequests:
		r.kind, r.code = "rate_limit_error", "upstream_busy"
	case http.StatusServiceUnavailable:
		r.code = "upstream_busy"
	}
	if r.retry == "" && (r.status == http.StatusTooManyRequests || r.status == http.StatusServiceUnavailable) {
		r.retry = retrySoon()
	}
	r.msg = fmt.Sprintf("model %q: %s: %s", model, f.who(), f.msg)
	if legs > 1 {
		r.msg = fmt.Sprintf("model %q: %d tries failed, the last on %s: %s", model, legs, f.who(), f.msg)
	}
	return r
}

// maxRetryAfter bounds how long a worker is left alone at its own word.
const maxRetryAfter = time.Minute

// wait is how long the upstream asked to be left alone, with its 429 or 503 and Retry-After.
func (f *fault) wait() time.Duration {
	n, err := strconv.Atoi(f.retry)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Second, maxRetryAfter)
}

// who names the upstream.
func (f *fault) who() string {
	if f.paid {
		return "provider " + f.at
	}
	return "worker " + f.at
}

// broken classifies an error of the transport.
func broken(err error) *fault {
	f := &fault{status: http.StatusBadGateway, result: route.Failed}
	var dial *dialError
	var timeout net.Error
	var op *net.OpError
	switch {
	case errors.Is(err, errSilent), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout() && !errors.As(err, &dial):
		f.status, f.msg = http.StatusGatewayTimeout, "it was silent for too long"
	case errors.Is(err, syscall.ECONNREFUSED):
		f.msg, f.free, f.died = "it refuses connections", true, true
		f.sent = errors.As(err, &dial) && dial.sent
	case errors.As(err, &dial), errors.As(err, &op) && op.Op == "dial":
		f.msg, f.free, f.died = "it cannot be reached: "+err.Error(), true, true
		f.sent = dial != nil && dial.sent
	case noTLS(err):
		f.msg, f.free, f.died = "it cannot be reached by https: "+cut(err.Error(), 300), true, true
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errStale):
		f.msg, f.free, f.died, f.sent = "it broke the connection off", true, true, true
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		f.msg, f.free, f.died, f.sent = "it reset the connection", true, true, true
	case errors.Is(err, context.Canceled):
		f.msg = "the request was cancelled"
	default:
		f.msg, f.died, f.sent = cut(err.Error(), 300), true, true
	}
	return f
}

// noTLS reports whether no connection came to be because its TLS could not be agreed on: nothing of the request was sent.
func noTLS(err error) bool {
	var header tls.RecordHeaderError
	var cert *tls.CertificateVerificationError
	return errors.Is(err, http.ErrSchemeMismatch) || errors.As(err, &header) || errors.As(err, &cert)
}

// What vLLM 0.32 says when it did not take a request, or died under it. Neither is the request's doing.
const (
	saysStopping = "cannot schedule new futures after shutdown"  // HTTP 500 while it drains
	saysDead     = "EngineCore encountered an issue"             // HTTP 500 or an error event; its process ends within seconds
	saysBusy     = "is currently busy and cannot accept"         // --max-num-queued-reqs: HTTP 503, or an event after HTTP 200
	saysBacklog  = "has reached its prefill token backlog limit" // --max-num-queued-tokens
	saysScaling  = "The model is currently scaling"
)

// complaint classifies what a worker said: a status that is not 2xx, or an error event, whose code is
// its status (0 where it gives none).
func complaint(status int, msg, retry string) *fault {
	f := &fault{msg: msg, status: http.StatusBadGateway, result: route.Failed}
	if strings.Trim(retry, "0123456789") != "" || len(retry) > 5 {
		retry = "" // a date, or nonsense
	}
	switch {
	case strings.Contains(msg, saysStopping):
		f.free, f.result = true, route.Neutral
	case strings.Contains(msg, saysDead):
		f.free, f.died, f.sent = true, true, true
	case status == http.StatusTooManyRequests, strings.Contains(msg, saysBusy), strings.Contains(msg, saysBacklog), strings.Contains(msg, saysScaling):
		// A saturated worker is a healthy worker: its breaker stays as it is.
		f.free, f.busy, f.result, f.retry = true, true, route.Neutral, retry
		f.status = http.StatusServiceUnavailable
		if status == http.StatusTooManyRequests {
			f.status = status
		}
	case status == http.StatusServiceUnavailable:
		f.free, f.retry, f.status = true, retry, status
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		f.free, f.result = true, route.Neutral
		f.msg = "it refuses our key: correct it in the config (api_key of a worker, key of a provider)"
	}
	return f
}

// errorText gives the message of an error body in any of vLLM's shapes.
func errorText(status int, body []byte) string {
	v := gjson.ParseBytes(body)
	for _, at := range [...]string{"error.message", "error", "detail", "message"} {
		if m := v.Get(at); m.Type == gjson.String && m.Str != "" {
			return cut(fmt.Sprintf("HTTP %d: %s", status, withoutInput(m.Str)), 1000)
		}
	}
	return fmt.Sprintf("HTTP %d", status)
}

// clean takes out of what an upstream says what it quotes: of the request, of the answer so far, of its own key.
func (c *call) clean(msg string) string {
	f := quotes.New(msg)
	f.Look([]byte(c.lease.Key))
	for name, values := range c.r.Header {
		switch name {
		case "Accept", "Accept-Encoding", "Accept-Language", "Content-Type", "Connection":
			continue
		}
		for _, v := range values {
			f.Look([]byte(v))
		}
	}
	f.LookJSON(c.req.body, c.req.model)
	f.Look(c.tap.text)
	return f.Rest()
}

// withoutInput takes out of a validation error what it quotes of the request, which may be a prompt:
// the ledger, the log and the console keep none. The client gets the worker's own words.
func withoutInput(msg string) string {
	if before, _, ok := strings.Cut(msg, "'input':"); ok {
		return strings.TrimRight(before, ", ") + " …"
	}
	return msg
}
