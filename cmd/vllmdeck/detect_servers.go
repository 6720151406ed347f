package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// server is a vLLM server that runs already.
type server struct {
	url     string
	version string
	names   []string // it serves under, the first one first; none: it wants a key
	maxLen  int      // tokens; 0: not known
}

func (s server) usable() bool { return len(s.names) > 0 }

func (s server) String() string {
	what := "asks for a key"
	if s.usable() {
		what = "serves " + strings.Join(s.names, ", ")
	}
	return fmt.Sprintf("vLLM %s at %s, %s", s.version, s.url, what)
}

// usualPorts are where vLLM servers listen: 8000 and the ones after it.
func usualPorts() []int {
	var out []int
	for p := 8000; p <= 8010; p++ {
		out = append(out, p)
	}
	return out
}

// askLimit is how long a server on this machine may take to say what it is.
const askLimit = 300 * time.Millisecond

// servers finds vLLM servers on loopback: on the usual ports, and wherever a process of ours
// named vllm listens. It asks nobody else: an unexpected request can upset other services.
func (h host) servers(ctx context.Context) []server {
	ports := h.candidates()
	results := make([]*server, len(ports))
	client := &http.Client{
		Transport:     &http.Transport{Proxy: nil, DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	var wg sync.WaitGroup
	for i, port := range ports {
		wg.Go(func() { results[i] = ask(ctx, client, port) })
	}
	wg.Wait()
	var found []server
	for _, s := range results {
		if s != nil {
			found = append(found, *s)
		}
	}
	return found
}

// candidates lists the ports to ask, lowest first.
func (h host) candidates() []int {
	listening, ok := h.listening()
	if !ok {
		return h.ports
	}
	owners := h.owners(listening)
	var out []int
	for _, port := range slices.Sorted(maps.Keys(listening)) {
		who, known := owners[port]
		switch {
		case known && who.ours:
			// A worker of a running engine, or a simulated one of a demo.
		case known && who.vllm, slices.Contains(h.ports, port):
			out = append(out, port)
		}
	}
	return out
}

// listening reads which TCP ports accept connections from this machine, with the socket of
// each. ok is false where the system does not tell.
func (h host) listening() (inodes map[int][]string, ok bool) {
	inodes = map[int][]string{}
	for _, name := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile(filepath.Join(h.proc, "net", name))
		if err != nil {
			continue
		}
		ok = true
		for line := range strings.Lines(string(text)) {
			// sl local_address rem_address st … uid timeout inode; 0A is LISTEN.
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" {
				continue
			}
			addr, hexPort, _ := strings.Cut(f[1], ":")
			port, err := strconv.ParseUint(hexPort, 16, 16)
			if err != nil || !reachable(addr) {
				continue
			}
			inodes[int(port)] = append(inodes[int(port)], f[9])
		}
	}
	return inodes, ok
}

// reachable says whether 127.0.0.1 reaches an address of /proc/net/tcp, which is written in
// hex, each 32 bits in the byte order of a little-endian machine.
func reachable(addr string) bool {
	switch addr {
	case "00000000", strings.Repeat("0", 32): // every interface
		return true
	case "0000000000000000FFFF00000100007F": // ::ffff:127.0.0.1
		return true
	}
	return len(addr) == 8 && strings.HasSuffix(addr, "7F") // 127.x.x.x
}

// owner is what is known of the process that listens on a port.
type owner struct {
	vllm bool // its command line says vllm
	ours bool // vllmdeck started it
}

// owners looks up who listens. Processes of other users stay unknown.
func (h host) owners(listening map[int][]string) map[int]owner {
	ports := map[string]int{}
	for port, inodes := range listening {
		for _, inode := range inodes {
			ports["socket:["+inode+"]"] = port
		}
	}
	out := map[int]owner{}
	procs, _ := filepath.Glob(filepath.Join(h.proc, "[0-9]*")) // the pattern is ours: no error
	for _, dir := range procs {
		fds, err := os.ReadDir(filepath.Join(dir, "fd"))
		if err != nil {
			continue
		}
		for _, fd := range fds {
			link, err := os.Readlink(filepath.Join(dir, "fd", fd.Name()))
			if err != nil {
				continue
			}
			if port, ok := ports[link]; ok {
				who := out[port]
				a := describe(dir)
				out[port] = owner{vllm: who.vllm || a.vllm, ours: who.ours || a.ours}
			}
		}
	}
	return out
}

// describe reads a process. vllmdeck marks the environment of what it starts.
func describe(dir string) owner {
	cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
	environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
	var o owner
	for arg := range bytes.SplitSeq(cmdline, []byte{0}) {
		base := filepath.Base(string(arg))
		o.ours = o.ours || base == "vllmdeck"
		o.vllm = o.vllm || base == "vllm" || strings.HasPrefix(base, "vllm.") || strings.HasPrefix(base, "VLLM::")
	}
	for kv := range bytes.SplitSeq(environ, []byte{0}) {
		o.ours = o.ours || bytes.HasPrefix(kv, []byte("VLLMDECK_WORKER_ID="))
	}
	return o
}

// ask says what listens on a port; nil for anything but a vLLM server.
func ask(ctx context.Context, client *http.Client, port int) *server {
	s := &server{url: "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	var version struct {
		Version string `json:"version"`
	}
	if get(ctx, client, s.url+"/version", &version) != nil || !word(version.Version) {
		return nil
	}
	s.version = version.Version
	var models struct {
		Data []struct {
			ID     string  `json:"id"`
			Owner  string  `json:"owned_by"`
			Parent *string `json:"parent"`
			MaxLen int     `json:"max_model_len"`
		} `json:"data"`
	}
	err := get(ctx, client, s.url+"/v1/models", &models)
	if errors.Is(err, errKey) {
		return s
	}
	if err != nil {
		return nil
	}
	for _, m := range models.Data {
		if m.Owner == "vllm" && m.Parent == nil && word(m.ID) { // a parent: a LoRA adapter
			s.names = append(s.names, m.ID)
			s.maxLen = max(s.maxLen, m.MaxLen)
		}
	}
	if len(s.names) == 0 {
		return nil
	}
	return s
}

// word says whether foreign text is fit to be a name: short, in one piece, printable.
func word(s string) bool {
	return s != "" && len(s) <= 200 && !strings.ContainsFunc(s, func(c rune) bool {
		return unicode.IsSpace(c) || !unicode.IsPrint(c)
	})
}

var errKey = errors.New("asks for a key")

func get(ctx context.Context, client *http.Client, url string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(into)
	case http.StatusUnauthorized:
		return errKey
	}
	return fmt.Errorf("GET %s: %s", url, resp.Status)
}
