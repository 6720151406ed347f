package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/vllmdeck/vllmdeck/backend"
	"github.com/vllmdeck/vllmdeck/backend/api"
)

// signals turns the signals of an engine's process into orders, from its first moment on: a
// demo that is told to end while it starts must leave nothing behind either.
type signals struct {
	o     engineOptions
	abort context.CancelFunc // of the start
	ch    chan os.Signal
	runs  chan running
	done  chan struct{}
	ended chan struct{}
}

type running struct {
	b   *backend.Backend
	log *slog.Logger
}

// catchSignals begins. abort is called for a signal that comes before there is an engine.
func catchSignals(o engineOptions, abort context.CancelFunc) *signals {
	s := &signals{
		o: o, abort: abort, ch: make(chan os.Signal, 4), runs: make(chan running, 1), done: make(chan struct{}), ended: make(chan struct{}),
	}
	signal.Notify(s.ch, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	go s.loop()
	return s
}

// order directs later signals to an engine.
func (s *signals) order(b *backend.Backend, log *slog.Logger) { s.runs <- running{b, log} }

func (s *signals) stop() {
	signal.Stop(s.ch)
	close(s.done)
	<-s.ended
}

func (s *signals) loop() {
	defer close(s.ended)
	var to running
	stopping := false
	for {
		select {
		case <-s.done:
			return
		case to = <-s.runs:
			if stopping {
				to.b.Stop(s.o.stopWorkers)
			}
		case sig := <-s.ch:
			switch {
			case sig == syscall.SIGHUP && !s.o.demo:
				s.reload(to)
			case stopping && sig == syscall.SIGHUP:
			case stopping:
				if to.log != nil {
					to.log.Warn("engine ends at once", "signal", sig.String())
				}
				os.Exit(exitFailed)
			default: // also the SIGHUP of a demo: its terminal is gone
				stopping = true
				if to.b == nil {
					s.abort()
					continue
				}
				to.log.Info("engine stops", "signal", sig.String(), "stop_workers", s.o.stopWorkers)
				to.b.Stop(s.o.stopWorkers)
			}
		}
	}
}

func (s *signals) reload(to running) {
	if to.b == nil {
		return // its config is being read anyway
	}
	if err := to.b.Do(context.Background(), api.Action{Verb: api.EngineReload}); err != nil {
		to.log.Error("reload refused", "error", err)
	}
}
