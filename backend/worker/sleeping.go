package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/vllmdeck/vllmdeck/backend/launch"
)

// sleeping asks whether a server sleeps. known is false where it has no such route: it cannot sleep.
func (t target) sleeping(ctx context.Context) (sleeping, known bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, healthLimit)
	defer cancel()
	status, body, err := t.call(ctx, http.MethodGet, "/is_sleeping", nil)
	if err != nil {
		return false, false, err
	}
	var v struct {
		Sleeping *bool `json:"is_sleeping"`
	}
	if status != http.StatusOK || json.Unmarshal(body, &v) != nil || v.Sleeping == nil {
		return false, false, nil
	}
	return *v.Sleeping, true, nil
}

// napRecord is what the next engine must know of a server's sleep, in its worker's folder.
type napRecord struct {
	Started time.Time `json:"started"` // of the process that it is about
	Level   int       `json:"level"`   // 0: awake
	Awake   time.Time `json:"awake"`   // when it last woke
}

const napFile = "sleep.json"

// keepNap writes down how the server sleeps. What is not there is taken for level 2, which is slow and right.
func (w *worker) keepNap(l *life) {
	if l.inst == nil || l.spec.Folder == "" || l.inst.PID() == 0 {
		return
	}
	r := napRecord{Started: w.st.Started, Level: w.st.Level, Awake: w.st.Awake}
	text, err := json.Marshal(r)
	if err == nil {
		err = launch.Replace(filepath.Join(l.spec.Folder, napFile), text)
	}
	if err != nil {
		w.log.Warn("sleep not written down", "error", err)
	}
}

// readNap reads it back for the process that started at started.
func readNap(folder string, started time.Time) (napRecord, error) {
	text, err := os.ReadFile(filepath.Join(folder, napFile))
	if err != nil {
		return napRecord{}, fmt.Errorf("read record of sleep: %w", err)
	}
	var r napRecord
	if err := json.Unmarshal(text, &r); err != nil {
		return napRecord{}, fmt.Errorf("read record of sleep: %w", err)
	}
	if !r.Started.Equal(started) {
		return napRecord{}, nil // of an earlier one
	}
	return r, nil
}
