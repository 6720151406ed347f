package sim

import (
	"fmt"
	"io"
	"os"
	"time"
)

// Version is the vLLM version that is played.
const Version = "0.32.0"

// Options is what a simulated server is like. The zero value is a server that is ready at once
// and plays with the defaults below.
type Options struct {
	Model string   // path or hub name; default "simulated"
	Names []string // served names, the first labels the metrics and the answers; default Model
	Seed  int64    // of texts and timings

	Start time.Duration // from Serve to the first accepted connection
	TTFT  time.Duration // mean time to first token of a short prompt on an idle server; default 60ms
	ITL   time.Duration // mean time between tokens on an idle server; default 12ms

	MaxSeqs   int // sequences in the running batch; default 32
	MaxLen    int // context, tokens; default 8192
	KVTokens  int // KV cache, tokens; default MaxLen x MaxSeqs/4, never under MaxLen
	MaxQueued int // running and waiting requests before a 503; 0 is unbounded

	ShutdownTimeout time.Duration // Drain lets requests finish for so long; 0 aborts them
	DevMode         bool          // VLLM_SERVER_DEV_MODE=1: the routes of sleep mode
	Faults          []Fault
	APIKey          string // guards /v1; "" for none

	Log io.Writer // vLLM's stdout; nil discards
	Err io.Writer // vLLM's stderr; nil discards

	Addr      string // shown in the start-up log; default http://127.0.0.1:8000
	PID       int    // of the API server, for log prefixes; default this process
	EnginePID int    // of the engine, for log prefixes; default PID+1
	Crash     func() // what a crash fault does; default Die
}

const (
	blockSize    = 16   // tokens in a KV block, vLLM's default on a GPU
	batchedTok   = 2048 // tokens in one step, vLLM's default --max-num-batched-tokens
	maxN         = 16384
	maxStops     = 4 // VLLM_MAX_STOP_STRINGS
	keepAlive    = 5 * time.Second
	statsEvery   = 10 * time.Second
	deathNotice  = 2500 * time.Millisecond // engine death to exit, measured on 0.32
	abortNotice  = 400 * time.Millisecond  // SIGTERM without a drain to exit, measured on 0.32
	maxTeardown  = 6 * time.Second         // last request of a drain to exit, measured 6 to 10 s
	maxBodyBytes = 64 << 20
)

func (o Options) withDefaults() Options {
	if o.Model == "" {
		o.Model = "simulated"
	}
	if len(o.Names) == 0 {
		o.Names = []string{o.Model}
	}
	def := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&o.TTFT, 60*time.Millisecond)
	def(&o.ITL, 12*time.Millisecond)
	if o.MaxSeqs <= 0 {
		o.MaxSeqs = 32
	}
	if o.MaxLen <= 0 {
		o.MaxLen = 8192
	}
	if o.KVTokens <= 0 {
		o.KVTokens = o.MaxLen * max(1, o.MaxSeqs/4)
	}
	o.KVTokens = (max(o.KVTokens, o.MaxLen) + blockSize - 1) / blockSize * blockSize
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.Err == nil {
		o.Err = io.Discard
	}
	if o.Addr == "" {
		o.Addr = "http://127.0.0.1:8000"
	}
	if o.PID == 0 {
		o.PID = os.Getpid()
	}
	if o.EnginePID == 0 {
		o.EnginePID = o.PID + 1
	}
	return o
}

// teardown is how long a drained server takes to leave after its last request: vLLM's 6 s,
// shortened for servers that also start faster than vLLM.
func (o Options) teardown() time.Duration {
	return min(maxTeardown, max(200*time.Millisecond, 2*o.Start))
}

// ExitError is a server that ended as vLLM's process does: with an exit status.
type ExitError struct {
	Code int
	Msg  string // last line of its log
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("simulated vLLM exits with %d: %s", e.Code, e.Msg)
}
