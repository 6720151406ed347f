package launch

import (
	"log/slog"
	"os/user"
	"strconv"
	"sync"
	"time"
)

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
	// Buried is told when processes that a dead shim had left in a worker's folder were ended before
	// an adoption or a start; nil: nobody.
	Buried func(worker string, processes int)

	local
}

// Stray is a process of a server that nobody looks after: it may hold GPU memory for ever.
type Stray struct {
	PID     int
	Name    string    // as in ps, cut to 15 bytes
	Worker  string    // who started it: NAME/RANDOM, "" if it was not an engine of ours
	Started time.Time // the same in every list of one Local
	Age     float64   // seconds
	RSS     int64     // bytes
}

// Census is one look at the processes of the host.
type Census struct {
	Strays []Stray
	// Lost are workers whose folder was removed while they run: no later engine can take them over.
	Lost []string

	marked
}

// Owner is whose a process is.
type Owner struct {
	Name    string // of the process, as in ps
	User    string // "" where it is not known
	Worker  string // of this launcher that it belongs to
	Stray   bool   // see Strays
	Preload bool   // "vllm preload", which keeps weights in GPU memory across restarts on purpose
}

// users are names by user id; they hardly change.
var users sync.Map

// userName gives the name of a user; its number where it has none.
func userName(uid int) string {
	if uid < 0 {
		return ""
	}
	if name, ok := users.Load(uid); ok {
		return name.(string) //nolint:forcetypeassert // nothing else is stored
	}
	id := strconv.Itoa(uid)
	name := "uid " + id
	if u, err := user.LookupId(id); err == nil && u.Username != "" {
		name = u.Username
	}
	users.Store(uid, name)
	return name
}
