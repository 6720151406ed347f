package modelcache

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// hub is a client of a Hugging Face hub.
type hub struct {
	base  *url.URL
	token token
	http  *http.Client
	name  string // of the model, as asked for
}

// newTransport is a transport for downloads: it waits for a connection and for an answer's begin, not for ever. What stops in
// the middle is noticed by who reads it.
func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   parallel,
		ForceAttemptHTTP2:     true,
	}
}

const maxRedirects = 10

// trusted says whether an address is the hub itself: only there the token goes. A CDN must not see
// it, and the signed addresses of some refuse a request that has one.
func (h *hub) trusted(u *url.URL) bool {
	if u.Scheme == h.base.Scheme && u.Host == h.base.Host {
		return true
	}
	return u.Scheme == "https" && (u.Host == "huggingface.co" || u.Host == "hf.co")
}

// do sends a request and follows redirects: all of them, or with own only those within the hub, so
// that a redirect elsewhere is the answer.
func (h *hub) do(ctx context.Context, method string, u *url.URL, set http.Header, own bool) (*http.Response, error) {
	for range maxRedirects {
		req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", u.Host, err)
		}
		maps.Copy(req.Header, set)
		req.Header.Set("User-Agent", "vllmdeck")
		req.Header.Set("Accept-Encoding", "identity") // sizes and ranges are of the file as it is
		if h.token.text != "" && h.trusted(u) {
			req.Header.Set("Authorization", "Bearer "+h.token.text)
		}
		resp, err := h.http.Do(req)
		if err != nil {
			// The address may be a signed one: it is not shown.
			return nil, &netError{host: u.Host, err: hidden(err)}
		}
		to, none := resp.Location()
		if resp.StatusCode < 300 || resp.StatusCode > 399 || none != nil || own && !h.trusted(to) {
			return resp, nil //nolint:nilerr // an answer that leads nowhere is the answer
		}
		_ = resp.Body.Close()
		if u.Scheme == "https" && to.Scheme != "https" {
			return nil, fmt.Errorf("%s sends on to an address without TLS", u.Host)
		}
		u = to
	}
	return nil, fmt.Errorf("%s redirects more than %d times", u.Host, maxRedirects)
}

// netError is a connection that failed: it may be tried again.
type netError struct {
	host string
	err  error
}

func (e *netError) Error() string { return fmt.Sprintf("no answer from %s: %v", e.host, e.err) }
func (e *netError) Unwrap() error { return e.err }

// busyError is an answer that says to come back later.
type busyError struct {
	host   string
	status int
	after  time.Duration
}

func (e *busyError) Error() string { return fmt.Sprintf("%s answers HTTP %d", e.host, e.status) }

// refusal words an answer that is no success, with what mends it.
func (h *hub) refusal(resp *http.Response, what string) error {
	code := resp.Header.Get("X-Error-Code")
	page := h.base.JoinPath(h.name).String()
	switch s := resp.StatusCode; {
	case code == "GatedRepo" && h.token.text == "":
		return fmt.Errorf("%s is gated: accept its terms at %s, then give the engine a token of that account: HF_TOKEN, or \"hf auth login\"", h.name, page)
	case code == "GatedRepo":
		return fmt.Errorf("%s is gated and the account of the token (%s) has no access: accept its terms at %s; a fine-grained token must allow gated repositories", h.name, h.token.from, page)
	case code == "RevisionNotFound":
		return fmt.Errorf("%s has no such revision: see %s", h.name, page)
	case code == "EntryNotFound":
		return fmt.Errorf("%s has no %s", h.name, what)
	case code == "RepoNotFound" && h.token.text == "", s == http.StatusUnauthorized && h.token.text == "":
		return fmt.Errorf("%s has no model %s, or it is private: check the name, or set HF_TOKEN to a token that may read it", h.base.Host, h.name)
	case code == "RepoNotFound":
		return fmt.Errorf("%s has no model %s that the token (%s) may read: check the name and the token's account", h.base.Host, h.name, h.token.from)
	case s == http.StatusUnauthorized:
		return fmt.Errorf("%s does not take the token (%s): make a new one and set HF_TOKEN", h.base.Host, h.token.from)
	case s == http.StatusForbidden:
		return fmt.Errorf("%s refuses %s (HTTP 403): set HF_TOKEN to a token that may read %s", resp.Request.URL.Host, what, h.name)
	case s == http.StatusNotFound:
		return fmt.Errorf("%s has no model %s: check the name, and HF_ENDPOINT if it is set", h.base.Host, h.name)
	case s == http.StatusTooManyRequests, s == http.StatusRequestTimeout, s >= 500:
		e := &busyError{host: resp.Request.URL.Host, status: s}
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
			e.after = min(time.Duration(n)*time.Second, time.Minute)
		}
		return e
	default:
		return fmt.Errorf("%s answers HTTP %d to a request for %s", resp.Request.URL.Host, s, what)
	}
}

// files asks for the commit of a revision and the names of its files.
func (h *hub) files(ctx context.Context, rev string) (sha string, files []string, err error) {
	// The revision is one segment there, its slashes escaped.
	u := h.base.JoinPath("api/models", h.name, "revision")
	u = u.JoinPath(url.PathEscape(rev))
	resp, err := h.do(ctx, http.MethodGet, u, nil, false)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", nil, h.refusal(resp, "the list of files")
	}
	var info struct {
		SHA      string `json:"sha"`
		Siblings []struct {
			Name string `json:"rfilename"`
		} `json:"siblings"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxIndex)).Decode(&info); err != nil {
		return "", nil, &netError{host: u.Host, err: fmt.Errorf("read list of files: %w", err)}
	}
	if !commit.MatchString(info.SHA) {
		return "", nil, fmt.Errorf("%s names no commit of %s: is HF_ENDPOINT a hub?", u.Host, h.name)
	}
	for _, s := range info.Siblings {
		if !validFile(s.Name) {
			return "", nil, fmt.Errorf("%s names a file that cannot be stored: %q", u.Host, clip(s.Name))
		}
		files = append(files, s.Name)
	}
	return info.SHA, files, nil
}

func (h *hub) fileURL(sha, file string) *url.URL {
	parts := strings.Split(file, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return h.base.JoinPath(h.name, "resolve", sha).JoinPath(parts...)
}

// file is one file of a model at a commit.
type file struct {
	name string
	etag string // sha256 of a large file, else its git blob hash: its name in blobs
	size int64
}

// head asks what a file is.
func (h *hub) head(ctx context.Context, sha, name string) (file, error) {
	resp, err := h.do(ctx, http.MethodHead, h.fileURL(sha, name), nil, true)
	if err != nil {
		return file{}, err
	}
	_ = resp.Body.Close()
	redirected := resp.StatusCode >= 300 && resp.StatusCode <= 399
	if resp.StatusCode != http.StatusOK && !redirected {
		return file{}, h.refusal(resp, name)
	}
	f := file{name: name, etag: bare(first(resp.Header, "X-Linked-Etag", "Etag"))}
	if got := resp.Header.Get("X-Repo-Commit"); got != sha {
		return file{}, fmt.Errorf("%s does not say that %s is of commit %s: is HF_ENDPOINT a hub?", resp.Request.URL.Host, name, sha)
	}
	size := resp.Header.Get("X-Linked-Size")
	if size == "" && !redirected {
		size = resp.Header.Get("Content-Length")
	}
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 || !etagged.MatchString(f.etag) {
		return file{}, fmt.Errorf("%s does not say what %s is: no size or no ETag", resp.Request.URL.Host, name)
	}
	f.size = n
	return f, nil
}

func first(h http.Header, names ...string) string {
	for _, name := range names {
		if v := h.Get(name); v != "" {
			return v
		}
	}
	return ""
}

// bare is an ETag without its quotes.
func bare(etag string) string { return strings.Trim(strings.TrimPrefix(etag, "W/"), `"`) }

// open begins to read a file from an offset. from is where the answer really begins.
func (h *hub) open(ctx context.Context, sha string, f file, at int64) (body io.ReadCloser, from int64, err error) {
	set := http.Header{}
	if at > 0 {
		set.Set("Range", fmt.Sprintf("bytes=%d-", at))
	}
	resp, err := h.do(ctx, http.MethodGet, h.fileURL(sha, f.name), set, false)
	if err != nil {
		return nil, 0, err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return resp.Body, 0, nil
	case http.StatusPartialContent:
		if strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", at)) {
			return resp.Body, at, nil
		}
		err = fmt.Errorf("%s sends another part of %s than was asked for", resp.Request.URL.Host, f.name)
	default:
		err = h.refusal(resp, f.name)
	}
	_ = resp.Body.Close()
	return nil, 0, err
}

// clip bounds a foreign text.
func clip(s string) string { return api.Shorten(s, 200) }
