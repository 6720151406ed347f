package metrics

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/vllmdeck/vllmdeck/backend/api"
)

// HostReader reads what the machine has and uses, from /proc. Where there is no /proc, as on
// macOS, only the number of CPUs is known. It is not safe for concurrent use.
type HostReader struct {
	// Proc is the proc file system; "" is /proc.
	Proc string

	past []jiffies // the last reads, oldest first
}

// jiffies is the time of all CPUs so far.
type jiffies struct{ busy, total float64 }

// hostReads is how many reads the use of the CPU is a mean over: half a second alone jumps about.
const hostReads = 10

// Read gives the machine as it is now. CPU is the mean over the last ten calls, and unknown in
// the first. Memory that is not known is 0.
func (h *HostReader) Read() api.Host {
	host := api.Host{CPUs: runtime.NumCPU()}
	host.MemoryTotal, host.MemoryFree = h.memory()
	now, cpus := h.jiffies()
	if cpus > 0 {
		host.CPUs = cpus
	}
	if n := len(h.past); n > 0 && (now.total < h.past[n-1].total || now.busy < h.past[n-1].busy) {
		h.past = nil // counted anew
	}
	if now.total > 0 {
		h.past = append(h.past, now)
	}
	if over := len(h.past) - hostReads - 1; over > 0 {
		h.past = h.past[over:]
	}
	if len(h.past) > 1 {
		if first := h.past[0]; now.total > first.total {
			host.CPU = new((now.busy - first.busy) / (now.total - first.total) * float64(host.CPUs))
		}
	}
	return host
}

func (h *HostReader) open(name string) (*os.File, error) {
	root := h.Proc
	if root == "" {
		root = "/proc"
	}
	return os.Open(filepath.Join(root, name))
}

// jiffies reads /proc/stat: the time all CPUs were busy, all their time, and their number.
func (h *HostReader) jiffies() (t jiffies, cpus int) {
	f, err := h.open("stat")
	if err != nil {
		return jiffies{}, 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || !strings.HasPrefix(fields[0], "cpu") {
			break // the CPUs come first
		}
		if fields[0] != "cpu" {
			cpus++
			continue
		}
		// user nice system idle iowait irq softirq steal; guest time is in user already.
		for i, s := range fields[1:min(len(fields), 9)] {
			v, err := strconv.ParseFloat(s, 64)
			if err != nil || !sane(v) {
				return jiffies{}, 0
			}
			t.total += v
			if i != 3 && i != 4 {
				t.busy += v
			}
		}
	}
	return t, cpus
}

// memory reads /proc/meminfo: total, and what could be had without swapping, in bytes.
func (h *HostReader) memory() (total, available int64) {
	f, err := h.open("meminfo")
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		kb, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil || kb < 0 || kb > 1<<50 {
			continue
		}
		switch name {
		case "MemTotal":
			total = kb << 10
		case "MemAvailable":
			available = kb << 10
		}
	}
	return total, available
}
