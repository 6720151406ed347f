package gateway

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// countListener counts the writes to the clients that it accepts.
type countListener struct {
	net.Listener
	writes *atomic.Int64
}

type countConn struct {
	net.Conn
	writes *atomic.Int64
}

func (l countListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countConn{c, l.writes}, err
}

func (c countConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// counted serves one worker behind a gateway and gives the gateway's URL and the writes it takes.
func countedConn(t *testing.T, worker string) (url string, p *pool, writes *atomic.Int64) {
	t.Helper()
	p = newPool()
	p.add("a", worker)
	g := &Gateway{Upstreams: p, Accounts: p, Log: slog.New(slog.DiscardHandler), CostInfo: true}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	writes = &atomic.Int64{}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, countListener{ln, writes}, nil, time.Second) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + ln.Addr().String(), p, writes
}

func TestAnAnswerThatIsThereGoesOutInOneWrite(t *testing.T) {
	long := strings.Replace(wholeAnswer, `"hi"`, `"`+strings.Repeat("Bridges span. ", 2000)+`"`, 1)
	events := evRole + strings.Repeat(evText("word"), 40) + evFinish + evDone
	for _, tt := range []struct {
		name, body string
		send       func(c *net.TCPConn)
		want       string
	}{
		{"a stream", streamBody, func(c *net.TCPConn) { io.WriteString(c, streamHead+chunk(events)+"0\r\n\r\n") }, events},
		{"a long answer", chatBody, func(c *net.TCPConn) {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(long), long)
		}, `"cost_info"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url, p, writes := countedConn(t, serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) { tt.send(c) }))
			for range 3 { // on one connection
				res, err := http.Post(url+"/v1/chat/completions", "application/json", strings.NewReader(tt.body))
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || !strings.Contains(string(b), tt.want) {
					t.Fatalf("the client got %v and %d bytes, want all", err, len(b))
				}
				if row := p.row(t); row.Outcome != api.OutcomeOK {
					t.Errorf("outcome = %s, want ok", row.Outcome)
				}
			}
			if n := writes.Load(); n > 3*3 || n < 3 { // the worker's bytes may come in pieces
				t.Errorf("%d writes for 3 answers, want one each, or a few where the worker's bytes came in pieces", n)
			}
		})
	}
}

func TestTheLastEventsDoNotWaitForTheEndOfTheTransfer(t *testing.T) {
	url, p, _ := countedConn(t, serveRaw(t, func(c *net.TCPConn, _ *http.Request, _ string) {
		io.WriteString(c, streamHead+chunk(evRole+evText("a"))+chunk(evFinish+evDone))
		_, _ = c.Read(make([]byte, 1)) // the end of the chunks never comes
	}))
	best := time.Hour
	for range 8 { // held back, each would take drainTime; a busy machine delays some
		began := time.Now()
		res, err := http.Post(url+"/v1/chat/completions", "application/json", strings.NewReader(streamBody))
		if err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(res.Body)
		for line := ""; line != "data: [DONE]\n"; {
			if line, err = in.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
		}
		best = min(best, time.Since(began))
		if _, err := io.ReadAll(in); err != nil {
			t.Errorf("the client's end: %v, want a clean one", err)
		}
		res.Body.Close()
		p.row(t)
	}
	if best >= drainTime {
		t.Errorf("the last event took at least %v, want it before the end of the transfer, which is waited for %v", best, drainTime)
	}
}

func TestCorkedConnection(t *testing.T) {
	a, b := net.Pipe()
	var writes atomic.Int64
	c := &corked{Conn: countConn{a, &writes}}
	got := make(chan string, 1)
	go func() {
		all, _ := io.ReadAll(b)
		got <- string(all)
	}()
	write := func(s string) {
		t.Helper()
		if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("Write = %d, %v", n, err)
		}
	}
	write("one ")
	c.hold()
	write("two ")
	write("three ")
	if n := writes.Load(); n != 1 {
		t.Errorf("%d writes while two are held back, want 1", n)
	}
	if err := c.release(); err != nil {
		t.Error(err)
	}
	write("four ")
	c.hold()
	write(strings.Repeat("x", maxPooled)) // too much to hold
	write(" five")
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if all, n := <-got, writes.Load(); all != "one two three four "+strings.Repeat("x", maxPooled)+" five" || n != 5 {
		t.Errorf("%d bytes in %d writes, want every byte in order in 5", len(all), n)
	}
}

func TestTheDeadlineStaysUntilWhatIsHeldBackIsWritten(t *testing.T) {
	a, b := net.Pipe() // nobody reads
	defer b.Close()
	c := &corked{Conn: a}
	c.hold()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if err := c.SetWriteDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := c.release(); err == nil {
		t.Error("what was held back was written to nobody")
	}
	go func() { _, _ = b.Read(make([]byte, 1)) }()
	if _, err := c.Write([]byte("y")); err != nil {
		t.Errorf("the next write: %v, want no deadline any more", err)
	}
	c.Close()
}

// FuzzAlike checks that the events that came before change nothing in how one is read.
func FuzzAlike(f *testing.F) {
	f.Add(evText("a"), evText("b"))
	f.Add(evText("a"), evFinish)
	f.Add(evText("a"), strings.Replace(evText(`b\"usage\"`), `"index":0`, `"index":1`, 1))
	f.Add(evText(`\\`), evText(`\`))
	f.Add(`data: {"text":"a","x":1}`, `data: {"text":"","delta":{"content":"a","x":1}`)
	f.Fuzz(func(t *testing.T, before, ev string) {
		var warm, cold tap
		warm.quickText([]byte(before))
		got, ok := warm.quickText([]byte(ev))
		want, wantOK := cold.quickText([]byte(ev))
		if !bytes.Equal(got, want) || ok != wantOK || ok && warm.alike.first != cold.alike.first {
			t.Errorf("after %q, %q is %q, %v, first %v; want %q, %v, %v", before, ev, got, ok, warm.alike.first, want, wantOK, cold.alike.first)
		}
	})
}
