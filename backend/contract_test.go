package backend

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/api/apitest"
)

func TestTheEngineKeepsTheContract(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.allReady()
	if status, text := r.chat(3); status != http.StatusOK {
		t.Fatalf("HTTP %d: %s", status, text)
	}
	apitest.Source(t, r.Backend, "w0")
}

func TestTheEngineBehindItsSocketKeepsTheContract(t *testing.T) {
	t.Parallel()
	r := newRig(t, 1)
	r.allReady()
	dir, err := os.MkdirTemp("", "vd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "engine.sock")
	ln, err := api.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: api.Handler(r.Backend, "1.2.3")}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(ln) }()
	defer func() { _ = srv.Close(); <-done }()
	c, err := api.Dial("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	apitest.Source(t, c, "w0")
}
