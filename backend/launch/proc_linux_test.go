package launch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestParseStatReadsNamesWithAnythingInThem(t *testing.T) {
	line := "4711 (VLLM::) (x\n) S 12 4711 4700 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 9 0 123456 1000000 77 18446744073709551615 1"
	s, ok := parseStat([]byte(line))
	want := stat{ident: ident{4711, 123456}, comm: "VLLM::) (x\n", state: 'S', ppid: 12, session: 4700, cpu: 3, rss: 77 * int64(os.Getpagesize())}
	if !ok || s != want {
		t.Errorf("parseStat = %+v, %v, want %+v", s, ok, want)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (a) S 1 1 1 0 -1 0 1 2 3 4 250 50 0 0 20 0 9 0 123456 1000000 77"))
	f.Add([]byte(") ("))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := parseStat(b); ok && s.PID <= 0 {
			t.Errorf("parseStat(%q) = %+v", b, s)
		}
	})
}

func TestParseListener(t *testing.T) {
	const line = "   2: 0100007F:1F9A 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 25521 1 0000 100 0 0 10 0"
	if l, ok := parseListener(line); !ok || l != (listener{8090, 1000, "25521"}) {
		t.Errorf("parseListener = %+v, %v", l, ok)
	}
	for _, bad := range []string{"", "sl local_address rem_address st", "2: 0100007F:1F9A 0:0 01 0:0 0:0 0 1000 0 25521 1"} {
		if l, ok := parseListener(bad); ok {
			t.Errorf("parseListener(%q) = %+v, want none", bad, l)
		}
	}
}

func TestCheckNamesWhoHasThePort(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s := vllm("org/any")
	s.Port = ln.Addr().(*net.TCPAddr).Port
	err = Check(s)
	for _, part := range []string{strconv.Itoa(s.Port), fmt.Sprintf("pid %d", os.Getpid()), filepath.Base(os.Args[0]), "port:"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("Check = %v, want it to name %q", err, part)
		}
	}
	ln.Close()
	if err := Check(s); err != nil {
		t.Errorf("Check with the port free again = %v", err)
	}
}

func TestWaitSeesTheEndOfAProcessAndHeedsItsContext(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "launchtest", "deaf")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	id, err := identOf(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := id.wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for a living process = %v, want the context's end", err)
	}
	if err := (ident{id.PID, id.Start - 1}).wait(t.Context()); err != nil {
		t.Errorf("wait for an earlier process of that pid = %v, want it to have ended", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- id.wait(t.Context()) }()
	_ = cmd.Process.Kill()
	if err := <-ended; err != nil {
		t.Errorf("wait = %v", err)
	}
	_ = cmd.Wait()
}

// The kernel gives a pid out again; a session of that number is then another one.
func TestMembersTrustNoPidAlone(t *testing.T) {
	leader := stat{ident: ident{100, 50}, ppid: 90, session: 100}
	shim := stat{ident: ident{90, 49}, ppid: 1, session: 90}
	engineCore := stat{ident: ident{101, 60}, ppid: 100, session: 100}
	escaped := stat{ident: ident{102, 61}, ppid: 90, session: 102}
	k := kin{marker: "w0/test-marker-that-nobody-has", shim: shim.ident, child: leader.ident}
	for _, c := range []struct {
		name string
		all  []stat
		want []int
	}{
		{"all alive", []stat{shim, engineCore, escaped, leader}, []int{100, 101, 102}},
		{"leader dead", []stat{shim, {ident: engineCore.ident, ppid: 90, session: 100}, escaped}, []int{101, 102}},
		{"shim dead", []stat{leader, engineCore, {ident: escaped.ident, ppid: 1, session: 102}}, []int{100, 101}},
		{"both dead", []stat{{ident: engineCore.ident, ppid: 1, session: 100}}, []int{101}},
		{"pids reused", []stat{
			{ident: ident{90, 900}, ppid: 1, session: 90},
			{ident: ident{100, 901}, ppid: 90, session: 100},
			{ident: ident{101, 902}, ppid: 100, session: 100},
		}, nil},
	} {
		var got []int
		for _, s := range k.members(c.all, false) {
			got = append(got, s.PID)
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: members = %v, want %v", c.name, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != c.want[i] {
				t.Errorf("%s: members = %v, want %v", c.name, got, c.want)
			}
		}
	}
}

func BenchmarkScan(b *testing.B) {
	for b.Loop() {
		scan()
	}
}
