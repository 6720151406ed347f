package gateway

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestWhatAWorkerQuotesOfARequestIsNotKept has workers fail in every way with words that hold the request.
func TestWhatAWorkerQuotesOfARequestIsNotKept(t *testing.T) {
	const prompt, header, key = "the patient is Jane Example", "a-token-of-another-house", "vd_app_key-of-the-client"
	for _, stream := range []bool{false, true} {
		for _, status := range []int{400, 401, 422, 429, 500, 503, 0} {
			url := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				said := fmt.Sprintf("out of luck with %q, header %v, as %s, all of it: %s", prompt, r.Header["X-Token"], r.Header.Get("Authorization"), body)
				if status > 0 {
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(status)
					fmt.Fprintf(w, `{"error":{"message":%q,"type":"x"}}`, said)
					return
				}
				if !stream {
					w.Header().Set("Content-Type", "text/"+prompt)
					return
				}
				w.Header().Set("Content-Type", "text/event-stream")
				fmt.Fprintf(w, "%sdata: {\"error\":{\"message\":%q}}\n\n", evText("x"), said)
			})
			log := &lockedBuffer{}
			r := newRig(t, func(g *Gateway) { g.Log = slog.New(slog.NewTextHandler(log, nil)) })
			r.pool.add("a", url)
			req, err := http.NewRequest(http.MethodPost, r.url+"/v1/chat/completions", strings.NewReader(fmt.Sprintf(`{"model":"m","messages":[{"role":"user","content":%q}],"stream":%t}`, prompt, stream)))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("X-Token", header)
			req.Header.Set("Authorization", "Bearer "+key)
			res, err := r.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body) // it may be cut off
			res.Body.Close()
			row := r.pool.row(t)
			if row.Error == "" || len(row.Attempts) == 0 || row.Attempts[0].Error == "" {
				t.Errorf("HTTP %d, stream %v: row %q and attempts %+v do not say why it failed", status, stream, row.Error, row.Attempts)
			}
			for _, secret := range []string{prompt, header, key} {
				if kept := fmt.Sprintf("%+v", row); strings.Contains(kept, secret) || strings.Contains(log.String(), secret) {
					t.Errorf("HTTP %d, stream %v: %q is kept: %s\n%s", status, stream, secret, kept, log)
				}
			}
			if status >= 400 && status != 401 && !strings.Contains(row.Error, "out of luck with") {
				t.Errorf("HTTP %d, stream %v: the row says %q, want the rest of the worker's words", status, stream, row.Error)
			}
		}
	}
}
