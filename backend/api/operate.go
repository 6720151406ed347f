package api

import "time"

// Fix is a diagnosis' remedy as a change of a worker's command line and environment: WorkerFix carries it out.
type Fix struct {
	Set     []string `json:"set,omitempty"`   // arguments as "--flag=value" or "--flag"; they replace the same flag
	Unset   []string `json:"unset,omitempty"` // flags that go, e.g. "--enable-sleep-mode"; ours too
	Env     []string `json:"env,omitempty"`   // "NAME=value" of its environment
	Command []string `json:"command"`         // the whole command line as it would be, secrets redacted
	Why     string   `json:"why"`             // what it is to mend, one sentence
}

// Crash is an entry of the crash book: an end of a worker that nobody asked for, or a start that
// failed. It is kept for ever. Its last log lines are Source.Log("crash/"+ID).
type Crash struct {
	ID      string    `json:"id"`
	Worker  string    `json:"worker"`
	Model   string    `json:"model"`
	Time    time.Time `json:"time"`              // of the end
	Up      Span      `json:"up_seconds"`        // how long the process had lived
	Phase   string    `json:"phase,omitempty"`   // it was in, where it failed to start
	Exit    string    `json:"exit"`              // "exit 1", "signal: killed"
	Cause   string    `json:"cause"`             // as Worker.Error
	Remedy  string    `json:"remedy,omitempty"`  // as Worker.Remedy
	Lines   int       `json:"lines"`             // log lines that are kept of it
	Version string    `json:"version,omitempty"` // of vLLM
	Command []string  `json:"command,omitempty"` // as run, secrets redacted; not in a Snapshot, which has its texts cut too
}

// Stray is a process of a vLLM server that nobody looks after; it may hold GPU memory for ever.
// StrayEnd ends it. Processes on a GPU that are neither ours nor strays are in GPU.Processes.
type Stray struct {
	PID     int       `json:"pid"`
	Name    string    `json:"name"`             // as in ps, cut to 15 bytes
	Worker  string    `json:"worker,omitempty"` // of ours that it was part of; "": not known
	Started time.Time `json:"started"`
	RSS     int64     `json:"rss_bytes"`
	GPU     int64     `json:"gpu_memory_bytes,omitempty"` // over all cards; 0: none, or not known
}

// GPUProcess is a process that holds memory of a card.
type GPUProcess struct {
	PID    int    `json:"pid"`
	Name   string `json:"name"`
	User   string `json:"user,omitempty"`
	Memory *int64 `json:"memory_bytes"`     // nil: the driver does not say (containers, MIG)
	Worker string `json:"worker,omitempty"` // of ours that it belongs to
	Stray  bool   `json:"stray,omitempty"`  // see Stray; neither this nor Worker: a stranger

	Preload bool `json:"preload,omitempty"` // "vllm preload": it keeps weights for workers on purpose
}

// Xid is an error that NVIDIA's driver has written to the kernel's log.
type Xid struct {
	Time time.Time `json:"time"`
	Code int       `json:"code"`
	Text string    `json:"text"`          // what the code means
	PID  int       `json:"pid,omitempty"` // of the process it hit
}

// Advice says that a worker or model could do better, and which setting does it.
type Advice struct {
	Rule   string    `json:"rule"`             // name of the row that it comes from
	Worker string    `json:"worker,omitempty"` // "": of the model as a whole
	Model  string    `json:"model"`
	Since  time.Time `json:"since"`
	Text   string    `json:"text"`          // what was seen, with its figures
	Remedy string    `json:"remedy"`        // what to change and why
	Fix    *Fix      `json:"fix,omitempty"` // the same as an order; nil: there is no one flag
}

// Roll is a rolling restart of a model's workers: one after the other is drained, restarted and
// ready before the next.
type Roll struct {
	Model   string    `json:"model"`
	Started time.Time `json:"started"`
	Workers []string  `json:"workers"`         // in order
	Done    int       `json:"done"`            // of Workers
	State   string    `json:"state"`           // running, done, failed, cancelled
	Error   string    `json:"error,omitempty"` // why it stopped
}

// Cache is the Hugging Face cache of this host. It is read anew every minute and after each change.
type Cache struct {
	Path      string       `json:"path"` // the hub folder
	Size      int64        `json:"size_bytes"`
	Free      int64        `json:"free_bytes"`        // on its disk
	Offline   bool         `json:"offline,omitempty"` // HF_HUB_OFFLINE is set: nothing is downloaded
	Models    []CacheModel `json:"models"`            // by name; at most 100
	Downloads []Download   `json:"downloads,omitempty"`
	Error     string       `json:"error,omitempty"` // why it cannot be read
}

// CacheModel is one model of the cache.
type CacheModel struct {
	Name     string    `json:"name"`                    // as on the hub, e.g. Qwen/Qwen3-8B
	Size     int64     `json:"size_bytes"`              // 0: a worker needs it, and it is not there
	Revision string    `json:"revision,omitempty"`      // that main points to
	Used     time.Time `json:"used,omitzero"`           // last read of one of its files, as far as the file system tells
	Workers  []string  `json:"workers,omitempty"`       // of the config that need it
	Missing  []string  `json:"missing,omitempty"`       // files that its index lists and that are not there; at most 8
	Partial  int64     `json:"partial_bytes,omitempty"` // of downloads that were broken off
	Path     string    `json:"path,omitempty"`          // hub folder of a worker's own, where it is not Cache.Path
}

// Download is one model on its way into the cache.
type Download struct {
	Name    string    `json:"name"`
	State   string    `json:"state"` // running, done, failed, cancelled
	Started time.Time `json:"started"`
	Size    int64     `json:"size_bytes"` // 0: not known yet
	Done    int64     `json:"done_bytes"`
	Rate    float64   `json:"bytes_per_second"`
	File    string    `json:"file,omitempty"` // that is being fetched
	Error   string    `json:"error,omitempty"`
}

// The orders of an operator beside those of Source.
const (
	WorkerFix   Verb = "worker.fix"   // Target: worker; Args: set, unset and env, as in Fix, one a line; none: its own Fix. (Re)starts it
	WorkerUnfix Verb = "worker.unfix" // Target: worker; what the config says again. (Re)starts it
	WorkerSleep Verb = "worker.sleep" // Target: worker; Args["level"]: 1 or 2; none: that of the config
	WorkerWake  Verb = "worker.wake"  // Target: worker
	ModelRoll   Verb = "model.roll"   // Target: model; a rolling restart. Args["alone"]="true": also of the only worker that serves it
	ModelUnroll Verb = "model.unroll" // Target: model; ends a rolling restart after the present worker
	StrayEnd    Verb = "stray.end"    // Target: pid; Args["started"]: Stray.Started as RFC 3339 with nanoseconds
	CacheFetch  Verb = "cache.fetch"  // Target: model as on the hub; Args["revision"]: default that of the worker that needs it, else main
	CacheCancel Verb = "cache.cancel" // Target: model whose download is to end; what is there stays
	CacheRemove Verb = "cache.remove" // Target: model; refused while a worker of the config needs it
)
