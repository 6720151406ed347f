package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/vllmdeck/vllmdeck/backend"
	"github.com/vllmdeck/vllmdeck/backend/api"
	"github.com/vllmdeck/vllmdeck/backend/launch"
	"github.com/vllmdeck/vllmdeck/config"
)

func serveCmd(g *globals) *cobra.Command {
	var workers string
	var quiet bool
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the engine in the foreground: gateway, workers, ledger",
		Long: `Run the engine without a console: for systemd, containers, or a terminal of its own.

SIGTERM and SIGINT end it: it stops accepting, lets requests end (config: grace), flushes the
ledger and exits. Workers keep running and the next engine takes them up; --workers=stop ends
them too, for containers. SIGHUP reads the config again. In a systemd unit: KillMode=process.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if workers != "keep" && workers != "stop" {
				return &exitError{code: exitUsage, err: fmt.Errorf("--workers=%s: want keep or stop", workers)}
			}
			cfg, err := g.load()
			if err != nil {
				return err
			}
			out := cmd.ErrOrStderr()
			if quiet {
				out = nil
			}
			o := serveOptions(cfg, cmd.OutOrStdout(), out)
			o.stopWorkers = workers == "stop"
			o.again = append(o.again, "--workers="+workers, "--quiet="+strconv.FormatBool(quiet))
			return serve(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&workers, "workers", "keep", "what becomes of workers when the engine ends: keep or stop")
	cmd.Flags().BoolVar(&quiet, "quiet", false, "log to the state folder only")
	return cmd
}

// load finds and reads the config that the command line means. None is a usage error.
func (g *globals) load() (*config.Config, error) {
	path, ok, err := config.Find(g.config)
	if err != nil {
		return nil, &exitError{code: exitUsage, err: err}
	}
	if !ok {
		return nil, &exitError{code: exitUsage, err: errors.New(`no config: "vllmdeck init" writes one from what this machine has, "vllmdeck demo" needs none`)}
	}
	return loadConfig(path)
}

// engineOptions are what differs between serve, the console's own engine and the demo.
type engineOptions struct {
	cfg         *config.Config
	load        func() (*config.Config, error) // for reload; nil: there is nothing to reload
	again       []string                       // command line of a restart
	demo        bool
	stopWorkers bool          // on SIGTERM and SIGINT
	lease       string        // lock file that local workers live by; "" for none
	out         io.Writer     // log beside the file; nil for none
	ready       func(*engine) // called once everything listens; nil for none
}

// serveOptions are those of an engine in the foreground.
func serveOptions(cfg *config.Config, stdout, log io.Writer) engineOptions {
	return engineOptions{
		cfg: cfg, load: func() (*config.Config, error) { return loadConfig(cfg.Path) },
		again: []string{"serve", "--config", cfg.Path}, out: log,
		ready: func(e *engine) { fmt.Fprintln(stdout, "serving on "+e.url) },
	}
}

// engine is a running engine with its control socket and its place in the runtime folder.
type engine struct {
	*backend.Backend
	url    string
	socket string
}

// serve runs an engine until it is told to end. A restart replaces this process.
func serve(ctx context.Context, o engineOptions) error {
	restart, err := runEngine(ctx, o)
	if err != nil || !restart {
		return err
	}
	self, err := ownPath()
	if err != nil {
		return err
	}
	if err := execSelf(self, o.again); err != nil {
		return fmt.Errorf("run %s anew: %w", self, err)
	}
	return nil
}

// runEngine is one life of an engine. It says true if a restart was asked for.
func runEngine(ctx context.Context, o engineOptions) (restart bool, err error) {
	starting, abort := context.WithCancel(ctx)
	defer abort()
	sigs := catchSignals(o, abort)
	defer sigs.stop()

	lock, err := backend.OpenState(o.cfg.State)
	var held *backend.HeldError
	switch {
	case errors.As(err, &held):
		return false, &exitError{code: exitRunning, err: fmt.Errorf(`%w ("vllmdeck" attaches to it, "vllmdeck stop" ends it)`, held)}
	case err != nil:
		return false, err
	}
	defer lock.Close()

	logs := filepath.Join(o.cfg.State, "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return false, fmt.Errorf("make log folder: %w", err)
	}
	file := launch.NewLogFile(filepath.Join(logs, "engine.log"), int64(o.cfg.Logs.Size), o.cfg.Logs.Keep)
	defer file.Close()
	outs := []io.Writer{file}
	if o.out != nil {
		outs = append(outs, o.out)
	}
	elog := backend.NewLog(outs...)
	log := slog.New(elog)

	ln, err := listenGateway(starting, o.cfg)
	if err != nil {
		return false, err
	}
	defer ln.Close()
	socket, err := controlSocket(o.cfg.State)
	if err != nil {
		return false, err
	}
	control, err := api.Listen(starting, socket)
	if err != nil {
		return false, err
	}
	defer control.Close()
	self, err := ownPath()
	if err != nil {
		return false, err
	}
	runtime, _ := runtimeDir() // needed for long paths alone, and then missed there
	b, err := backend.New(starting, backend.Options{
		Config: o.cfg, Load: o.load, Version: version, Self: []string{self}, Demo: o.demo, Lease: o.lease, Runtime: runtime, Listener: ln, Log: elog,
	})
	if err != nil {
		return false, err
	}
	sigs.order(b, log)
	e := &engine{Backend: b, url: b.URL(), socket: socket}
	if err := lock.Publish(e.url); err != nil {
		return false, err
	}
	// No limit on how long a request takes: a stop waits for its workers.
	srv := &http.Server{Handler: api.Handler(b, version), ReadHeaderTimeout: 10 * time.Second}
	controlDone := make(chan struct{})
	go func() { defer close(controlDone); _ = srv.Serve(control) }()
	defer func() {
		_ = srv.Close()
		<-controlDone
	}()
	unregister, err := engineRecord{
		PID: os.Getpid(), Birth: processBirth(os.Getpid()), Socket: socket, URL: e.url, State: o.cfg.State,
		Config: o.cfg.Path, Version: version, Demo: o.demo, Started: time.Now(),
	}.register()
	if err != nil {
		// It serves all the same: a read-only container may have no such folder.
		log.Warn("other commands find this engine by its config or socket alone", "error", err, "socket", "unix:"+socket)
	} else {
		defer unregister()
	}

	log.Info("engine started", "version", version, "pid", os.Getpid(), "url", e.url, "state", o.cfg.State, "config", o.cfg.Path)
	if o.ready != nil {
		o.ready(e)
	}
	err = b.Run(ctx)
	log.Info("engine ended", "restart", b.Restarting())
	return b.Restarting(), err
}

// listenGateway opens the gateway's port, and names who has it if somebody does.
func listenGateway(ctx context.Context, cfg *config.Config) (net.Listener, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Listen)
	if err == nil {
		return ln, nil
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		owner := "another process"
		if _, port, err := net.SplitHostPort(cfg.Listen); err == nil {
			if n, err := strconv.Atoi(port); err == nil {
				owner = cmp.Or(launch.PortOwner(n), owner)
			}
		}
		return nil, fmt.Errorf("listen on %s: the port is taken by %s: end that, or set listen: to another one", cfg.Listen, owner)
	}
	return nil, fmt.Errorf("listen on %s: %w: set listen: in the config", cfg.Listen, err)
}

// ownPath is the binary that runs, as a path that a later exec finds: also after an upgrade
// has put a new file in its place.
func ownPath() (string, error) {
	if startPath == "" {
		return "", errors.New("the path of this binary is not known: is /proc mounted?")
	}
	return startPath, nil
}

// startPath is read when the process starts: later, a replaced file would show as deleted. It is
// the path that the process was called by, links unresolved: an upgrade may turn a link round.
var startPath = func() string {
	exe, err := os.Executable()
	if err != nil {
		return ""
	}
	if called, err := exec.LookPath(os.Args[0]); err == nil {
		if abs, err := filepath.Abs(called); err == nil && sameFile(abs, exe) {
			return abs
		}
	}
	return exe
}()
