//go:build !linux

package launch

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime"
	"time"
)

var errLinuxOnly = errors.New("servers are started on Linux only, this is " + runtime.GOOS +
	": start vLLM yourself and set \"attach:\" to its URL")

type local struct{}

// Launch says that it needs Linux.
func (l *Local) Launch(_ context.Context, s Spec) (Instance, error) {
	return nil, errors.New("start worker " + s.Name + ": " + errLinuxOnly.Error())
}

// Adopt finds nothing.
func (l *Local) Adopt(context.Context, Spec) (Instance, error) { return nil, nil }

// RunShim says that it needs Linux.
func RunShim(context.Context, []string) int {
	slog.New(slog.NewTextHandler(os.Stderr, nil)).Error(errLinuxOnly.Error())
	return 1
}

// Strays finds nothing.
func Strays() ([]Stray, error) { return nil, nil }

// marked is nothing here.
type marked struct{}

// Census finds nothing.
func (l *Local) Census() (*Census, error) { return &Census{}, nil }

// Who knows nobody.
func (c *Census) Who(int) (Owner, bool) { return Owner{}, false }

// EndStray says that it needs Linux.
func (l *Local) EndStray(int, time.Time) (func(context.Context) error, error) {
	return nil, errLinuxOnly
}

// PortOwner is not told here.
func PortOwner(int) string { return "" }

// Listens sees nobody here.
func Listens(int, []int) error { return nil }
