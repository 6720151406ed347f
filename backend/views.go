package backend

import (
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// healthView is GET /health of the gateway.
type healthView struct {
	Status  string         `json:"status"`
	Version string         `json:"version"`
	Uptime  float64        `json:"uptime_seconds"`
	Memory  int64          `json:"memory_bytes"`
	Models  []healthModel  `json:"models"`
	Workers []healthWorker `json:"workers"`
}

type healthModel struct {
	Name    string `json:"name"`
	Ready   int    `json:"ready_workers"`
	Workers int    `json:"workers"`
	Asleep  int    `json:"asleep_workers,omitempty"` // a request wakes them
	Backed  bool   `json:"backed,omitempty"`         // a provider would take a request now
}

type healthWorker struct {
	Name      string    `json:"name"`
	Model     string    `json:"model"`
	State     api.State `json:"state"`
	Phase     string    `json:"phase,omitempty"`
	Simulated bool      `json:"simulated"`
}

// health answers GET /health from the live state, not from the last snapshot: a balancer in
// front of us must not be told of a worker that is gone.
func (b *Backend) health() (view any, code int) {
	models := b.upstreams.Models()
	v := healthView{
		Status: status(models), Version: b.opts.Version, Uptime: float64(time.Since(b.started).Milliseconds()) / 1000, Memory: residentMemory(),
		Models: []healthModel{}, Workers: []healthWorker{},
	}
	for _, m := range models {
		v.Models = append(v.Models, healthModel{m.Name, m.Ready, m.Workers, m.Asleep, m.Backed})
	}
	for _, w := range b.pool.Statuses() {
		v.Workers = append(v.Workers, healthWorker{w.Name, w.Model, w.State, w.Phase, w.Simulated})
	}
	if b.stopping.Load() {
		v.Status = "down"
	}
	if v.Status == "down" {
		return v, http.StatusServiceUnavailable
	}
	return v, http.StatusOK
}

// residentMemory is what this process holds in memory, in bytes; 0 where it is not told.
func residentMemory() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}
