package gateway

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http/httputil"
	"net/textproto"
	"strconv"
	"strings"
)

// field is one header of an answer, its name canonical.
type field struct{ name, value string }

// readHead reads the head of an answer and finds out how its body ends.
func (c *conn) readHead() (*reply, error) {
	left := headLimit
	line := func() ([]byte, error) {
		b, err := c.r.ReadSlice('\n')
		if left -= len(b); left < 0 || errors.Is(err, bufio.ErrBufferFull) {
			return nil, errors.New("the head of the worker's answer is too long")
		}
		if err != nil {
			return nil, unexpected(err)
		}
		return bytes.TrimRight(b, "\r\n"), nil
	}
	rep := &c.rep
	*rep = reply{conn: c, length: -1}
	for {
		first, err := line()
		if err != nil {
			return nil, err
		}
		// HTTP/1.1 200 OK
		if len(first) < 12 || !bytes.HasPrefix(first, []byte("HTTP/1.")) || first[8] != ' ' {
			return nil, fmt.Errorf("the worker does not answer in HTTP/1: %q", first[:min(len(first), 40)])
		}
		rep.status, err = strconv.Atoi(string(first[9:12]))
		if err != nil || rep.status < 100 {
			return nil, fmt.Errorf("the worker's status line makes no sense: %q", first[:min(len(first), 40)])
		}
		rep.keep = first[7] == '1'
		rep.fields = rep.space[:0]
		chunked, sized := false, false
		for {
			l, err := line()
			if err != nil {
				return nil, err
			}
			if len(l) == 0 {
				break
			}
			i := bytes.IndexByte(l, ':')
			if i <= 0 {
				return nil, fmt.Errorf("the worker's header makes no sense: %q", l[:min(len(l), 40)])
			}
			name, value := canonical(l[:i]), bytes.TrimSpace(l[i+1:])
			switch name {
			case "Content-Length":
				n, err := strconv.ParseUint(string(value), 10, 63)
				if err != nil || sized && int64(n) != rep.length {
					return nil, errors.New("the worker's Content-Length makes no sense")
				}
				rep.length, sized = int64(n), true
				continue
			case "Transfer-Encoding":
				if !strings.EqualFold(string(value), "chunked") {
					return nil, fmt.Errorf("the worker's Transfer-Encoding is %q, want chunked", value)
				}
				chunked = true
				continue
			case "Connection":
				if bytes.EqualFold(value, []byte("close")) {
					rep.keep = false
				}
				continue
			}
			if keepsResponse(name) {
				rep.fields = append(rep.fields, field{name, intern(value)})
			}
		}
		switch {
		case rep.status < 200: // 100 Continue and the like: the answer follows
			continue
		case rep.status == 204 || rep.status == 304:
			rep.length = 0
			rep.body = eof{}
		case chunked:
			rep.length = -1
			rep.body = &chunks{c: c, Reader: httputil.NewChunkedReader(c.r)}
		case sized:
			rep.body = &sizedBody{r: c.r, left: rep.length}
		default:
			rep.keep = false
			rep.body = c.r
		}
		return rep, nil
	}
}

// sizedBody reads a body of known length; its early end is an error.
type sizedBody struct {
	r    *bufio.Reader
	left int64
}

func (s *sizedBody) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > s.left {
		p = p[:s.left]
	}
	n, err := s.r.Read(p)
	if s.left -= int64(n); s.left > 0 {
		return n, unexpected(err)
	}
	return n, io.EOF
}

// chunks reads a chunked body to its very end, trailers included, so that the connection can be
// used again.
type chunks struct {
	io.Reader
	c    *conn
	over bool
}

func (b *chunks) Read(p []byte) (int, error) {
	if b.over {
		return 0, io.EOF
	}
	n, err := b.Reader.Read(p)
	if err != io.EOF {
		return n, err
	}
	if n > 0 {
		// What came with the last chunk goes out first; the trailer may not be here yet.
		b.Reader = eof{}
		return n, nil
	}
	for {
		line, err := b.c.r.ReadSlice('\n')
		if err != nil {
			return 0, unexpected(err)
		}
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			b.over = true
			return 0, io.EOF
		}
	}
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// unexpected makes an end that must not be here an error.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// canonical is textproto's form of a header name, without allocating for those that vLLM sends.
func canonical(name []byte) string {
	switch string(name) {
	case "content-type", "Content-Type":
		return "Content-Type"
	case "content-length", "Content-Length":
		return "Content-Length"
	case "transfer-encoding", "Transfer-Encoding":
		return "Transfer-Encoding"
	case "date", "Date":
		return "Date"
	case "server", "Server":
		return "Server"
	case "vary", "Vary":
		return "Vary"
	case "x-request-id", "X-Request-Id":
		return "X-Request-Id"
	case "connection", "Connection":
		return "Connection"
	}
	return textproto.CanonicalMIMEHeaderKey(string(name))
}

// intern gives a header's value, without allocating for those that vLLM sends.
func intern(value []byte) string {
	switch string(value) {
	case "application/json":
		return "application/json"
	case "text/event-stream; charset=utf-8":
		return "text/event-stream; charset=utf-8"
	case "Origin":
		return "Origin"
	}
	return string(value)
}
