package launch

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stat is what we use of /proc/PID/stat, see proc_pid_stat(5).
type stat struct {
	ident
	comm    string
	state   byte
	ppid    int
	session int
	cpu     float64 // seconds, user and system
	rss     int64   // bytes
}

// ticksPerSecond is USER_HZ, which is 100 on every architecture that Go runs on under Linux.
const ticksPerSecond = 100

// dead says whether the process has ended and only waits to be reaped.
func (s stat) dead() bool { return s.state == 'Z' || s.state == 'X' }

func (s stat) process() Process {
	return Process{PID: s.PID, Name: s.comm, RSS: s.rss, CPUTime: s.cpu}
}

// parseStat reads one line of /proc/PID/stat. The name stands in parentheses and may hold
// anything, parentheses and newlines too: the last closing one ends it.
func parseStat(b []byte) (stat, bool) {
	var s stat
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 1 || end < open {
		return s, false
	}
	f := strings.Fields(string(b[end+1:]))
	if len(f) < 22 || len(f[0]) != 1 {
		return s, false
	}
	var errs []error
	num := func(t string) int64 {
		n, err := strconv.ParseInt(t, 10, 64)
		errs = append(errs, err)
		return n
	}
	s.PID = int(num(strings.TrimSpace(string(b[:open]))))
	s.comm = string(b[open+1 : end])
	s.state = f[0][0] // field 3, so field n of the manual is f[n-3]
	s.ppid = int(num(f[1]))
	s.session = int(num(f[3]))
	s.cpu = float64(num(f[11])+num(f[12])) / ticksPerSecond
	s.Start = uint64(num(f[19]))
	s.rss = num(f[21]) * int64(os.Getpagesize())
	return s, errors.Join(errs...) == nil && s.PID > 0
}

// readStat is the state of a process; false if there is none of this pid.
func readStat(pid int) (stat, bool) {
	var buf [1024]byte
	n, err := readProc("/proc/"+strconv.Itoa(pid)+"/stat", buf[:])
	if err != nil {
		return stat{}, false
	}
	return parseStat(buf[:n])
}

// readProc is one read of a small file without the runtime's poller: a scan reads thousands.
func readProc(path string, buf []byte) (int, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Read(fd, buf)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// alive says whether this very process runs: same pid, same start.
func (id ident) alive() bool {
	s, ok := readStat(id.PID)
	return ok && s.ident == id && !s.dead()
}

func identOf(pid int) (ident, error) {
	s, ok := readStat(pid)
	if !ok {
		return ident{}, errors.New("read /proc/" + strconv.Itoa(pid) + "/stat: no such process, or /proc is not mounted")
	}
	return s.ident, nil
}

// scan lists all processes that live.
func scan() []stat {
	var all []stat
	for _, pid := range pids() {
		if s, ok := readStat(pid); ok && !s.dead() {
			all = append(all, s)
		}
	}
	return all
}

func pids() []int {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	var out []int
	for {
		names, err := d.Readdirnames(1024)
		for _, n := range names {
			if pid, err := strconv.Atoi(n); err == nil {
				out = append(out, pid)
			}
		}
		if err != nil {
			return out
		}
	}
}

// procEnv is the environment that the process was started with; empty for processes of
// others. Programs may overwrite it: setproctitle does unless SPT_NOENV is set, so we set it.
func procEnv(pid int) []string {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return nil
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, 4<<20))
	return strings.Split(string(b), "\x00")
}

// cmdline is the command line of a process as it shows itself now.
func cmdline(pid int) []string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
}

// bootID changes with each start of the kernel.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b)), err
}

// uptime is the age of the kernel, the clock that ident.Start ticks by.
func uptime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// scanner shares one scan of /proc among all servers of a launcher: on a host with thousands of
// processes that is the dear part of Tree.
type scanner struct {
	mu  sync.Mutex
	at  time.Time
	all []stat
}

// recent is a scan that is no older than max. Callers do not change it.
func (s *scanner) recent(max time.Duration) []stat {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil || time.Since(s.at) > max {
		s.all, s.at = scan(), time.Now()
	}
	return s.all
}

// runtimeDir is where sockets go whose path in the worker's folder would be too long. It must
// be ours alone: in /tmp somebody else may have made it first.
func runtimeDir(set string) (string, error) {
	dir := set
	if dir == "" {
		if x := os.Getenv("XDG_RUNTIME_DIR"); x != "" {
			dir = filepath.Join(x, "vllmdeck")
		} else {
			dir = filepath.Join(os.TempDir(), "vllmdeck-"+strconv.Itoa(os.Getuid()))
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Getuid() || st.Mode&0o077 != 0 {
		return "", errors.New("runtime folder " + dir + " is not ours alone (needs our user, mode 0700): remove it, or set XDG_RUNTIME_DIR")
	}
	return dir, nil
}
