package launch

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"
)

// listener is a listening TCP socket as /proc/net/tcp lists it.
type listener struct {
	port  int
	uid   int
	inode string
}

// PortOwner names who listens on a port, as far as we may see: the pid and command of processes
// of ours (of all, for root), the user of others. "" if nobody is seen.
func PortOwner(port int) string {
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			l, ok := parseListener(line)
			if !ok || l.port != port {
				continue
			}
			if pid := socketOwner(l.inode); pid != 0 {
				return fmt.Sprintf("pid %d (%s)", pid, display(pid))
			}
			return fmt.Sprintf("a process of user id %d, which only that user and root may see", l.uid)
		}
	}
	return ""
}

// Listens finds a stranger that listens on a port of loopback in place of the processes with these
// pids: one may take it after Check, while the server still loads. The error names it. Nil says
// that one of them listens, that nobody does, or that this cannot be seen.
func Listens(port int, pids []int) error {
	inodes := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		b, err := os.ReadFile(table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if l, ok := parseListener(line); ok && l.port == port {
				inodes["socket:["+l.inode+"]"] = true
			}
		}
	}
	if len(inodes) == 0 {
		return nil
	}
	for _, pid := range pids {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd"
		fds, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		for _, fd := range fds {
			if target, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && inodes[target] {
				return nil
			}
		}
	}
	return fmt.Errorf("port %d is taken by %s, which is not of this worker: end that, or set another \"port:\"; for a server that something else starts there is \"attach:\"",
		port, cmp.Or(PortOwner(port), "another process"))
}

// parseListener reads one line of /proc/net/tcp or tcp6; false for what does not listen.
func parseListener(line string) (listener, bool) {
	f := strings.Fields(line)
	if len(f) < 10 || f[3] != "0A" {
		return listener{}, false
	}
	_, hex, ok := strings.Cut(f[1], ":")
	port, err := strconv.ParseUint(hex, 16, 16)
	uid, uerr := strconv.Atoi(f[7])
	if !ok || err != nil || uerr != nil {
		return listener{}, false
	}
	return listener{port: int(port), uid: uid, inode: f[9]}, true
}

func socketOwner(inode string) int {
	want := "socket:[" + inode + "]"
	for _, pid := range pids() {
		dir := "/proc/" + strconv.Itoa(pid) + "/fd"
		fds, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if target, err := os.Readlink(filepath.Join(dir, fd.Name())); err == nil && target == want {
				return pid
			}
		}
	}
	return 0
}

// display is a command line for an error: without secrets and control characters, and short.
func display(pid int) string {
	const most = 80
	s := strings.Join(Redact(cmdline(pid)), " ")
	if st, ok := readStat(pid); ok && s == "" {
		s = st.comm
	}
	r := []rune(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s))
	if len(r) > most {
		r = append(r[:most-1], '…')
	}
	return string(r)
}
