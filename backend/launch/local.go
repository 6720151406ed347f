package launch

import "log/slog"

// Local starts servers on this host, each under a shim of its own that outlives the engine.
// Its fields are set before use and not changed after.
type Local struct {
	// Shim is the command that runs RunShim: this program's path and "shim". The worker's
	// name is appended, for ps.
	Shim []string
	// Secrets names variables of our environment that hold secrets, whatever their names look
	// like, as of the config of now; nil: none. Servers do not inherit them, nor what looks like a secret (see cleanEnv).
	Secrets func() []string
	// Runtime is the folder for control sockets whose path in the worker's folder would be
	// too long; "" for $XDG_RUNTIME_DIR/vllmdeck, else /tmp/vllmdeck-UID.
	Runtime string
	Log     *slog.Logger

	local
}

// Stray is a process of a server that nobody looks after: it may hold GPU memory for ever.
type Stray struct {
	PID    int
	Name   string  // as in ps, cut to 15 bytes
	Worker string  // who started it: NAME/RANDOM, "" if it was not an engine of ours
	Age    float64 // seconds
	RSS    int64   // bytes
}
