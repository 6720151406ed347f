// Package simtest holds the contract of a vLLM server as vllmdeck relies on it. The same
// assertions run against the simulator and, when VLLMDECK_REAL_URL and VLLMDECK_REAL_MODEL name
// one, against a real server: what they do not share, nobody may rely on.
package simtest
