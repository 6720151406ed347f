package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Client is a Source in another process: over a unix socket, or over SSH by running
// "vllmdeck stdio" on the other host.
type Client struct {
	addr    string
	http    *http.Client
	version atomic.Pointer[string]
}

// Dial makes a Client for "unix:PATH", a bare socket path, or "ssh://[USER@]HOST[:PORT]".
// Nothing is connected until the first call.
func Dial(addr string) (*Client, error) {
	c := &Client{addr: addr}
	var dial func(ctx context.Context) (net.Conn, error)
	switch {
	case strings.HasPrefix(addr, "ssh://"):
		u, err := url.Parse(addr)
		if err != nil || u.Hostname() == "" || strings.HasPrefix(u.Hostname(), "-") || (u.Path != "" && u.Path != "/") {
			return nil, fmt.Errorf("engine address %q: want ssh://[USER@]HOST[:PORT]", addr)
		}
		dial = func(context.Context) (net.Conn, error) { return dialSSH(u) }
	case strings.HasPrefix(addr, "unix:"), strings.HasPrefix(addr, "/"), strings.HasPrefix(addr, "./"):
		path := strings.TrimPrefix(addr, "unix:")
		dial = func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
	default:
		return nil, fmt.Errorf("engine address %q: want unix:PATH or ssh://HOST", addr)
	}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true,
	}}
	return c, nil
}

// Addr is what the client was made for.
func (c *Client) Addr() string { return c.addr }

// Version is the engine's, as of its last answer; "" before the first.
func (c *Client) Version() string {
	if v := c.version.Load(); v != nil {
		return *v
	}
	return ""
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Snapshot implements Source.
func (c *Client) Snapshot(ctx context.Context) (*Snapshot, error) {
	s := new(Snapshot)
	return s, c.call(ctx, http.MethodGet, "/v1/snapshot", nil, s)
}

// Log implements Source.
func (c *Client) Log(ctx context.Context, name string, after uint64) ([]Line, error) {
	var lines []Line
	q := url.Values{"name": {name}, "after": {strconv.FormatUint(after, 10)}}
	return lines, c.call(ctx, http.MethodGet, "/v1/log?"+q.Encode(), nil, &lines)
}

// Spend implements Source.
func (c *Client) Spend(ctx context.Context, q Query) ([]Row, error) {
	var rows []Row
	return rows, c.call(ctx, http.MethodPost, "/v1/spend", q, &rows)
}

// Do implements Source.
func (c *Client) Do(ctx context.Context, a Action) error {
	return c.call(ctx, http.MethodPost, "/v1/do", a, nil)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://engine"+path, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req) //nolint:bodyclose // drainBody closes it
	if err != nil {
		if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return ctx.Err()
		}
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err
		}
		return fmt.Errorf("%w at %s: %w", ErrAway, c.addr, err)
	}
	defer drainBody(resp.Body)
	if v := resp.Header.Get(headerVersion); v != "" {
		c.version.Store(&v)
	}
	if resp.StatusCode != http.StatusOK {
		return refusal(resp)
	}
	if out == nil {
		return nil
	}
	switch err := json.NewDecoder(resp.Body).Decode(out); {
	case err == nil:
	case ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded):
		return ctx.Err()
	case broken(err): // it ended in the middle of its answer
		return fmt.Errorf("%w at %s: %w", ErrAway, c.addr, err)
	default:
		return fmt.Errorf("read answer of engine %s: %w", c.Version(), err)
	}
	return nil
}

// broken reports whether reading an answer failed by the connection, and not by what the answer says.
func broken(err error) bool {
	var conn net.Error
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &conn)
}

// remoteError is an engine's error with its text as it was there.
type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

func refusal(resp *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	var f failure
	if json.Unmarshal(text, &f) != nil || f.Error == "" {
		return fmt.Errorf("engine answers %s: %s", resp.Status, strings.TrimSpace(string(text)))
	}
	e := &remoteError{text: f.Error}
	for _, k := range kinds {
		if f.Kind == k.kind {
			e.kind = k.err
		}
	}
	return e
}

// dialSSH runs ssh and speaks over its stdio: authentication, host keys and jump hosts are the
// user's own SSH configuration.
func dialSSH(u *url.URL) (net.Conn, error) {
	args := []string{"-T", "-o", "BatchMode=yes"}
	if p := u.Port(); p != "" {
		args = append(args, "-p", p)
	}
	host := u.Hostname()
	if u.User != nil && u.User.Username() != "" {
		host = u.User.Username() + "@" + host
	}
	args = append(args, "--", host, "vllmdeck", "stdio")
	return dialCommand("ssh", args...)
}

// dialCommand starts a program and makes a connection of its stdin and stdout.
func dialCommand(name string, args ...string) (net.Conn, error) {
	cmd := exec.Command(name, args...) //nolint:noctx // lives as long as the connection, not as the call that opened it
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	stderr := new(tail)
	cmd.WaitDelay = lastWords // a ControlMaster that ssh leaves behind keeps stderr open
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return &commandConn{cmd: cmd, in: in, out: out, stderr: stderr, ended: make(chan struct{})}, nil
}

type commandConn struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    io.ReadCloser
	stderr *tail
	closed atomic.Bool
	wait   sync.Once
	ended  chan struct{}
}

// lastWords is how long a program that has closed its output may take to say why.
const lastWords = 2 * time.Second

func (c *commandConn) Read(p []byte) (int, error) {
	n, err := c.out.Read(p)
	if err != nil && !c.closed.Load() {
		select {
		case <-c.end():
		case <-time.After(lastWords):
		}
		if why := c.stderr.String(); why != "" {
			err = errors.New(why)
		}
	}
	return n, err
}

// end gives a channel that is closed when the program has ended. Nothing may read from it any more.
func (c *commandConn) end() <-chan struct{} {
	c.wait.Do(func() {
		go func() {
			_ = c.cmd.Wait()
			close(c.ended)
		}()
	})
	return c.ended
}

func (c *commandConn) Write(p []byte) (int, error) { return c.in.Write(p) }

func (c *commandConn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	_ = c.in.Close()
	_ = c.cmd.Process.Kill()
	<-c.end()
	return nil
}

type commandAddr string

func (a commandAddr) Network() string { return "command" }
func (a commandAddr) String() string  { return string(a) }

func (c *commandConn) LocalAddr() net.Addr  { return commandAddr("stdio") }
func (c *commandConn) RemoteAddr() net.Addr { return commandAddr(c.cmd.Path) }

// Pipes to a program have deadlines where the system gives them; calls are bounded by their
// context in any case.
func (c *commandConn) SetDeadline(t time.Time) error {
	if err := c.SetReadDeadline(t); err != nil {
		return err
	}
	return c.SetWriteDeadline(t)
}

func (c *commandConn) SetReadDeadline(t time.Time) error {
	if f, ok := c.out.(*os.File); ok {
		return f.SetReadDeadline(t)
	}
	return nil
}

func (c *commandConn) SetWriteDeadline(t time.Time) error {
	if f, ok := c.in.(*os.File); ok {
		return f.SetWriteDeadline(t)
	}
	return nil
}
