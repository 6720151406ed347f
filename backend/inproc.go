package backend

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
)

// inproc is a RoundTripper that calls a handler in this process. The handler sees its client
// leave (the request's context ends, writes fail) and its own abort (http.ErrAbortHandler)
// reaches the reader as an unexpected end, as over a connection.
type inproc struct {
	handler http.Handler
	calls   sync.WaitGroup
}

// RoundTrip implements http.RoundTripper.
func (t *inproc) RoundTrip(req *http.Request) (*http.Response, error) {
	pr, pw := io.Pipe()
	w := &inprocWriter{header: http.Header{}, body: pw, ready: make(chan struct{})}
	ctx, leave := context.WithCancel(req.Context())
	in := req.Clone(ctx)
	in.RemoteAddr = "127.0.0.1:0"
	in.RequestURI = req.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	t.calls.Go(func() {
		defer leave()
		defer in.Body.Close()
		defer func() {
			switch e := recover(); e {
			case nil:
				w.WriteHeader(http.StatusOK)
				_ = pw.Close()
			case http.ErrAbortHandler:
				w.abort(io.ErrUnexpectedEOF)
			default: // as net/http does: the call fails, the engine goes on
				w.abort(fmt.Errorf("the gateway panicked: %v", e))
			}
		}()
		t.handler.ServeHTTP(w, in)
	})
	select {
	case <-w.ready:
	case <-req.Context().Done():
		leave()
		_ = pr.CloseWithError(req.Context().Err())
		return nil, req.Context().Err()
	}
	if w.failed != nil {
		return nil, w.failed
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: &inprocBody{pr, leave}, ContentLength: -1, Request: req,
	}, nil
}

// wait waits until no handler runs any more.
func (t *inproc) wait() { t.calls.Wait() }

// inprocBody tells the handler when its reader leaves before the end.
type inprocBody struct {
	*io.PipeReader
	leave context.CancelFunc
}

func (b *inprocBody) Close() error {
	b.leave()
	return b.PipeReader.Close()
}

type inprocWriter struct {
	header http.Header
	body   *io.PipeWriter
	once   sync.Once
	status int
	sent   http.Header
	failed error // no answer at all
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

// abort ends the answer with an error; before its head there is then none.
func (w *inprocWriter) abort(err error) {
	w.once.Do(func() {
		w.failed = err
		close(w.ready)
	})
	_ = w.body.CloseWithError(err)
}
