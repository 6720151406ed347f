package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server is one simulated vLLM server. It serves once.
type Server struct {
	o           Options
	m           *metrics
	e           *engine
	log         *logger
	fingerprint string
	routes      map[string]route

	diceMu   sync.Mutex
	diceRand *rand.Rand

	died     chan struct{} // closed by Die
	dieOnce  sync.Once
	drained  chan struct{} // closed by Drain
	drainOne sync.Once
	ready    atomic.Pointer[time.Time]

	closeMu  sync.Mutex
	closing  bool
	handlers sync.WaitGroup // no Add once closing
}

// New makes a server. It does nothing before Serve.
func New(o Options) *Server {
	o = o.withDefaults()
	m := newMetrics(o)
	s := &Server{
		o: o, m: m, e: newEngine(o, m), log: newLogger(o),
		fingerprint: fmt.Sprintf("vllm-%s-%08x", Version, uint32(textKey(int64(o.MaxLen), nil, o.Model))),
		diceRand:    rand.New(rand.NewPCG(uint64(o.Seed), 0xd1ce)),
		died:        make(chan struct{}), drained: make(chan struct{}),
	}
	s.routes = s.table()
	return s
}

// Die ends the engine, as its death does: streams get an error event and [DONE], everything
// after is HTTP 500, /health is 503, and Serve ends about 2.5 s later without an error, because
// vLLM exits with 0.
func (s *Server) Die() { s.dieOnce.Do(func() { close(s.died) }) }

// Freeze stops the engine between two steps, as SIGSTOP does, until it is called with false:
// /health stays 200, streams fall silent, counters stand still.
func (s *Server) Freeze(on bool) { s.e.freeze(on) }

// Drain does what SIGTERM does. With a ShutdownTimeout running requests finish, new ones get
// HTTP 500, /health stays 200, and Serve ends some time after the last request; without one
// everything is aborted at once. Before the server is ready it is ignored, as vLLM does.
func (s *Server) Drain() {
	if s.ready.Load() == nil {
		return
	}
	s.drainOne.Do(func() { close(s.drained) })
}

// Ready says whether the server accepts connections.
func (s *Server) Ready() bool { return s.ready.Load() != nil }

func (s *Server) crash() {
	if s.o.Crash != nil {
		s.o.Crash()
		return
	}
	s.Die()
}

// Serve starts up, then answers on ln until the server has been drained, its engine has died,
// or ctx ends, which cuts all connections as a SIGKILL does. It closes ln and leaves nothing
// running. A start that fails gives an *ExitError; all other ends are nil. A listener with a
// method Open (Listen, Bind) refuses connections until the server is ready.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	defer ln.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if err := s.startUp(ctx); err != nil {
		return err
	}
	if o, ok := ln.(opener); ok {
		if err := o.Open(); err != nil {
			s.log.trace(portTaken...)
			return &ExitError{1, err.Error()}
		}
	}
	now := time.Now()
	s.ready.Store(&now)

	var own sync.WaitGroup
	defer own.Wait()
	defer stop()
	own.Go(func() { s.e.run(ctx) })
	own.Go(func() { s.statsLines(ctx) })

	srv := &http.Server{
		Handler:     s,
		IdleTimeout: keepAlive, // uvicorn's --timeout-keep-alive
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    log.New(io.Discard, "", 0),
	}
	served := make(chan error, 1)
	own.Go(func() { served <- srv.Serve(ln) })

	err := s.untilEnd(ctx, served)
	ln.Close()
	srv.Close()
	stop()
	s.closeMu.Lock()
	s.closing = true
	s.closeMu.Unlock()
	s.handlers.Wait()
	return err
}

// enter counts a handler in; false: the server is closing.
func (s *Server) enter() bool {
	s.closeMu.Lock()
	defer s.closeMu.Unlock()
	if s.closing {
		return false
	}
	s.handlers.Add(1)
	return true
}

// untilEnd waits for whatever ends the server and plays it.
func (s *Server) untilEnd(ctx context.Context, served <-chan error) error {
	var crash <-chan time.Time
	if f := s.o.fault("crash-after"); f != nil {
		t := time.NewTimer(f.Dur)
		defer t.Stop()
		crash = t.C
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-served:
			if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept connections: %w", err)
		case <-crash:
			crash = nil
			s.crash()
		case <-s.died:
			s.log.engineDied()
			s.e.die()
			wait(ctx, deathNotice)
			s.log.goodbye()
			return nil
		case <-s.drained:
			s.shutDown(ctx)
			return nil
		}
	}
}

func (s *Server) shutDown(ctx context.Context) {
	limit := s.o.ShutdownTimeout
	s.log.shutdownStart(limit)
	if limit <= 0 {
		s.log.aborted()
		s.e.die()
		wait(ctx, abortNotice)
		s.log.shutdownEnd()
		return
	}
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	select {
	case <-s.e.drain():
		s.log.idle()
		t := time.NewTimer(s.o.teardown())
		defer t.Stop()
		select {
		case <-t.C:
		case <-deadline.C:
		case <-s.died:
		case <-ctx.Done():
		}
	case <-s.died:
	case <-ctx.Done():
		return
	case <-deadline.C:
	}
	s.e.die()
	wait(ctx, min(abortNotice, limit))
	s.log.shutdownEnd()
}

// wait sleeps unless ctx ends first.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// statsLines writes the line that vLLM logs every 10 s, unless it was idle twice in a row.
func (s *Server) statsLines(ctx context.Context) {
	tick := time.NewTicker(statsEvery)
	defer tick.Stop()
	var lastPrompt, lastGen float64
	wasIdle := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.m.mu.Lock()
		prompt, gen := s.m.prompt-s.m.cachedP, s.m.generated
		running, waiting, kv, hit := s.m.running, s.m.waiting, s.m.kvUsage, s.m.hitRate.percent()
		s.m.mu.Unlock()
		idle := prompt == lastPrompt && gen == lastGen && running == 0 && waiting == 0
		if !idle || !wasIdle {
			sec := statsEvery.Seconds()
			s.log.stats((prompt-lastPrompt)/sec, (gen-lastGen)/sec, running, waiting, 100*kv, hit)
		}
		wasIdle, lastPrompt, lastGen = idle, prompt, gen
	}
}
