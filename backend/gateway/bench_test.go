package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// The benchmarks run the gateway alone in this process. Its upstream and its clients are this test
// binary once more, as another process, so that the CPU figure (cpu-us/op, of the whole process, kernel
// included) is the gateway's own.

const peerEnv = "VLLMDECK_BENCH_PEER"

// benchConns is how many clients there are at once.
const benchConns = 64

// peer prints the upstream's address, then carries out lines of "ADDR KIND COUNT" from stdin.
func peer() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go peerUpstream(ln)
	fmt.Println(ln.Addr())
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		f := strings.Fields(in.Text())
		n, _ := strconv.Atoi(f[2])
		body := chatBodyKB
		if f[1] == "stream" {
			body = strings.Replace(body, `{"model"`, `{"stream":true,"model"`, 1)
		}
		req := fmt.Sprintf("POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nUser-Agent: bench\r\nAccept: */*\r\nContent-Type: application/json\r\nAuthorization: Bearer xk_bench_0123456789abcdef\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		var wg sync.WaitGroup
		for i := range benchConns {
			share := n / benchConns
			if i < n%benchConns {
				share++
			}
			wg.Go(func() { peerClient(f[0], []byte(req), share) })
		}
		wg.Wait()
		fmt.Println("done")
	}
}

var chatBodyKB = `{"model":"m","messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"` + strings.Repeat("Tell me about bridges. ", 40) + `"}],"max_tokens":64,"temperature":0.7}`

func peerClient(addr string, req []byte, n int) {
	if n == 0 {
		return
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		panic(err)
	}
	defer c.Close()
	r := bufio.NewReaderSize(c, 32<<10)
	for range n {
		if _, err := c.Write(req); err != nil {
			panic(err)
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			panic(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
			panic(fmt.Sprint(res.Status, err))
		}
	}
}

func peerUpstream(ln net.Listener) {
	answer := strings.Replace(wholeAnswer, `"hi"`, `"`+strings.Repeat("Bridges span. ", 28)+`"`, 1)
	plain := []byte(fmt.Sprintf("HTTP/1.1 200 OK\r\ndate: Mon, 23 Nov 2026 15:01:47 GMT\r\nserver: uvicorn\r\ncontent-length: %d\r\ncontent-type: application/json\r\nvary: Origin\r\nx-request-id: abc-1\r\n\r\n%s", len(answer), answer))
	var pieces [][]byte
	pieces = append(pieces, []byte(streamHead))
	pieces = append(pieces, []byte(chunk(evRole)))
	for i := range 64 {
		pieces = append(pieces, []byte(chunk(evText(fmt.Sprintf(" tok%d", i)))))
	}
	pieces = append(pieces, []byte(chunk(evFinish)), []byte(chunk(evUsage)), []byte(chunk(evDone)), []byte("0\r\n\r\n"))
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			r := bufio.NewReaderSize(c, 32<<10)
			tr := textproto.NewReader(r)
			for {
				if _, err := tr.ReadLine(); err != nil {
					return
				}
				h, err := tr.ReadMIMEHeader()
				if err != nil {
					return
				}
				n, _ := strconv.Atoi(h.Get("Content-Length"))
				body := make([]byte, n)
				if _, err := io.ReadFull(r, body); err != nil {
					return
				}
				if !strings.Contains(string(body[:64]), `"stream":true`) {
					c.Write(plain)
					continue
				}
				for _, p := range pieces { // one write each, as uvicorn does
					if _, err := c.Write(p); err != nil {
						return
					}
				}
			}
		}()
	}
}

func BenchmarkGatewayPlain(b *testing.B)           { benchGateway(b, "plain", nil) }
func BenchmarkGatewayStream64(b *testing.B)        { benchGateway(b, "stream", nil) }
func BenchmarkGatewayPlainNetHTTP(b *testing.B)    { benchGateway(b, "plain", netHTTP()) }
func BenchmarkGatewayStream64NetHTTP(b *testing.B) { benchGateway(b, "stream", netHTTP()) }

// What httputil.ReverseProxy takes for the same, without keys, accounts, tap and cost_info.
func BenchmarkReverseProxyPlain(b *testing.B) { benchProxy(b, "plain") }

func benchProxy(b *testing.B, kind string) {
	b.Helper()
	bench(b, kind, func(ctx context.Context, ln net.Listener, upstream string) error {
		target, err := url.Parse("http://" + upstream)
		if err != nil {
			return err
		}
		proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }, Transport: netHTTP().Transport}
		srv := &http.Server{Handler: proxy}
		go func() { <-ctx.Done(); srv.Close() }()
		return srv.Serve(ln)
	})
}

// netHTTP is the client that the gateway's own takes the place of.
func netHTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1024, IdleConnTimeout: keepIdle, DisableCompression: true}}
}

// books is the cheapest accounts there can be.
type books struct{ *pool }

func (books) Open(*api.Request)   {}
func (books) Price(*api.Request)  {}
func (books) Settle(*api.Request) {}

func benchGateway(b *testing.B, kind string, client *http.Client) {
	b.Helper()
	bench(b, kind, func(ctx context.Context, ln net.Listener, upstream string) error {
		p := newPool()
		p.client = client
		p.add("a", "http://"+upstream)
		p.cands["m"][0].MaxSeqs = 256
		g := &Gateway{Upstreams: p, Accounts: books{p}, Log: slog.New(slog.DiscardHandler), CostInfo: true, Continue: true}
		g.Keys.Set([]Key{key("bench", "xk_bench_0123456789abcdef")})
		return g.Serve(ctx, ln, nil, time.Second)
	})
}

// bench measures a proxy that serve runs until its context ends.
func bench(b *testing.B, kind string, serve func(ctx context.Context, ln net.Listener, upstream string) error) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), peerEnv+"=1", "GOMAXPROCS=2")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	out := bufio.NewScanner(stdout)
	out.Scan()
	upstream := out.Text()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, ln, upstream) }()
	defer func() { stop(); <-done }()
	load := func(n int) {
		fmt.Fprintln(in, ln.Addr(), kind, n)
		if !out.Scan() {
			b.Fatal("the peer is gone")
		}
	}
	load(2 * benchConns)
	b.ReportAllocs()
	b.ResetTimer()
	start := cpu()
	load(b.N)
	b.ReportMetric(float64((cpu()-start).Microseconds())/float64(b.N), "cpu-us/op")
}

// cpu is the CPU time of this process so far.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
