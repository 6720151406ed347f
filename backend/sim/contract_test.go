package sim_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/sim"
	"github.com/vllmdeck/vllmdeck/backend/sim/simtest"
)

func TestContractSimulated(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ln := sim.Listen()
	srv := sim.New(sim.Options{Model: "/models/tiny", Names: []string{"tiny"}, TTFT: 4 * time.Millisecond, ITL: time.Millisecond, MaxLen: 1024, MaxSeqs: 8, DevMode: true, Log: io.Discard})
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx, ln) }()
	c := ln.Client()
	simtest.WaitReady(t, c, "http://sim")
	simtest.Contract(t, simtest.Target{BaseURL: "http://sim", Model: "tiny", Client: c, Simulated: true})
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve = %v", err)
	}
	c.CloseIdleConnections()
}

// TestContractReal runs against a vLLM server that somebody started, with
// --enable-prompt-tokens-details and --enable-request-id-headers.
func TestContractReal(t *testing.T) {
	url, model := os.Getenv("VLLMDECK_REAL_URL"), os.Getenv("VLLMDECK_REAL_MODEL")
	if url == "" || model == "" {
		t.Skip("NOT CHECKED AGAINST A REAL vLLM: set VLLMDECK_REAL_URL and VLLMDECK_REAL_MODEL")
	}
	c := &http.Client{Transport: &http.Transport{DisableCompression: true}}
	defer c.CloseIdleConnections()
	simtest.Contract(t, simtest.Target{BaseURL: url, Model: model, Client: c})
}
