// Package launch starts vLLM servers and keeps hold of them: as a process under a shim that
// outlives the engine, or by attaching to a server that already runs. Who decides when to
// start and stop is package worker; launch only knows how.
package launch
