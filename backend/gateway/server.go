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
	srv := g.server(base, certs)
	defer g.client.CloseIdleConnections()
	defer g.wire.close()
	failed := make(chan error, 1)
	var quick *lane // nil with TLS
	if certs == nil {
		quick = newLane(base, g, ln)
		ln = quick
	} else {
		ln = corkListener{ln}
	}
	go func() {
		if certs == nil {
			failed <- srv.Serve(ln)
		} else {
			failed <- srv.ServeTLS(ln, "", "")
		}
	}()
	select {
	case err := <-failed:
		cut(nil)
		quick.cut(base)
		return fmt.Errorf("serve %s: %w", ln.Addr(), errors.Join(err, srv.Close()))
	case <-ctx.Done():
	}
	g.draining.Store(true)
	wait, done := context.WithTimeout(base, grace)
	defer done()
	// Calls within this process have no connection: they are waited for by their count.
	quick.stop()
	if srv.Shutdown(wait) == nil && quick.wait(wait) == nil && g.Drain(wait) == nil {
		<-failed //nolint:errcheck // http.ErrServerClosed
		return nil
	}
	g.Log.Warn("grace is over: cutting what is in flight", "requests", g.inFlight.Load())
	cut(errStopping)
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), cutTime)
	defer stop()
	err := g.Drain(last)
	quick.cut(last)
	err = errors.Join(err, srv.Close())
	<-failed //nolint:errcheck // http.ErrServerClosed
	return err
}

// server is net/http's part of Serve, whose requests have the context base.
func (g *Gateway) server(base context.Context, certs *tls.Config) *http.Server {
	return &http.Server{
		Handler:           g,
		ReadHeaderTimeout: firstWait,
		IdleTimeout:       idleWait,
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
