// Package sim is a simulated vLLM server, faithful to what a live vLLM 0.32 does: its log
// phases, routes, streams, errors, metrics, drain and death. It is the demo's worker and the
// tests' double, and it always says that it is simulated.
package sim
