package sim

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// logger writes vLLM's log: its own lines and uvicorn's access lines to stdout, progress bars,
// tracebacks and uvicorn's lifecycle lines to stderr.
type logger struct {
	mu  sync.Mutex
	out io.Writer
	err io.Writer
	o   Options
}

func newLogger(o Options) *logger { return &logger{out: o.Log, err: o.Err, o: o} }

// Names of vLLM's processes, as they stand in its log prefixes.
const (
	apiProc    = "APIServer"
	engineProc = "EngineCore"
)

func (l *logger) line(proc, level, at, format string, args ...any) {
	pid := l.o.PID
	if proc == engineProc {
		pid = l.o.EnginePID
	}
	l.raw(l.out, fmt.Sprintf("(%s pid=%d) %s %s [%s] %s\n", proc, pid, level, time.Now().Format("01-02 15:04:05"), at, fmt.Sprintf(format, args...)))
}

func (l *logger) api(at, format string, args ...any) { l.line(apiProc, "INFO", at, format, args...) }

func (l *logger) engine(at, format string, args ...any) {
	l.line(engineProc, "INFO", at, format, args...)
}

func (l *logger) raw(w io.Writer, s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = io.WriteString(w, s)
}

// trace writes lines to stderr, as an uncaught exception does.
func (l *logger) trace(lines ...string) {
	l.raw(l.err, strings.Join(lines, "\n")+"\n")
}

func (l *logger) uvicorn(text string) { l.raw(l.err, "INFO:     "+text+"\n") }

// access is uvicorn's line about an answer.
func (l *logger) access(r *http.Request, status int) {
	l.raw(l.out, fmt.Sprintf("INFO:     %s - \"%s %s HTTP/1.1\" %d %s\n", r.RemoteAddr, r.Method, r.URL.RequestURI(), status, http.StatusText(status)))
}

func (l *logger) stats(promptRate, genRate float64, running, waiting int, kv, hit float64) {
	l.api("loggers.py:335", "Engine 000: Avg prompt throughput: %.1f tokens/s, Avg generation throughput: %.1f tokens/s, Running: %d reqs, Waiting: %d reqs, GPU KV cache usage: %.1f%%, Prefix cache hit rate: %.1f%%",
		promptRate, genRate, running, waiting, kv, hit)
}

const deadText = "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause."

func (l *logger) outputHandlerFailed() {
	for _, t := range []string{
		"AsyncLLM output_handler failed.",
		"Traceback (most recent call last):",
		`  File "vllm/v1/engine/async_llm.py", line 849, in output_handler`,
		"    outputs = await engine_core.get_output_async()",
		`  File "vllm/v1/engine/core_client.py", line 1235, in get_output_async`,
		"    raise self._format_exception(outputs) from None",
		deadText,
	} {
		l.line(apiProc, "ERROR", "async_llm.py:906", "%s", t)
	}
}

func (l *logger) clientStop() {
	l.api("core_client.py:774", "[shutdown] MPClient: engine manager stopped")
	l.api("core_client.py:775", "[shutdown] MPClient: cleaning up background resources")
	l.api("core_client.py:777", "[shutdown] MPClient: complete")
}

func (l *logger) engineDied() {
	l.api("utils.py:628", "[shutdown] Process manager: send sigterm to process EngineCore")
	l.line(apiProc, "WARNING", "core_client.py:817", "[shutdown] MPClient: engine core exited unexpectedly; starting cleanup")
	l.api("core_client.py:770", "[shutdown] MPClient: start timeout=default")
	l.api("core_client.py:772", "[shutdown] MPClient: stopping engine manager")
	l.clientStop()
	l.outputHandlerFailed()
}

func (l *logger) shutdownStart(limit time.Duration) {
	mode, shown := "abort", "0s"
	if limit > 0 {
		mode, shown = "drain", fmt.Sprintf("%.0fs", limit.Seconds())
	}
	l.api("launcher.py:254", "[shutdown] API server: shutdown triggered")
	l.api("launcher.py:270", "[shutdown] API server: stopping engine client mode=%s timeout=%s", mode, shown)
	l.api("core_client.py:770", "[shutdown] MPClient: start timeout=%s", shown)
	l.api("core_client.py:772", "[shutdown] MPClient: stopping engine manager")
	l.api("utils.py:628", "[shutdown] Process manager: send sigterm to process EngineCore")
	l.engine("core.py:1454", "[shutdown] EngineCore: trigger received signal=SIGTERM")
	l.engine("core.py:1635", "[shutdown] EngineCore: start mode=%s timeout=%s", mode, shown)
}

func (l *logger) aborted() {
	l.clientStop()
	l.outputHandlerFailed()
}

// idle says that a drain has nothing left to wait for.
func (l *logger) idle() {
	l.engine("core.py:1666", "[shutdown] EngineCore: request processing complete; starting resource teardown")
	l.engine("core.py:1499", "[shutdown] EngineCore: exiting busy loop")
}

func (l *logger) shutdownEnd() {
	l.api("launcher.py:279", "[shutdown] API server: engine client stopped")
	l.api("launcher.py:282", "[shutdown] API server: signalling HTTP server shutdown")
	l.api("launcher.py:304", "[shutdown] API server: shutting down FastAPI HTTP server")
	l.goodbye()
}

func (l *logger) goodbye() {
	l.uvicorn("Shutting down")
	l.uvicorn("Waiting for application shutdown.")
	l.uvicorn("Application shutdown complete.")
	l.uvicorn(fmt.Sprintf("Finished server process [%d]", l.o.PID))
}
