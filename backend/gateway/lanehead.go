package gateway

import (
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
)

// head is the head of a request on the lane.
type head struct {
	route  *laneRoute
	host   string
	length int64
	header http.Header
}

// laneRoute is a route that the lane serves.
type laneRoute struct {
	line []byte // the request line
	url  url.URL
}

var laneRoutes = func() (out []laneRoute) {
	for i := range dialects {
		path := dialects[i].path
		out = append(out, laneRoute{[]byte("POST " + path + " HTTP/1.1\r\n"), url.URL{Path: path}})
	}
	return out
}()

// maxFields is how many header lines a head may have here.
const maxFields = 64

// read reads the head at the beginning of b and gives its length. It is false for whatever is not whole or not plain: no
// request line of ours, anything about a header line that net/http would think about, a header that changes how the
// request or the connection is treated. What is taken here net/http understands in the same way, which a fuzz test proves.
func (h *head) read(b []byte) (n int, ok bool) {
	h.route = nil
	for i := range laneRoutes {
		if bytes.HasPrefix(b, laneRoutes[i].line) {
			h.route = &laneRoutes[i]
			break
		}
	}
	if h.route == nil {
		return 0, false
	}
	at := len(h.route.line)
	size := bytes.Index(b[at-2:], []byte("\r\n\r\n"))
	if size < 0 {
		return 0, false
	}
	n = at - 2 + size + 4
	// One copy for all names and values: they outlive the buffer.
	text := string(b[at : n-2])
	h.host, h.length, h.header = "", -1, make(http.Header, 8)
	values := make([]string, 0, 12)
	for lines := 0; text != ""; lines++ {
		name, value, rest, ok := cutField(text)
		if !ok || lines == maxFields {
			return 0, false
		}
		text = rest
		switch name = textproto.CanonicalMIMEHeaderKey(name); name {
		case "Host":
			if h.host != "" || !isHost(value) {
				return 0, false
			}
			h.host = value
			continue
		case "Content-Length":
			if h.length >= 0 {
				return 0, false
			}
			if h.length, ok = decimal(value); !ok {
				return 0, false
			}
		case "Connection":
			if value != "keep-alive" && value != "Keep-Alive" || h.header[name] != nil {
				return 0, false
			}
		case "Transfer-Encoding", "Trailer", "Te", "Upgrade", "Expect", "Keep-Alive", "Proxy-Connection", "Http2-Settings", "Pragma":
			return 0, false
		case "X-Vllmdeck-Cost":
			return 0, false // it may ask for a trailer, and there is none here
		}
		if old := h.header[name]; old != nil {
			h.header[name] = append(old, value)
			continue
		}
		values = append(values, value)
		h.header[name] = values[len(values)-1 : len(values) : len(values)]
	}
	return n, h.host != "" && h.length >= 0
}

// cutField cuts the first header line off text.
func cutField(text string) (name, value, rest string, ok bool) {
	i := 0
	for ; i < len(text) && isName(text[i]); i++ {
	}
	if i == 0 || i == len(text) || text[i] != ':' {
		return "", "", "", false
	}
	name = text[:i]
	i++
	for ; i < len(text) && text[i] == ' '; i++ {
	}
	from := i
	for ; i < len(text) && text[i] >= ' ' && text[i] <= '~'; i++ {
	}
	if i+1 >= len(text) || text[i] != '\r' || text[i+1] != '\n' {
		return "", "", "", false
	}
	to := i
	for ; to > from && text[to-1] == ' '; to-- {
	}
	return name, text[from:to], text[i+2:], true
}

func isName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-'
}

func isHost(s string) bool {
	for _, c := range []byte(s) {
		if !isName(c) && c != '.' && c != ':' && c != '[' && c != ']' && c != '_' {
			return false
		}
	}
	return s != ""
}

// decimal reads a length of at most 15 digits without leading zeros.
func decimal(s string) (n int64, ok bool) {
	if s == "" || len(s) > 15 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}
