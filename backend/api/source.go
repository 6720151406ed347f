package api

import (
	"context"
	"errors"
	"time"
)

// Source is where a console reads state and sends orders. The engine implements it in-process,
// Client over a socket; a console cannot tell which one it was given.
type Source interface {
	// Snapshot gives the latest published state. It must not be changed by the caller.
	Snapshot(ctx context.Context) (*Snapshot, error)
	// Log gives the lines after a cursor of a worker's log (its name), the engine's own log
	// ("engine"), the text of a prompt test ("prompt/ID"), the last lines of a crashed worker
	// ("crash/ID") or the whole crash book ("crashes": a Crash a line as JSON, oldest first). At
	// most 2,000 lines a call; with after 0 the newest ones, of a prompt test the first. ErrUnknown
	// if there is no such log.
	Log(ctx context.Context, name string, after uint64) ([]Line, error)
	// Spend gives history from the ledger, grouped as the query asks.
	Spend(ctx context.Context, q Query) ([]Row, error)
	// Do carries out one order. It returns once the order is accepted or refused; what comes
	// of it shows in later snapshots.
	Do(ctx context.Context, a Action) error
}

// Errors that callers branch on; they survive the socket.
var (
	// ErrUnknown says that no worker, model, log or verb has this name.
	ErrUnknown = errors.New("unknown")
	// ErrRefused says that the order makes no sense in this state, e.g. draining a stopped worker.
	ErrRefused = errors.New("refused")
	// ErrAway says that the engine does not answer.
	ErrAway = errors.New("engine does not answer")
)

// Verb names an order.
type Verb string

// The orders an engine takes.
const (
	WorkerStart   Verb = "worker.start"   // Target: worker; Args["gate"]="off": without waiting for its GPUs
	WorkerStop    Verb = "worker.stop"    // Target: worker; unroute, wait, SIGTERM, tree gone
	WorkerRestart Verb = "worker.restart" // Target: worker; stop, then start
	WorkerDrain   Verb = "worker.drain"   // Target: worker; unroute, wait for requests, keep the process
	WorkerResume  Verb = "worker.resume"  // Target: worker; routes to a drained worker again
	PromptSend    Verb = "prompt.send"    // ID: chosen by the caller; Target: model; Text: the prompt
	PromptCancel  Verb = "prompt.cancel"  // Target: the ID
	EngineStop    Verb = "engine.stop"    // Args["workers"]: "stop" (default) or "keep"
	EngineRestart Verb = "engine.restart" // drains, then runs the binary anew; workers are kept
	EngineReload  Verb = "engine.reload"  // reads the config again
	KeyCreate     Verb = "keys.create"    // ID: of the key; Target: its name; Args: hash, expires, created and the limits as package keys writes them
	KeySet        Verb = "keys.set"       // Target: key; Args: the limits that change
	KeyRotate     Verb = "keys.rotate"    // Target: key; Args["hash"]: of its new text; Args["until"]: the old one is good until then
	KeyRevoke     Verb = "keys.revoke"    // Target: key; Args["forget"]="true": no trace of it is kept
)

// Action is one order to the engine.
type Action struct {
	Verb   Verb              `json:"verb"`
	ID     string            `json:"id,omitempty"`     // names what the order creates; 1 to 64 of [A-Za-z0-9_-]
	Target string            `json:"target,omitempty"` // what it acts on
	Text   string            `json:"text,omitempty"`   // free text, e.g. a prompt
	Args   map[string]string `json:"args,omitempty"`   // the rest; prompt.send: max_tokens, temperature, system
}

// Line is one line of a log, or one piece of a prompt test's text. Text is as the worker or
// model wrote it: whoever shows it must sanitise it first.
type Line struct {
	Seq   uint64    `json:"seq"` // rises by one per line within a log; the cursor of Source.Log
	Time  time.Time `json:"time,omitzero"`
	Level string    `json:"level,omitempty"` // debug, info, warning, error; "" where the line has none
	Text  string    `json:"text"`
}

// Query asks for history from the ledger.
type Query struct {
	From time.Time `json:"from,omitzero"` // inclusive; zero: from the first row
	To   time.Time `json:"to,omitzero"`   // exclusive; zero: to now
	By   []string  `json:"by,omitempty"`  // of model, worker, class, key, route, outcome, day, hour; none: one row
}

// Row is one group of a Query's answer.
type Row struct {
	Labels      map[string]string `json:"labels,omitempty"` // one per Query.By
	Requests    int64             `json:"requests"`
	Interrupted int64             `json:"interrupted"` // of Requests, those whose end was lost in a crash
	Usage       Usage             `json:"usage"`
	Unmetered   int64             `json:"unmetered"`      // of Requests, those whose usage is unknown
	Actual      *Nanos            `json:"actual_usd"`     // nil: unknown for at least one request
	Would       *Nanos            `json:"would_have_usd"` // at the baseline; nil: unknown
	Simulated   bool              `json:"simulated,omitempty"`
}
