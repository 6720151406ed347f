//go:build unix

package sim

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// Process plays vLLM's processes: this one is the API server, its child the engine. The engine
// sends heartbeats over a pipe; when they stop, the server freezes, and when the pipe ends, the
// engine is dead. Like vLLM's, an engine outlives an API server that is killed.
type Process struct {
	Options
	Host   string
	Port   int
	Engine []string // argv of the engine process, which calls EngineMain
	Env    []string // for the engine, beside this process's environment
}

const (
	beat       = 100 * time.Millisecond
	beatMissed = 600 * time.Millisecond // of silence is a stopped engine; a busy host may be slow
	engineName = "VLLM::EngineCore"
	beatFD     = 3
)

// Run serves until the end that its signals and faults bring, and gives vLLM's exit status.
// SIGTERM and SIGINT drain the server; while it starts they are swallowed, as vLLM 0.32 does
// while its engine loads.
func (p Process) Run(ctx context.Context) int {
	o := p.Options
	o.PID = os.Getpid()
	o.Addr = "http://" + net.JoinHostPort(p.Host, strconv.Itoa(p.Port))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	sigs := make(chan os.Signal, 4)
	signal.Notify(sigs, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(sigs)
	eng, err := startEngine(p.Engine, p.Env)
	if err != nil {
		fmt.Fprintf(o.Err, "start simulated engine: %v\n", err)
		return 1
	}
	defer eng.kill()
	o.EnginePID = eng.cmd.Process.Pid
	o.Crash = eng.kill

	srv := New(o)
	ln, err := Bind(p.Host, p.Port)
	if err != nil {
		// vLLM gets as far as its first lines before it finds the port taken.
		srv = New(withFault(o, Fault{Name: "fail-start", Arg: "port", P: 1}))
		if !errors.Is(err, syscall.EADDRINUSE) {
			fmt.Fprintln(o.Err, err)
			return 1
		}
		return code(srv.Serve(ctx, Listen()))
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ctx, ln) }()
	frozen := false
	check := time.NewTicker(beat)
	defer check.Stop()
	for {
		select {
		case err := <-served:
			return code(err)
		case <-sigs:
			if o.fault("ignore-sigterm") == nil {
				srv.Drain()
			}
		case <-eng.dead:
			eng.dead = nil
			if !srv.Ready() {
				fmt.Fprintln(o.Err, "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': -9}")
				return 1
			}
			srv.Die()
		case <-check.C:
			if silent := eng.silence() > beatMissed; silent != frozen {
				frozen = silent
				srv.Freeze(frozen)
			}
		}
	}
}

func withFault(o Options, f Fault) Options {
	o.Faults = append([]Fault{f}, o.Faults...)
	return o
}

func code(err error) int {
	var e *ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.Code
	}
	return 1
}

// engineProcess is the engine's process as its server sees it.
type engineProcess struct {
	cmd  *exec.Cmd
	dead chan struct{} // closed when its end of the pipe is
	seen chan time.Time
	last time.Time
}

func startEngine(argv, env []string) (*engineProcess, error) {
	if len(argv) == 0 {
		return nil, errors.New("no command line for the engine process")
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // ended by its server, as vLLM does it
	cmd.Args[0] = engineName                  // what ps shows, as setproctitle does for vLLM
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	err = cmd.Start()
	w.Close()
	if err != nil {
		r.Close()
		return nil, err
	}
	e := &engineProcess{cmd: cmd, dead: make(chan struct{}), seen: make(chan time.Time, 1), last: time.Now()}
	go func() {
		defer close(e.dead)
		defer r.Close()
		buf := make([]byte, 64)
		for {
			if _, err := r.Read(buf); err != nil {
				_ = cmd.Wait()
				return
			}
			select { // keep the newest
			case <-e.seen:
			default:
			}
			e.seen <- time.Now()
		}
	}()
	return e, nil
}

// silence is how long ago the last heartbeat came.
func (e *engineProcess) silence() time.Duration {
	select {
	case e.last = <-e.seen:
	default:
	}
	return time.Since(e.last)
}

func (e *engineProcess) kill() { _ = e.cmd.Process.Kill() }

// EngineMain is the engine's process: it has vLLM's name, sends heartbeats, and lives until it
// is killed, whatever becomes of its parent.
func EngineMain() int {
	setName(engineName)
	signal.Ignore(syscall.SIGPIPE, syscall.SIGINT)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	if path := os.Getenv(gpuEnv); path != "" {
		_, _ = syscall.Setsid() // already a leader: just as well
		gpu, err := holdGPU(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer gpu.Close()
	}
	w := os.NewFile(beatFD, "heartbeat")
	tick := time.NewTicker(beat)
	defer tick.Stop()
	beats := tick.C
	for {
		select {
		case <-term:
			return 0
		case <-beats:
			if _, err := w.Write([]byte{'.'}); err != nil {
				beats = nil // an orphan now
			}
		}
	}
}
