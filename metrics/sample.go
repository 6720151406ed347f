package metrics

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// maxPage bounds a metrics page. vLLM 0.32 writes 58 kB; hundreds of LoRA adapters and
// engines stay far below this.
const maxPage = 4 << 20

// ErrNoMetrics says that a page has no vLLM metrics at all.
var ErrNoMetrics = errors.New("no vllm: metrics on the page: start vLLM without --disable-log-stats, and check the address")

// The sleep states of an engine.
const (
	SleepAwake   = "awake"
	SleepWeights = "weights_offloaded" // level 1
	SleepDiscard = "discard_all"       // level 2
	SleepPaused  = "paused"            // none of the three: level 0, or KV memory released
)

// Sample is one scrape of one vLLM server, summed over its engines. What the page did not
// have is nil. Counters are totals since the server started.
type Sample struct {
	Model   string    // model_name of the series; the first, if there are several
	Engines int       // engine labels seen
	Started time.Time // of the API server; zero: not exported (several API servers)
	Created float64   // unix seconds at which the counters began; 0: not exported

	Running  *float64 // requests in the batch
	Waiting  *float64 // requests queued, for whatever reason
	Capacity *float64 // of Waiting, those that wait for room; Waiting where the reasons are not exported
	KV       *float64 // share of the KV cache in use, 0..1, weighted by the engines' blocks
	Sleep    string   // one of the Sleep… constants; "" where not exported

	KVTokens  int64 // capacity of the KV cache; 0: not known
	Blocks    int64 // of the KV cache; 0: not known
	BlockSize int64 // tokens; 0: not known

	Generation  *float64           // tokens, live requests included
	Prompt      *float64           // tokens, cached ones included
	Cached      *float64           // of Prompt, those from a cache
	Sources     map[string]float64 // Prompt by source: local_compute, local_cache_hit, external_kv_transfer
	Preemptions *float64
	Queries     *float64           // tokens looked up in the prefix cache
	Hits        *float64           // of Queries, those found
	HitRate     *float64           // 0..1, only from servers too old for Queries and Hits
	Finished    map[string]float64 // requests by finished_reason. Requests whose client left are not in it
	Steps       *float64           // engine steps that returned output
	Drafted     *float64           // tokens that speculative decoding proposed
	Accepted    *float64           // of Drafted, those that the model took

	TTFT  *Buckets // seconds
	ITL   *Buckets // seconds; one observation per engine output after the first
	E2E   *Buckets // seconds
	Queue *Buckets // seconds

	PromptLen *Buckets // tokens, of requests that have ended
	AnswerLen *Buckets // tokens, of requests that have ended

	NoPrefixCache bool // the server says that its prefix cache is off

	Unknown []string // vllm: families that this program does not know
	Missing []string // families that every known version has and this page has not
	Broken  []string // families whose text could not be read
}

// Read reads a metrics page of at most 4 MB.
func Read(r io.Reader) (*Sample, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxPage+1))
	if err != nil {
		return nil, fmt.Errorf("read metrics page: %w", err)
	}
	return Parse(text)
}

// Parse reads a metrics page. A family that cannot be read is left out and named in Broken;
// only a page without any vLLM family is an error.
func Parse(text []byte) (*Sample, error) {
	if len(text) > maxPage {
		return nil, fmt.Errorf("read metrics page: more than %d MB", maxPage>>20)
	}
	p := cut(text)
	if !p.vllm {
		return nil, ErrNoMetrics
	}
	parsed, broken := p.parse()
	s := &Sample{Unknown: p.unknown, Broken: broken}
	reading{parsed}.into(s)
	return s, nil
}

// parse gives the families of a page by name. One broken line must not blind us to the rest:
// if the whole cannot be parsed, each family is tried alone.
func (p *page) parse() (map[string][]*dto.MetricFamily, []string) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	byName := make(map[string][]*dto.MetricFamily, len(p.segments))
	collect := func(parsed map[string]*dto.MetricFamily) {
		for n, f := range parsed {
			// A histogram without a TYPE line comes as one family per suffix.
			if base, ok := wanted[n]; ok {
				n = base
			}
			byName[n] = append(byName[n], f)
		}
	}
	var all bytes.Buffer
	for _, s := range p.segments {
		all.Write(s.text)
	}
	if parsed, err := parser.TextToMetricFamilies(&all); err == nil {
		collect(parsed)
		return byName, nil
	}
	var broken []string
	for _, s := range p.segments {
		parsed, err := parser.TextToMetricFamilies(bytes.NewReader(s.text))
		if err != nil {
			broken = append(broken, s.name)
			continue
		}
		collect(parsed)
	}
	return byName, broken
}
