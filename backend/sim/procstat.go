package sim

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// processMetrics writes the process_* family from /proc; without it (not Linux) only the start
// time, as prometheus_client does.
func processMetrics(x *expo, born time.Time) {
	gauge := func(name, help string, v float64) {
		x.head(name, help, "gauge")
		x.sample(name, "", v)
	}
	st, ok := readStat("/proc/self/stat")
	if ok {
		gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", st.vsize)
		gauge("process_resident_memory_bytes", "Resident memory size in bytes.", st.rss)
	}
	gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", unixSeconds(born))
	if !ok {
		return
	}
	x.head("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", "counter")
	x.sample("process_cpu_seconds_total", "", st.cpu)
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		gauge("process_open_fds", "Number of open file descriptors.", float64(len(fds)))
	}
}

type procStat struct{ vsize, rss, cpu float64 }

// readStat reads proc(5) stat: fields 14 and 15 are CPU ticks (100 a second on Linux), 23 the
// virtual size, 24 the resident pages.
func readStat(path string) (procStat, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return procStat{}, false
	}
	s := string(data)
	// The name in parentheses may hold anything; fields are counted from behind it.
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 22 {
		return procStat{}, false
	}
	num := func(field int) float64 {
		v, _ := strconv.ParseFloat(f[field-3], 64)
		return v
	}
	return procStat{vsize: num(23), rss: num(24) * float64(os.Getpagesize()), cpu: (num(14) + num(15)) / 100}, true
}
