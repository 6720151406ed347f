package launch

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestAStrangerOnAServersPortIsFound(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	if err := Listens(port, []int{os.Getppid(), os.Getpid()}); err != nil {
		t.Errorf("one of ours listens: got %v", err)
	}
	err = Listens(port, []int{1 << 30})
	for _, want := range []string{strconv.Itoa(port), strconv.Itoa(os.Getpid()), "attach:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a stranger listens: got %v, want %q in it", err, want)
		}
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Listens(port, []int{1 << 30}); err != nil {
		t.Errorf("nobody listens: got %v", err)
	}
}
