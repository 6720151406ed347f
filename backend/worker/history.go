package worker

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// history is what is kept of a worker's last start in its folder, for the next engine and for
// an estimate of how long the next start takes.
type history struct {
	Phases  []api.PhaseTime `json:"phases"`
	Version string          `json:"version,omitempty"` // of vLLM
	At      time.Time       `json:"at"`                // when it was ready
}

func historyPath(folder string) string { return filepath.Join(folder, "history.json") }

func (h history) write(folder string) error {
	b, err := json.Marshal(h)
	if err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	if err := launch.Replace(historyPath(folder), b); err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	return nil
}

// readHistory gives nil where there is none that can be read: it is only a hint.
func readHistory(folder string) *history {
	b, err := os.ReadFile(historyPath(folder))
	if err != nil {
		return nil
	}
	var h history
	if json.Unmarshal(b, &h) != nil {
		return nil
	}
	return &h
}
