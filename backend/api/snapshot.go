package api

import "time"

// Snapshot is one moment of the engine, whole. It is immutable once published. It stays under
// 256 kB of JSON with 16 workers: no log lines, at most 120 points a series, 120 requests.
type Snapshot struct {
	Schema   int       `json:"schema"`
	Seq      uint64    `json:"seq"` // rises by one with each publication
	Time     time.Time `json:"time"`
	Engine   Engine    `json:"engine"`
	Models   []Model   `json:"models"`
	Workers  []Worker  `json:"workers"`
	GPUs     []GPU     `json:"gpus"`
	Host     Host      `json:"host"`
	Traffic  Traffic   `json:"traffic"`
	Money    Money     `json:"money"`
	Answers  Answers   `json:"answers"`
	Requests []Request `json:"requests"`       // in flight first, then newest first; at most 120
	Prompts  []Prompt  `json:"prompts"`        // prompt tests, newest first; at most 16
	Notices  []Notice  `json:"notices"`        // what an operator should know, newest first; at most 100
	Windows  []Window  `json:"windows"`        // one per span, shortest first
	Keys     []Key     `json:"keys,omitempty"` // client keys that are not revoked, by name; those used last where there are many

	Providers []Provider `json:"providers,omitempty"` // paid APIs, in the order of the config

	Crashes []Crash  `json:"crashes,omitempty"` // the newest of the crash book, newest first; at most 40
	Strays  []Stray  `json:"strays,omitempty"`  // at most 24
	Advice  []Advice `json:"advice,omitempty"`  // none: nothing is wrong; at most 32
	Rolls   []Roll   `json:"rolls,omitempty"`   // rolling restarts, the last of each model
	Cache   *Cache   `json:"cache,omitempty"`   // nil: this host has none
}

// Engine is the process itself.
type Engine struct {
	Version   string    `json:"version"`
	PID       int       `json:"pid"`
	Host      string    `json:"host"`
	Started   time.Time `json:"started"`
	URL       string    `json:"url"`    // base of the gateway, e.g. http://127.0.0.1:8090
	State     string    `json:"state"`  // state folder
	Config    string    `json:"config"` // file it was read from; "" for none
	Demo      bool      `json:"demo,omitempty"`
	Simulated bool      `json:"simulated,omitempty"` // every worker is simulated
	Status    string    `json:"status"`              // ok, degraded, down: as GET /health
	Stopping  bool      `json:"stopping,omitempty"`
	Memory    int64     `json:"memory_bytes"`      // resident
	Exposed   bool      `json:"exposed,omitempty"` // listens off loopback without TLS
	Ledger    Ledger    `json:"ledger"`
}

// Ledger is the state of the record of requests.
type Ledger struct {
	Rows    int64  `json:"rows"`
	Queued  int    `json:"queued"`          // accepted, not yet on disk
	Spooled int    `json:"spooled"`         // on disk beside the database, because that failed
	Error   string `json:"error,omitempty"` // why it cannot write now
}

// Model is a name that clients may ask for.
type Model struct {
	Name      string   `json:"name"`
	Aliases   []string `json:"aliases,omitempty"`
	Baseline  string   `json:"baseline,omitempty"`
	Ready     int      `json:"ready_workers"`
	Workers   int      `json:"workers"`
	Simulated bool     `json:"simulated,omitempty"`
	MaxLen    int      `json:"max_model_len,omitempty"`  // tokens; 0: not known yet
	Asleep    int      `json:"asleep_workers,omitempty"` // that a request wakes

	Providers []string `json:"providers,omitempty"` // paid APIs that may serve it when no worker can
	Backed    bool     `json:"backed,omitempty"`    // one of them would take a request now
}

// Servable reports whether a request for the model can be answered now, by a worker, also one that the request wakes, or,
// paid for, by a provider.
func (m *Model) Servable() bool { return m.Ready+m.Asleep > 0 || m.Backed }

// Provider is one paid API.
type Provider struct {
	Name       string   `json:"name"`
	Host       string   `json:"host"`   // of its URL
	Models     []string `json:"models"` // ours that it has, sorted
	State      string   `json:"state"`  // one of the Provider… constants
	InFlight   int      `json:"in_flight"`
	SpentDay   *Nanos   `json:"spent_day_usd"`   // since local midnight, what is under way left out; nil: a part is not known
	SpentMonth *Nanos   `json:"spent_month_usd"` // of the local month
	CapDay     *Nanos   `json:"cap_day_usd"`     // nil: no limit
	CapMonth   *Nanos   `json:"cap_month_usd"`
	Error      string   `json:"error,omitempty"` // why it is not ok, or what it last complained of
}

// The states of a provider.
const (
	ProviderOK            = "ok"
	ProviderOpen          = "open"          // it fails, or asked to be left alone: it is tried again by itself
	ProviderCapped        = "capped"        // the money of the day or the month is spent
	ProviderUnaccountable = "unaccountable" // what a request costs could not be known or recorded
)

// State of a worker.
type State string

// The states of a worker.
const (
	Starting State = "starting"
	Ready    State = "ready"
	Draining State = "draining" // not routed to; the process stays
	Stopping State = "stopping"
	Stopped  State = "stopped" // on purpose
	Failed   State = "failed"  // died or did not start; Error says why, NextStart when it is tried again
	Asleep   State = "asleep"  // its weights are off the GPU; a request for its model wakes it
)

// Phases of a start, in order. A worker that is not starting has none.
const (
	PhaseImports = "imports" // Python is importing
	PhaseEngine  = "engine"  // configuration, engine process
	PhaseWeights = "weights" // Progress is known
	PhaseKV      = "kv cache"
	PhaseGraphs  = "graphs" // compile, graph capture, warm-up
	PhaseServer  = "server" // HTTP server coming up, first canary
)

// Phases of sleep.
const (
	PhaseSleeping = "going to sleep" // draining: its requests end, then its weights leave the GPU
	PhaseWaking   = "waking"         // asleep: its weights come back, then a canary; or it waits for its turn (Blocked)
)

// Worker is one supervised vLLM server.
type Worker struct {
	Name      string `json:"name"`
	Model     string `json:"model"`
	Kind      string `json:"kind"` // vllm, attach, sim, kubernetes
	Simulated bool   `json:"simulated,omitempty"`

	State     State       `json:"state"`
	Since     time.Time   `json:"since"`                // of State
	Phase     string      `json:"phase,omitempty"`      // while starting
	Progress  *float64    `json:"progress,omitempty"`   // of the phase, 0..1
	Phases    []PhaseTime `json:"phases,omitempty"`     // of the last start, in order
	LastStart []PhaseTime `json:"last_start,omitempty"` // of the last one that came to ready, for an estimate
	Started   time.Time   `json:"started,omitzero"`     // of the process
	NextStart time.Time   `json:"next_start,omitzero"`
	Restarts  int         `json:"restarts"` // unasked, since the engine started
	Adopted   bool        `json:"adopted,omitempty"`
	Error     string      `json:"error,omitempty"`       // the first error that explains the failure; kept while it starts again unasked
	Remedy    string      `json:"remedy,omitempty"`      // what mends it
	Exit      string      `json:"exit,omitempty"`        // "exit 1", "signal: killed"
	Stalled   bool        `json:"stalled,omitempty"`     // no progress while requests are with it
	Blocked   string      `json:"blocked,omitempty"`     // what its start waits for, e.g. another start on its GPU, or memory that a process holds
	Fix       *Fix        `json:"fix,omitempty"`         // the remedy as an order
	Fixed     []string    `json:"fixed,omitempty"`       // what it runs with by order, beside or instead of the config's: "--flag=value", "without --flag", "env NAME=value"
	Crashes   int         `json:"crashes,omitempty"`     // in the crash book
	CanSleep  bool        `json:"can_sleep,omitempty"`   // the server has sleep mode and its routes
	Level     int         `json:"sleep_level,omitempty"` // 1 or 2 while asleep
	Awake     time.Time   `json:"awake,omitzero"`        // when it last woke; zero: it never slept

	PID     int      `json:"pid,omitempty"`
	URL     string   `json:"url,omitempty"`
	Command []string `json:"command,omitempty"` // as run, secrets redacted
	GPUs    []string `json:"gpus,omitempty"`    // indexes or UUIDs; none on a CPU host
	Version string   `json:"version,omitempty"` // of vLLM
	MaxLen  int      `json:"max_model_len,omitempty"`
	MaxSeqs int      `json:"max_num_seqs,omitempty"` // 0: not known

	InFlight int       `json:"in_flight"`                 // of ours, exact
	Running  *float64  `json:"running"`                   // as the server says
	Waiting  *float64  `json:"waiting"`                   // as the server says
	KV       *float64  `json:"kv_cache"`                  // 0..1
	KVTokens int64     `json:"kv_cache_tokens,omitempty"` // capacity
	Prefix   *float64  `json:"prefix_hit"`                // 0..1 over the last minute
	OutRate  *float64  `json:"output_rate"`               // tokens/s
	InRate   *float64  `json:"prompt_rate"`               // tokens/s
	Preempt  *float64  `json:"preemptions"`               // per second
	Accept   *float64  `json:"spec_accept,omitempty"`     // 0..1 of the drafted tokens over the last minute; nil: no speculative decoding
	TTFT95   *float64  `json:"ttft_p95"`                  // seconds over the last minute: of our requests, else as the server's buckets tell
	Scraped  time.Time `json:"scraped,omitzero"`          // when the server's metrics were last read
	CPU      *float64  `json:"cpu"`                       // cores used by the process tree
	RSS      int64     `json:"rss_bytes,omitempty"`       // of the process tree
	Trend    Series    `json:"trend,omitempty"`           // output tokens/s, one point per 2 s, at most 60
	HourCost *Nanos    `json:"hour_usd"`                  // what an hour of it costs
}

// PhaseTime is how long one phase of a start took.
type PhaseTime struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
	Done    bool    `json:"done"`
}

// GPU is one card, as its tool reports it. What a card does not report is nil.
type GPU struct {
	Index       string   `json:"index"`
	UUID        string   `json:"uuid"`
	Name        string   `json:"name"`
	Utilisation *float64 `json:"utilisation"` // 0..1
	MemoryUsed  *int64   `json:"memory_used_bytes"`
	MemoryTotal *int64   `json:"memory_total_bytes"`
	Temperature *float64 `json:"temperature_celsius"`
	Power       *float64 `json:"power_watts"`
	PowerLimit  *float64 `json:"power_limit_watts"`

	Throttle  []string     `json:"throttle,omitempty"` // why its clock is held down now; none: it is not. "power cap", "thermal", …
	Energy    *float64     `json:"energy_watt_hours"`  // used since the engine started, integrated from Power
	ECC       *int64       `json:"ecc_uncorrected"`    // since the driver was loaded
	Xids      []Xid        `json:"xids,omitempty"`     // newest first; at most 8
	Clock     *float64     `json:"clock_mhz"`
	Processes []GPUProcess `json:"processes,omitempty"` // that hold its memory, biggest first; at most 32
}

// Host is the machine.
type Host struct {
	CPUs        int      `json:"cpus"`
	CPU         *float64 `json:"cpu"` // cores in use
	MemoryTotal int64    `json:"memory_total_bytes"`
	MemoryFree  int64    `json:"memory_available_bytes"`
}

// Traffic is what passes the gateway now.
type Traffic struct {
	InFlight  int   `json:"in_flight"`
	Queued    int   `json:"queued"`         // waiting in the gateway for a worker
	Total     int64 `json:"requests_total"` // ended since the engine started
	Failed    int64 `json:"failed_total"`   // of Total: error, upstream_lost
	Rejected  int64 `json:"rejected_total"`
	Cancelled int64 `json:"cancelled_total"`
	Moved     int64 `json:"moved_total"` // replaced by another worker before content, unseen by the client
}

// Window is the recent past in buckets fixed to the wall clock. Every series of a window has
// the same length and ends with the bucket that is still filling. Buckets from before the
// engine started are left off, so a young engine has short series.
type Window struct {
	Span    Span      `json:"span_seconds"`   // 1m, 5m, 15m, 1h, 6h, 24h or 7d
	Bucket  Span      `json:"bucket_seconds"` // Span/120
	End     time.Time `json:"end"`            // end of the newest bucket
	Partial float64   `json:"partial"`        // how much of the newest bucket has passed, 0..1

	Requests Series `json:"requests"`  // ended, per second
	Errors   Series `json:"errors"`    // failed, per second
	Output   Series `json:"output"`    // completion tokens per second, as they came
	Prompt   Series `json:"prompt"`    // prompt tokens per second, at the end of each request
	InFlight Series `json:"in_flight"` // mean
	TTFT50   Series `json:"ttft_p50"`  // seconds; null where nothing ended
	TTFT95   Series `json:"ttft_p95"`
	E2E95    Series `json:"e2e_p95"`
	ITL95    Series `json:"itl_p95"`
	Savings  Series `json:"savings"` // cumulative net of the period up to the bucket's end, USD; null: unknown

	TTFT  Quantiles `json:"ttft"` // over the whole window
	E2E   Quantiles `json:"e2e"`
	ITL   Quantiles `json:"itl"`
	Queue Quantiles `json:"queue"`

	Count      int64   `json:"count"`  // requests ended in the window
	Failed     int64   `json:"failed"` // of Count
	Rejected   int64   `json:"rejected"`
	Cancelled  int64   `json:"cancelled"`
	PeakOutput float64 `json:"peak_output"` // greatest full bucket of Output
}

// Quantiles of a latency, in seconds; nil where there is no sample.
type Quantiles struct {
	Count int64    `json:"count"`
	Mean  *float64 `json:"mean"`
	P50   *float64 `json:"p50"`
	P95   *float64 `json:"p95"`
	P99   *float64 `json:"p99"`
	Max   *float64 `json:"max"`
}

// Money is the cost engine's standing for the period, by default today in the host's zone.
type Money struct {
	Period    string    `json:"period"` // today
	From      time.Time `json:"from"`
	Zone      string    `json:"zone"`
	Requests  int64     `json:"requests"` // that count for savings
	Usage     Usage     `json:"usage"`    // of those
	Unmetered int64     `json:"unmetered"`

	Actual    *Nanos   `json:"actual_usd"` // everything spent in the period: shares, idle, paid calls
	Idle      *Nanos   `json:"idle_usd"`   // of Actual: nobody in flight, start-up, engine away
	Would     *Nanos   `json:"would_have_cost_usd"`
	Savings   *Nanos   `json:"savings_usd"` // Would - Actual, negative too
	Low       *Nanos   `json:"savings_low_usd"`
	High      *Nanos   `json:"savings_high_usd"`
	Percent   *float64 `json:"savings_percent"`
	HourRate  *Nanos   `json:"hour_usd"`            // what the running workers cost per hour
	HourWould *Nanos   `json:"hour_would_have_usd"` // at the baseline, at the pace of the last minute

	Basis       string   `json:"basis"`
	RateLabel   string   `json:"rate_label"` // e.g. "4 GPU x $0.34/h", "demo rate, SIMULATED"
	Baseline    string   `json:"baseline"`
	Prices      *Prices  `json:"prices"` // of the baseline
	PriceDate   string   `json:"price_date"`
	PriceSource string   `json:"price_source"`
	Hostile     *Hostile `json:"hostile_baseline"`
	Utilisation *float64 `json:"utilisation"`                       // share of worker wall clock with a request in flight, 0..1
	BreakEven   *float64 `json:"break_even_output_tokens_per_hour"` // at the period's mix of prompt and output
	OutputRate  *float64 `json:"output_tokens_per_hour"`            // now, over the last minute

	Classes   []ClassCost `json:"classes"` // every class with a row, biggest first
	Missing   []string    `json:"missing"` // what must be set to see the rest, as sentences
	Simulated bool        `json:"simulated,omitempty"`
}

// Hostile is the least flattering comparison: the same open model hosted by somebody else.
type Hostile struct {
	Name    string `json:"name"`
	Would   *Nanos `json:"would_have_cost_usd"`
	Savings *Nanos `json:"savings_usd"`
	Date    string `json:"price_date"`
}

// ClassCost is one cost class of the period.
type ClassCost struct {
	Class    string `json:"class"`
	Requests int64  `json:"requests"`
	Actual   *Nanos `json:"actual_usd"`
}

// Answers is how healthy the answers of the window are. Health is a defect detector, not quality.
type Answers struct {
	Rated      int64          `json:"rated"`
	Bins       [10]int64      `json:"bins"` // of overall health: [0,.1) … [.9,1]
	Median     *float64       `json:"median"`
	Target     float64        `json:"target"`
	Calibrated bool           `json:"calibrated"`
	Length     *float64       `json:"length"` // medians of the parts
	Coherence  *float64       `json:"coherence"`
	Engagement *float64       `json:"engagement"`
	Truncated  int64          `json:"truncated"` // of Rated: finish_reason=length
	Refused    int64          `json:"refused"`   // of Rated: look like refusals
	Looping    int64          `json:"looping"`   // of Rated: degenerate repetition
	ByModel    []ModelAnswers `json:"by_model"`
	Trend      Series         `json:"trend"` // median per bucket of the 5 m window
}

// ModelAnswers is Answers of one model, in short.
type ModelAnswers struct {
	Model  string    `json:"model"`
	Rated  int64     `json:"rated"`
	Median *float64  `json:"median"`
	Bins   [10]int64 `json:"bins"`
}

// Prompt is one prompt test. Its text is Source.Log("prompt/"+ID).
type Prompt struct {
	ID          string    `json:"id"`
	Model       string    `json:"model"`
	Worker      string    `json:"worker,omitempty"`
	Prompt      string    `json:"prompt"` // first 200 characters
	Started     time.Time `json:"started"`
	State       string    `json:"state"` // waiting, streaming, done, failed, cancelled
	Error       string    `json:"error,omitempty"`
	TTFT        Span      `json:"ttft_seconds"`
	Duration    Span      `json:"duration_seconds"`
	Usage       Usage     `json:"usage"`
	UsageSource string    `json:"usage_source,omitempty"`
	Rate        *float64  `json:"output_rate"` // tokens/s after the first
	Finish      string    `json:"finish,omitempty"`
	Actual      *Nanos    `json:"actual_usd"`
	Would       *Nanos    `json:"would_have_usd"`
	Health      *float64  `json:"health"`
	Simulated   bool      `json:"simulated,omitempty"`
}

// Notice is something an operator should know.
type Notice struct {
	Time   time.Time `json:"time"`
	Level  string    `json:"level"` // info, warning, error
	Text   string    `json:"text"`
	Worker string    `json:"worker,omitempty"`
	Active bool      `json:"active,omitempty"` // still true
}
