package launch

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Strays lists the processes of servers that nobody looks after any more: those that carry our
// marker without a live shim, and VLLM::* processes whose API server is gone (killed, it leaves
// EngineCore and workers behind for ever). It sees the processes of our user, and reads the
// environment of each: not for every tick.
func Strays() ([]Stray, error) {
	if _, err := bootID(); err != nil {
		return nil, err
	}
	all := scan()
	byPID := make(map[int]stat, len(all))
	shims := make(map[string]bool)
	shimPID := make(map[int]bool)
	marker := make(map[int]string)
	for _, s := range all {
		byPID[s.PID] = s
		env := procEnv(s.PID)
		if id := getEnv(env, shimEnv); id != "" {
			shims[id], shimPID[s.PID] = true, true
		} else {
			marker[s.PID] = getEnv(env, markerEnv)
		}
	}
	up := uptime()
	var out []Stray
	for _, s := range all {
		id := marker[s.PID]
		switch {
		case id != "" && shims[id]:
			continue
		case id == "" && (!ownedByUs(s.PID) || !orphaned(s, byPID, shimPID)):
			continue
		}
		born := time.Duration(s.Start) * time.Second / ticksPerSecond
		out = append(out, Stray{PID: s.PID, Name: s.comm, Worker: id, Age: (up - born).Seconds(), RSS: s.rss})
	}
	return out, nil
}

func ownedByUs(pid int) bool {
	var st unix.Stat_t
	return unix.Stat("/proc/"+strconv.Itoa(pid), &st) == nil && int(st.Uid) == os.Getuid()
}

// orphaned says whether a VLLM::* process is below no API server: going up from it, the first
// process that is not VLLM::* is no shim and runs neither Python nor vLLM. An offline user of
// the LLM class is a Python process, so its engine is no orphan.
func orphaned(s stat, byPID map[int]stat, shimPID map[int]bool) bool {
	if !strings.HasPrefix(s.comm, "VLLM::") || strings.HasPrefix(s.comm, "VLLM::API") {
		return false
	}
	for range byPID {
		parent, ok := byPID[s.ppid]
		switch {
		case !ok:
			return true
		case shimPID[parent.PID], strings.HasPrefix(parent.comm, "VLLM::API"):
			return false
		case strings.HasPrefix(parent.comm, "VLLM::"):
			s = parent
			continue
		}
		argv := cmdline(parent.PID)
		if len(argv) > 0 && filepath.Base(argv[0]) == "vllmdeck" {
			return true // an engine that is pid 1 of its container
		}
		line := strings.ToLower(strings.Join(argv, " "))
		return !strings.Contains(line, "python") && !strings.Contains(line, "vllm")
	}
	return false
}
