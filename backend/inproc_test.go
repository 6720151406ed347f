package backend

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func call(ctx context.Context, t *testing.T, p *inproc, body string) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://gateway/v1/x?y=1", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return p.RoundTrip(req)
}

func TestInprocAnswersAsAConnectionWould(t *testing.T) {
	p := &inproc{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Path", r.RequestURI+" "+r.RemoteAddr+" "+string(body))
		w.WriteHeader(http.StatusTeapot)
		w.Header().Set("X-Late", "too late")
		w.WriteHeader(http.StatusOK)
		_, _ = io.WriteString(w, "one ")
		w.(http.Flusher).Flush()
		_, _ = io.WriteString(w, "two")
	})}
	resp, err := call(t.Context(), t, p, "asked")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusTeapot || string(text) != "one two" || err != nil {
		t.Errorf("HTTP %d %q, %v; want 418 and both pieces", resp.StatusCode, text, err)
	}
	if got := resp.Header.Get("X-Path"); got != "/v1/x?y=1 127.0.0.1:0 asked" || resp.Header.Get("X-Late") != "" {
		t.Errorf("headers = %v", resp.Header)
	}
	p.wait()
}

// TestInprocAnEmptyAnswerIs200 proves it many times: the handler's end and the answer race.
func TestInprocAnEmptyAnswerIs200(t *testing.T) {
	p := &inproc{handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	for range 2000 {
		resp, err := call(t.Context(), t, p, "")
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%v, %v; want HTTP 200", resp, err)
		}
		_ = resp.Body.Close()
	}
}

func TestInprocAbortIsAnUnexpectedEnd(t *testing.T) {
	p := &inproc{handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		panic(http.ErrAbortHandler)
	})}
	resp, err := call(t.Context(), t, p, "")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(resp.Body); string(text) != "half" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %q, %v; want half and an unexpected end", text, err)
	}
	p.handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	if _, err := call(t.Context(), t, p, ""); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("an abort before the answer = %v, want an unexpected end", err)
	}
}

func TestInprocAPanicFailsTheCallAlone(t *testing.T) {
	p := &inproc{handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("index out of range") })}
	if _, err := call(t.Context(), t, p, ""); err == nil || !strings.Contains(err.Error(), "index out of range") {
		t.Errorf("err = %v, want one that names the panic", err)
	}
}

func TestInprocTheHandlerSeesItsClientLeave(t *testing.T) {
	left := make(chan error, 1)
	p := &inproc{handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("y") == "1" {
			_, _ = io.WriteString(w, "begun")
		}
		<-r.Context().Done()
		_, err := io.WriteString(w, "more")
		left <- err
	})}
	for name, leave := range map[string]func(context.CancelFunc, *http.Response){
		"its context ends":    func(cancel context.CancelFunc, _ *http.Response) { cancel() },
		"it closes the body":  func(_ context.CancelFunc, resp *http.Response) { _ = resp.Body.Close() },
		"it reads and leaves": func(cancel context.CancelFunc, resp *http.Response) { _, _ = resp.Body.Read(make([]byte, 2)); cancel() },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		resp, err := call(ctx, t, p, "")
		if err != nil {
			t.Fatal(err)
		}
		leave(cancel, resp)
		_ = resp.Body.Close()
		select {
		case err := <-left:
			if err == nil {
				t.Errorf("%s: the handler still could write", name)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s: the handler was not told", name)
		}
		cancel()
		p.wait()
	}
}

func TestInprocACancelBeforeTheAnswer(t *testing.T) {
	p := &inproc{handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := call(ctx, t, p, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v, want the cancel", err)
	}
	p.wait() // or the handler would outlive the test
}
