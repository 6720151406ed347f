// Package sim is a simulated vLLM server, faithful to what a live vLLM 0.32 does: its log
// phases, routes, streams, errors, metrics, drain and death. It is the demo's worker and the
// tests' double, and it always says that it is simulated.
//
// Server is the core. It takes a net.Listener, uses package time alone and ends with its
// context, so that it runs inside a testing/synctest bubble over the in-memory Listen. Process
// wraps it as an operating-system process with an engine child, which can be killed, stopped
// and orphaned like the real one.
//
// What is modelled: continuous batching, chunked prefill, a paged KV cache with a prefix
// cache, preemption, admission. What is invented: the text (deterministic, see answer) and the
// timings (around the given means). Nothing is computed by a model.
package sim
