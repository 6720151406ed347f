package gateway

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// TestAClientThatDoesNotReadIsNoticedSoon holds for both ways in: the lane, and net/http, which gets what is out of the ordinary.
func TestAClientThatDoesNotReadIsNoticedSoon(t *testing.T) {
	const event = 2 << 10
	ev := evText(strings.Repeat("x", event))
	for name, header := range map[string]string{"lane": "", "net/http": "Expect: 100-continue\r\n"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(g *Gateway) { g.WriteTimeout = 2 * time.Second })
			r.pool.add("a", serveHTTP(t, func(w http.ResponseWriter, req *http.Request) {
				io.Copy(io.Discard, req.Body)
				w.Header().Set("Content-Type", "text/event-stream")
				for req.Context().Err() == nil {
					if _, err := io.WriteString(w, ev); err != nil {
						return
					}
				}
			}))
			d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
				return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) })
			}}
			conn, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(r.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", header, len(streamBody), streamBody)
			row := r.pool.row(t)
			if row.Outcome != api.OutcomeCancelled || !strings.Contains(row.Error, "does not read") {
				t.Errorf("row = %s, %q; want the client that does not read", row.Outcome, row.Error)
			}
			if taken := row.Usage.Output * event; taken == 0 || taken > 256<<10 {
				t.Errorf("%d kB were taken for a client that reads nothing, want 256 at most", taken>>10)
			}
		})
	}
}
