package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Headers that let a console and an engine of different age know of each other.
const (
	headerVersion = "Vllmdeck-Version"
	headerSchema  = "Vllmdeck-Schema"
)

// maxAction bounds an order's body: a prompt of 1 MB and some.
const maxAction = 2 << 20

// Handler serves a Source over HTTP, for a unix socket: who may connect may do everything.
// version is the engine's.
func Handler(src Source, version string) http.Handler {
	h := &handler{src: src}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/snapshot", h.snapshot)
	mux.HandleFunc("GET /v1/log", h.log)
	mux.HandleFunc("POST /v1/spend", h.spend)
	mux.HandleFunc("POST /v1/do", h.do)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// No browser has business here, should the socket ever be forwarded to a port.
		if r.Header.Get("Origin") != "" || r.Header.Get("Referer") != "" {
			http.Error(w, "not for browsers", http.StatusForbidden)
			return
		}
		w.Header().Set(headerVersion, version)
		w.Header().Set(headerSchema, strconv.Itoa(Schema))
		mux.ServeHTTP(w, r)
	})
}

type handler struct {
	src Source

	mu   sync.Mutex
	seq  uint64 // of body
	body []byte // the snapshot as JSON, made once however many consoles ask
}

func (h *handler) snapshot(w http.ResponseWriter, r *http.Request) {
	s, err := h.src.Snapshot(r.Context())
	if err != nil {
		reply(w, nil, err)
		return
	}
	body, err := h.encode(s)
	if err != nil {
		reply(w, nil, fmt.Errorf("encode snapshot: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // a console that went away is no error of ours
}

func (h *handler) encode(s *Snapshot) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.body != nil && h.seq == s.Seq {
		return h.body, nil
	}
	body, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	h.seq, h.body = s.Seq, body
	return body, nil
}

func (h *handler) log(w http.ResponseWriter, r *http.Request) {
	after, err := strconv.ParseUint(r.URL.Query().Get("after"), 10, 64)
	if err != nil {
		http.Error(w, "after: want a number", http.StatusBadRequest)
		return
	}
	lines, err := h.src.Log(r.Context(), r.URL.Query().Get("name"), after)
	reply(w, lines, err)
}

func (h *handler) spend(w http.ResponseWriter, r *http.Request) {
	var q Query
	if !decode(w, r, &q) {
		return
	}
	rows, err := h.src.Spend(r.Context(), q)
	reply(w, rows, err)
}

func (h *handler) do(w http.ResponseWriter, r *http.Request) {
	var a Action
	if !decode(w, r, &a) {
		return
	}
	reply(w, struct{}{}, h.src.Do(r.Context(), a))
}

func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAction)).Decode(into)
	if err != nil {
		http.Error(w, "read body: "+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

// failure is an error on the wire. Kind keeps what callers branch on.
type failure struct {
	Error string `json:"error"`
	Kind  string `json:"kind,omitempty"`
}

var kinds = []struct {
	kind   string
	err    error
	status int
}{
	{"unknown", ErrUnknown, http.StatusNotFound},
	{"refused", ErrRefused, http.StatusConflict},
}

func reply(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		f, status := failure{Error: err.Error()}, http.StatusInternalServerError
		for _, k := range kinds {
			if errors.Is(err, k.err) {
				f.Kind, status = k.kind, k.status
			}
		}
		w.WriteHeader(status)
		v = f
	}
	_ = json.NewEncoder(w).Encode(v)
}

// ErrInUse says that another engine answers on a socket.
var ErrInUse = errors.New("another engine answers there")

// Listen opens a unix socket for Handler: mode 0600 in a folder that must exist. A socket file
// that nobody answers on is replaced; one that is answered gives ErrInUse.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if len(path) > MaxSocketPath {
		return nil, fmt.Errorf("listen on %s: path is longer than the %d bytes a socket may have", path, MaxSocketPath)
	}
	if _, err := os.Lstat(path); err == nil {
		d := net.Dialer{Timeout: time.Second}
		conn, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			_ = conn.Close()
			return nil, fmt.Errorf("listen on %s: %w", path, ErrInUse)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove stale socket: %w", err)
		}
	}
	// Bound under another name and renamed, so that nobody can connect before the mode is right.
	tmp := filepath.Join(filepath.Dir(path), "."+strconv.Itoa(os.Getpid()))
	_ = os.Remove(tmp)
	ln, err := (&net.ListenConfig{}).Listen(ctx, "unix", tmp)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	err = os.Chmod(tmp, 0o600)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = ln.Close()
		_ = os.Remove(tmp)
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return &socket{Listener: ln, path: path}, nil
}

// MaxSocketPath is the longest path of a unix socket, in bytes, on every system we run on.
const MaxSocketPath = 100

type socket struct {
	net.Listener
	path string
	once sync.Once
}

func (s *socket) Close() error {
	err := s.Listener.Close()
	s.once.Do(func() { _ = os.Remove(s.path) })
	return err
}

// drainBody reads what is left of a body, so that its connection can be used again.
func drainBody(body io.ReadCloser) {
	_, _ = io.Copy(io.Discard, io.LimitReader(body, 64<<10))
	_ = body.Close()
}
