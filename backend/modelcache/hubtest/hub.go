package hubtest

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Hub is a hub with a CDN beside it. Fields are set before it is asked.
type Hub struct {
	URL string // for HF_ENDPOINT

	Token  string // that gated models ask for; "" for none
	Gated  bool   // every model is
	Ranges bool   // the CDN takes ranges; set by New
	// Body sends a large file's bytes from an offset on; nil: all of them.
	Body func(w http.ResponseWriter, file string, part []byte)
	// Busy answers so many requests for files with HTTP 503 first.
	Busy int

	t      *testing.T
	mu     sync.Mutex
	models map[string]map[string][]byte
	gets   []string // "FILE from OFFSET", of the CDN
	cdn    string
}

// Commit is the one commit of every model.
const Commit = "0123456789abcdef0123456789abcdef01234567"

// New starts a hub; the test's end stops it.
func New(t *testing.T) *Hub {
	t.Helper()
	h := &Hub{t: t, Ranges: true, models: map[string]map[string][]byte{}}
	front := httptest.NewServer(http.HandlerFunc(h.front))
	cdn := httptest.NewServer(http.HandlerFunc(h.back))
	t.Cleanup(front.Close)
	t.Cleanup(cdn.Close)
	h.URL, h.cdn = front.URL, cdn.URL
	return h
}

// Add gives the hub a model.
func (h *Hub) Add(name string, files map[string][]byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.models[name] = files
}

// AddFolder gives the hub a model whose files are those of a folder.
func (h *Hub) AddFolder(name, dir string) {
	h.t.Helper()
	files := map[string][]byte{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Type().IsRegular() {
			if files[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
				h.t.Fatal(err)
			}
		}
	}
	h.Add(name, files)
}

// Gets lists what was read of large files, as "FILE from OFFSET".
func (h *Hub) Gets() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.gets...)
}

// large says whether a file lies on the CDN, with its sha256 as ETag.
func large(name string) bool {
	return strings.HasSuffix(name, ".safetensors") || strings.HasSuffix(name, ".bin") || name == "tokenizer.json"
}

// ETag is what the hub calls a file's contents.
func ETag(name string, data []byte) string {
	if large(name) {
		sum := sha256.Sum256(data)
		return hex.EncodeToString(sum[:])
	}
	sum := sha1.Sum(append([]byte("blob "+strconv.Itoa(len(data))+"\x00"), data...))
	return hex.EncodeToString(sum[:])
}

func (h *Hub) front(w http.ResponseWriter, r *http.Request) {
	api := strings.HasPrefix(r.URL.Path, "/api/models/")
	path := strings.TrimPrefix(strings.TrimPrefix(r.URL.Path, "/api/models"), "/")
	name, rest, _ := strings.Cut(path, map[bool]string{true: "/revision/", false: "/resolve/"}[api])
	h.mu.Lock()
	files, known := h.models[name]
	busy := !api && h.Busy > 0
	if busy {
		h.Busy--
	}
	h.mu.Unlock()
	refuse := func(status int, code string) {
		w.Header().Set("X-Error-Code", code)
		w.WriteHeader(status)
	}
	switch auth := r.Header.Get("Authorization"); {
	case !known && auth == "":
		refuse(http.StatusUnauthorized, "RepoNotFound")
		return
	case !known:
		refuse(http.StatusNotFound, "RepoNotFound")
		return
	case auth != "" && auth != "Bearer "+h.Token:
		refuse(http.StatusUnauthorized, "")
		return
	case h.Gated && auth == "" && !api:
		refuse(http.StatusUnauthorized, "GatedRepo")
		return
	case busy:
		refuse(http.StatusServiceUnavailable, "")
		return
	}
	if api {
		if rest != "main" && rest != Commit {
			refuse(http.StatusNotFound, "RevisionNotFound")
			return
		}
		type sibling struct {
			Name string `json:"rfilename"`
		}
		var list []sibling
		for f := range files {
			list = append(list, sibling{f})
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"id": name, "sha": Commit, "siblings": list})
		return
	}
	_, file, _ := strings.Cut(rest, "/")
	data, ok := files[file]
	if !ok {
		refuse(http.StatusNotFound, "EntryNotFound")
		return
	}
	w.Header().Set("X-Repo-Commit", Commit)
	if large(file) {
		w.Header().Set("X-Linked-Size", strconv.Itoa(len(data)))
		w.Header().Set("X-Linked-Etag", `"`+ETag(file, data)+`"`)
		w.Header().Set("Location", h.cdn+"/"+name+"/"+file+"?Signature=secret")
		w.WriteHeader(http.StatusFound)
		return
	}
	w.Header().Set("ETag", `W/"`+ETag(file, data)+`"`)
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(data)))
}

func (h *Hub) back(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "" {
		h.t.Error("the token was sent to the CDN")
	}
	if r.URL.Query().Get("Signature") != "secret" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	h.mu.Lock()
	var data []byte
	file := ""
	for name, files := range h.models {
		if f, ok := strings.CutPrefix(path, name+"/"); ok {
			data, file = files[f], f
		}
	}
	at := 0
	if ask := r.Header.Get("Range"); ask != "" && h.Ranges {
		_, _ = fmt.Sscanf(ask, "bytes=%d-", &at)
	}
	h.gets = append(h.gets, fmt.Sprintf("%s from %d", file, at))
	body := h.Body
	h.mu.Unlock()
	if at > len(data) {
		w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		return
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(data)-at))
	if at > 0 {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, len(data)-1, len(data)))
		w.WriteHeader(http.StatusPartialContent)
	}
	if body != nil {
		body(w, file, data[at:])
		return
	}
	_, _ = w.Write(data[at:])
}
