package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Serve serves ln until ctx ends, then stops: it accepts no more, waits up to grace for what is in
// flight, and cuts the rest, each with an error to its client. With certs it speaks TLS. It
// returns nil after a clean stop.
func (g *Gateway) Serve(ctx context.Context, ln net.Listener, certs *tls.Config, grace time.Duration) error {
	g.once.Do(g.prepare)
	base, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	srv := &http.Server{
		Handler:           g,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		TLSConfig:         certs,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		ConnState:         idle,
		// "OPTIONS *" is no route here.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(g.Log.Handler(), slog.LevelDebug),
		// No WriteTimeout: it would cut a long answer. Each write has its own deadline.
	}
	defer g.client.CloseIdleConnections()
	defer g.wire.close()
	failed := make(chan error, 1)
	ln = corkListener{ln}
	go func() {
		if certs != nil {
			failed <- srv.ServeTLS(ln, "", "")
		} else {
			failed <- srv.Serve(ln)
		}
	}()
	select {
	case err := <-failed:
		return fmt.Errorf("serve %s: %w", ln.Addr(), errors.Join(err, srv.Close()))
	case <-ctx.Done():
	}
	g.draining.Store(true)
	wait, done := context.WithTimeout(base, grace)
	defer done()
	// Calls within this process have no connection: they are waited for by their count.
	if srv.Shutdown(wait) == nil && g.Drain(wait) == nil {
		<-failed //nolint:errcheck // http.ErrServerClosed
		return nil
	}
	g.Log.Warn("grace is over: cutting what is in flight", "requests", g.inFlight.Load())
	cut(errStopping)
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), cutTime)
	defer stop()
	err := errors.Join(g.Drain(last), srv.Close())
	<-failed //nolint:errcheck // http.ErrServerClosed
	return err
}

// cutTime is how long the calls that are cut may take to tell their clients.
const cutTime = 5 * time.Second

// Drain refuses new requests and waits until those in flight have ended, or until ctx ends.
func (g *Gateway) Drain(ctx context.Context) error {
	g.draining.Store(true)
	g.mu.Lock()
	if g.inFlight.Load() == 0 {
		g.mu.Unlock()
		return nil
	}
	if g.idle == nil {
		g.idle = make(chan struct{})
	}
	idle := g.idle
	g.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain with %d requests in flight: %w", g.inFlight.Load(), ctx.Err())
	}
}
