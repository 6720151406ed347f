package launch

import (
	"context"
	"errors"
	"time"
)

// ErrNotOurs is returned where a server would have to be ended that was not started here.
var ErrNotOurs = errors.New("attached server: it was not started here, so it is not ended here")

// Spec is what to start. It holds no secret in Argv.
type Spec struct {
	Name    string            // of the worker: [a-z0-9-]
	Kind    string            // vllm, attach or sim
	Argv    []string          // command line; empty for attach
	Env     []string          // NAME=value, added to a cleaned environment of ours; may hold secrets
	Dir     string            // working directory; "" for the worker's own folder
	URL     string            // base URL it will answer at
	Port    int               // that must be free before the start; 0: none
	Folder  string            // the worker's own folder in the state folder, 0700: records, socket, logs
	LogSize int64             // bytes before the log rotates
	LogKeep int               // rotated logs kept, at least one: the log of the start before
	Lease   string            // file whose lock (flock) the owner holds: when it is gone, tree and records go; "" for none
	Cleanup string            // folder around Folder and Lease, removed with all in it once the lease is lost; "" for none
	Labels  map[string]string // kept in the record, for the next engine: model, command hash …
}

// Launcher starts servers somewhere.
type Launcher interface {
	// Launch starts a server and returns once its process exists (attach: at once). Errors
	// name what was missing and what mends it; nothing is left running after an error.
	Launch(ctx context.Context, s Spec) (Instance, error)
	// Adopt takes hold of a server that an earlier engine started with this Spec's Folder.
	// It returns nil and no error if there is none alive; what a dead shim left running is
	// ended first. The Spec of the earlier start is in Instance.Spec.
	Adopt(ctx context.Context, s Spec) (Instance, error)
}

// Instance is one started server.
type Instance interface {
	// Spec is what it was started with, but of local servers without Env and with Argv
	// redacted, as the record on disk keeps it.
	Spec() Spec
	// PID of the server's first process; 0 for attached servers.
	PID() int
	// Started is when the process started, by the shim's record; for an attached server, whose
	// start nobody saw, when it was attached.
	Started() time.Time
	// Done is closed when the server has ended and its whole process tree is gone. For an
	// attached server, whose end nobody sees, it is closed by Close.
	Done() <-chan struct{}
	// Exit says how it ended; valid once Done is closed.
	Exit() Exit
	// Terminate sends SIGTERM to the server's first process alone (vLLM drains; a vLLM that
	// loads swallows it). Nil if the server has ended already.
	Terminate() error
	// Kill ends the whole tree at once and returns when it is verified gone, or with an error
	// that names the pids that stay. Attached servers: ErrNotOurs.
	Kill(ctx context.Context) error
	// Tree lists the live processes of the server, first the leader. It is cheap enough for
	// every tick; a process that was born later than that shows within 4 seconds.
	Tree() []Process
	// LogPath is the file that the server's stdout and stderr go to, empty at each start;
	// older ones are LogPath.1, .2 and so on. "" for attached servers.
	LogPath() string
	// Close lets go of the instance without ending it.
	Close() error
}

// Exit is how a server ended.
type Exit struct {
	Code   int       // exit status; -1 if it was killed by a signal or is not known
	Signal string    // e.g. "killed"; "" for none
	At     time.Time // zero: not known
	Known  bool      // false: the shim died first
}

// Process is one process of a server's tree.
type Process struct {
	PID     int
	Name    string  // as in ps, cut by the kernel to 15 bytes: VLLM::EngineCor
	RSS     int64   // bytes
	CPUTime float64 // seconds used so far
}
