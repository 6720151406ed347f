package backend

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// inproc is a RoundTripper that calls a handler in this process. The handler sees its client
// leave (the request's context ends) and its own abort (http.ErrAbortHandler) reaches the
// reader as an unexpected end, as over a connection.
type inproc struct{ handler http.Handler }

// RoundTrip implements http.RoundTripper.
func (t inproc) RoundTrip(req *http.Request) (*http.Response, error) {
	pr, pw := io.Pipe()
	w := &inprocWriter{header: http.Header{}, body: pw, ready: make(chan struct{})}
	req.RemoteAddr = "127.0.0.1:0"
	req.RequestURI = req.URL.RequestURI()
	if req.Body == nil {
		req.Body = http.NoBody
	}
	go func() {
		defer func() {
			switch e := recover(); e {
			case nil:
				w.WriteHeader(http.StatusOK)
				_ = pw.Close()
			case http.ErrAbortHandler:
				w.WriteHeader(http.StatusBadGateway)
				_ = pw.CloseWithError(io.ErrUnexpectedEOF)
			default:
				_ = pw.CloseWithError(errors.New("handler panicked"))
				panic(e)
			}
		}()
		t.handler.ServeHTTP(w, req)
	}()
	select {
	case <-w.ready:
	case <-req.Context().Done():
		_ = pr.CloseWithError(req.Context().Err())
		return nil, req.Context().Err()
	}
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: pr, ContentLength: -1, Request: req,
	}, nil
}

type inprocWriter struct {
	header http.Header
	body   *io.PipeWriter
	once   sync.Once
	status int
	sent   http.Header
	ready  chan struct{}
}

func (w *inprocWriter) Header() http.Header { return w.header }

func (w *inprocWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.ready)
	})
}

func (w *inprocWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// Flush implements http.Flusher: nothing is held back.
func (w *inprocWriter) Flush() { w.WriteHeader(http.StatusOK) }
