// Package worker looks after vLLM servers: one run loop each that starts, watches, drains,
// restarts and explains; and the Pool of them. It decides when; package launch knows how.
package worker
