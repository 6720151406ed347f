package metrics

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// The fields that nvidia-smi is asked for. The name comes last: only in it a comma could
// stand.
var (
	nvidiaEssential = []string{"index", "uuid", "memory.total", "memory.used", "utilization.gpu", "name"}
	nvidiaFields    = []string{
		"index", "uuid", "memory.total", "memory.used", "utilization.gpu",
		"temperature.gpu", "power.draw", "power.limit", "name",
	}
)

// parseNvidia reads one line of nvidia-smi's CSV without header and units. Whatever is not a
// number, such as [N/A] (memory of a GB10, utilisation of a card in MIG mode), [GPU is lost]
// or [Not Supported], is unknown, never 0.
func parseNvidia(line string, fields []string) (api.GPU, bool) {
	values := strings.SplitN(line, ",", len(fields))
	if len(values) != len(fields) {
		return api.GPU{}, false
	}
	var g api.GPU
	for i, f := range fields {
		v := strings.TrimSpace(values[i])
		switch f {
		case "index":
			if _, err := strconv.ParseUint(v, 10, 16); err != nil {
				return api.GPU{}, false
			}
			g.Index = v
		case "uuid":
			g.UUID = text(v)
		case "name":
			g.Name = text(v)
		case "memory.total":
			g.MemoryTotal = mebibytes(v)
		case "memory.used":
			g.MemoryUsed = mebibytes(v)
		case "utilization.gpu":
			g.Utilisation = percent(v)
		case "temperature.gpu":
			g.Temperature = decimal(v)
		case "power.draw":
			g.Power = decimal(v)
		case "power.limit":
			g.PowerLimit = decimal(v)
		}
	}
	return g, true
}

// GPUProcess is a process that holds memory of a card.
type GPUProcess struct {
	GPU    string // UUID
	PID    int    // as the driver sees it: inside a container it may be the host's
	Name   string
	Memory *int64 // bytes; nil: not reported, as under WSL
}

// GPUProcesses asks nvidia-smi who holds memory of its cards. Without nvidia-smi there is
// nobody.
func GPUProcesses(ctx context.Context) ([]GPUProcess, error) {
	path, err := exec.LookPath("nvidia-smi")
	if err != nil {
		return nil, nil //nolint:nilerr // see above
	}
	out, err := output(ctx, path, "--query-compute-apps=gpu_uuid,pid,used_memory,process_name", "--format=csv,noheader,nounits")
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, fmt.Errorf("list GPU processes: %s (%w)", strings.TrimSpace(string(out)), err)
	} else if err != nil {
		return nil, fmt.Errorf("list GPU processes: %w", err)
	}
	return parseProcesses(string(out)), nil
}

// parseProcesses reads lines of gpu_uuid, pid, used_memory, process_name. Text such as
// "No running processes found" is no process.
func parseProcesses(out string) []GPUProcess {
	var ps []GPUProcess
	for line := range strings.Lines(out) {
		v := strings.SplitN(line, ",", 4)
		if len(v) != 4 {
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(v[1]))
		if err != nil || pid <= 0 {
			continue
		}
		ps = append(ps, GPUProcess{
			GPU: text(strings.TrimSpace(v[0])), PID: pid, Name: text(strings.TrimSpace(v[3])), Memory: mebibytes(strings.TrimSpace(v[2])),
		})
	}
	return ps
}

// text gives a reported word, "" for a bracketed excuse.
func text(s string) string {
	if strings.HasPrefix(s, "[") || s == "N/A" {
		return ""
	}
	return s
}

// decimal reads a number that is not negative; nil for whatever else the tool wrote.
func decimal(s string) *float64 {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !sane(v) {
		return nil
	}
	return &v
}

// percent reads 0..100 as 0..1.
func percent(s string) *float64 {
	v := decimal(s)
	if v == nil || *v > 100 {
		return nil
	}
	*v /= 100
	return v
}

func mebibytes(s string) *int64 {
	v := decimal(s)
	if v == nil || *v > 1<<40 {
		return nil
	}
	return new(int64(*v * (1 << 20)))
}
