package config

import "time"

// Config is vllmdeck.yaml. Parse fills in the defaults, so that a reader never sees a zero
// where there is a default.
type Config struct {
	Listen       string        `yaml:"listen"`        // the gateway; default 127.0.0.1:8090; port 0: any free one
	State        string        `yaml:"state"`         // ledger, logs, sockets, worker records; default $XDG_STATE_HOME/vllmdeck
	Grace        time.Duration `yaml:"grace"`         // how long an ending engine waits for requests; default 30s
	TLS          *TLS          `yaml:"tls"`           // none: plain HTTP
	Keys         []Key         `yaml:"keys"`          // client keys; none: no key is asked for
	Capture      Capture       `yaml:"capture"`       // of the keys that keep their prompts and answers
	MediaDomains []string      `yaml:"media_domains"` // hosts that media URLs in requests may name
	Gateway      Gateway       `yaml:"gateway"`
	Models       []Model       `yaml:"models"`
	Workers      []Worker      `yaml:"workers"`
	Providers    []Provider    `yaml:"providers"`
	Cost         Cost          `yaml:"cost"`
	Health       Health        `yaml:"health"`
	Logs         Logs          `yaml:"logs"`

	// Path is the file that this was read from; "" for none. Not a key.
	Path string `yaml:"-"`
	// Warnings are what Parse found odd but not wrong, each with line and column. Not a key.
	Warnings []string `yaml:"-"`
}

// TLS names the certificate files of the gateway.
type TLS struct {
	Cert string `yaml:"cert"` // PEM file
	Key  string `yaml:"key"`  // PEM file
}

// Key is a client key of the gateway.
type Key struct {
	Name string `yaml:"name"`
	Key  Secret `yaml:"key"` // env:NAME or file:PATH

	// Failover is when a provider may serve its requests: never, down or overload. The model's word holds too: the
	// stricter one of both. Default: the model's alone.
	Failover string `yaml:"failover"`

	Capture bool `yaml:"capture"` // its prompts and answers are kept, as Config.Capture says
}

// Capture is how long prompts and answers are kept of the keys that ask for it.
type Capture struct {
	Keep time.Duration `yaml:"keep"` // default 168h
	Size Bytes         `yaml:"size"` // of all texts; default 256MiB
}

// Gateway is how requests are served.
type Gateway struct {
	CostInfo      *bool         `yaml:"cost_info"`      // splice cost_info into answers; default true
	Continue      *bool         `yaml:"continue"`       // go on with a stream at another worker when its own is lost; default true
	MaxBody       Bytes         `yaml:"max_body"`       // of a request; default 32MiB
	Queue         int           `yaml:"queue"`          // requests that may wait for a worker, per model; default 256
	QueueWait     time.Duration `yaml:"queue_wait"`     // how long one may wait; default 30s
	TTFTTarget    time.Duration `yaml:"ttft_target"`    // a request that would wait past it is refused at once; default 0: none is
	TTFTTimeout   time.Duration `yaml:"ttft_timeout"`   // silence before content that makes us try another worker; default 120s
	IdleTimeout   time.Duration `yaml:"idle_timeout"`   // silence between events that makes us try another worker, or give up; default 60s
	AnswerTimeout time.Duration `yaml:"answer_timeout"` // the whole of an answer that is not streamed, all tries together; default 10m
	StreamTimeout time.Duration `yaml:"stream_timeout"` // the whole of a stream; default 4h
	KeepAlive     time.Duration `yaml:"keep_alive"`     // silence after which the client of a stream gets a comment; default 0: none
}

// Model is a name that clients may ask for. Models named only by workers exist too.
type Model struct {
	Name     string   `yaml:"name"`
	Aliases  []string `yaml:"aliases"`
	Baseline string   `yaml:"baseline"` // provider/model of the price table; default Cost.Baseline
	Failover string   `yaml:"failover"` // when a provider may serve it: never, down (default) or overload
}

// Worker is one vLLM server: exactly one of VLLM, Attach and Sim is set.
type Worker struct {
	Name         string        `yaml:"name"`
	Model        string        `yaml:"model"`
	Port         int           `yaml:"port"`    // default: a free one
	VLLM         *VLLM         `yaml:"vllm"`    // launched by us
	Attach       string        `yaml:"attach"`  // URL of a server that already runs
	APIKey       Secret        `yaml:"api_key"` // the server's own key: sent to attached servers, given to launched ones
	Sim          *Sim          `yaml:"sim"`     // simulated
	NGPUs        int           `yaml:"gpus"`    // attached or simulated: how many GPUs it uses, for its cost
	Hour         *USD          `yaml:"hour"`    // what an hour of this worker costs; default from Cost
	Start        *bool         `yaml:"start"`   // start with the engine; default true
	Restart      Restart       `yaml:"restart"`
	StartTimeout time.Duration `yaml:"start_timeout"` // to ready; default 30m
	GPUWait      time.Duration `yaml:"gpu_wait"`      // how long a start waits for GPU memory that others hold; 0s: not at all, and it is not looked; default 2m
	StopTimeout  time.Duration `yaml:"stop_timeout"`  // drain, then SIGTERM, then the tree is killed; default 30s
	Sleep        *Sleep        `yaml:"sleep"`         // none: the worker never sleeps
}

// Sleep lets a worker sleep: its weights leave the GPU, its process stays, a request for its model wakes it.
type Sleep struct {
	After time.Duration `yaml:"after"` // without a request it falls asleep; default 0: not by itself
	Level int           `yaml:"level"` // 1 (default): the weights wait in host memory; 2: they are loaded anew
	Stay  time.Duration `yaml:"stay"`  // least time awake before its GPU goes to another that is waited for; default 5s
	Share string        `yaml:"share"` // workers with the same text take turns, beside those on the same GPU; default none
}

// VLLM is a server that we start.
type VLLM struct {
	Bin  string            `yaml:"bin"`  // default vllm, looked up in PATH
	Path string            `yaml:"path"` // model folder or hub name
	Args []string          `yaml:"args"` // as vllm serve takes them; ours are added unless given here
	GPUs []string          `yaml:"gpus"` // indexes or UUIDs for CUDA_VISIBLE_DEVICES; none on a CPU host
	Env  map[string]string `yaml:"env"`  // values may be env:NAME or file:PATH; Parse checks these, and leaves them unread
}

// Sim is a simulated server.
type Sim struct {
	Seed    int64         `yaml:"seed"`          // of its texts and timings; default 1
	Start   time.Duration `yaml:"start"`         // until ready; default 1s
	TTFT    time.Duration `yaml:"ttft"`          // mean of an idle server; default 60ms
	ITL     time.Duration `yaml:"itl"`           // mean of an idle server; default 12ms
	MaxSeqs int           `yaml:"max_num_seqs"`  // default 32
	MaxLen  int           `yaml:"max_model_len"` // default 8192
	Faults  []string      `yaml:"faults"`        // see "vllmdeck sim --help"
}

// Restart says what happens after an unasked end. Configuration errors are never retried.
type Restart struct {
	Policy string        `yaml:"policy"` // on-failure (default) or never
	Base   time.Duration `yaml:"base"`   // first wait; doubles with full jitter; default 1s
	Max    time.Duration `yaml:"max"`    // longest wait; default 60s
	Tries  int           `yaml:"tries"`  // give up after so many failed starts in a row, or 5 ends in Window; default 3
	Window time.Duration `yaml:"window"` // default 30m
}

// Provider is a paid API that may serve when no worker can.
type Provider struct {
	Name     string            `yaml:"name"`
	URL      string            `yaml:"url"`
	Key      Secret            `yaml:"key"`
	Models   map[string]string `yaml:"models"` // our name: theirs
	Prices   map[string]string `yaml:"prices"` // our name: provider/model of the price table; default Name/theirs
	SpendCap SpendCap          `yaml:"spend_cap"`

	// OutputLimit is what it calls the greatest length of a chat's answer: one of the Limit… constants. Default:
	// max_completion_tokens at OpenAI, as-sent elsewhere.
	OutputLimit string `yaml:"output_limit"`
}

// SpendCap bounds what a provider may cost. A nil limit is none.
type SpendCap struct {
	Day   *USD `yaml:"day"`
	Month *USD `yaml:"month"`
}

// Cost is where money figures come from. What is not set is not known.
type Cost struct {
	Baseline string    `yaml:"baseline"`  // provider/model of the price table; default openai/gpt-4o-mini
	Hostile  string    `yaml:"hostile"`   // the same open model hosted elsewhere; default: found by name
	GPUHour  *USD      `yaml:"gpu_hour"`  // USD per GPU and hour
	HostHour *USD      `yaml:"host_hour"` // USD per hour of a worker without GPU
	PerToken *PerToken `yaml:"per_token"` // flat rates in place of hours: an assumption, and labelled so
	Label    string    `yaml:"label"`     // shown beside the rate, e.g. where it is from
}

// PerToken are flat rates in USD per million tokens.
type PerToken struct {
	Input  USD  `yaml:"input"`
	Cached *USD `yaml:"cached"` // default: as input
	Output USD  `yaml:"output"`
}

// Health is the always-on rating of answers.
type Health struct {
	Target float64 `yaml:"target"` // default 0.8
}

// Logs bounds the log files of engine and workers.
type Logs struct {
	Size Bytes `yaml:"size"` // of one file before it rotates; default 20MiB
	Keep int   `yaml:"keep"` // rotated files kept; default 5
}
