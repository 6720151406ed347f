package gateway

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// plainError is how net/http's own answer to a request that it cannot read goes on behind its status line. It is
// written at once, past every handler, and nothing else begins so: answers of handlers have a Date.
var plainError = []byte("\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")

// shaped gives such an answer in OpenAI's shape; nil if p is none.
func shaped(p []byte) []byte {
	at := bytes.Index(p[:min(len(p), 256)], plainError)
	if at < 12 || !bytes.HasPrefix(p, []byte("HTTP/1.1 ")) {
		return nil
	}
	status, err := strconv.Atoi(string(p[9:12]))
	if err != nil {
		return nil
	}
	code := strings.ToLower(strings.ReplaceAll(http.StatusText(status), " ", "_"))
	body := invalid(status, code, "", string(p[at+len(plainError):])).body("", false)
	return fmt.Appendf(nil, "%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n", p[:at], len(body)+1, body)
}
