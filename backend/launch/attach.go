package launch

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Attach takes hold of servers that run already, by their URL. It starts and ends nothing.
type Attach struct{}

// Launch returns an Instance for s.URL at once: whether a server answers there is for who
// asks it to find out.
func (Attach) Launch(_ context.Context, s Spec) (Instance, error) {
	if s.URL == "" {
		return nil, errors.New(`attach ` + s.Name + `: it has no URL: set "attach:" of the worker`)
	}
	return &attached{spec: s, since: time.Now(), done: make(chan struct{})}, nil
}

// Adopt finds nothing: an attached server is no engine's child.
func (Attach) Adopt(context.Context, Spec) (Instance, error) { return nil, nil }

type attached struct {
	spec  Spec
	since time.Time
	done  chan struct{}
	once  sync.Once
}

func (a *attached) Spec() Spec                 { return a.spec }
func (a *attached) PID() int                   { return 0 }
func (a *attached) Started() time.Time         { return a.since }
func (a *attached) Done() <-chan struct{}      { return a.done }
func (a *attached) Exit() Exit                 { return Exit{Code: -1} }
func (a *attached) Terminate() error           { return ErrNotOurs }
func (a *attached) Kill(context.Context) error { return ErrNotOurs }
func (a *attached) Tree() []Process            { return nil }
func (a *attached) LogPath() string            { return "" }

func (a *attached) Close() error {
	a.once.Do(func() { close(a.done) })
	return nil
}
