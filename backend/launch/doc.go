// Package launch starts vLLM servers and keeps hold of them: as a process under a shim that
// outlives the engine (Local), or by attaching to a server that already runs (Attach). Who
// decides when to start and stop is package worker; launch only knows how.
//
// The parent of a local server is its shim, a process of this same program: it owns the log,
// takes in every orphan, ends the whole tree once the leader has died, and writes down who
// runs (shim.json) and how it ended (exit.json) for whatever engine comes next. A shim that
// is killed takes its server along as soon as an engine sees it.
package launch
