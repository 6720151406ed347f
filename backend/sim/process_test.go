//go:build unix

package sim

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serverMain is the API server process of a test. Its arguments are faults, its environment
// says the rest.
func serverMain() int {
	self, err := os.Executable()
	if err != nil {
		return 1
	}
	port, _ := strconv.Atoi(os.Getenv("SIM_TEST_PORT"))
	start, _ := time.ParseDuration(os.Getenv("SIM_TEST_START"))
	stop, _ := time.ParseDuration(os.Getenv("SIM_TEST_STOP"))
	p := Process{Host: "127.0.0.1", Port: port, Engine: []string{self}, Env: []string{"SIM_TEST_ROLE=engine"}}
	p.Options = Options{Model: "m", Start: start, TTFT: 10 * time.Millisecond, ITL: 5 * time.Millisecond, ShutdownTimeout: stop, Log: os.Stdout, Err: os.Stderr}
	for _, a := range os.Args[1:] {
		f, err := ParseFault(a)
		if err != nil {
			return 2
		}
		p.Faults = append(p.Faults, f)
	}
	return p.Run(context.Background())
}

// proc is a simulated vLLM in processes of its own.
type proc struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	port int
	log  *safeBuffer
	exit chan int // exit status, -1 for a signal
	c    *http.Client
}

func startProc(t *testing.T, port int, start, stop time.Duration, faults ...string) *proc {
	t.Helper()
	if port == 0 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port = ln.Addr().(*net.TCPAddr).Port
		ln.Close()
	}
	p := &proc{t: t, url: fmt.Sprint("http://127.0.0.1:", port), port: port, log: &safeBuffer{}, exit: make(chan int, 1), c: &http.Client{Transport: &http.Transport{}}}
	p.cmd = exec.Command(os.Args[0], faults...)
	p.cmd.Env = append(os.Environ(), "SIM_TEST_ROLE=server", fmt.Sprint("SIM_TEST_PORT=", port), "SIM_TEST_START="+start.String(), "SIM_TEST_STOP="+stop.String())
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waited := make(chan struct{})
	go func() {
		defer close(waited)
		_ = p.cmd.Wait()
		p.exit <- p.cmd.ProcessState.ExitCode()
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // the engine too
		<-waited
		p.c.CloseIdleConnections()
		data, _ := os.ReadFile(out.Name())
		out.Close()
		if t.Failed() {
			t.Logf("log:\n%s", data)
		}
	})
	go func() {
		<-waited
		data, _ := os.ReadFile(out.Name())
		_, _ = p.log.Write(data)
	}()
	return p
}

// until polls for something that another process does.
func (p *proc) until(what string, ok func() bool) {
	p.t.Helper()
	deadline := time.NewTimer(15 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			p.t.Fatalf("waited 15 s for %s", what)
		case <-tick.C:
		}
	}
}

func (p *proc) health() int {
	res, err := p.c.Get(p.url + "/health")
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

func (p *proc) ready() *proc {
	p.t.Helper()
	p.until("the server to be ready", func() bool { return p.health() == 200 })
	return p
}

func (p *proc) status() int {
	p.t.Helper()
	select {
	case code := <-p.exit:
		return code
	case <-time.After(15 * time.Second):
		p.t.Fatal("the server has not ended after 15 s")
		return 0
	}
}

// engine is the pid of the server's child.
func (p *proc) engine() int {
	p.t.Helper()
	pid := 0
	p.until("the engine process", func() bool { pid = p.child(); return pid != 0 })
	return pid
}

// child finds a child of the server in /proc; 0: none yet.
func (p *proc) child() int {
	p.t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil || len(stats) == 0 {
		p.t.Skip("no /proc here")
	}
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		pid, _, _ := strings.Cut(string(data), " ")
		f := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		if len(f) > 1 && f[1] == strconv.Itoa(p.cmd.Process.Pid) {
			n, _ := strconv.Atoi(pid)
			return n
		}
	}
	return 0
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// stream opens a long stream and reads its first event.
func (p *proc) stream(tokens int) (*bufio.Reader, io.Closer) {
	p.t.Helper()
	res, err := p.c.Post(p.url+"/v1/chat/completions", "application/json", strings.NewReader(chatBody("x", fmt.Sprintf(`,"stream":true,"ignore_eos":true,"max_tokens":%d`, tokens))))
	if err != nil {
		p.t.Fatal(err)
	}
	r := bufio.NewReader(res.Body)
	if _, err := r.ReadString('\n'); err != nil {
		p.t.Fatal(err)
	}
	return r, res.Body
}

func TestProcessEngineKilled(t *testing.T) {
	t.Parallel()
	p := startProc(t, 0, 50*time.Millisecond, 0).ready()
	r, c := p.stream(8000)
	defer c.Close()
	_ = syscall.Kill(p.engine(), syscall.SIGKILL)
	rest, err := io.ReadAll(r)
	if err != nil || !strings.HasSuffix(string(rest), deadEvent) {
		t.Errorf("stream ends with %q, %v; want the error event and [DONE]", rest[max(0, len(rest)-200):], err)
	}
	if got := p.health(); got != 503 {
		t.Errorf("health = %d, want 503", got)
	}
	if got := p.status(); got != 0 {
		t.Errorf("exit status = %d; vLLM's is 0", got)
	}
}

func TestProcessKilledServerLeavesEngine(t *testing.T) {
	t.Parallel()
	p := startProc(t, 0, 50*time.Millisecond, 0).ready()
	r, c := p.stream(8000)
	defer c.Close()
	eng := p.engine()
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", eng)); err == nil && string(comm) != "VLLM::EngineCor\n" {
		t.Errorf("engine's name = %q, want VLLM::EngineCor", comm)
	}
	if args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", eng)); err == nil && !strings.HasPrefix(string(args), "VLLM::EngineCore\x00") {
		t.Errorf("engine's command line = %q, want VLLM::EngineCore first", args)
	}
	_ = p.cmd.Process.Kill()
	if rest, err := io.ReadAll(r); err == nil {
		t.Errorf("stream of a killed server ends cleanly with %q", rest[max(0, len(rest)-100):])
	}
	p.status()
	// Longer than several heartbeats that nobody reads.
	<-time.After(5 * beat)
	if !alive(eng) {
		t.Errorf("engine %d ended with its server; vLLM's lives on", eng)
	}
	if got := p.health(); got != 0 {
		t.Errorf("health = %d, want refused", got)
	}
}

func TestProcessStoppedEngineHangs(t *testing.T) {
	t.Parallel()
	p := startProc(t, 0, 50*time.Millisecond, 0).ready()
	r, c := p.stream(8000)
	defer c.Close()
	eng := p.engine()
	lines := make(chan struct{}, 1<<16)
	go func() {
		for {
			if _, err := r.ReadString('\n'); err != nil {
				close(lines)
				return
			}
			lines <- struct{}{}
		}
	}()
	quiet := func(d time.Duration) bool {
		select {
		case <-lines:
			return false
		case <-time.After(d):
			return true
		}
	}
	_ = syscall.Kill(eng, syscall.SIGSTOP)
	p.until("the stream to fall silent", func() bool { return quiet(300 * time.Millisecond) })
	if got := p.health(); got != 200 {
		t.Errorf("health of a hung server = %d, want 200", got)
	}
	_ = syscall.Kill(eng, syscall.SIGCONT)
	p.until("the stream to go on", func() bool { return !quiet(300 * time.Millisecond) })
	c.Close()
	for range lines {
	}
}

func TestProcessDrains(t *testing.T) {
	t.Parallel()
	p := startProc(t, 0, 50*time.Millisecond, 10*time.Second).ready()
	r, c := p.stream(150)
	defer c.Close()
	eng := p.engine()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	p.until("new requests to be refused", func() bool {
		res, err := p.c.Post(p.url+"/v1/chat/completions", "application/json", strings.NewReader(chatBody("x", `,"max_tokens":1`)))
		if err != nil {
			t.Fatalf("request to a draining server: %v", err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode == http.StatusInternalServerError && strings.Contains(string(body), "cannot schedule new futures after shutdown")
	})
	if got := p.health(); got != 200 {
		t.Errorf("health while draining = %d, want 200", got)
	}
	rest, err := io.ReadAll(r)
	if err != nil || !strings.Contains(string(rest), `"finish_reason":"length"`) {
		t.Errorf("running stream does not finish: %v", err)
	}
	if got := p.status(); got != 0 {
		t.Errorf("exit status = %d, want 0", got)
	}
	p.until("the engine to be gone", func() bool { return !alive(eng) })
}

func TestProcessSwallowsSIGTERMWhileLoading(t *testing.T) {
	t.Parallel()
	p := startProc(t, 0, 700*time.Millisecond, 0)
	p.engine()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	p.ready()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	if got := p.status(); got != 0 {
		t.Errorf("exit status = %d, want 0", got)
	}
}

func TestProcessFailedStarts(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, c := range []struct {
		fault, cause, last string
		port               int
	}{
		{"fail-start:oom", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate", "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}", 0},
		{"fail-start:kv", "To serve at least one request with the model's max seq len (8192)", "Engine core initialization failed.", 0},
		{"fail-start:maxlen", "User-specified max_model_len (8192) is greater than the derived max_model_len", "https://errors.pydantic.dev", 0},
		{"fail-start:model", "HFValidationError: Repo id must be in the form", "HFValidationError", 0},
		{"fail-start:port", "OSError: [Errno 98] Address already in use", "[Errno 98]", 0},
		{"slow:1", "OSError: [Errno 98] Address already in use", "[Errno 98]", taken.Addr().(*net.TCPAddr).Port},
	} {
		p := startProc(t, c.port, 20*time.Millisecond, 0, c.fault)
		if got := p.status(); got != 1 {
			t.Errorf("%s: exit status = %d, want 1", c.fault, got)
		}
		p.until("the log", func() bool { return p.log.String() != "" })
		log := strings.TrimSpace(p.log.String())
		if !strings.Contains(log, c.cause) {
			t.Errorf("%s: log lacks %q:\n%s", c.fault, c.cause, log)
		}
		if last := log[strings.LastIndexByte(log, '\n')+1:]; !strings.Contains(last, c.last) {
			t.Errorf("%s: last line = %q, want %q in it", c.fault, last, c.last)
		}
	}
}

func TestProcessIgnoresSIGTERMOnDemandAndCrashes(t *testing.T) {
	t.Parallel()
	p := startProc(t, 0, 20*time.Millisecond, 0, "ignore-sigterm", "crash-on:KABOOM").ready()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	<-time.After(300 * time.Millisecond)
	if got := p.health(); got != 200 {
		t.Fatalf("health after a SIGTERM that is to be ignored = %d, want 200", got)
	}
	res, err := p.c.Post(p.url+"/v1/chat/completions", "application/json", strings.NewReader(chatBody("KABOOM", `,"max_tokens":500,"ignore_eos":true`)))
	if err != nil || res.StatusCode != http.StatusInternalServerError {
		t.Errorf("request that crashes the engine = %v, %v; want 500", res, err)
	}
	if err == nil {
		res.Body.Close()
	}
	if got := p.status(); got != 0 {
		t.Errorf("exit status = %d, want 0", got)
	}
}

func TestBoundPortRefusesUntilOpen(t *testing.T) {
	b, err := Bind("127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if c, err := net.Dial("tcp", b.Addr().String()); err == nil {
		c.Close()
		t.Fatal("connected before Open")
	}
	if err := b.Open(); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatalf("dial after Open: %v", err)
	}
	c.Close()
	if _, err := Bind("127.0.0.1", b.Addr().(*net.TCPAddr).Port); err == nil {
		t.Error("bound a port that somebody listens on")
	}
}
