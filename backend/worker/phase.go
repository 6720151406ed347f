package worker

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// phaseOrder is the order of a start. A start may leave phases out, but never goes back.
var phaseOrder = []string{
	api.PhaseImports, api.PhaseEngine, api.PhaseWeights,
	api.PhaseKV, api.PhaseGraphs, api.PhaseServer,
}

// phaseLines says which line begins which phase: vLLM 0.24 to 0.33, on GPU and CPU. They are
// hints for the screen: a start is over when the server answers, whatever it logs.
var phaseLines = []struct {
	phase string
	line  *regexp.Regexp
}{
	{api.PhaseEngine, regexp.MustCompile(`vLLM (?:API )?server version |non-default args: |Resolved architecture: |Initializing a V1 LLM engine`)},
	{api.PhaseWeights, regexp.MustCompile(`Starting to load model |Loading model from scratch|[Ll]oading (?:safetensors|pt|shards).*\d+% Completed|Loading weights on|Fetching \d+ files: +\d+%`)},
	// The end of the weights, which is memory profiling on a GPU.
	{api.PhaseKV, regexp.MustCompile(`Loading weights took |Model loading took |Available KV cache memory: |Initial free memory .* reserved`)},
	// On a GPU compilation comes while memory is profiled, before the size of the KV cache is known.
	{api.PhaseGraphs, regexp.MustCompile(`Starting torch\.compile|Using cache directory: .*torch\.compile|Dynamo bytecode transform time|Compiling a graph for|Directly load (?:the compiled graph|AOT)|torch\.compile took|KV cache size: |Profiling CUDA graph memory|Capturing (?:CUDA|HIP|ACL|XPU)? ?graphs?|Capturing CUDA graphs|Graph capturing finished`)},
	{api.PhaseServer, regexp.MustCompile(`init engine \(.*\) took |Supported tasks: |Starting vLLM (?:API )?server|Started server process |Waiting for application startup|Application startup complete`)},
}

// What else a start's log tells.
var (
	bannerLine  = regexp.MustCompile(`vLLM (?:API )?server version |non-default args: `)
	upLine      = regexp.MustCompile(`Application startup complete`)
	drainedLine = regexp.MustCompile(`request processing complete`)
	versionLine = regexp.MustCompile(`(?:server version |LLM engine \(v| version )(\d+\.\d+[0-9A-Za-z.+]*)`)
	lenLine     = regexp.MustCompile(`Using max model len (\d+)`)
	seqsLine    = regexp.MustCompile(`non-default args: .*'max_num_seqs': (\d+)`)
	kvLine      = regexp.MustCompile(`KV cache size: ([\d,]+) tokens`)
	shareLine   = regexp.MustCompile(`(?:shards|checkpoint|loader|Streamer|Capturing[^:]*|Fetching \d+ files|Downloading[^:]*)[^:]*: +(\d{1,3})%`)
)

// tracker follows one start through its phases by what the log says.
type tracker struct {
	times    []api.PhaseTime // ended phases, then the running one
	since    time.Time       // of the running one
	progress *float64        // of the running one
	up       bool            // the log says that the server answers

	version  string
	maxLen   int
	maxSeqs  int
	kvTokens int64
}

func newTracker(first string, now time.Time) *tracker {
	return &tracker{times: []api.PhaseTime{{Name: first}}, since: now}
}

func (t *tracker) phase() string { return t.times[len(t.times)-1].Name }

// line takes one line of the log, or the unfinished one of a progress bar.
func (t *tracker) line(line string, now time.Time) {
	text := parse(line).text
	for _, p := range phaseLines {
		if p.line.MatchString(text) {
			t.move(p.phase, now)
		}
	}
	if m := shareLine.FindStringSubmatch(text); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil && n <= 100 {
			t.progress = new(float64(n) / 100)
		}
	}
	if upLine.MatchString(text) {
		t.up = true
	}
	if m := versionLine.FindStringSubmatch(text); m != nil && t.version == "" {
		t.version = m[1]
	}
	if m := lenLine.FindStringSubmatch(text); m != nil {
		t.maxLen, _ = strconv.Atoi(m[1])
	}
	if m := seqsLine.FindStringSubmatch(text); m != nil {
		t.maxSeqs, _ = strconv.Atoi(m[1])
	}
	if m := kvLine.FindStringSubmatch(text); m != nil {
		t.kvTokens, _ = strconv.ParseInt(strings.ReplaceAll(m[1], ",", ""), 10, 64)
	}
}

// move ends the running phase and begins another, if that is a later one.
func (t *tracker) move(phase string, now time.Time) {
	if phaseIndex(phase) <= phaseIndex(t.phase()) {
		return
	}
	t.end(now)
	t.times = append(t.times, api.PhaseTime{Name: phase})
	t.since, t.progress = now, nil
}

func (t *tracker) end(now time.Time) {
	last := &t.times[len(t.times)-1]
	last.Seconds, last.Done = max(now.Sub(t.since).Seconds(), 0), true
}

// list gives the phases so far with the running one's time up to now.
func (t *tracker) list(now time.Time) []api.PhaseTime {
	out := append([]api.PhaseTime(nil), t.times...)
	if last := &out[len(out)-1]; !last.Done {
		last.Seconds = max(now.Sub(t.since).Seconds(), 0)
	}
	return out
}

func phaseIndex(phase string) int {
	for i, p := range phaseOrder {
		if p == phase {
			return i
		}
	}
	return -1
}
